//! What a port is connected to on the host: a pseudoterminal or a file here, a socket beside.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::line::report_line;
use crate::tty::{ConsoleInput, ConsoleOutput, ConsoleSink, InputState, Offered, Terminal};

/// The host's side of a port. Its descriptor is readable when [`event`](Self::event) has
/// something to do: the other side came or went, or something is ready that was
/// [wanted](Self::want).
pub trait PortBackend: AsRawFd + Send {
    /// What it is, for reports.
    fn kind(&self) -> &'static str;

    /// Whether the other side is there.
    fn is_open(&self) -> bool;

    /// Looks who came or went: whether the other side is another one than before.
    fn event(&mut self) -> bool {
        false
    }

    /// Reads once, at most `room` bytes, without waiting, and appends them to `bytes`.
    fn read(&mut self, room: usize, bytes: &mut Vec<u8>);

    /// Takes from the front of `data` what goes without waiting.
    fn offer(&mut self, data: &[u8]) -> Offered;

    /// Whether the port could go on with input, or with output.
    fn want(&mut self, input: bool, output: bool);

    /// Waits at the machine's end until more is taken: false when it is not to be waited for.
    fn wait_at_the_end(&mut self) -> bool {
        false
    }
}

/// A descriptor on an epoll instance, with what it is watched for. It is taken off where that is
/// nothing: a hang-up is told even to who asks for nothing.
#[derive(Debug)]
pub(super) struct Interest(EventSet);

impl Interest {
    pub(super) fn none() -> Self {
        Self(EventSet::empty())
    }

    pub(super) fn set(&mut self, epoll: &Epoll, fd: RawFd, data: u64, wanted: EventSet) {
        let how = match (self.0.is_empty(), wanted.is_empty()) {
            (true, true) => return,
            (true, false) => ControlOperation::Add,
            (false, true) => ControlOperation::Delete,
            (false, false) => ControlOperation::Modify,
        };
        if self.0 != wanted
            && let Err(error) = epoll.ctl(how, fd, EpollEvent::new(wanted, data))
        {
            // For want of memory, or because it can't be polled: such a file is always ready.
            log::debug!("console: a port's descriptor is not watched: {error}");
        }
        self.0 = wanted;
    }
}

/// What of input and output is wanted, as events.
pub(super) fn events(input: bool, output: bool) -> EventSet {
    let mut events = EventSet::empty();
    events.set(EventSet::IN, input);
    events.set(EventSet::OUT, output);
    events
}

/// A port on a pseudoterminal or a file: its other side is always there.
#[derive(Debug)]
pub struct TerminalPort {
    terminal: Terminal,
    output: ConsoleOutput,
    input: Option<ConsoleInput>,
    epoll: Epoll,
    reading: Interest,
    writing: Interest,
    // Its own handle to the output, since one epoll knows a descriptor once.
    room: Option<std::os::fd::OwnedFd>,
}

impl TerminalPort {
    /// A port on `terminal`, whose input must not have been taken.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(mut terminal: Terminal) -> io::Result<Self> {
        // Nobody asks anything of the monitor here: there are no escape keys.
        let (requests, _) = report_line()?;
        let output = terminal.output();
        let room = output.room()?;
        Ok(Self {
            input: terminal.take_input(requests),
            output,
            terminal,
            epoll: Epoll::new()?,
            reading: Interest::none(),
            writing: Interest::none(),
            room,
        })
    }
}

impl AsRawFd for TerminalPort {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

impl PortBackend for TerminalPort {
    fn kind(&self) -> &'static str {
        match self.terminal.pty_path() {
            Some(_) => "pty",
            None => "file",
        }
    }

    fn is_open(&self) -> bool {
        true
    }

    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) {
        let Some(input) = &mut self.input else {
            return;
        };
        if input.read(room, bytes) == InputState::Ended {
            self.reading
                .set(&self.epoll, input.as_raw_fd(), 0, EventSet::empty());
            self.input = None;
        }
    }

    fn offer(&mut self, data: &[u8]) -> Offered {
        let mut offered = self.output.offer(data);
        if self.room.is_none() {
            // Nothing would tell when to go on.
            offered.dropped = data.len().saturating_sub(offered.written);
        }
        offered
    }

    fn want(&mut self, input: bool, output: bool) {
        if let Some(source) = &self.input {
            self.reading
                .set(&self.epoll, source.as_raw_fd(), 0, events(input, false));
        }
        if let Some(room) = &self.room {
            self.writing
                .set(&self.epoll, room.as_raw_fd(), 1, events(false, output));
        }
    }

    fn wait_at_the_end(&mut self) -> bool {
        self.output.wait_at_the_end()
    }
}
