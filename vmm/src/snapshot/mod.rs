//! Snapshots: what is saved of a machine, and the file that it is saved in.

pub mod devices;
pub mod format;
