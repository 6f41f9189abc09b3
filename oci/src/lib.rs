//! Images and the root file systems made of them; knows nothing of machines.
#![forbid(unsafe_code)]

pub mod rootfs;
