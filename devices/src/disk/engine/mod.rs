//! Engines that carry out disk operations beside the thread that asks for them.

pub(super) mod uring;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::TransferError;
use crate::ram::GuestRam;
use crate::virtio::Span;

/// What an operation does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Task {
    /// Fill the spans from the disk.
    Read,
    /// Write the spans to the disk.
    Write,
    /// Make everything last that was written and reported before.
    Flush,
    /// Give the space of a range back.
    Discard,
    /// Make a range read as zeroes.
    Zero {
        /// Whether its space may be given back.
        unmap: bool,
    },
}

/// One operation.
#[derive(Clone, Copy)]
pub struct Operation<'a> {
    /// What to do.
    pub task: Task,
    /// The first byte of the disk.
    pub offset: u64,
    /// How many bytes: the sum of the spans, the length of a range, zero for a flush.
    pub len: u64,
    /// The memory that the spans mean. An engine keeps it as long as the operation runs.
    pub ram: &'a GuestRam,
    /// Where in memory; nothing for ranges and flushes.
    pub spans: &'a [Span],
}

impl fmt::Debug for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("task", &self.task)
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// What became of an operation that was handed over.
#[derive(Debug)]
pub enum Begun {
    /// It runs; its end will be among [`Engine::finished`].
    Running,
    /// It is over already.
    Over(Result<(), TransferError>),
    /// This engine cannot carry it out: the disk's own methods can, while nothing else runs.
    Refused,
}

/// The end of an operation.
#[derive(Debug)]
pub struct Finished {
    /// The tag that it was given.
    pub tag: u16,
    /// How it went.
    pub result: Result<(), TransferError>,
}

/// Carries out operations of one disk beside the caller.
pub trait Engine: Send {
    /// How many operations may run at once; their tags are below this.
    fn depth(&self) -> u16;

    /// Takes an operation under a tag that no running one has. It may wait for
    /// [`submit`](Self::submit) before it starts.
    fn begin(&mut self, tag: u16, operation: &Operation<'_>) -> Begun;

    /// Starts everything that was taken, with one system call where that is enough.
    ///
    /// # Errors
    /// When the engine cannot go on. What has not started never will; what runs still ends.
    fn submit(&mut self) -> io::Result<()>;

    /// Adds what has ended since the last call to `done`.
    fn finished(&mut self, done: &mut Vec<Finished>);

    /// Whether something that was taken goes on only with the next [`submit`](Self::submit).
    fn has_more(&self) -> bool {
        false
    }

    /// How many operations run.
    fn running(&self) -> usize;

    /// Waits until something has ended, at most so long.
    fn wait(&mut self, patience: Duration);

    /// Asks the host to give up whatever runs.
    fn cancel(&mut self);

    /// Readable whenever something has ended and was not fetched.
    fn wake_fd(&self) -> BorrowedFd<'_>;
}
