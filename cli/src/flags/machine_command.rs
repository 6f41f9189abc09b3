//! `coracle machine`.

use clap::{Args, Subcommand};

use super::boot::seconds;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::machines::verbs::{self, Which};

/// List machines that run, and pause, stop, change and watch them
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the machines that run
    #[command(visible_alias = "list")]
    Ls {
        /// table or json
        #[arg(long, value_name = "HOW", default_value = "table")]
        format: String,
        /// Only the names
        #[arg(long, short)]
        quiet: bool,
    },
    /// Print all that is known of machines, as JSON
    Inspect {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Let guests stand still
    Pause(Names),
    /// Let guests go on that stand still
    Resume(Names),
    /// Press the power button and wait; a machine that does not stop in time is killed
    Stop {
        #[command(flatten)]
        names: Names,
        /// Seconds that the guest has [default: --stop-timeout of its start]
        #[arg(long, short, value_name = "SECONDS")]
        time: Option<String>,
    },
    /// End machines at once
    Kill(Names),
    /// Change a part of a machine while it runs
    #[command(after_help = "\
Examples:
  coracle machine set web balloon size=256M
  coracle machine set web drives/disk0 size=4G
  coracle machine set web drives/disk0 limits.iops.size=500 limits.bandwidth=null
  coracle machine set web network-interfaces/net0 rx.bandwidth.size=10M
  coracle machine set web cpu quota=150
")]
    Set {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The part, as in the API's paths: balloon, cpu, entropy, drives/ID …
        #[arg(value_name = "PART")]
        part: String,
        /// What it is to have
        #[arg(value_name = "KEY=VALUE", required = true)]
        fields: Vec<String>,
    },
    /// Print a machine's counters, as Prometheus reads them
    Metrics {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Print what happens to a machine until its end, one JSON object a line
    Events {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
struct Names {
    /// Their names
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// All that run
    #[arg(long, short, conflicts_with = "names")]
    all: bool,
}

impl From<Names> for Which {
    fn from(names: Names) -> Self {
        match names.all {
            true => Self::All,
            false => Self::Named(names.names),
        }
    }
}

impl Flags {
    /// Does what is asked for.
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Ls { format, quiet } => match format.as_str() {
                "table" => verbs::list(false, quiet),
                "json" => verbs::list(true, quiet),
                _ => Err(Failure::input(
                    format!("format {format:?} is not one of table, json"),
                    "choose one of them, such as json",
                )),
            },
            Command::Inspect { names } => verbs::inspect(&names),
            Command::Pause(names) => verbs::act(&names.into(), "pause"),
            Command::Resume(names) => verbs::act(&names.into(), "resume"),
            Command::Stop { names, time } => {
                let time = time.as_deref().map(seconds).transpose()?;
                let time = time.map(std::time::Duration::from_millis);
                verbs::stop(&names.into(), time)
            }
            Command::Kill(names) => verbs::kill(&names.into()),
            Command::Set { name, part, fields } => verbs::set(&name, &part, &fields),
            Command::Metrics { name } => verbs::metrics(&name),
            Command::Events { name } => verbs::events(&name),
        }
    }
}
