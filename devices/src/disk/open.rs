//! Opens raw images: what is refused and why, who else may use one meanwhile, and how the host
//! likes it to be used.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::fs::{AtFlags, FileType, OFlags, SeekFrom, StatxFlags};

use super::direct::Alignment;
use super::{SECTOR_BYTES, Topology};
use crate::host::{self, open, reason};
use crate::sys::lock::{is_taken, share};

/// Alignment where the host does not tell.
const UNKNOWN_ALIGNMENT: Alignment = Alignment {
    memory: 4096,
    offset: 4096,
};
/// The largest blocks that a guest is told of.
const MOST_BLOCK_BYTES: u32 = 64 << 10;

/// How an image is to be used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Access {
    /// Only read it.
    pub read_only: bool,
    /// Past the host's page cache.
    pub direct: bool,
    /// What carries out its operations.
    pub engine: EngineChoice,
}

/// What carries out the operations of an image.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EngineChoice {
    /// System calls, one after the other.
    #[default]
    Sync,
    /// io_uring for what has to wait for a device, where the host has it.
    Auto,
    /// io_uring for everything, where the host has it.
    IoUring,
}

/// A disk image that cannot be used, and what to do about it after a semicolon.
#[derive(Debug)]
pub struct OpenError {
    /// The image.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: OpenProblem,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let remedy = self.problem.remedy(&self.path);
        write!(f, "disk {path}: {}; {remedy}", self.problem)
    }
}

impl std::error::Error for OpenError {}

/// What is wrong with a disk image.
#[derive(Debug, thiserror::Error)]
pub enum OpenProblem {
    /// The host refuses to open it.
    #[error("can't be opened: {}", reason(.0))]
    Open(io::Error),
    /// It can be read and not written.
    #[error("can't be opened for writing: {}", reason(.0))]
    ReadOnly(io::Error),
    /// The file system or device under it has no transfers past the page cache.
    #[error("can't be used with direct=on: {}", reason(.0))]
    NotDirect(io::Error),
    /// A directory, a pipe or the like.
    #[error("is {0}, not a file")]
    Kind(&'static str),
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// A length that no disk has.
    #[error("is {0} bytes long, which is not a multiple of 512")]
    Ragged(u64),
    /// A length that cannot be written past the page cache.
    #[error("is {bytes} bytes long, and direct=on wants a multiple of {to}")]
    Unaligned {
        /// The length.
        bytes: u64,
        /// What the host wants.
        to: u64,
    },
    /// Another program has it.
    #[error("is in use by another virtual machine or image tool")]
    Locked,
    /// Something else.
    #[error("can't be {doing}: {}", reason(error))]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl OpenProblem {
    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Open(error) => match error.kind() {
                ErrorKind::NotFound => {
                    format!("check the path of the disk, or create it with `truncate -s 1G {path}`")
                }
                ErrorKind::PermissionDenied => {
                    format!("give yourself the right to it, as with `chmod u+r {path}`")
                }
                _ => format!("check that `head -c1 {path}` works"),
            },
            Self::ReadOnly(_) => "add `,ro` to the disk, or make the file writable".to_owned(),
            Self::NotDirect(_) => {
                "leave direct=on out, or move it to another file system".to_owned()
            }
            Self::Kind(_) => "give the path of a file or block device as disk".to_owned(),
            Self::Empty => format!("give it a size with `truncate -s 1G {path}`"),
            Self::Ragged(bytes) => lengthen(*bytes, SECTOR_BYTES, &path),
            Self::Unaligned { bytes, to } => lengthen(*bytes, *to, &path),
            Self::Locked => {
                "stop that one, use a copy, or attach it with ,ro everywhere".to_owned()
            }
            Self::Io { .. } => format!("check that `head -c1 {path}` works"),
        }
    }
}

fn lengthen(bytes: u64, to: u64, path: &dyn fmt::Display) -> String {
    let whole = bytes.checked_next_multiple_of(to).unwrap_or(bytes);
    format!(
        "lengthen it with `truncate -s {whole} {path}`; other formats than raw disks must be \
         converted"
    )
}

/// Opens a file or block device to be used as `access` says, without waiting for anybody.
///
/// # Errors
/// When there is none, or the user may not use it so.
pub fn open_file(path: &Path, access: Access) -> Result<File, OpenProblem> {
    let rights = if access.read_only {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    let direct = if access.direct {
        OFlags::DIRECT
    } else {
        OFlags::empty()
    };
    let error = match open(path, rights | direct) {
        Ok(fd) => {
            let file = File::from(fd);
            is_device(&file)?;
            return Ok(file);
        }
        Err(error) => error,
    };
    // Opened in the plainest way, it tells what it is and which wish was too much.
    let plain = open(path, OFlags::RDONLY).map_err(|e| OpenProblem::Open(e.into()))?;
    is_device(&File::from(plain))?;
    if access.direct && open(path, rights).is_ok() {
        return Err(OpenProblem::NotDirect(error.into()));
    }
    Err(OpenProblem::ReadOnly(error.into()))
}

/// Whether it is a block device, or a file; nothing else is a disk.
fn is_device(file: &File) -> Result<bool, OpenProblem> {
    let stat = rustix::fs::fstat(file).map_err(|error| io_problem("looked at", error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(false),
        FileType::BlockDevice => Ok(true),
        other => Err(OpenProblem::Kind(host::name(other))),
    }
}

fn io_problem(doing: &'static str, error: impl Into<io::Error>) -> OpenProblem {
    let error = error.into();
    OpenProblem::Io { doing, error }
}

/// What is known of an image.
pub(super) struct OpenImage {
    pub(super) bytes: u64,
    pub(super) topology: Topology,
    /// Where the page cache is passed by.
    pub(super) alignment: Option<Alignment>,
}

/// Judges and locks an open file.
pub(super) fn judge(file: &File, access: Access) -> Result<OpenImage, OpenProblem> {
    let is_device = is_device(file)?;
    lock(file, access.read_only).map_err(|error| match error {
        TryLockError::WouldBlock => OpenProblem::Locked,
        TryLockError::Error(error) => io_problem("locked", error),
    })?;
    let alignment = access.direct.then(|| alignment(file, is_device));
    let bytes = measure(file)?;
    check_length(bytes, alignment)?;
    Ok(OpenImage {
        bytes,
        topology: topology(file, is_device),
        alignment,
    })
}

/// The length in bytes, which a block device has only at its end.
pub(super) fn measure(file: &File) -> Result<u64, OpenProblem> {
    rustix::fs::seek(file, SeekFrom::End(0)).map_err(|error| io_problem("measured", error))
}

/// Whether an open file is as long as a raw disk can be.
///
/// # Errors
/// When it is not.
pub fn check_capacity(file: &File) -> Result<(), OpenProblem> {
    check_length(measure(file)?, None)
}

/// Whether a disk can be so long.
pub(super) fn check_length(bytes: u64, alignment: Option<Alignment>) -> Result<(), OpenProblem> {
    if bytes == 0 {
        return Err(OpenProblem::Empty);
    }
    if !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(OpenProblem::Ragged(bytes));
    }
    match alignment.map(|alignment| alignment.offset) {
        Some(to) if !bytes.is_multiple_of(to) => Err(OpenProblem::Unaligned { bytes, to }),
        _ => Ok(()),
    }
}

fn alignment(file: &File, is_device: bool) -> Alignment {
    let told = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let told = told.filter(|stat| {
        let mask = StatxFlags::from_bits_retain(stat.stx_mask);
        mask.contains(StatxFlags::DIOALIGN) && stat.stx_dio_offset_align != 0
    });
    let (memory, offset) = match told {
        Some(stat) => (stat.stx_dio_mem_align, stat.stx_dio_offset_align),
        None if is_device => {
            let Ok(logical) = rustix::fs::ioctl_blksszget(file) else {
                return UNKNOWN_ALIGNMENT;
            };
            (logical, logical)
        }
        None => return UNKNOWN_ALIGNMENT,
    };
    let sane = |bytes: u32| {
        let bytes = u64::from(bytes);
        if bytes.is_power_of_two() { bytes } else { 4096 }
    };
    Alignment {
        memory: sane(memory),
        offset: sane(offset).max(SECTOR_BYTES),
    }
}

fn topology(file: &File, is_device: bool) -> Topology {
    let sane = |bytes: u32, least: u32| {
        if bytes.is_power_of_two() {
            bytes.clamp(least, MOST_BLOCK_BYTES)
        } else {
            least
        }
    };
    if is_device {
        let logical = rustix::fs::ioctl_blksszget(file).unwrap_or(512);
        let logical = sane(logical, 512);
        let physical = rustix::fs::ioctl_blkpbszget(file).unwrap_or(logical);
        return Topology {
            logical,
            physical: sane(physical, logical),
            optimal: 0,
        };
    }
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let block = stat.map_or(4096, |stat| stat.stx_blksize);
    let liked = sane(block, 512);
    Topology {
        logical: 512,
        // A network file system tells a length that it likes, which is no block.
        physical: liked.min(4096),
        optimal: if liked > 4096 { liked } else { 0 },
    }
}

/// Bytes of an image that QEMU locks for what it does with it, and for what it does not allow
/// others. Each use has a bit; its byte is locked, shared, by whoever has that use.
const USED: u64 = 100;
const REFUSED: u64 = 200;
/// To read what was written.
const READ: u64 = 0;
/// To write.
const WRITE: u64 = 1;
/// To change the length.
const RESIZE: u64 = 3;

/// How long somebody who has an image is waited for: the kernel closes the files of an io_uring
/// only a while after the process that had it is gone.
const PATIENCE: Duration = Duration::from_millis(500);
const BETWEEN_TRIES: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// Takes the lock that all images have while they are open: one writer, or any number of readers.
/// QEMU and its tools understand it. Who has it is waited for a moment.
pub(super) fn lock(file: &File, shared: bool) -> Result<(), TryLockError> {
    let began = Instant::now();
    loop {
        match try_lock(file, shared) {
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                // Only its time counts.
                let _ = poll(&mut [], Some(&BETWEEN_TRIES));
            }
            result => return result,
        }
    }
}

fn try_lock(file: &File, shared: bool) -> Result<(), TryLockError> {
    let mine: &[u64] = if shared { &[READ] } else { &[READ, WRITE] };
    let used = mine.iter().map(|bit| USED.saturating_add(*bit));
    let refused = [WRITE, RESIZE].map(|bit| REFUSED.saturating_add(bit));
    for byte in used.chain(refused) {
        share(file, byte).map_err(|error| match error.kind() {
            // Somebody locks the whole file for himself. POSIX allows either number.
            ErrorKind::WouldBlock | ErrorKind::PermissionDenied => TryLockError::WouldBlock,
            _ => TryLockError::Error(error),
        })?;
    }
    let refused = mine.iter().map(|bit| REFUSED.saturating_add(*bit));
    let used = [WRITE, RESIZE].map(|bit| USED.saturating_add(bit));
    for byte in refused.chain(used) {
        if is_taken(file, byte).map_err(TryLockError::Error)? {
            return Err(TryLockError::WouldBlock);
        }
    }
    Ok(())
}
