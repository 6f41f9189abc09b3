//! The console's host side: opened before the machine, so that its errors come before the guest.

use api::spec::ConsoleBackend;
use devices::tty::{Terminal, TtyError};

/// Opens the console that a blueprint names. A terminal is in raw mode from here on, until the
/// returned value is dropped.
///
/// # Errors
/// [`TtyError`] names the backend and the host's reason.
pub fn open_console(backend: &ConsoleBackend) -> Result<Terminal, TtyError> {
    match backend {
        ConsoleBackend::Stdio => Terminal::stdio(),
        ConsoleBackend::Pty => Terminal::pty(),
        ConsoleBackend::File(path) => Terminal::file(path),
        ConsoleBackend::None => Ok(Terminal::none()),
    }
}
