//! What a delta needs of the file that it is kept in. One implementation for files; the tests
//! have another that loses power.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

use crate::ram::GuestRam;
use crate::sys::{Direction, Transferred, transfer};
use crate::virtio::Span;

/// A file, as a delta sees it.
pub(super) trait Store: Send + fmt::Debug {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// Makes all writes so far last.
    fn sync(&self) -> io::Result<()>;

    /// Makes a range read as zeroes and gives its space back.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes a range read as zeroes and keeps space for it, where the host can.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Moves bytes between guest memory and the file.
    fn transfer(
        &self,
        direction: Direction,
        ram: &GuestRam,
        spans: &[Span],
        offset: u64,
    ) -> Transferred;
}

impl Store for File {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.write_all_at(from, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(self, flags, offset, len)?)
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match fallocate(self, flags, offset, len).map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.punch(offset, len),
            result => result,
        }
    }

    fn transfer(
        &self,
        direction: Direction,
        ram: &GuestRam,
        spans: &[Span],
        offset: u64,
    ) -> Transferred {
        transfer(direction, self.as_fd(), ram, spans, offset)
    }
}
