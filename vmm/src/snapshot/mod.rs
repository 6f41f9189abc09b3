//! Snapshots: what is saved of a machine, and the two files that it is saved in.
//!
//! [`format`](mod@format) is the file of the machine's state, [`memory`] that of its memory;
//! [`save`] writes both, [`load`] opens them again. What a device or a vCPU saves of itself is its
//! own; what is said of the machine as a whole is in [`state`]. docs/snapshot-format.md has all of
//! it for the reader of such files.

pub mod devices;
mod error;
pub mod format;
mod load;
mod memory;
mod save;
mod state;
mod subject;

pub use error::{LoadError, SaveError};
pub use load::Snapshot;
pub(crate) use save::Stillness;
pub use save::Target;
pub use state::MachineStateV1;
pub(crate) use subject::{Saving, Subject};

#[cfg(test)]
mod tests;
