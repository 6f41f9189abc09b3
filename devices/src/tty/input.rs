//! The reading side of a console: bytes for the guest, requests for the monitor.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};

use rustix::fs::FileType;

use super::escape::{ESCAPE_HELP, Escape, EscapeFilter};
use super::output::{ConsoleOutput, ConsoleSink};
use crate::line::{Doorbell, Reporter};

/// How much is read at once at most.
pub(super) const CHUNK: usize = 4096;

/// What the user asks of the monitor at the terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UserRequest {
    /// End the machine now.
    Quit,
    /// Press the guest's power button.
    PowerButton,
}

/// Whether more input may come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InputState {
    /// It goes on: wait for the descriptor again.
    Open,
    /// It ended: its descriptor must not be waited for any more.
    Ended,
}

/// The input of a console, owned by the device that it feeds. Its file descriptor is readable
/// when [`Self::read`] has something to do.
#[derive(Debug)]
pub struct ConsoleInput {
    file: File,
    /// Stands in for a file that epoll refuses because it is always readable; never cleared.
    always: Option<Doorbell>,
    escapes: Option<(EscapeFilter, ConsoleOutput)>,
    requests: Reporter<UserRequest>,
}

impl ConsoleInput {
    /// Reads from `file`; with `escapes`, keys for the monitor are taken out and the help is
    /// printed to the output beside it.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new(
        file: File,
        escapes: Option<(EscapeFilter, ConsoleOutput)>,
        requests: Reporter<UserRequest>,
    ) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        let pollable = match kind {
            FileType::CharacterDevice => rustix::termios::isatty(&file),
            kind => matches!(kind, FileType::Fifo | FileType::Socket),
        };
        let always = (!pollable).then(Doorbell::new).transpose()?;
        if let Some(always) = &always {
            always.ring();
        }
        Ok(Self {
            file,
            always,
            escapes,
            requests,
        })
    }

    /// Whether it knows keys for the monitor.
    pub fn has_escapes(&self) -> bool {
        self.escapes.is_some()
    }

    /// Reads once, at most `room` bytes, and appends what is for the guest to `bytes`. Waits
    /// only when the descriptor was not readable.
    pub fn read(&mut self, room: usize, bytes: &mut Vec<u8>) -> InputState {
        let mut chunk = [0; CHUNK];
        let (chunk, _) = chunk.split_at_mut(room.clamp(1, CHUNK));
        let typed = match self.file.read(chunk) {
            Ok(0) => return InputState::Ended,
            Ok(len) => chunk.get(..len).unwrap_or_default(),
            Err(error) if transient(&error) => return InputState::Open,
            Err(error) => {
                log::debug!("console: its input ended: {error}");
                return InputState::Ended;
            }
        };
        let Some((filter, output)) = &mut self.escapes else {
            bytes.extend_from_slice(typed);
            return InputState::Open;
        };
        for escape in typed.iter().filter_map(|byte| filter.step(*byte)) {
            match escape {
                Escape::Byte(byte) => bytes.push(byte),
                Escape::Quit => self.requests.report(UserRequest::Quit),
                Escape::PowerButton => self.requests.report(UserRequest::PowerButton),
                Escape::Help => {
                    // As much as the terminal takes: the loop does not wait for it.
                    output.offer(ESCAPE_HELP.as_bytes());
                }
            }
        }
        InputState::Open
    }
}

impl AsRawFd for ConsoleInput {
    fn as_raw_fd(&self) -> RawFd {
        self.always
            .as_ref()
            .map_or_else(|| self.file.as_raw_fd(), AsRawFd::as_raw_fd)
    }
}

fn transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
