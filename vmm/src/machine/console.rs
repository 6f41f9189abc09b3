//! The console's host side: opened before the machine, so that its errors come before the guest.

use std::path::Path;

use api::spec::ConsoleBackend;
use devices::tty::{Terminal, TtyError};

use super::MachineError;
use super::catalog::host;
use crate::sys::Signals;

/// Signals that ask for the machine's end. Beside the usual four, all that would end the process
/// at once and leave the terminal raw: whoever sends them means the same.
const STOP_SIGNALS: [i32; 13] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGXCPU,
];

/// A file that grows beyond its limit is an error of write(2), which the console and the disks
/// answer, and no reason to die.
const IGNORED_SIGNALS: [i32; 1] = [libc::SIGXFSZ];

/// The console's host side, and the signals that could otherwise end the process while a terminal
/// is in raw mode.
#[derive(Debug)]
pub struct HostConsole {
    pub(super) signals: Signals,
    pub(super) terminal: Terminal,
}

impl HostConsole {
    /// Opens the console that a blueprint names. From here on a terminal is in raw mode until the
    /// returned value is dropped, and stop signals wait for the machine to judge them.
    ///
    /// # Errors
    /// [`TtyError`] names the backend and the host's reason.
    pub fn open(backend: &ConsoleBackend) -> Result<Self, MachineError> {
        let signals = Self::take_over_signals()?;
        let terminal = open_terminal(backend)?;
        Ok(Self { signals, terminal })
    }

    /// Receives stop signals from here on. Before any other thread exists, so that all of them
    /// inherit the mask.
    pub(crate) fn take_over_signals() -> Result<Signals, MachineError> {
        let wanted = [&STOP_SIGNALS[..], &IGNORED_SIGNALS, &[libc::SIGWINCH]].concat();
        Signals::take_over(&wanted).map_err(host("taking over signals"))
    }

    /// Whether a signal asks for the machine's end.
    pub(crate) fn stops(signal: i32) -> bool {
        STOP_SIGNALS.contains(&signal)
    }

    /// The path of the pseudoterminal, if it is one.
    #[must_use]
    pub fn pty_path(&self) -> Option<&Path> {
        self.terminal.pty_path()
    }
}

fn open_terminal(backend: &ConsoleBackend) -> Result<Terminal, TtyError> {
    match backend {
        ConsoleBackend::Stdio => Terminal::stdio(),
        ConsoleBackend::Pty => Terminal::pty(),
        ConsoleBackend::File(path) => Terminal::file(path),
        ConsoleBackend::None => Ok(Terminal::none()),
    }
}
