//! Disk images: formats and the engines that read and write them.
//!
//! A disk moves bytes between itself and guest memory; it knows no virtio and no guest beyond
//! the spans that it is given.

use std::io;

mod direct;
pub mod engine;
pub mod memory;
pub mod open;
pub mod overlay;
pub mod qcow2;
pub mod raw;
pub(crate) mod spans;

pub use engine::Engine;
pub use memory::MemoryDisk;
pub use open::{Access, EngineChoice, OpenError, OpenProblem};
pub use overlay::OverlayDisk;
pub use qcow2::Qcow2Disk;
pub use raw::RawDisk;

use crate::ram::GuestRam;
use crate::virtio::Span;

/// The bytes of a sector, the unit in which guests count (virtio 1.2, 5.2).
pub const SECTOR_BYTES: u64 = 512;

/// What a disk is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Geometry {
    /// The capacity, a multiple of [`SECTOR_BYTES`].
    pub bytes: u64,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// How a disk likes to be used. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Topology {
    /// The smallest unit of addressing, a power of two of at least [`SECTOR_BYTES`].
    pub logical: u32,
    /// The smallest unit that is written without reading around it, a power of two.
    pub physical: u32,
    /// The length of a transfer that it does best; zero when there is no such.
    pub optimal: u32,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            logical: 512,
            // What host file systems work with.
            physical: 4096,
            optimal: 0,
        }
    }
}

/// A transfer that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("after {done} bytes")]
pub struct TransferError {
    /// How many bytes were moved, from the front.
    pub done: u64,
    /// What the host said.
    #[source]
    pub error: io::Error,
}

/// Something to read and write sectors of. Callers stay within the geometry.
pub trait Disk: Send {
    /// What it is; the same until [`rescan`](Self::rescan).
    fn geometry(&self) -> Geometry;

    /// Looks at the host's file again, which may have another length.
    ///
    /// # Errors
    /// When the host does not tell, or the length is one that no disk has; then the geometry
    /// stays.
    fn rescan(&mut self) -> io::Result<Geometry> {
        Ok(self.geometry())
    }

    /// How it likes to be used; the same all its life.
    fn topology(&self) -> Topology {
        Topology::default()
    }

    /// What carries out operations beside the caller, where the disk has such an engine. Its
    /// operations and the methods below are never used at the same time.
    fn engine(&mut self) -> Option<&mut dyn Engine> {
        None
    }

    /// Reads the bytes from `offset` on into all of `into`.
    ///
    /// # Errors
    /// When the host cannot read them; a part of `into` may be written then.
    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError>;

    /// Writes all of `from` to `offset`. It lasts only after [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the host cannot write them; a part may be written then.
    fn write(&mut self, offset: u64, ram: &GuestRam, from: &[Span]) -> Result<(), TransferError>;

    /// Makes everything written so far last.
    ///
    /// # Errors
    /// When the host cannot tell that it does.
    fn flush(&mut self) -> io::Result<()>;

    /// Gives the space of a range back; what it reads as then is undefined.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] when the host cannot do that there, or its error.
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes a range read as zeroes; its space may be given back if `unmap`.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] when the host cannot do that there, or its error.
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}
