//! `coracle vmm`, and the flags that Firecracker's clients give.

use std::ffi::OsString;
use std::path::PathBuf;

use api::firecracker::{COMPATIBLE_VERSION, LogLevel, Logger};
use clap::{Args, ValueEnum};

use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::serve::{self, Settings};
use crate::{logger, print};

/// The name by which Firecracker's clients start the monitor.
const FIRECRACKER: &str = "firecracker";

/// Where its socket is when they do not say so.
const FIRECRACKER_SOCKET: &str = "/run/firecracker.socket";

/// Start a monitor whose machine is described and started through its API
#[derive(Debug, Default, Args)]
#[command(after_help = exit::TABLE, args_override_self = true)]
pub(crate) struct Flags {
    /// Serve the API on a unix socket at this path
    #[arg(long, value_name = "PATH", help_heading = "API")]
    api_sock: Option<PathBuf>,

    /// Serve no API: --config-file says all
    #[arg(long, requires = "config_file", help_heading = "API")]
    no_api: bool,

    /// Bytes that a request's body has at most [default: 51200]
    #[arg(long, value_name = "BYTES", help_heading = "API")]
    http_api_max_payload_size: Option<usize>,

    /// Whose exit codes and habits to have
    #[arg(long, value_name = "WHOSE", help_heading = "API")]
    compat: Option<Compat>,

    /// Name of the machine, which the API tells
    #[arg(long, value_name = "NAME", help_heading = "Machine")]
    id: Option<String>,

    /// Start the machine that a file describes in Firecracker's words
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    config_file: Option<PathBuf>,

    /// Metadata that the guest can read: a JSON file
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    metadata: Option<PathBuf>,

    /// Bytes of metadata at most [default: those of a request's body]
    #[arg(long, value_name = "BYTES", help_heading = "Machine")]
    mmds_size_limit: Option<usize>,

    /// Put the virtio devices on a PCI bus
    #[arg(long, help_heading = "Machine")]
    enable_pci: bool,

    /// Add the log's lines to a file or FIFO instead of standard error
    #[arg(long, value_name = "PATH", help_heading = "Log")]
    log_path: Option<PathBuf>,

    /// off, error, warn, info, debug or trace [default: $CORACLE_LOG, warn]
    #[arg(long, alias = "log-level", value_name = "LEVEL", help_heading = "Log")]
    level: Option<LogLevel>,

    /// Write only the lines of this part of the program
    #[arg(long, value_name = "MODULE", help_heading = "Log")]
    module: Option<String>,

    /// Say the level in each line of the file
    #[arg(long, help_heading = "Log")]
    show_level: bool,

    /// Say in each line of the file where it comes from
    #[arg(long, help_heading = "Log")]
    show_log_origin: bool,

    /// Add counters to a file or FIFO, a line of JSON each minute
    #[arg(long, value_name = "PATH", help_heading = "Log")]
    metrics_path: Option<PathBuf>,

    /// Print the version and end
    #[arg(long, help_heading = "Monitor")]
    version: bool,

    #[command(flatten)]
    theirs: Theirs,
}

/// What Firecracker's clients may say: the snapshots are refused, the rest changes nothing here.
#[derive(Debug, Default, Args)]
struct Theirs {
    #[arg(long, hide = true)]
    snapshot_version: bool,
    #[arg(long, hide = true)]
    describe_snapshot: Option<PathBuf>,
    #[arg(long, hide = true)]
    no_seccomp: bool,
    #[arg(long, hide = true)]
    seccomp_filter: Option<OsString>,
    #[arg(long, hide = true)]
    boot_timer: bool,
    #[arg(long, hide = true)]
    start_time_us: Option<u64>,
    #[arg(long, hide = true)]
    start_time_cpu_us: Option<u64>,
    #[arg(long, hide = true)]
    parent_cpu_time_us: Option<u64>,
}

/// Another monitor whose part can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compat {
    /// Firecracker
    Firecracker,
}

/// The arguments of `coracle vmm` that say what those of a program named `firecracker` say.
pub(crate) fn as_firecracker(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let (program, rest) = arguments.split_first()?;
    let name = std::path::Path::new(program).file_name()?;
    let words = ["vmm", "--compat", FIRECRACKER].map(OsString::from);
    let all = || {
        let program = std::iter::once(program.clone());
        program.chain(words).chain(rest.iter().cloned()).collect()
    };
    (name == FIRECRACKER).then(all)
}

/// Whether these arguments of `coracle vmm` ask for Firecracker's habits, however wrong the rest.
pub(crate) fn means_firecracker(arguments: &[OsString]) -> bool {
    let mut pairs = arguments.windows(2);
    pairs.any(|pair| matches!(pair, [flag, whose] if flag == "--compat" && whose == FIRECRACKER))
        || arguments.iter().any(|word| word == "--compat=firecracker")
}

impl Flags {
    /// Serves until the end of the machine.
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let firecracker = self.compat == Some(Compat::Firecracker);
        self.serve().map_err(|failure| match failure.exit {
            Exit::BadInput if firecracker => Failure {
                exit: exit::FIRECRACKER_CONFIGURATION,
                ..failure
            },
            _ => failure,
        })
    }

    fn serve(self) -> Result<Exit, Failure> {
        let firecracker = self.compat == Some(Compat::Firecracker);
        if self.version {
            let version = match firecracker {
                true => format!("Firecracker v{COMPATIBLE_VERSION}\n"),
                false => concat!("coracle ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
            };
            print::out(&version)?;
            return Ok(Exit::Done);
        }
        if self.theirs.snapshot_version || self.theirs.describe_snapshot.is_some() {
            let hint = "see docs/api.md for what there is";
            return Err(Failure::input("there are no snapshots", hint));
        }
        self.start_log()?;
        let api_sock = match (self.no_api, self.api_sock) {
            (true, _) => None,
            (false, Some(path)) => Some(path),
            (false, None) if firecracker => Some(FIRECRACKER_SOCKET.into()),
            (false, None) => {
                let hint = "add --api-sock PATH, or --no-api with --config-file";
                return Err(Failure::input("no socket for the API is given", hint));
            }
        };
        serve::serve(&Settings {
            api_sock,
            id: self.id,
            config_file: self.config_file,
            metrics_path: self.metrics_path,
            metadata: self.metadata,
            most_metadata_bytes: self.mmds_size_limit,
            most_body_bytes: self.http_api_max_payload_size,
            pci: self.enable_pci,
            firecracker,
        })
    }

    fn start_log(&self) -> Result<(), Failure> {
        logger::start(None)?;
        logger::name(self.id.as_deref().unwrap_or(api::firecracker::NAMELESS));
        let said = |flag: bool| flag.then_some(true);
        let wanted = Logger {
            log_path: self.log_path.clone(),
            level: self.level,
            show_level: said(self.show_level),
            show_log_origin: said(self.show_log_origin),
            module: self.module.clone(),
        };
        logger::set_up(&wanted)?;
        if self.theirs.boot_timer {
            log::warn!("--boot-timer: the guest's start is not timed");
        }
        if self.theirs.seccomp_filter.is_some() {
            log::warn!("--seccomp-filter: a filter of the user's is not used");
        }
        Ok(())
    }
}
