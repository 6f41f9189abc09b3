//! The exit codes of `coracle`, in one table that the help text prints.

use std::process::ExitCode;

/// How `coracle` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The guest powered itself off, or the command did what it was asked to.
    Done,
    /// The host failed.
    Host,
    /// The arguments or the files that they name are bad.
    BadInput,
    /// The guest reset itself, or its watchdog did.
    Reset,
    /// A virtual CPU shut down after a triple fault.
    TripleFault,
    /// The guest's kernel reported a panic.
    GuestPanic,
    /// KVM gave up on a virtual CPU.
    CpuFailure,
    /// The guest was killed because it didn't stop in time.
    Killed,
    /// A code of another monitor, whose part is played.
    Theirs(u8),
}

/// Firecracker's code for arguments that make no sense.
pub(crate) const FIRECRACKER_ARGUMENTS: Exit = Exit::Theirs(153);

/// Firecracker's code for a machine that can't be had.
pub(crate) const FIRECRACKER_CONFIGURATION: Exit = Exit::Theirs(152);

/// Every code with its meaning, as the help shows it.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    the guest powered itself off, or the command is done
  1    the host failed (no /dev/kvm, no memory, …)
  2    bad arguments, or a file that they name is missing or malformed
  3    the guest reset itself (a reboot), or its watchdog did
  4    triple fault: a virtual CPU shut down
  5    the guest's kernel reported a panic
  6    KVM gave up on a virtual CPU
  7    the guest was killed because it didn't stop in time
  128+ ended by a signal before the guest ran, as shells count it (130: SIGINT, 143: SIGTERM)";

impl Exit {
    /// The code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Host => 1,
            Self::BadInput => 2,
            Self::Reset => 3,
            Self::TripleFault => 4,
            Self::GuestPanic => 5,
            Self::CpuFailure => 6,
            Self::Killed => 7,
            Self::Theirs(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each code of the enum is a line of the table and the other way round.
    #[test]
    fn the_table_is_complete() {
        let all = [
            Exit::Done,
            Exit::Host,
            Exit::BadInput,
            Exit::Reset,
            Exit::TripleFault,
            Exit::GuestPanic,
            Exit::CpuFailure,
            Exit::Killed,
        ];
        let codes: Vec<String> = all.iter().map(|exit| exit.code().to_string()).collect();
        let mut lines: Vec<&str> = TABLE
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        // A signal before the guest runs is the kernel's doing and no code of ours.
        assert_eq!(lines.pop(), Some("128+"));
        assert_eq!(codes, lines);
    }
}
