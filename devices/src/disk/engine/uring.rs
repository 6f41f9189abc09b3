//! The engine on io_uring: many operations at once, with one system call for all that were taken.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::{Begun, Engine, Finished, Operation, Task};
use crate::disk::TransferError;
use crate::disk::direct::Alignment;
use crate::sys::uring::{Ring, Transfer};
use crate::sys::{Direction, read_cached, transfer};

/// How many operations run at once.
const DEPTH: u16 = 256;

/// What a [`UringEngine`] does with a file.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::disk) struct Ways {
    /// Whether what the page cache can take or give at once goes past the ring.
    pub(in crate::disk) cached_first: bool,
    /// What the host wants of a file that is open past its page cache.
    pub(in crate::disk) alignment: Option<Alignment>,
}

/// Carries out the operations of one file.
#[derive(Debug)]
pub(in crate::disk) struct UringEngine {
    ring: Ring,
    file: Arc<File>,
    ways: Ways,
}

impl UringEngine {
    /// An engine for `file`.
    ///
    /// # Errors
    /// When the host has no io_uring or forbids it.
    pub(in crate::disk) fn new(file: Arc<File>, ways: Ways) -> io::Result<Self> {
        let ring = Ring::new(&file, DEPTH)?;
        Ok(Self { ring, file, ways })
    }

    /// What is cached, at once: how far it came, or how it ended.
    fn at_once(&mut self, operation: &Operation<'_>) -> Result<u64, Begun> {
        let Operation {
            offset, ram, spans, ..
        } = *operation;
        let fd = self.file.as_fd();
        let (done, result) = match operation.task {
            Task::Read => read_cached(fd, ram, spans, offset),
            Task::Write => transfer(Direction::Write, fd, ram, spans, offset),
            _ => return Ok(0),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(done),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                // A file system that cannot say what is cached.
                self.ways.cached_first = false;
                Ok(done)
            }
            result => Err(Begun::Over(
                result.map_err(|error| TransferError { done, error }),
            )),
        }
    }

    fn transfer(&mut self, tag: u16, operation: &Operation<'_>) -> Begun {
        let aligned = |alignment: Alignment| {
            alignment.fits(operation.offset, operation.len)
                && alignment.fits_spans(operation.ram, operation.spans)
        };
        if !self.ways.alignment.is_none_or(aligned) {
            return Begun::Refused;
        }
        let skip = if self.ways.cached_first {
            match self.at_once(operation) {
                Ok(done) => done,
                Err(begun) => return begun,
            }
        } else {
            0
        };
        let direction = match operation.task {
            Task::Read => Direction::Read,
            _ => Direction::Write,
        };
        let transfer = Transfer {
            direction,
            offset: operation.offset,
            skip,
            ram: operation.ram,
            spans: operation.spans,
        };
        running(self.ring.transfer(tag, transfer))
    }

    fn allocate(&mut self, tag: u16, operation: &Operation<'_>, how: FallocateFlags) -> Begun {
        let mode = (how | FallocateFlags::KEEP_SIZE).bits().cast_signed();
        let (offset, len) = (operation.offset, operation.len);
        running(self.ring.allocate(tag, mode, offset, len))
    }
}

fn running(taken: bool) -> Begun {
    if taken {
        Begun::Running
    } else {
        Begun::Refused
    }
}

impl Engine for UringEngine {
    fn depth(&self) -> u16 {
        DEPTH
    }

    fn begin(&mut self, tag: u16, operation: &Operation<'_>) -> Begun {
        match operation.task {
            Task::Read | Task::Write => self.transfer(tag, operation),
            Task::Flush => running(self.ring.sync(tag)),
            Task::Discard | Task::Zero { unmap: true } => {
                self.allocate(tag, operation, FallocateFlags::PUNCH_HOLE)
            }
            Task::Zero { unmap: false } => {
                self.allocate(tag, operation, FallocateFlags::ZERO_RANGE)
            }
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        self.ring.submit()
    }

    fn finished(&mut self, done: &mut Vec<Finished>) {
        while let Some(ended) = self.ring.next_ended() {
            let (tag, moved) = (ended.tag, ended.done);
            let result = ended
                .result
                .map_err(|error| TransferError { done: moved, error });
            done.push(Finished { tag, result });
        }
    }

    fn has_more(&self) -> bool {
        self.ring.has_more()
    }

    fn running(&self) -> usize {
        self.ring.running()
    }

    fn wait(&mut self, patience: Duration) {
        self.ring.wait(patience);
    }

    fn cancel(&mut self) {
        self.ring.cancel();
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
