//! Why an overlay cannot be used, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::files::MOST_DELTAS;
use super::header::{BaseFormat, HeaderError};

/// A delta or a base that cannot be used so. The message is the problem, then a semicolon and the
/// remedy.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A file operation failed.
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
    /// Nothing is there.
    #[error("disk {}: no such file; check the path{hint}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// What else can be done.
        hint: &'static str,
    },
    /// Something is there already.
    #[error("disk {}: exists already; remove it, or choose another path", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A directory, a pipe or the like.
    #[error("disk {}: is not {wanted}; check the path", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it must be.
        wanted: &'static str,
    },
    /// The header is bad.
    #[error("disk {}: {error}; {hint}", path.display())]
    Header {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        error: HeaderError,
        /// What to do.
        hint: &'static str,
    },
    /// The file ends too early.
    #[error("disk {}: is {bytes} bytes long, its header needs {needs}; copy it again, it was cut \
        short", path.display())]
    CutShort {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length that it must have.
        needs: u64,
    },
    /// A map block is damaged.
    #[error("disk {}: map block {block} is damaged: {what}; restore the file from a copy, or \
        `coracle disk reset` drops all changes", path.display())]
    Map {
        /// The path.
        path: PathBuf,
        /// The number of the block.
        block: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another process has it.
    #[error("disk {}: is in use by another virtual machine or command; stop that one, or use \
        another copy", path.display())]
    Locked {
        /// The path.
        path: PathBuf,
    },
    /// It was renamed over between opening and locking.
    #[error("disk {}: was replaced while it was being opened; try again", path.display())]
    Replaced {
        /// The path.
        path: PathBuf,
    },
    /// The base is not the one that the delta was made over.
    #[error("disk {}: its base {} has changed: {field} is {found}, was {expected}; restore the \
        base, or if its content is the same: coracle disk rebase --unchecked", path.display(),
        base.display())]
    BaseChanged {
        /// The delta.
        path: PathBuf,
        /// The base.
        base: PathBuf,
        /// What differs.
        field: &'static str,
        /// What it is now.
        found: String,
        /// What the delta says.
        expected: String,
    },
    /// A commit began and did not end.
    #[error("disk {at}: a commit of it was interrupted; finish it with: coracle disk commit \
        {at}", at = path.display())]
    Committing {
        /// The delta.
        path: PathBuf,
    },
    /// Too many deltas over each other, or a delta that is its own base.
    #[error("disk {}: is more than {MOST_DELTAS} deltas deep; merge some with: coracle disk \
        commit", path.display())]
    Deep {
        /// The delta at which it was too much.
        path: PathBuf,
    },
    /// A base of no usable length.
    #[error("disk {}: {bytes} bytes are no disk's length; extend it to a multiple of 512",
        path.display())]
    Length {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The delta would be smaller than its base.
    #[error("disk {}: the base has {base} bytes, more than the delta's {capacity}; {hint}",
        path.display())]
    Small {
        /// The base.
        path: PathBuf,
        /// The base's capacity.
        base: u64,
        /// The delta's.
        capacity: u64,
        /// What to do.
        hint: &'static str,
    },
    /// A capacity that no delta has.
    #[error("disk {}: cannot hold {capacity} bytes; choose a multiple of 512 up to 64 TiB",
        path.display())]
    Capacity {
        /// The path.
        path: PathBuf,
        /// What was asked for.
        capacity: u64,
    },
    /// A base whose format cannot be written.
    #[error("disk {}: its base is {format}, which is never written; merge into a new raw image \
        with: coracle disk commit --into NEW", path.display())]
    Fixed {
        /// The delta.
        path: PathBuf,
        /// The base's format.
        format: BaseFormat,
    },
    /// The base's own format refuses it.
    #[error(transparent)]
    Qcow2(#[from] crate::disk::qcow2::Qcow2Error),
}

impl OverlayError {
    /// Whether the host is to blame, and not the files or what was asked.
    #[must_use]
    pub fn is_host(&self) -> bool {
        match self {
            Self::Io { error, .. } => !matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
            ),
            _ => false,
        }
    }
}
