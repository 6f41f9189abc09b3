//! `coracle disk`.

use std::path::PathBuf;

use api::spec::DiskFormat;
use clap::{Args, Subcommand};

use crate::disk::{self, Output};
use crate::exit::Exit;
use crate::failure::Failure;

/// Make, examine and merge copy-on-write disks
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a delta over a base, or with --size alone a raw image of zeroes
    Create {
        /// What is to be made; nothing may be there
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// The image that the delta leaves as it is
        #[arg(long, value_name = "FILE", requires = "base_format")]
        base: Option<PathBuf>,
        /// What the base is: raw, qcow2 or cow (a delta)
        #[arg(long, value_name = "FORMAT", requires = "base")]
        base_format: Option<String>,
        /// The capacity, such as 10G [default: the base's]
        #[arg(long, value_name = "SIZE", required_unless_present = "base")]
        size: Option<String>,
        /// The bytes of a cluster, 4K to 1M [default: the least that suits the size]
        #[arg(long, value_name = "SIZE", requires = "base")]
        cluster: Option<String>,
    },
    /// Tell what a delta is, though a machine has it
    Info {
        /// The delta
        #[arg(value_name = "DELTA")]
        path: PathBuf,
        /// text or json
        #[arg(long, value_name = "HOW", default_value = "text")]
        format: String,
    },
    /// Check every checksum of a delta and of the deltas below it, and their bases
    Verify {
        /// The delta
        #[arg(value_name = "DELTA")]
        path: PathBuf,
        /// text or json
        #[arg(long, value_name = "HOW", default_value = "text")]
        format: String,
    },
    /// Merge a delta into its base and empty it; repeat it if it was interrupted
    Commit {
        /// The delta
        #[arg(value_name = "DELTA")]
        path: PathBuf,
        /// Write a new raw image instead; base and delta stay as they are
        #[arg(long, value_name = "RAW")]
        into: Option<PathBuf>,
    },
    /// Move a delta to another base; what it reads as does not change
    Rebase {
        /// The delta
        #[arg(value_name = "DELTA")]
        path: PathBuf,
        /// The new base
        #[arg(long, value_name = "FILE")]
        base: PathBuf,
        /// What the new base is: raw, qcow2 or cow
        #[arg(long, value_name = "FORMAT")]
        base_format: String,
        /// Take your word that the new base reads as the old one, which need not exist
        #[arg(long)]
        unchecked: bool,
    },
    /// Drop all that a delta holds: it reads as its base does now
    Reset {
        /// The delta
        #[arg(value_name = "DELTA")]
        path: PathBuf,
    },
}

impl Flags {
    /// Does what is asked for.
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Create {
                path,
                base: Some(base),
                base_format,
                size,
                cluster,
            } => {
                let format = read_format(base_format.as_deref().unwrap_or_default())?;
                disk::create_delta(&path, base, format, size.as_deref(), cluster.as_deref())
            }
            Command::Create { path, size, .. } => {
                disk::create_raw(&path, &size.unwrap_or_default())
            }
            Command::Info { path, format } => disk::info(&path, read_output(&format)?),
            Command::Verify { path, format } => disk::verify(&path, read_output(&format)?),
            Command::Commit { path, into } => disk::commit(&path, into.as_deref()),
            Command::Rebase {
                path,
                base,
                base_format,
                unchecked,
            } => disk::rebase(&path, base, read_format(&base_format)?, unchecked),
            Command::Reset { path } => disk::reset(&path),
        }
    }
}

fn read_format(text: &str) -> Result<DiskFormat, Failure> {
    text.parse().map_err(|_| {
        Failure::input(
            format!("base format {text:?} is not one of raw, qcow2, cow"),
            "name what the base is; it is never guessed",
        )
    })
}

fn read_output(text: &str) -> Result<Output, Failure> {
    match text {
        "text" => Ok(Output::Text),
        "json" => Ok(Output::Json),
        _ => Err(Failure::input(
            format!("format {text:?} is not one of text, json"),
            "choose one of them, such as json",
        )),
    }
}
