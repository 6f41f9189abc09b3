//! Input on its way to a guest: what was read and the guest has not taken yet.
//!
//! A terminal is always read, so that its escape keys work however little the guest takes; what
//! the guest leaves waits here up to a bound and is dropped beyond it. A pipe or file is read as
//! far as there is room, so that whoever fills it waits and nothing is lost.

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};

use super::input::{CHUNK, ConsoleInput, InputState};
use crate::log::RateLimit;

/// How much typed input waits for a guest at most: a large paste.
pub const TYPED_WAITING: usize = 64 << 10;

/// Where a console's input comes from. Its file descriptor is readable when [`read`](Self::read)
/// has something to do.
pub trait ConsoleSource: AsRawFd + Send {
    /// Reads once, at most about `room` bytes, and appends what is for the guest to `bytes`:
    /// whether more may come.
    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) -> bool;

    /// Whether it has keys for the monitor, and so has to be read even if the guest takes
    /// nothing.
    fn has_escapes(&self) -> bool {
        false
    }
}

impl ConsoleSource for ConsoleInput {
    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) -> bool {
        Self::read(self, room, bytes) == InputState::Open
    }

    fn has_escapes(&self) -> bool {
        Self::has_escapes(self)
    }
}

/// A source and what it gave that waits for the guest.
pub struct InputBuffer {
    // Kept open when it ended: the loop may still know its descriptor.
    source: Box<dyn ConsoleSource>,
    ended: bool,
    pending: Vec<u8>,
    dropped: u64,
    dropping: bool,
    limit: RateLimit,
}

impl fmt::Debug for InputBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputBuffer")
            .field("pending", &self.pending.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl InputBuffer {
    /// Reads from `source`.
    pub fn new(source: Box<dyn ConsoleSource>) -> Self {
        Self {
            source,
            ended: false,
            pending: Vec::new(),
            dropped: 0,
            dropping: false,
            limit: RateLimit::new(),
        }
    }

    /// Whether the source is to be read when it is readable, with room for `room` bytes more.
    pub fn wants(&self, room: usize) -> bool {
        !self.ended && (room > 0 || self.source.has_escapes())
    }

    /// Reads once, if it is [wanted](Self::wants): `room` bytes at most from a pipe or file,
    /// whatever there is from a terminal.
    pub fn read(&mut self, room: usize) {
        if !self.wants(room) {
            return;
        }
        if !self.source.has_escapes() {
            self.ended = !self.source.read(room, &mut self.pending);
            return;
        }
        self.ended = !self.source.read(CHUNK, &mut self.pending);
        let excess = self.pending.len().saturating_sub(TYPED_WAITING);
        self.pending.truncate(TYPED_WAITING);
        self.dropped = self.dropped.saturating_add(excess as u64);
        if excess > 0 && !std::mem::replace(&mut self.dropping, true) {
            self.limit.warn(format_args!(
                "console: the guest takes no input; what is typed beyond {TYPED_WAITING} bytes is \
                 dropped until it does (Ctrl-] and then q quits)"
            ));
        }
    }

    /// What waits for the guest, the oldest first.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// The guest took the first `len` bytes.
    pub fn taken(&mut self, len: usize) {
        let len = len.min(self.pending.len());
        self.pending.drain(..len);
        self.dropping &= len == 0;
    }

    /// How many typed bytes were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl AsRawFd for InputBuffer {
    fn as_raw_fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
