//! Raw images: a file or block device whose bytes are the disk's bytes.
//!
//! The format is never guessed. A guest can write whatever header it likes into its disk.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use super::direct::{Alignment, bounce};
use super::engine::uring::{UringEngine, Ways};
use super::open::{self, Access, EngineChoice, OpenError, OpenProblem};
use super::{Disk, Engine, Geometry, Topology, TransferError};
use crate::ram::GuestRam;
use crate::sys::{Direction, transfer};
use crate::virtio::Span;

pub(super) use super::open::lock;

/// An open raw image, locked against other virtual machines as long as it is open: one writer
/// or any number of readers.
#[derive(Debug)]
pub struct RawDisk {
    // Before the file, so that nothing runs any more when that is closed.
    engine: Option<UringEngine>,
    file: Arc<File>,
    geometry: Geometry,
    topology: Topology,
    alignment: Option<Alignment>,
}

impl RawDisk {
    /// Opens the image at `path` with the synchronous engine.
    ///
    /// # Errors
    /// When it is not a disk, may not be used so, or is in use.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let access = Access {
            read_only,
            ..Access::default()
        };
        Self::open_with(path, access)
    }

    /// Opens the image at `path`.
    ///
    /// # Errors
    /// When it is not a disk, may not be used so, or is in use.
    pub fn open_with(path: &Path, access: Access) -> Result<Self, OpenError> {
        let file = open::open_file(path, access).map_err(|problem| OpenError {
            path: path.to_owned(),
            problem,
        })?;
        Self::from_file(file, path, access)
    }

    /// Takes over an image that is [open](open::open_file) already as `access` says; `path` is
    /// for messages.
    ///
    /// # Errors
    /// When it is not a disk, or is in use.
    pub fn from_file(file: File, path: &Path, access: Access) -> Result<Self, OpenError> {
        let image = open::judge(&file, access).map_err(|problem| OpenError {
            path: path.to_owned(),
            problem,
        })?;
        let file = Arc::new(file);
        Ok(Self {
            engine: engine(&file, path, access, image.alignment),
            file,
            geometry: Geometry {
                bytes: image.bytes,
                read_only: access.read_only,
            },
            topology: image.topology,
            alignment: image.alignment,
        })
    }

    fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        ram: &GuestRam,
        spans: &[Span],
    ) -> Result<(), TransferError> {
        if let Some(alignment) = self.alignment {
            let len = super::spans::total(spans);
            if !alignment.fits(offset, len) || !alignment.fits_spans(ram, spans) {
                return bounce(&self.file, alignment, direction, offset, ram, spans);
            }
        }
        let (done, result) = transfer(direction, self.file.as_fd(), ram, spans, offset);
        result.map_err(|error| TransferError { done, error })
    }
}

/// The engine that was asked for; none for the synchronous one, and where the host has no other.
fn engine(
    file: &Arc<File>,
    path: &Path,
    access: Access,
    alignment: Option<Alignment>,
) -> Option<UringEngine> {
    let cached_first = match access.engine {
        EngineChoice::Sync => return None,
        EngineChoice::Auto => !access.direct,
        EngineChoice::IoUring => false,
    };
    let ways = Ways {
        cached_first,
        alignment,
    };
    match UringEngine::new(Arc::clone(file), ways) {
        Ok(engine) => Some(engine),
        Err(error) => {
            let level = match access.engine {
                EngineChoice::IoUring => log::Level::Warn,
                _ => log::Level::Info,
            };
            let path = path.display();
            log::log!(
                level,
                "disk {path}: the host has no io_uring for it ({error}); engine=sync is used"
            );
            None
        }
    }
}

impl Disk for RawDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn topology(&self) -> Topology {
        self.topology
    }

    fn rescan(&mut self) -> io::Result<Geometry> {
        let invalid = |problem: OpenProblem| match problem {
            OpenProblem::Io { error, .. } => error,
            other => io::Error::new(ErrorKind::InvalidData, format!("the image {other}")),
        };
        let bytes = open::measure(&self.file).map_err(invalid)?;
        open::check_length(bytes, self.alignment).map_err(invalid)?;
        self.geometry.bytes = bytes;
        Ok(self.geometry)
    }

    fn engine(&mut self) -> Option<&mut dyn Engine> {
        let engine = self.engine.as_mut()?;
        Some(engine)
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        self.transfer(Direction::Read, offset, ram, into)
    }

    fn write(&mut self, offset: u64, ram: &GuestRam, from: &[Span]) -> Result<(), TransferError> {
        self.transfer(Direction::Write, offset, ram, from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&*self.file, flags, offset, len)?)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if unmap {
            // A hole reads as zeroes.
            return self.discard(offset, len);
        }
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&*self.file, flags, offset, len)?)
    }
}

#[cfg(test)]
mod tests;
