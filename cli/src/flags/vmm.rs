//! `coracle vmm`.

use std::path::PathBuf;

use clap::Args;

use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::{logger, serve};

/// Start a monitor whose machine is described and started through its API
#[derive(Debug, Default, Args)]
#[command(after_help = exit::TABLE, args_override_self = true)]
pub(crate) struct Flags {
    /// Serve the API on a unix socket at this path
    #[arg(long, value_name = "PATH")]
    api_sock: PathBuf,

    /// Name of the machine, which the API tells
    #[arg(long, value_name = "NAME")]
    id: Option<String>,

    /// off, error, warn, info, debug or trace [default: $CORACLE_LOG, warn]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Flags {
    /// Serves until the end of the machine.
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        logger::start(self.log_level.as_deref())?;
        serve::serve(&self.api_sock, self.id)
    }
}
