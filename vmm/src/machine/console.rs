//! The console's host side: opened before the machine, so that its errors come before the guest.

use std::path::Path;

use api::spec::ConsoleBackend;
use devices::tty::{Terminal, TtyError};

use super::MachineError;
use super::catalog::host;
use crate::sys::Signals;

/// Signals that ask for the machine's end.
const STOP_SIGNALS: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

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
        // Before any other thread exists, so that all of them inherit the mask.
        let wanted = [STOP_SIGNALS.as_slice(), &[libc::SIGWINCH]].concat();
        let signals = Signals::take_over(&wanted).map_err(host("taking over signals"))?;
        let terminal = open_terminal(backend)?;
        Ok(Self { signals, terminal })
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
