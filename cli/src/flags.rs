//! The command line: one file for each subcommand, and the sentence for arguments that make no
//! sense. Flags are read as text here; what they mean is judged by `vmm::config`.

pub(crate) mod api_command;
mod balloon;
pub(crate) mod boot;
mod console_port;
pub(crate) mod disk;
pub(crate) mod disk_command;
pub(crate) mod doctor;
pub(crate) mod kernel;
pub(crate) mod machine_command;
pub(crate) mod mmds;
mod net;
pub(crate) mod net_command;
pub(crate) mod version;
pub(crate) mod vmm;
mod vsock;

#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::exit;
use crate::failure::Failure;
use crate::net::user;

/// Linux in a microVM, from one command
#[derive(Debug, Parser)]
#[command(
    name = "coracle",
    version,
    disable_help_subcommand = true,
    after_help = exit::TABLE,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

// `coracle boot` alone: describing all subcommands to the parser takes a tenth of a millisecond,
// and the start of a machine is counted in those. The flags bring the help text.
#[derive(Debug, Parser)]
#[command(name = "boot", bin_name = "coracle boot")]
struct BootAlone {
    #[command(flatten)]
    flags: Box<boot::Flags>,
}

// The same for `coracle vmm`.
#[derive(Debug, Parser)]
#[command(name = "vmm", bin_name = "coracle vmm")]
struct VmmAlone {
    #[command(flatten)]
    flags: Box<vmm::Flags>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    Api(api_command::Flags),
    Boot(Box<boot::Flags>),
    Disk(disk_command::Flags),
    Doctor(doctor::Flags),
    Kernel(kernel::Flags),
    Machine(machine_command::Flags),
    Net(net_command::Flags),
    Version(version::Flags),
    Vmm(Box<vmm::Flags>),
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// `coracle api`
    Api(api_command::Flags),
    /// `coracle boot`
    Boot(Box<boot::Flags>),
    /// `coracle disk`
    Disk(disk_command::Flags),
    /// `coracle doctor`
    Doctor(doctor::Flags),
    /// `coracle kernel`
    Kernel(kernel::Flags),
    /// `coracle machine`
    Machine(machine_command::Flags),
    /// `coracle net`
    Net(net_command::Flags),
    /// `coracle __usernet`, the process of a user-mode network, with its level of logging.
    Usernet(Option<String>),
    /// `coracle version`
    Version(version::Flags),
    /// `coracle vmm`
    Vmm(Box<vmm::Flags>),
    /// `--help` and `--version`: text for standard output.
    Help(String),
}

/// Reads the command line.
///
/// # Errors
/// When it makes no sense, with one sentence that says why.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, Failure> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if let Some(theirs) = vmm::as_firecracker(&arguments) {
        arguments = theirs;
    }
    let parsed = match arguments.split_first() {
        Some((_, [command, ..])) if command == "boot" => {
            let rest = arguments.get(1..).unwrap_or_default();
            BootAlone::try_parse_from(rest).map(|alone| Subcommands::Boot(alone.flags))
        }
        Some((_, [command, ..])) if command == "vmm" => {
            let rest = arguments.get(1..).unwrap_or_default();
            VmmAlone::try_parse_from(rest).map(|alone| Subcommands::Vmm(alone.flags))
        }
        Some((_, [command, rest @ ..])) if command == user::COMMAND => {
            let level = rest
                .first()
                .map(|level| level.to_string_lossy().into_owned());
            return Ok(Command::Usernet(level));
        }
        _ => Arguments::try_parse_from(&arguments).map(|arguments| arguments.command),
    };
    match parsed {
        Ok(Subcommands::Api(flags)) => Ok(Command::Api(flags)),
        Ok(Subcommands::Boot(flags)) => Ok(Command::Boot(flags)),
        Ok(Subcommands::Disk(flags)) => Ok(Command::Disk(flags)),
        Ok(Subcommands::Doctor(flags)) => Ok(Command::Doctor(flags)),
        Ok(Subcommands::Kernel(flags)) => Ok(Command::Kernel(flags)),
        Ok(Subcommands::Machine(flags)) => Ok(Command::Machine(flags)),
        Ok(Subcommands::Net(flags)) => Ok(Command::Net(flags)),
        Ok(Subcommands::Version(flags)) => Ok(Command::Version(flags)),
        Ok(Subcommands::Vmm(flags)) => Ok(Command::Vmm(flags)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Command::Help(error.to_string()))
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(Failure::input(
                "no command given",
                "try `coracle boot` or `coracle --help`",
            )),
            _ if vmm::means_firecracker(&arguments) => Err(Failure {
                exit: exit::FIRECRACKER_ARGUMENTS,
                ..sentence(&error)
            }),
            _ => Err(sentence(&error)),
        },
    }
}

/// A whole number that was written as text.
fn number(field: &str, text: &str, hint: &str) -> Result<u64, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(Failure::input(
            format!("{field} {text:?} is not a whole number"),
            hint,
        )),
    }
}

/// clap explains over several lines; a sentence and a hint say the same.
fn sentence(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let mut lines = text.lines();
    let mut message = lines
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned();
    // A list of what is missing follows its heading, one indented line each.
    if message.ends_with(':') {
        for line in lines.take_while(|line| line.starts_with(' ')) {
            message.push(' ');
            message.push_str(line.trim());
        }
    }
    let suggestion = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand]
        .into_iter()
        .find_map(|kind| match error.get(kind)? {
            ContextValue::String(text) => Some(text.clone()),
            ContextValue::Strings(texts) => texts.first().cloned(),
            _ => None,
        });
    let hint = suggestion.map_or_else(
        || "`coracle --help` and `coracle COMMAND --help` list what there is".to_owned(),
        |text| format!("did you mean {text}?"),
    );
    Failure::input(message, hint)
}
