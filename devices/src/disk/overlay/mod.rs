//! Copy-on-write disks: a delta, which takes all writes, over a base, which is never written.
//!
//! The format is docs/disk-format.md. Nothing here knows virtio. What a guest writes is data and
//! goes into the data part of the delta only; the header and the map are this module's.

use std::fs::File;
use std::io;
use std::path::Path;

mod base;
mod delta;
mod error;
mod files;
mod header;
mod layout;
mod manage;
mod map;
mod store;

pub use error::OverlayError;
pub use files::MOST_DELTAS;
pub use header::{BaseFormat, BaseIdentity, BaseRef, DeltaId, Header, HeaderError};
pub use layout::{LEAST_CLUSTER_BYTES, MOST_CLUSTER_BYTES, MOST_CLUSTERS};
pub use manage::{
    Committed, Info, NewDelta, Problem, Rebase, Rebased, Verified, commit, create, create_raw,
    export, info, rebase, reset, verify,
};

pub(super) use base::Base;

use super::{Disk, Geometry, TransferError, spans};
use crate::ram::GuestRam;
use crate::virtio::Span;
use delta::Delta;
use files::Terms;

/// An open delta over its base. The delta is locked against others, its bases against writers.
#[derive(Debug)]
pub struct OverlayDisk {
    delta: Delta<File>,
}

impl OverlayDisk {
    /// Opens the delta at `path` and all that is below it.
    ///
    /// # Errors
    /// When one of them cannot be used, is in use, or is not what the delta says.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OverlayError> {
        Self::from_file(files::open(path, !read_only)?, path, read_only)
    }

    /// Takes over a delta that is open already, to write too unless `read_only`; `path` is for
    /// messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_file(file: File, path: &Path, read_only: bool) -> Result<Self, OverlayError> {
        let terms = Terms {
            read_only,
            any_base: false,
        };
        let delta = files::delta_from_file(file, path, terms, 1)?;
        Ok(Self { delta })
    }

    /// How many clusters the delta has, of how many.
    #[must_use]
    pub fn clusters(&self) -> (u64, u64) {
        (self.delta.map().count(), self.delta.layout().clusters)
    }
}

impl Drop for OverlayDisk {
    /// What was written and not flushed is not lost where nothing goes wrong.
    fn drop(&mut self) {
        if self.delta.map().is_dirty()
            && let Err(error) = self.delta.flush()
        {
            log::warn!("the last changes of a disk are lost: {error}");
        }
    }
}

impl Disk for OverlayDisk {
    fn geometry(&self) -> Geometry {
        self.delta.geometry()
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        self.delta.read(offset, ram, into)
    }

    fn write(&mut self, offset: u64, ram: &GuestRam, from: &[Span]) -> Result<(), TransferError> {
        if self.delta.geometry().read_only {
            let error = io::ErrorKind::ReadOnlyFilesystem.into();
            return Err(TransferError { done: 0, error });
        }
        self.delta.write(offset, ram, from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.delta.flush()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.writable()?;
        self.delta.discard(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.writable()?;
        self.delta.write_zeroes(offset, len, unmap)
    }
}

impl OverlayDisk {
    fn writable(&self) -> io::Result<()> {
        if self.delta.geometry().read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
