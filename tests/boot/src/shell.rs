//! The shell of the embedded guest, on a terminal.

use anyhow::Result;
use harness::pty::OnTerminal;
use std::process::Command;
use std::time::Duration;

/// How long a boot may take: a weak host emulates the guest's kernel instruction by instruction.
const BOOT: Duration = Duration::from_secs(240);
/// How long a command may take.
pub const COMMAND: Duration = Duration::from_secs(60);
/// What the shell says when it waits.
const PROMPT: &str = "# ";

/// Starts a machine on a terminal of so many columns and rows, and waits for its shell.
///
/// # Errors
/// When there is none in time.
pub fn start(command: &Command, columns: u16, rows: u16) -> Result<OnTerminal> {
    let mut terminal = OnTerminal::start(command, columns, rows)?;
    terminal.expect(PROMPT, BOOT)?;
    Ok(terminal)
}

/// Has the shell do something, and waits for what it is to say and for its end.
///
/// # Errors
/// When that doesn't come in time.
pub fn run(terminal: &mut OnTerminal, command: &str, wanted: &str) -> Result<()> {
    terminal.type_keys(format!("{command}\r").as_bytes())?;
    terminal.expect(wanted, COMMAND)?;
    terminal.expect(PROMPT, COMMAND)
}
