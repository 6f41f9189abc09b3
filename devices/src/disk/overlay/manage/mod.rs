//! What can be done to a disk while no machine has it. Each of these either does all it says or
//! leaves things as they were; an interrupted commit can be repeated.

mod create;
mod inspect;
mod merge;
mod rebase;

pub use create::{NewDelta, create, create_raw, reset};
pub use inspect::{Info, Problem, Verified, info, verify};
pub use merge::{Committed, commit, export};
pub use rebase::{Rebase, Rebased, rebase};

/// Copies go in pieces of this size; a piece of zeroes becomes a hole.
const PIECE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests;
