//! `coracle version`.

use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::print;

/// Print the version
#[derive(Debug, Args)]
pub(crate) struct Flags {}

impl Flags {
    /// Prints it.
    #[expect(clippy::unused_self, reason = "the commands share one shape")]
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        print::out(concat!("coracle ", env!("CARGO_PKG_VERSION"), "\n"))?;
        Ok(Exit::Done)
    }
}
