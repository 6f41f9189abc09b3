//! What a delta reads where it has nothing itself.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::disk::TransferError;
use crate::ram::GuestRam;
use crate::sys::{Direction, transfer};
use crate::virtio::Span;

/// An immutable image.
pub(in crate::disk) trait Base: Send + fmt::Debug {
    /// Its capacity in bytes.
    fn bytes(&self) -> u64;

    /// Reads into guest memory; all of the range lies within the capacity.
    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError>;

    /// Reads into the monitor's own memory; all of the range lies within the capacity.
    fn copy(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A raw image.
#[derive(Debug)]
pub(super) struct RawBase {
    pub(super) file: File,
    pub(super) bytes: u64,
}

impl Base for RawBase {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        let (done, result) = transfer(Direction::Read, self.file.as_fd(), ram, into, offset);
        result.map_err(|error| TransferError { done, error })
    }

    fn copy(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

/// Reads from `base`, and zeroes where it has ended.
pub(super) fn copy_padded(base: &mut dyn Base, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let left = base.bytes().saturating_sub(offset);
    let within = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
    let (data, padding) = into.split_at_mut(within);
    padding.fill(0);
    if data.is_empty() {
        Ok(())
    } else {
        base.copy(offset, data)
    }
}
