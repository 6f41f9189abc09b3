//! The lab: a stock kernel with stock KVM under an emulator, in which the coracle program boots
//! guests. This crate holds the script of what to do there, its report, and what the two PID 1s
//! have in common; it is linked statically and knows of our crates only the API's.

pub mod agent;
pub mod disk;
pub mod egress;
pub mod hot;
pub mod metadata;
pub mod report;
pub mod script;
pub mod setup;
pub mod stream;
pub mod sys;

/// What the report says of a case that its time limit ended.
pub const TIMED_OUT: &str = "not done in time";
