//! The bare test guest: programs for it, machines that run them, and what they answered.

pub mod ops;
#[path = "../../../../guest/bare/src/wire.rs"]
pub mod wire;
