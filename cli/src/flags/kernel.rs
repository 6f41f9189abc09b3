//! `coracle kernel`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::{kernel_check, print};

/// Look at kernels
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell what a kernel lacks for each use, from its configuration or its image
    Check {
        /// A .config, a config-… file, /proc/config.gz, an ELF vmlinux or a bzImage
        #[arg(value_name = "CONFIG|IMAGE")]
        source: PathBuf,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Flags {
    /// The exit code is 0 where the kernel boots with a console, 2 where it doesn't.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let Command::Check { source, json } = &self.command;
        let report = kernel_check::check(source)?;
        print::out(&match json {
            true => print::json(&report)?,
            false => report.human(),
        })?;
        Ok(if report.boots() {
            Exit::Done
        } else {
            Exit::BadInput
        })
    }
}
