//! Opens deltas and their bases: locks, identities and the bound on their depth.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::base::{Base, RawBase};
use super::delta::{Delta, LoadError};
use super::error::OverlayError;
use super::header::{BaseFormat, BaseIdentity, BaseRef, COPIES, DeltaId, HEADER_BYTES, Header};
use super::layout::Layout;
use crate::disk::SECTOR_BYTES;
use crate::disk::qcow2::Qcow2Disk;
use crate::disk::raw::lock;
use crate::new_file::{NewFileError, random_id};

/// How many deltas may lie over each other.
pub const MOST_DELTAS: usize = 8;

/// How strictly a delta is looked at when it is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Terms {
    /// Only read it, and let others do so too.
    pub(super) read_only: bool,
    /// Take a base that has changed, or a delta that is half committed.
    pub(super) any_base: bool,
}

/// An image that is open to be read, with what identifies it.
#[derive(Debug)]
pub(super) struct OpenBase {
    pub(super) base: Box<dyn Base>,
    pub(super) identity: BaseIdentity,
}

pub(super) fn open(path: &Path, write: bool) -> Result<File, OverlayError> {
    // Without blocking: a FIFO would wait for its other end. Files and disks ignore it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(flags);
    options.open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => OverlayError::Missing {
            path: path.to_owned(),
            hint: "",
        },
        ErrorKind::IsADirectory => OverlayError::Kind {
            path: path.to_owned(),
            wanted: "a file",
        },
        _ => io_error(path, if write { "open and write" } else { "open" }, error),
    })
}

pub(super) fn io_error(path: &Path, doing: &'static str, error: io::Error) -> OverlayError {
    OverlayError::Io {
        path: path.to_owned(),
        doing,
        error,
    }
}

/// For what cannot be done with a new file at `path`.
pub(super) fn not_made(path: &Path) -> impl Fn(NewFileError) -> OverlayError {
    move |error| match error.cause.kind() {
        ErrorKind::AlreadyExists => OverlayError::Exists {
            path: path.to_owned(),
        },
        _ => io_error(path, error.doing, error.cause),
    }
}

/// The identity of a new delta at `path`.
pub(super) fn new_id(path: &Path) -> Result<DeltaId, OverlayError> {
    random_id().map_err(|error| io_error(path, "get random numbers for", error))
}

pub(super) fn lock_file(file: &File, path: &Path, shared: bool) -> Result<(), OverlayError> {
    lock(file, shared).map_err(|error| match error {
        TryLockError::WouldBlock => OverlayError::Locked {
            path: path.to_owned(),
        },
        TryLockError::Error(error) => io_error(path, "lock", error),
    })?;
    let metadata = file.metadata().map_err(|e| io_error(path, "look at", e))?;
    if metadata.nlink() == 0 {
        let path = path.to_owned();
        return Err(OverlayError::Replaced { path });
    }
    Ok(())
}

/// Opens a delta and all that is below it.
pub(super) fn open_delta(path: &Path, terms: Terms) -> Result<Delta<File>, OverlayError> {
    delta_from_file(open(path, !terms.read_only)?, path, terms, 1)
}

/// Takes over a delta's file and opens all that is below it.
pub(super) fn delta_from_file(
    file: File,
    path: &Path,
    terms: Terms,
    depth: usize,
) -> Result<Delta<File>, OverlayError> {
    if depth > MOST_DELTAS {
        let path = path.to_owned();
        return Err(OverlayError::Deep { path });
    }
    let header = locked_header(&file, path, terms.read_only)?;
    if header.committing && !terms.any_base {
        let path = path.to_owned();
        return Err(OverlayError::Committing { path });
    }
    let open = open_base(
        &header.base.path,
        header.base.format,
        depth.saturating_add(1),
    )
    .map_err(|error| below(error, &header.base.path))?;
    if !terms.any_base {
        compare(path, &header.base, &open)?;
    }
    load(file, path, header, open.base, terms.read_only)
}

/// Loads a delta whose base is open already.
pub(super) fn load(
    file: File,
    path: &Path,
    header: Header,
    base: Box<dyn Base>,
    read_only: bool,
) -> Result<Delta<File>, OverlayError> {
    Delta::load(file, header, base, read_only).map_err(|error| match error {
        LoadError::Header(error) => bad_header(path, error),
        LoadError::Read(error) => io_error(path, "read the map of", error),
        LoadError::Mend(error) => io_error(path, "mend the map of", error),
        LoadError::Damaged(damaged) => OverlayError::Map {
            path: path.to_owned(),
            block: damaged.block,
            what: damaged.what,
        },
    })
}

fn bad_header(path: &Path, error: super::header::HeaderError) -> OverlayError {
    use super::header::HeaderError as E;
    let hint = match error {
        E::Version { .. } => "use the version of Coracle that wrote it",
        E::Short { .. } | E::Magic { .. } => "name the format that it has, such as format=raw",
        E::Checksum { .. } | E::Field { .. } => "restore the file from a copy",
    };
    OverlayError::Header {
        path: path.to_owned(),
        error,
        hint,
    }
}

/// Locks a delta's file and reads its header.
pub(super) fn locked_header(
    file: &File,
    path: &Path,
    shared: bool,
) -> Result<Header, OverlayError> {
    let metadata = file.metadata().map_err(|e| io_error(path, "look at", e))?;
    if !metadata.is_file() {
        return Err(OverlayError::Kind {
            path: path.to_owned(),
            wanted: "a regular file, which a delta is",
        });
    }
    lock_file(file, path, shared)?;
    Ok(parse_header(file, path)?.0)
}

/// Reads the header of a delta, locked or not.
pub(super) fn parse_header(file: &File, path: &Path) -> Result<(Header, Layout), OverlayError> {
    let start = read_start(file).map_err(|e| io_error(path, "read", e))?;
    let header = Header::parse(&start).map_err(|error| bad_header(path, error))?;
    let layout = Layout::new(header.capacity, header.cluster_bytes);
    let layout = layout.map_err(|error| bad_header(path, error))?;
    let metadata = file.metadata().map_err(|e| io_error(path, "look at", e))?;
    let (bytes, needs) = (metadata.len(), layout.file_bytes);
    if bytes < needs {
        return Err(OverlayError::CutShort {
            path: path.to_owned(),
            bytes,
            needs,
        });
    }
    Ok((header, layout))
}

/// The copies of the header, or what there is of them.
pub(super) fn read_start(file: &File) -> io::Result<Vec<u8>> {
    let mut start = vec![0; HEADER_BYTES.saturating_mul(COPIES)];
    let mut filled = 0_usize;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    start.truncate(filled);
    Ok(start)
}

/// Opens an image to be read, locked against writers.
pub(super) fn open_base(
    path: &Path,
    format: BaseFormat,
    depth: usize,
) -> Result<OpenBase, OverlayError> {
    let file = open(path, false)?;
    if format == BaseFormat::Cow {
        let terms = Terms {
            read_only: true,
            any_base: false,
        };
        let delta = delta_from_file(file, path, terms, depth)?;
        let identity = BaseIdentity {
            delta: delta.header().id,
            ..identity(delta.store(), path)?
        };
        let base = Box::new(delta);
        return Ok(OpenBase { base, identity });
    }
    lock_file(&file, path, true)?;
    let identity = identity(&file, path)?;
    let base: Box<dyn Base> = match format {
        BaseFormat::Qcow2 => Box::new(Qcow2Disk::from_file(file, path)?),
        BaseFormat::Raw | BaseFormat::Cow => Box::new(raw(file, path, identity.file_bytes)?),
    };
    Ok(OpenBase { base, identity })
}

fn raw(file: File, path: &Path, bytes: u64) -> Result<RawBase, OverlayError> {
    if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
        let path = path.to_owned();
        return Err(OverlayError::Length { path, bytes });
    }
    Ok(RawBase { file, bytes })
}

/// What identifies an image, except for the identifier of a delta.
pub(super) fn identity(mut file: &File, path: &Path) -> Result<BaseIdentity, OverlayError> {
    let look = |error| io_error(path, "look at", error);
    let metadata = file.metadata().map_err(look)?;
    if metadata.file_type().is_block_device() {
        let file_bytes = file.seek(SeekFrom::End(0)).map_err(look)?;
        return Ok(BaseIdentity {
            file_bytes,
            ..BaseIdentity::default()
        });
    }
    if !metadata.is_file() {
        return Err(OverlayError::Kind {
            path: path.to_owned(),
            wanted: "a file or a block device",
        });
    }
    Ok(BaseIdentity {
        file_bytes: metadata.len(),
        changed_seconds: metadata.mtime(),
        changed_nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
        delta: DeltaId::default(),
    })
}

/// Whether a base is the one that the delta names.
pub(super) fn compare(
    path: &Path,
    expected: &BaseRef,
    open: &OpenBase,
) -> Result<(), OverlayError> {
    let (then, now) = (expected.identity, open.identity);
    let changed = |field, found: String, expected_value: String| OverlayError::BaseChanged {
        path: path.to_owned(),
        base: expected.path.clone(),
        field,
        found,
        expected: expected_value,
    };
    let bytes = open.base.bytes();
    if then.delta != now.delta {
        return Err(changed("its identifier", hex(&now.delta), hex(&then.delta)));
    }
    for (field, found, was) in [
        ("its length", now.file_bytes, then.file_bytes),
        ("its capacity", bytes, expected.bytes),
    ] {
        if found != was {
            return Err(changed(field, found.to_string(), was.to_string()));
        }
    }
    let time = |identity: BaseIdentity| {
        let (seconds, nanoseconds) = (identity.changed_seconds, identity.changed_nanoseconds);
        format!("{seconds}.{nanoseconds:09}")
    };
    if time(then) != time(now) {
        return Err(changed("its time of change", time(now), time(then)));
    }
    Ok(())
}

pub(super) fn hex(id: &DeltaId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A base that is missing is no mistake of the path that the user gave.
fn below(error: OverlayError, base: &Path) -> OverlayError {
    match error {
        OverlayError::Missing { path, .. } if path == base => OverlayError::Missing {
            path,
            hint: " of the base, or name its new place with: coracle disk rebase --unchecked",
        },
        other => other,
    }
}
