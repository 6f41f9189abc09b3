//! The machines of this user on this host: found through the [`registry`], asked over their
//! sockets.

mod process;
pub(crate) mod registry;
mod table;
pub(crate) mod verbs;

#[cfg(test)]
mod tests;
