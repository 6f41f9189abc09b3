//! What hostile drivers do, as a table of rows, and what has to come of it.
//!
//! A [`Row`] is data: steps that no transport shows in, each with what must follow. [`lower`]
//! turns it into accesses of one transport, which [`play`] makes in this process, against a
//! device without a guest, and which the bare test guest makes on a real machine.
//! docs/hostile-driver.md says how to add a row.
#![forbid(unsafe_code)]

pub mod access;
#[cfg(feature = "bare")]
pub mod bare;
pub mod bench;
pub mod lower;
pub mod play;
pub mod rows;
pub mod script;
pub mod step;
pub mod sweep;

pub use access::{Region, Transport};
pub use bench::Bench;
pub use lower::{Act, World, lower};
pub use play::{Outcome, Totals, play};
pub use step::{At, Fixture, Host, Register, Row, Step, Subject};
