//! The user-mode network as a whole: a guest made of frames on one side, sockets of this host on
//! the other.

mod common;
mod serve;
mod tcp;
mod udp;
