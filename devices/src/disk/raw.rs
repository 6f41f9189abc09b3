//! Raw images: a file or block device whose bytes are the disk's bytes.
//!
//! The format is never guessed. A guest can write whatever header it likes into its disk.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::{Disk, Geometry, SECTOR_BYTES, TransferError};
use crate::ram::GuestRam;
use crate::sys::{Direction, transfer};
use crate::virtio::Span;

/// A disk image that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("disk {at}: no such file; create one with: truncate -s 1G {at}", at = path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A directory, a pipe or the like.
    #[error("disk {}: is {found}, not a file or block device", path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The user may not read it.
    #[error("disk {at}: no permission to read it; see: ls -lL {at}", at = path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
    },
    /// The user may read it but not write it.
    #[error("disk {}: no permission to write it; attach it with ,ro or make it writable",
        path.display())]
    Unwritable {
        /// The path.
        path: PathBuf,
    },
    /// Empty, or a length that no disk has.
    #[error("disk {at}: {bytes} bytes are not a multiple of 512; extend it with: \
        truncate -s %512 {at}", at = path.display())]
    Length {
        /// The path.
        path: PathBuf,
        /// The length.
        bytes: u64,
    },
    /// Nothing in it.
    #[error("disk {at}: is empty; give it a size with: truncate -s 1G {at}", at = path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// Another virtual machine has it.
    #[error("disk {}: is locked by another virtual machine; stop that one, use a copy, or attach \
        it with ,ro to all", path.display())]
    Locked {
        /// The path.
        path: PathBuf,
    },
    /// Something else.
    #[error("disk {}: cannot {doing} it", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was attempted.
        doing: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// An open raw image, locked against other virtual machines as long as it is open: one writer
/// or any number of readers.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    geometry: Geometry,
}

impl RawDisk {
    /// Opens the image at `path`.
    ///
    /// # Errors
    /// When it is not a disk, may not be used so, or is in use.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, OpenError> {
        Self::from_file(open(path, read_only)?, path, read_only)
    }

    /// Takes over an image that is open already; `path` is for messages.
    ///
    /// # Errors
    /// When it is not a disk, or is in use.
    pub fn from_file(mut file: File, path: &Path, read_only: bool) -> Result<Self, OpenError> {
        let (path_buf, io_error) = (
            || path.to_owned(),
            |doing, error| OpenError::Io {
                path: path.to_owned(),
                doing,
                error,
            },
        );
        let kind = file
            .metadata()
            .map_err(|error| io_error("look at", error))?;
        let kind = kind.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let found = name_of(kind);
            let path = path_buf();
            return Err(OpenError::NotADisk { path, found });
        }
        lock(&file, read_only).map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Locked { path: path_buf() },
            TryLockError::Error(error) => io_error("lock", error),
        })?;
        // A block device has its length only here.
        let bytes = file
            .seek(SeekFrom::End(0))
            .map_err(|error| io_error("measure", error))?;
        if bytes == 0 {
            return Err(OpenError::Empty { path: path_buf() });
        }
        if !bytes.is_multiple_of(SECTOR_BYTES) {
            let path = path_buf();
            return Err(OpenError::Length { path, bytes });
        }
        let geometry = Geometry { bytes, read_only };
        Ok(Self { file, geometry })
    }

    fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        ram: &GuestRam,
        spans: &[Span],
    ) -> Result<(), TransferError> {
        let (done, result) = transfer(direction, self.file.as_fd(), ram, spans, offset);
        result.map_err(|error| TransferError { done, error })
    }
}

fn open(path: &Path, read_only: bool) -> Result<File, OpenError> {
    // Without blocking: a FIFO would wait for its other end. Files and disks ignore it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let with = |write| {
        let mut options = OpenOptions::new();
        options.read(true).write(write).custom_flags(flags);
        options.open(path)
    };
    with(!read_only).map_err(|error| {
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::NotFound => OpenError::Missing { path },
            ErrorKind::IsADirectory => {
                let found = "a directory";
                OpenError::NotADisk { path, found }
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                if !read_only && with(false).is_ok() =>
            {
                OpenError::Unwritable { path }
            }
            ErrorKind::PermissionDenied => OpenError::Unreadable { path },
            _ => {
                let doing = "open";
                OpenError::Io { path, doing, error }
            }
        }
    })
}

/// Takes the lock that all images have while they are open.
pub(super) fn lock(file: &File, shared: bool) -> Result<(), TryLockError> {
    if shared {
        file.try_lock_shared()
    } else {
        file.try_lock()
    }
}

fn name_of(kind: std::fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_char_device() {
        "a character device"
    } else {
        "a socket"
    }
}

impl Disk for RawDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn rescan(&mut self) -> io::Result<Geometry> {
        let bytes = self.file.seek(SeekFrom::End(0))?;
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
            let message = format!("the image has {bytes} bytes, no whole number of sectors");
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        }
        self.geometry.bytes = bytes;
        Ok(self.geometry)
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
        Ok(fallocate(&self.file, flags, offset, len)?)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if unmap {
            // A hole reads as zeroes.
            return self.discard(offset, len);
        }
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, offset, len)?)
    }
}

#[cfg(test)]
mod tests;
