//! The header of a delta: fixed, versioned, checksummed, written twice. Pure: bytes in, values
//! out. The format is docs/disk-format.md.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::Layout;
use crate::disk::SECTOR_BYTES;

/// The bytes of one copy of the header.
pub(super) const HEADER_BYTES: usize = 8192;
/// How many copies there are, one after the other from the file's start.
pub(super) const COPIES: usize = 2;
/// What a delta starts with.
pub(super) const MAGIC: [u8; 8] = *b"CoracleD";
/// The format's version.
pub(super) const VERSION: u32 = 1;
/// The longest path of a base, as Linux counts (PATH_MAX without its end).
pub(super) const MOST_PATH_BYTES: usize = 4095;
/// An interrupted commit: the base may be half merged, so only a commit may go on.
pub(super) const COMMITTING: u32 = 1;

/// A format of images that can be a base. It is always named, never guessed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BaseFormat {
    /// The bytes of the file are the bytes of the disk.
    Raw,
    /// QEMU's format, read only.
    Qcow2,
    /// Another delta.
    Cow,
}

impl BaseFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Qcow2, Self::Cow];

    /// Its word on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Cow => "cow",
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::Raw => 1,
            Self::Qcow2 => 2,
            Self::Cow => 3,
        }
    }
}

impl fmt::Display for BaseFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What tells that a base is still the one that a delta was made over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BaseIdentity {
    /// The length of its file or device in bytes.
    pub file_bytes: u64,
    /// When its file was changed last, in seconds since 1970; 0 for a block device, which does
    /// not tell.
    pub changed_seconds: i64,
    /// The nanoseconds of that.
    pub changed_nanoseconds: u32,
    /// The identifier of a delta; zeroes for other formats.
    pub delta: DeltaId,
}

/// The random identifier of a delta.
pub type DeltaId = [u8; 16];

/// A base, as a delta names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BaseRef {
    /// Its format.
    pub format: BaseFormat,
    /// Where it is.
    pub path: PathBuf,
    /// Its capacity in bytes, at most the delta's; what lies beyond reads as zeroes.
    pub bytes: u64,
    /// What it must be like.
    pub identity: BaseIdentity,
}

/// A header, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// Counts the changes of the header; of two good copies the later counts.
    pub generation: u64,
    /// Which delta it is; its map blocks say so too.
    pub id: DeltaId,
    /// Whether a commit was interrupted.
    pub committing: bool,
    /// The capacity of the disk in bytes.
    pub capacity: u64,
    /// The bytes of a cluster, a power of two.
    pub cluster_bytes: u32,
    /// What is read where the delta has nothing.
    pub base: BaseRef,
}

/// A header that is not one of ours, damaged, or against the rules.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeaderError {
    /// The file ends within the header.
    #[error("is {bytes} bytes long, shorter than the header of a delta")]
    Short {
        /// Its length.
        bytes: usize,
    },
    /// It does not start as a delta does.
    #[error("does not start like a delta of Coracle (found {found:02x?})")]
    Magic {
        /// What it starts with.
        found: [u8; 8],
    },
    /// Another version.
    #[error("has version {found} of the format, this program knows {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// Neither copy of the header matches its checksum.
    #[error("is damaged: the header's checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// What it says.
        stored: u32,
        /// What it should say.
        computed: u32,
    },
    /// A field with an impossible value, under a good checksum.
    #[error("has the header field {field} = {value}, which must be {must}")]
    Field {
        /// The field, as docs/disk-format.md names it.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        must: &'static str,
    },
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    version: U32,
    flags: U32,
    generation: U64,
    id: DeltaId,
    capacity: U64,
    cluster_bytes: U32,
    base_format: U32,
    base_bytes: U64,
    base_file_bytes: U64,
    base_changed_seconds: I64,
    base_changed_nanoseconds: U32,
    base_path_len: U32,
    base_id: DeltaId,
    map_offset: U64,
    map_blocks: U64,
    data_offset: U64,
}

const FIELDS: usize = size_of::<Wire>();
const PATH_END: usize = FIELDS + MOST_PATH_BYTES;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;
const NANOSECONDS: u32 = 1_000_000_000;

impl Header {
    /// Reads the header from the first bytes of a file: of the copies whose checksum is good,
    /// the later one.
    ///
    /// # Errors
    /// What is wrong with it, as field and value.
    pub fn parse(start: &[u8]) -> Result<Self, HeaderError> {
        let copies = copies(start);
        let mut found: Option<Result<Self, HeaderError>> = None;
        let mut first_error = HeaderError::Short { bytes: start.len() };
        for (index, copy) in copies.into_iter().enumerate() {
            let result = copy.map_or(Err(HeaderError::Short { bytes: start.len() }), check_copy);
            let wire = match result {
                Ok(wire) => wire,
                Err(error) => {
                    if index == 0 {
                        first_error = error;
                    }
                    continue;
                }
            };
            let later = match &found {
                Some(Ok(header)) => wire.0.generation.get() > header.generation,
                Some(Err(_)) => false,
                None => true,
            };
            if later {
                found = Some(Self::from_wire(wire.0, wire.1));
            }
        }
        found.unwrap_or(Err(first_error))
    }

    /// How many copies are good, for a look at the file's health.
    #[must_use]
    pub fn good_copies(start: &[u8]) -> usize {
        let good = |copy: Option<&[u8]>| copy.is_some_and(|copy| check_copy(copy).is_ok());
        copies(start).into_iter().filter(|copy| good(*copy)).count()
    }

    fn from_wire(wire: &Wire, tail: &[u8]) -> Result<Self, HeaderError> {
        let flags = wire.flags.get();
        check(flags & !COMMITTING == 0, "flags", flags, "0 or 1")?;
        let (capacity, cluster_bytes) = (wire.capacity.get(), wire.cluster_bytes.get());
        let layout = Layout::new(capacity, cluster_bytes)?;
        let known = |format: &BaseFormat| format.code() == wire.base_format.get();
        let format = BaseFormat::ALL.into_iter().find(known);
        let format = format.ok_or_else(|| {
            let must = "1 (raw), 2 (qcow2) or 3 (cow)";
            field("base_format", wire.base_format.get(), must)
        })?;
        let bytes = wire.base_bytes.get();
        let whole = bytes.is_multiple_of(SECTOR_BYTES);
        let must = "a multiple of 512, at most the capacity";
        check(whole && bytes <= capacity, "base_bytes", bytes, must)?;
        let nanoseconds = wire.base_changed_nanoseconds.get();
        let must = "below 1000000000";
        check(
            nanoseconds < NANOSECONDS,
            "base_changed_nanoseconds",
            nanoseconds,
            must,
        )?;
        let must = "what follows from the capacity and the cluster size";
        for (name, found, expected) in [
            ("map_offset", wire.map_offset.get(), layout.map_offset),
            ("map_blocks", wire.map_blocks.get(), layout.map_blocks),
            ("data_offset", wire.data_offset.get(), layout.data_offset),
        ] {
            check(found == expected, name, found, must)?;
        }
        Ok(Self {
            generation: wire.generation.get(),
            id: wire.id,
            committing: flags & COMMITTING != 0,
            capacity,
            cluster_bytes,
            base: BaseRef {
                format,
                path: path(wire.base_path_len.get(), tail)?,
                bytes,
                identity: BaseIdentity {
                    file_bytes: wire.base_file_bytes.get(),
                    changed_seconds: wire.base_changed_seconds.get(),
                    changed_nanoseconds: nanoseconds,
                    delta: wire.base_id,
                },
            },
        })
    }

    /// The bytes of one copy.
    ///
    /// # Errors
    /// When the header breaks a rule that reading it back would find.
    pub fn encode(&self) -> Result<Vec<u8>, HeaderError> {
        let layout = Layout::new(self.capacity, self.cluster_bytes)?;
        let path = self.base.path.as_os_str().as_bytes();
        let identity = self.base.identity;
        let wire = Wire {
            magic: MAGIC,
            version: VERSION.into(),
            flags: if self.committing { COMMITTING } else { 0 }.into(),
            generation: self.generation.into(),
            id: self.id,
            capacity: self.capacity.into(),
            cluster_bytes: self.cluster_bytes.into(),
            base_format: self.base.format.code().into(),
            base_bytes: self.base.bytes.into(),
            base_file_bytes: identity.file_bytes.into(),
            base_changed_seconds: identity.changed_seconds.into(),
            base_changed_nanoseconds: identity.changed_nanoseconds.into(),
            base_path_len: u32::try_from(path.len()).unwrap_or(u32::MAX).into(),
            base_id: identity.delta,
            map_offset: layout.map_offset.into(),
            map_blocks: layout.map_blocks.into(),
            data_offset: layout.data_offset.into(),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(wire.as_bytes());
        bytes.extend_from_slice(path);
        bytes.resize(CHECKSUM_AT, 0);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        // A path that is too long ran over the checksum's place; this finds it and all else.
        let (wire, tail) = check_copy(&bytes)?;
        Self::from_wire(wire, tail)?;
        Ok(bytes)
    }
}

fn copies(start: &[u8]) -> [Option<&[u8]>; COPIES] {
    let first = start.get(..HEADER_BYTES);
    let rest = start.get(HEADER_BYTES..);
    [first, rest.and_then(|rest| rest.get(..HEADER_BYTES))]
}

/// The fields, and what follows them up to the checksum, if the copy is good.
fn check_copy(copy: &[u8]) -> Result<(&Wire, &[u8]), HeaderError> {
    let short = HeaderError::Short { bytes: copy.len() };
    let (wire, _) = Wire::ref_from_prefix(copy).map_err(|_| short.clone())?;
    if wire.magic != MAGIC {
        return Err(HeaderError::Magic { found: wire.magic });
    }
    if wire.version.get() != VERSION {
        let found = wire.version.get();
        return Err(HeaderError::Version { found });
    }
    let (covered, checksum) = copy.split_at_checked(CHECKSUM_AT).ok_or(short.clone())?;
    let (stored, _) = U32::ref_from_prefix(checksum).map_err(|_| short.clone())?;
    let (stored, computed) = (stored.get(), crc32fast::hash(covered));
    if stored != computed {
        return Err(HeaderError::Checksum { stored, computed });
    }
    Ok((wire, covered.get(FIELDS..).ok_or(short)?))
}

fn path(len: u32, tail: &[u8]) -> Result<PathBuf, HeaderError> {
    let must = "1 to 4095, without a zero byte in the path and with nothing but zeroes behind it";
    let refuse = || field("base_path_len", len, must);
    let at = usize::try_from(len).unwrap_or(usize::MAX);
    let (path, rest) = tail.split_at_checked(at).ok_or_else(refuse)?;
    let good = (1..=MOST_PATH_BYTES).contains(&path.len()) && !path.contains(&0);
    if !good || rest.iter().any(|byte| *byte != 0) {
        return Err(refuse());
    }
    Ok(OsString::from_vec(path.to_vec()).into())
}

fn check(
    good: bool,
    name: &'static str,
    value: impl Into<u64>,
    must: &'static str,
) -> Result<(), HeaderError> {
    if good {
        Ok(())
    } else {
        Err(field(name, value, must))
    }
}

pub(super) fn field(field: &'static str, value: impl Into<u64>, must: &'static str) -> HeaderError {
    let value = value.into();
    HeaderError::Field { field, value, must }
}

const _: () = assert!(
    PATH_END < CHECKSUM_AT,
    "the longest path ends before the checksum"
);

#[cfg(test)]
mod tests;
