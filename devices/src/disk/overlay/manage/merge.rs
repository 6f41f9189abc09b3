//! A delta's changes go into its base, or all that it shows into a new raw image.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use super::PIECE_BYTES;
use super::create::{emptied, real};
use crate::disk::overlay::base::Base;
use crate::disk::overlay::delta::Delta;
use crate::disk::overlay::error::OverlayError;
use crate::disk::overlay::files::{
    Terms, compare, identity, io_error, load, lock_file, locked_header, not_made, open, open_base,
    open_delta,
};
use crate::disk::overlay::header::{BaseFormat, Header};
use crate::disk::overlay::store::Store;
use crate::new_file::NewFile;

/// What a commit did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Committed {
    /// Bytes that were copied, holes included.
    pub bytes: u64,
}

/// Where a commit goes.
#[derive(Debug)]
enum Target {
    Raw(File),
    Cow(Box<Delta<File>>),
}

impl Target {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Cow(delta) => delta.put(offset, bytes),
            Self::Raw(file) => put_raw(file, offset, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Cow(delta) => delta.flush(),
            Self::Raw(file) => file.sync_all(),
        }
    }
}

fn put_raw(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    if bytes.iter().any(|byte| *byte != 0) {
        return file.write_all_at(bytes, offset);
    }
    match file.punch(offset, bytes.len() as u64) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            file.write_all_at(bytes, offset)
        }
        result => result,
    }
}

/// The base of a delta whose base is being written: only what the delta has is read.
#[derive(Debug)]
struct NoBase;

impl Base for NoBase {
    fn bytes(&self) -> u64 {
        0
    }

    fn read(
        &mut self,
        _: u64,
        _: &crate::ram::GuestRam,
        _: &[crate::virtio::Span],
    ) -> Result<(), crate::disk::TransferError> {
        let error = io::ErrorKind::UnexpectedEof.into();
        Err(crate::disk::TransferError { done: 0, error })
    }

    fn copy(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Merges a delta into its base and empties it. Interrupted anywhere, it can be repeated; until
/// then the delta refuses to be used, because the base is half merged. Other deltas over the same
/// base notice that it has changed.
///
/// # Errors
/// When one of them is in use, the base's format is read only, or the host cannot write.
pub fn commit(path: &Path) -> Result<Committed, OverlayError> {
    let path = &real(path)?;
    let file = open(path, true)?;
    let header = locked_header(&file, path, false)?;
    let mut target = open_target(path, &header)?;
    let kept = file.try_clone().map_err(|e| io_error(path, "share", e))?;
    let mut delta = load(file, path, header, Box::new(NoBase), false)?;
    let mark = Header {
        committing: true,
        ..delta.header().clone()
    };
    delta
        .replace_header(mark.clone())
        .map_err(|error| io_error(path, "mark", error))?;
    let bytes = copy_own(&mut delta, &mut target)
        .and_then(|bytes| target.flush().map(|()| bytes))
        .map_err(|error| io_error(&mark.base.path, "write", error))?;
    drop(target);
    let base = open_base(&mark.base.path, mark.base.format, 2)?;
    emptied(path, &kept, &mark, &base)?;
    Ok(Committed { bytes })
}

fn open_target(path: &Path, header: &Header) -> Result<Target, OverlayError> {
    let base = &header.base;
    // Looked at before it is changed; a repeated commit finds a base that has changed already.
    if !header.committing {
        compare(path, base, &open_base(&base.path, base.format, 2)?)?;
    }
    match base.format {
        BaseFormat::Qcow2 => Err(OverlayError::Fixed {
            path: path.to_owned(),
            format: base.format,
        }),
        BaseFormat::Cow => {
            let terms = Terms {
                read_only: false,
                any_base: false,
            };
            let delta = open_delta(&base.path, terms)?;
            if delta.header().capacity < header.capacity {
                return Err(OverlayError::Small {
                    path: base.path.clone(),
                    base: delta.header().capacity,
                    capacity: header.capacity,
                    hint: "a delta does not grow; merge into a new raw image with --into",
                });
            }
            Ok(Target::Cow(Box::new(delta)))
        }
        BaseFormat::Raw => {
            let file = open(&base.path, true)?;
            lock_file(&file, &base.path, false)?;
            let bytes = identity(&file, &base.path)?.file_bytes;
            if bytes != base.bytes && bytes != header.capacity {
                let path = base.path.clone();
                return Err(OverlayError::Length { path, bytes });
            }
            grow(&file, &base.path, bytes, header.capacity)?;
            Ok(Target::Raw(file))
        }
    }
}

/// A delta can be larger than its base, which then grows.
fn grow(file: &File, path: &Path, bytes: u64, capacity: u64) -> Result<(), OverlayError> {
    if bytes >= capacity {
        return Ok(());
    }
    let device = file
        .metadata()
        .map_err(|error| io_error(path, "look at", error))?
        .file_type()
        .is_block_device();
    if device {
        return Err(OverlayError::Small {
            path: path.to_owned(),
            base: bytes,
            capacity,
            hint: "enlarge the device first",
        });
    }
    file.set_len(capacity)
        .map_err(|error| io_error(path, "enlarge", error))
}

/// Copies what the delta itself has.
fn copy_own(delta: &mut Delta<File>, target: &mut Target) -> io::Result<u64> {
    let layout = delta.layout();
    let capacity = delta.header().capacity;
    let mut piece = vec![0; usize::try_from(PIECE_BYTES).unwrap_or_default()];
    let (mut at, mut copied) = (0, 0_u64);
    while at < capacity {
        let left = layout.clusters.saturating_sub(layout.cluster_of(at));
        let (present, count) = delta.map().run(layout.cluster_of(at), left);
        let end = layout
            .start_of(layout.cluster_of(at).saturating_add(count))
            .min(capacity);
        while present && at < end {
            let len = end.saturating_sub(at).min(PIECE_BYTES);
            let bytes = usize::try_from(len).unwrap_or_default();
            let part = piece.get_mut(..bytes).unwrap_or_default();
            delta.copy(at, part)?;
            target.put(at, part)?;
            (at, copied) = (at.saturating_add(len), copied.saturating_add(len));
        }
        at = end;
    }
    Ok(copied)
}

/// Writes all that a delta shows into a new raw image; the delta and its bases stay as they are.
///
/// # Errors
/// When the delta cannot be used, something has the path already, or the host cannot write.
pub fn export(path: &Path, into: &Path) -> Result<Committed, OverlayError> {
    if into.symlink_metadata().is_ok() {
        let path = into.to_owned();
        return Err(OverlayError::Exists { path });
    }
    let terms = Terms {
        read_only: true,
        any_base: false,
    };
    let mut delta = open_delta(path, terms)?;
    let new = NewFile::begin(into).map_err(not_made(into))?;
    let capacity = delta.header().capacity;
    new.file()
        .set_len(capacity)
        .map_err(|error| io_error(into, "give a size to", error))?;
    let mut piece = vec![0; usize::try_from(PIECE_BYTES).unwrap_or_default()];
    let mut at = 0;
    while at < capacity {
        let len = capacity.saturating_sub(at).min(PIECE_BYTES);
        let bytes = usize::try_from(len).unwrap_or_default();
        let part = piece.get_mut(..bytes).unwrap_or_default();
        delta
            .copy(at, part)
            .map_err(|error| io_error(path, "read", error))?;
        if part.iter().any(|byte| *byte != 0) {
            new.file()
                .write_all_at(part, at)
                .map_err(|error| io_error(into, "write", error))?;
        }
        at = at.saturating_add(len);
    }
    new.finish().map_err(not_made(into))?;
    Ok(Committed { bytes: capacity })
}
