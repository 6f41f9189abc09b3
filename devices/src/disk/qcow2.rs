//! QEMU's qcow2 images, read only. The crate imago reads the tables; this module first holds the
//! header against hard bounds, so that no image makes the monitor open another file, decrypt, or
//! use more memory than said here.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use imago::FormatAccess;
use imago::file::File as ImageFile;
use imago::qcow2::Qcow2;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::overlay::Base;
use super::raw::lock;
use super::{Disk, Geometry, SECTOR_BYTES, TransferError};
use crate::ram::GuestRam;
use crate::virtio::Span;

const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");
/// What is looked at: the fields of version 3. Version 2 ends before.
const HEADER_BYTES: usize = size_of::<Fields>() + size_of::<LaterFields>();
/// The largest first-level table, as QEMU bounds it: 32 MiB.
const MOST_L1_ENTRIES: u64 = 4 << 20;
/// imago keeps up to 128 second-level tables of one cluster each.
const CACHED_TABLES: u64 = 128;
/// What those may use.
const MOST_TABLE_BYTES: u64 = 64 << 20;
/// The largest disk, the same as for deltas.
const MOST_BYTES: u64 = 64 << 40;
/// Reads go through a buffer of this size.
const BUFFER_BYTES: usize = 256 << 10;

/// An image that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The file cannot be read.
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
    /// A virtual machine writes it.
    #[error("disk {}: is locked by another virtual machine; stop that one, or use a copy",
        path.display())]
    Locked {
        /// The path.
        path: PathBuf,
    },
    /// The header is no qcow2 header, or not one that is supported.
    #[error("disk {}: {problem}; {}", path.display(), problem.remedy())]
    Header {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        problem: HeaderProblem,
    },
    /// The tables are bad.
    #[error("disk {}: its tables cannot be read; check it with: qemu-img check", path.display())]
    Tables {
        /// The path.
        path: PathBuf,
        /// What imago said.
        #[source]
        error: io::Error,
    },
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeaderProblem {
    /// The file ends within it.
    #[error("is {bytes} bytes long, shorter than the header of a qcow2 image")]
    Short {
        /// Its length.
        bytes: usize,
    },
    /// It does not start as such an image does.
    #[error("is no qcow2 image (its first bytes are {found:#010x})")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// The image needs another file.
    #[error("has a backing file, which is never opened")]
    Backing,
    /// The content is encrypted.
    #[error("is encrypted (method {method})")]
    Encrypted {
        /// The method.
        method: u32,
    },
    /// It needs what this reader does not know.
    #[error("needs the features {features:#x}: {names}")]
    Features {
        /// The bits.
        features: u64,
        /// What the known ones are.
        names: &'static str,
    },
    /// A field with an impossible value.
    #[error("has the header field {field} = {value}, which must be {must}")]
    Field {
        /// The field, as the format's specification names it.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        must: &'static str,
    },
}

impl HeaderProblem {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Short { .. } | Self::Magic { .. } => "name the format that it has",
            Self::Field { .. } => "check it with: qemu-img check",
            _ => "make a plain copy with: qemu-img convert -O qcow2 OLD NEW",
        }
    }
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fields {
    magic: U32,
    version: U32,
    backing_file_offset: U64,
    backing_file_size: U32,
    cluster_bits: U32,
    size: U64,
    crypt_method: U32,
    l1_size: U32,
    l1_table_offset: U64,
    refcount_table_offset: U64,
    refcount_table_clusters: U32,
    nb_snapshots: U32,
    snapshots_offset: U64,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LaterFields {
    incompatible_features: U64,
    compatible_features: U64,
    autoclear_features: U64,
    refcount_order: U32,
    header_length: U32,
}

/// Holds the first bytes of an image of `file_bytes` against the bounds: its capacity.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_header(start: &[u8], file_bytes: u64) -> Result<u64, HeaderProblem> {
    let short = HeaderProblem::Short { bytes: start.len() };
    let (fields, rest) = Fields::ref_from_prefix(start).map_err(|_| short)?;
    if fields.magic.get() != MAGIC {
        let found = fields.magic.get();
        return Err(HeaderProblem::Magic { found });
    }
    match fields.version.get() {
        2 => {}
        3 => {
            let (later, _) = LaterFields::ref_from_prefix(rest).map_err(|_| short)?;
            check_later(later)?;
        }
        version => return Err(field("version", version, "2 or 3")),
    }
    let bits = fields.cluster_bits.get();
    if !(9..=21).contains(&bits) {
        return Err(field("cluster_bits", bits, "9 to 21"));
    }
    if fields.backing_file_offset.get() != 0 || fields.backing_file_size.get() != 0 {
        return Err(HeaderProblem::Backing);
    }
    if fields.crypt_method.get() != 0 {
        let method = fields.crypt_method.get();
        return Err(HeaderProblem::Encrypted { method });
    }
    let size = fields.size.get();
    if !(1..=MOST_BYTES).contains(&size) || !size.is_multiple_of(SECTOR_BYTES) {
        return Err(field("size", size, "a multiple of 512 up to 64 TiB"));
    }
    check_l1(fields, bits, size, file_bytes)?;
    Ok(size)
}

fn check_later(later: &LaterFields) -> Result<(), HeaderProblem> {
    let features = later.incompatible_features.get();
    let names = match features {
        0 => "",
        _ if features & 1 != 0 => "it was not closed properly, which `qemu-img check -r all` mends",
        _ if features & 2 != 0 => "it is marked as corrupt",
        _ if features & 4 != 0 => "its data is in another file",
        _ if features & 8 != 0 => "it is compressed otherwise than with zlib",
        _ if features & 16 != 0 => "it has subclusters (extended_l2)",
        _ => "they are unknown",
    };
    if features != 0 {
        return Err(HeaderProblem::Features { features, names });
    }
    let order = later.refcount_order.get();
    if order > 6 {
        return Err(field("refcount_order", order, "0 to 6"));
    }
    let length = later.header_length.get();
    if !(104..=4096).contains(&length) || !length.is_multiple_of(8) {
        return Err(field(
            "header_length",
            length,
            "a multiple of 8 from 104 to 4096",
        ));
    }
    Ok(())
}

fn check_l1(fields: &Fields, bits: u32, size: u64, file_bytes: u64) -> Result<(), HeaderProblem> {
    let cluster = 1_u64.checked_shl(bits).unwrap_or(u64::MAX);
    // A second-level table is one cluster of 8-byte entries, each of which is a cluster.
    let covered = cluster.saturating_mul(cluster / 8);
    let needed = size.div_ceil(covered.max(1));
    let entries = u64::from(fields.l1_size.get());
    if entries < needed || entries > MOST_L1_ENTRIES {
        let must = "enough for the disk's size, at most 4194304";
        return Err(field("l1_size", entries, must));
    }
    let at = fields.l1_table_offset.get();
    let end = at.checked_add(entries.saturating_mul(8));
    let within = end.is_some_and(|end| end <= file_bytes);
    if at == 0 || !within || !at.is_multiple_of(cluster) {
        let must = "a cluster's start, with the whole table within the file";
        return Err(field("l1_table_offset", at, must));
    }
    let refcounts = fields.refcount_table_offset.get();
    if !refcounts.is_multiple_of(cluster) {
        return Err(field(
            "refcount_table_offset",
            refcounts,
            "a cluster's start",
        ));
    }
    let tables = entries.min(CACHED_TABLES).saturating_mul(cluster);
    if tables > MOST_TABLE_BYTES {
        let must = "smaller for so large a disk: its tables would take more than 64 MiB";
        return Err(field("cluster_bits", bits, must));
    }
    Ok(())
}

fn field(field: &'static str, value: impl Into<u64>, must: &'static str) -> HeaderProblem {
    let value = value.into();
    HeaderProblem::Field { field, value, must }
}

/// An open image, locked against writers.
pub struct Qcow2Disk {
    image: FormatAccess<ImageFile>,
    bytes: u64,
    buffer: Vec<u8>,
}

impl fmt::Debug for Qcow2Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qcow2Disk")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Qcow2Disk {
    /// Takes over an image that is open already; `path` is for messages.
    ///
    /// # Errors
    /// When it is in use, no qcow2 image, or outside the bounds.
    pub fn from_file(file: File, path: &Path) -> Result<Self, Qcow2Error> {
        let path = || path.to_owned();
        let io_error = |doing| {
            move |error| Qcow2Error::Io {
                path: path(),
                doing,
                error,
            }
        };
        lock(&file, true).map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => Qcow2Error::Locked { path: path() },
            std::fs::TryLockError::Error(error) => io_error("lock")(error),
        })?;
        let file_bytes = file.metadata().map_err(io_error("look at"))?.len();
        let mut start = [0; HEADER_BYTES];
        let filled = read_start(&file, &mut start).map_err(io_error("read"))?;
        let start = start.get(..filled).unwrap_or_default();
        let bytes = check_header(start, file_bytes).map_err(|problem| Qcow2Error::Header {
            path: path(),
            problem,
        })?;
        let tables = |error| Qcow2Error::Tables {
            path: path(),
            error,
        };
        let image = ImageFile::try_from(file).map_err(io_error("look at"))?;
        let mut image: Qcow2<ImageFile> = Qcow2::open_image(image, false).map_err(tables)?;
        // Nothing else is ever opened, whatever the image's extensions name.
        image.set_backing(None);
        image.set_data_file(None);
        Ok(Self {
            image: FormatAccess::new(image),
            bytes,
            buffer: vec![0; BUFFER_BYTES],
        })
    }
}

fn read_start(file: &File, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Base for Qcow2Disk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        let mut done = 0_u64;
        let failed = |done, error| TransferError { done, error };
        for span in into {
            let (mut at, mut left) = (span.at, usize::try_from(span.len).unwrap_or_default());
            while left > 0 {
                let len = left.min(self.buffer.len());
                let piece = self.buffer.get_mut(..len).unwrap_or_default();
                self.image
                    .read(&mut *piece, offset.saturating_add(done))
                    .map_err(|error| failed(done, error))?;
                ram.write_bytes(at, piece)
                    .map_err(|_| failed(done, ErrorKind::InvalidInput.into()))?;
                at = at.wrapping_add(len as u64);
                done = done.saturating_add(len as u64);
                left = left.saturating_sub(len.max(1));
            }
        }
        Ok(())
    }

    fn copy(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.image.read(into, offset)
    }
}

impl Disk for Qcow2Disk {
    fn geometry(&self) -> Geometry {
        Geometry {
            bytes: self.bytes,
            read_only: true,
        }
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        Base::read(self, offset, ram, into)
    }

    fn write(&mut self, _: u64, _: &GuestRam, _: &[Span]) -> Result<(), TransferError> {
        let error = ErrorKind::ReadOnlyFilesystem.into();
        Err(TransferError { done: 0, error })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[cfg(test)]
mod tests;
