//! Why a command failed: one sentence, one hint, one exit code.

use std::error::Error;

use api::socket::SocketError;
use arch::boot::KernelError;
use devices::tty::TtyError;
use vmm::config::ConfigError;
use vmm::files::FileError;
use vmm::kvm::OpenError;
use vmm::machine::{ControlError, MachineError, MemoryError};
use vmm::plan::{PlanError, halves};
use vmm::snapshot::LoadError;

use crate::exit::Exit;
use crate::print;

/// A command that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What is wrong, in a sentence without its full stop.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

impl Failure {
    /// The user's input is bad.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: Exit::BadInput,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The host failed.
    pub(crate) fn host(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit: Exit::Host,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Says so on standard error, in one line: what is wrong and what to do.
    pub(crate) fn report(&self) -> Exit {
        print::err(&self.to_string());
        self.exit
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "coracle: {}", one_line(&self.message))?;
        match self.hint.as_str() {
            "" => writeln!(f),
            hint => writeln!(f, "; hint: {}", one_line(hint)),
        }
    }
}

/// Paths can hold anything; a message is one line and moves no cursor.
fn one_line(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// An error with its causes, which their own messages don't repeat.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::input(error.to_string(), error.remedy())
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        Self::input(error.to_string(), error.remedy())
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let hint = error.remedy();
        Self::input(chain(&error), hint)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::input(error.to_string(), error.remedy())
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Kvm { .. } => Self::host(error.to_string(), error.remedy()),
            _ => Self::input(chain(&error), error.remedy()),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::host(chain(&error), error.hint())
    }
}

impl From<TtyError> for Failure {
    fn from(error: TtyError) -> Self {
        let hint = match error {
            TtyError::File { .. } => "give --console file:PATH a path that can be written",
            _ => "choose another --console: stdio, pty, file:PATH or none",
        };
        Self::input(chain(&error), hint)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        MachineError::from(error).into()
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        let error = match error {
            MachineError::Console(error) => return error.into(),
            MachineError::Load(error) => return error.into(),
            other => other,
        };
        let message = chain(&error);
        let hint = "`coracle doctor` tells what this host lacks";
        match error {
            MachineError::Disk(_)
            | MachineError::Overlay(_)
            | MachineError::Qcow2(_)
            | MachineError::PortSocket(_)
            | MachineError::Vsock(_) => {
                // These errors say what to do after a semicolon.
                let (problem, remedy) = message.split_once("; ").unwrap_or((&message, ""));
                Self::input(problem, remedy)
            }
            MachineError::Control(ControlError::Guest { .. }) => Self {
                exit: Exit::CpuFailure,
                message,
                hint: "the guest did what this host's KVM can't do; try another kernel".to_owned(),
            },
            MachineError::Memory(MemoryError::Map { .. }) => Self::host(
                message,
                "give less memory, or free some: `free -m`, `sysctl vm.overcommit_memory`",
            ),
            _ => Self::host(message, hint),
        }
    }
}

/// A kernel that can't be started, with the path that the error itself doesn't know.
pub(crate) fn bad_kernel(path: &str, error: &KernelError) -> Failure {
    let text = error.to_string();
    let (problem, remedy) = halves(&text);
    let cause = error
        .source()
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    Failure::input(format!("kernel {path}: {problem}{cause}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_whatever_the_path() {
        let text = Failure::input("disk a\nb\u{1b}[2J: gone", "mend\nit").to_string();
        assert_eq!(
            text,
            "coracle: disk a\\nb\\u{1b}[2J: gone; hint: mend\\nit\n"
        );
    }

    #[test]
    fn a_console_that_cannot_be_written_is_bad_input_wherever_it_is_found() {
        let path = std::path::Path::new("/no/such/folder/log");
        let error = devices::tty::Terminal::file(path).unwrap_err();
        let failure = Failure::from(MachineError::Console(error));
        assert_eq!(failure.exit, Exit::BadInput);
        assert!(failure.hint.contains("--console"), "{failure}");
    }
}
