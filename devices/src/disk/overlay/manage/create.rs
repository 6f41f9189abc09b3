//! New disks: deltas over a base, raw images, and a delta's return to its base.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::disk::SECTOR_BYTES;
use crate::disk::overlay::error::OverlayError;
use crate::disk::overlay::files::{
    OpenBase, io_error, locked_header, new_id, not_made, open, open_base,
};
use crate::disk::overlay::header::{BaseFormat, BaseRef, COPIES, Header};
use crate::disk::overlay::layout::Layout;
use crate::new_file::NewFile;

/// What a new delta is to be.
#[derive(Clone, Debug)]
pub struct NewDelta {
    /// The base. Its absolute path goes into the delta.
    pub base: PathBuf,
    /// The base's format.
    pub format: BaseFormat,
    /// The capacity in bytes, if it is not the base's; what lies beyond the base is zeroes.
    pub capacity: Option<u64>,
    /// The bytes of a cluster, if they are not to follow from the capacity.
    pub cluster_bytes: Option<u32>,
}

/// Makes an empty delta. It costs a few blocks, whatever the size of the base.
///
/// # Errors
/// When the base cannot be used or is being written, something has the path already, or the host
/// cannot write it.
pub fn create(path: &Path, new: &NewDelta) -> Result<Header, OverlayError> {
    if path.symlink_metadata().is_ok() {
        let path = path.to_owned();
        return Err(OverlayError::Exists { path });
    }
    let open = open_base(&new.base, new.format, 2)?;
    let base = base_ref(&new.base, new.format, &open)?;
    let capacity = new.capacity.unwrap_or(base.bytes);
    if base.bytes > capacity {
        return Err(OverlayError::Small {
            path: new.base.clone(),
            base: base.bytes,
            capacity,
            hint: "give a larger --size, or leave it out",
        });
    }
    let cluster_bytes = new.cluster_bytes.unwrap_or(Layout::cluster_for(capacity));
    let header = Header {
        generation: 1,
        id: new_id(path)?,
        committing: false,
        capacity,
        cluster_bytes,
        base,
    };
    let new = write(path, &header)?;
    new.finish().map_err(not_made(path))?;
    Ok(header)
}

/// How a header names an open base.
pub(super) fn base_ref(
    path: &Path,
    format: BaseFormat,
    open: &OpenBase,
) -> Result<BaseRef, OverlayError> {
    let full = path
        .canonicalize()
        .map_err(|error| io_error(path, "find the full path of", error))?;
    Ok(BaseRef {
        format,
        path: full,
        bytes: open.base.bytes(),
        identity: open.identity,
    })
}

/// An empty delta with this header, complete but for its name.
pub(super) fn write(path: &Path, header: &Header) -> Result<NewFile, OverlayError> {
    let capacity = header.capacity;
    let impossible = |_| OverlayError::Capacity {
        path: path.to_owned(),
        capacity,
    };
    let bytes = header.encode().map_err(impossible)?;
    let layout = Layout::new(capacity, header.cluster_bytes).map_err(impossible)?;
    let new = NewFile::begin(path).map_err(not_made(path))?;
    let written = new.file().set_len(layout.file_bytes).and_then(|()| {
        std::os::unix::fs::FileExt::write_all_at(new.file(), &bytes.repeat(COPIES), 0)
    });
    written.map_err(|error| io_error(path, "write", error))?;
    Ok(new)
}

/// Makes a raw image of zeroes.
///
/// # Errors
/// When something has the path already, or the host cannot write it.
pub fn create_raw(path: &Path, bytes: u64) -> Result<(), OverlayError> {
    if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
        let path = path.to_owned();
        return Err(OverlayError::Length { path, bytes });
    }
    if path.symlink_metadata().is_ok() {
        let path = path.to_owned();
        return Err(OverlayError::Exists { path });
    }
    let new = NewFile::begin(path).map_err(not_made(path))?;
    let sized = new.file().set_len(bytes);
    sized.map_err(|error| io_error(path, "give that size to", error))?;
    new.finish().map_err(not_made(path))
}

/// Drops all that a delta holds: it reads as its base does now, at once and whatever its size.
///
/// # Errors
/// When it is in use, or its base is, or the host cannot write.
pub fn reset(path: &Path) -> Result<(), OverlayError> {
    let path = &real(path)?;
    let file = open(path, true)?;
    let header = locked_header(&file, path, false)?;
    if header.committing {
        let path = path.clone();
        return Err(OverlayError::Committing { path });
    }
    let open = open_base(&header.base.path, header.base.format, 2)?;
    emptied(path, &file, &header, &open)
}

/// Puts an empty delta over this base in the place of `file`, which the caller has locked.
pub(super) fn emptied(
    path: &Path,
    file: &File,
    header: &Header,
    open: &OpenBase,
) -> Result<(), OverlayError> {
    let header = Header {
        generation: 1,
        id: new_id(path)?,
        committing: false,
        base: base_ref(&header.base.path, header.base.format, open)?,
        ..header.clone()
    };
    if header.base.bytes > header.capacity {
        return Err(OverlayError::Small {
            path: header.base.path,
            base: header.base.bytes,
            capacity: header.capacity,
            hint: "make a new delta over it",
        });
    }
    let new = write(path, &header)?;
    new.replace_like(file).map_err(not_made(path))
}

/// A file is replaced where it is, not where a link to it is.
pub(super) fn real(path: &Path) -> Result<PathBuf, OverlayError> {
    path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => OverlayError::Missing {
            path: path.to_owned(),
            hint: "",
        },
        _ => io_error(path, "find", error),
    })
}
