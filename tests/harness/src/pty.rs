//! A program on a pseudo-terminal of its own: what a user at a terminal sees and types.

use crate::output::Output;
use crate::process::Process;
use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// A program whose controlling terminal is a new pseudo-terminal.
#[derive(Debug)]
pub struct OnTerminal {
    /// The process; the program itself, not a shell around it.
    pub process: Process,
    /// Everything on the screen so far.
    pub screen: Output,
    keyboard: File,
    terminal: OwnedFd,
    before: Termios,
    seen: usize,
}

impl OnTerminal {
    /// Starts `command` in a session of its own whose terminal has `columns` by `rows` cells.
    /// Standard error is on the terminal too.
    ///
    /// # Errors
    /// When the host has no pseudo-terminals or the program cannot be started.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Result<OnTerminal> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).context("opening a pseudo-terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let open = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(&name, open, Mode::empty())?;
        tcsetwinsize(&terminal, size(columns, rows))?;
        let before = tcgetattr(&terminal)?;
        // `setsid --ctty` makes the terminal the controlling one, then becomes the program.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::from(terminal.try_clone()?))
            .stdout(Stdio::from(terminal.try_clone()?))
            .stderr(Stdio::from(terminal.try_clone()?))
            .spawn()
            .context("starting a program on a terminal")?;
        let keyboard = File::from(master);
        let screen = Output::collect(keyboard.try_clone()?);
        let process = Process::new(child)?;
        Ok(OnTerminal {
            process,
            screen,
            keyboard,
            terminal,
            before,
            seen: 0,
        })
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn type_keys(&mut self, keys: &[u8]) -> Result<()> {
        self.keyboard.write_all(keys).context("typing")
    }

    /// Waits for text on the screen, after what was waited for before.
    ///
    /// # Errors
    /// When it doesn't come within `limit`; the message holds the screen.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<()> {
        let Some(end) = self.screen.wait_for(text.as_bytes(), self.seen, limit) else {
            bail!(
                "no {text:?} within {limit:?}; the screen:\n{}",
                self.screen.text()
            );
        };
        self.seen = end;
        Ok(())
    }

    /// Changes the size of the terminal, which signals the program.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        Ok(tcsetwinsize(&self.terminal, size(columns, rows))?)
    }

    /// True while the terminal hands on every key at once and unechoed.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn is_raw(&self) -> Result<bool> {
        let modes = tcgetattr(&self.terminal)?.local_modes;
        Ok(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO))
    }

    /// True when every mode of the terminal is as it was before the program started.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn is_as_before(&self) -> Result<bool> {
        let now = tcgetattr(&self.terminal)?;
        Ok(now.local_modes == self.before.local_modes
            && now.input_modes == self.before.input_modes
            && now.output_modes == self.before.output_modes
            && now.control_modes == self.before.control_modes)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it still runs after `limit`; the message holds the screen.
    pub fn exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        match self.process.wait(limit)? {
            Some(status) => Ok(status),
            None => bail!(
                "still running after {limit:?}; the screen:\n{}",
                self.screen.text()
            ),
        }
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
