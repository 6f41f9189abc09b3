//! What goes wrong when a machine is saved, or made from what was saved.

use std::io;
use std::path::{Path, PathBuf};

use devices::new_file::NewFileError;

use super::devices::DeviceNotSaved;
use super::format::FormatError;
use crate::kvm::KvmError;

/// A machine that was not saved. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// KVM does not tell all of it.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A device does not stand still.
    #[error(transparent)]
    Device(#[from] DeviceNotSaved),
    /// A vCPU's thread is gone or hangs.
    #[error("a vCPU does not tell its state")]
    Cpus,
    /// The host has no thread for it.
    #[error("starting the thread that writes the memory failed")]
    Thread(#[source] io::Error),
    /// It went on while it was saved.
    #[error("the machine went on before all of it was saved")]
    Moved,
    /// The host does not keep a file.
    #[error("snapshot file {}: can't {doing} it", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was attempted.
        doing: &'static str,
        /// The host's reason.
        #[source]
        cause: io::Error,
    },
}

impl SaveError {
    pub(super) fn of(path: &Path) -> impl Fn(NewFileError) -> Self {
        move |error| Self::File {
            path: path.to_owned(),
            doing: error.doing,
            cause: error.cause,
        }
    }

    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        let doing = "write";
        move |cause| Self::of(path)(NewFileError { doing, cause })
    }

    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Moved => "pause it and save it again",
            Self::Thread(_) => "let this user have more threads (ulimit -u)",
            Self::Kvm(_) | Self::Cpus | Self::Device(_) => "the monitor's log may tell more",
            Self::File { cause, .. } => match cause.kind() {
                io::ErrorKind::NotFound => "make the folder first",
                io::ErrorKind::PermissionDenied => "name a folder that you may write to",
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room: the memory of the guest has to fit"
                }
                _ => "check the disk that it is on",
            },
        }
    }
}

/// Files that no machine can be made of here.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that can't be read.
    #[error("snapshot file {}: can't be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The host's reason.
        #[source]
        cause: io::Error,
    },
    /// The state is damaged, or of another version.
    #[error("snapshot file {}: {cause}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: FormatError,
    },
    /// A memory file that is not the one that the state belongs to.
    #[error("memory file {}: {problem}", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: MemoryProblem,
    },
    /// Its description can't be read by this version.
    #[error("the snapshot's description of the machine makes no sense")]
    Description,
    /// The same description gives another machine now.
    #[error("the snapshot's machine had {saved}, this version would give it {here}")]
    Layout {
        /// What was.
        saved: String,
        /// What would be.
        here: String,
    },
    /// The built-in guest is another.
    #[error("the snapshot's built-in guest is not the one of this version")]
    System,
    /// A disk is not as it was when the machine was saved.
    #[error("disk {} was written after the machine was saved, or is another", .0.display())]
    Disk(PathBuf),
    /// The host's CPUs lack what the guest has seen.
    #[error("this host's CPUs lack what the guest was saved with: {0}")]
    Cpu(String),
}

/// What is wrong with a memory file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryProblem {
    /// It is shorter or longer than the machine's memory.
    #[error("it has {found} bytes instead of {expected}")]
    Length {
        /// What it has.
        found: u64,
        /// What it should have.
        expected: u64,
    },
    /// It was saved at another time, or of another machine.
    #[error("it belongs to another snapshot")]
    Other,
    /// It was changed.
    #[error("it is damaged: the checksum of the 2 MiB from {at:#x} on does not match")]
    Checksum {
        /// Where in the file.
        at: u64,
    },
}

impl LoadError {
    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read { .. } => "check the path of the snapshot",
            Self::Format { cause, .. } => match cause {
                FormatError::NotSnapshot => "give the file that `snapshot create` wrote",
                FormatError::Version { .. } | FormatError::SectionVersion { .. } => {
                    "restore it with the version that wrote it, or save the machine anew"
                }
                _ => "save the machine anew",
            },
            Self::Memory { .. } => "give the memory file that was saved with the state",
            Self::Description | Self::Layout { .. } | Self::System => {
                "restore it with the version that wrote it, or save the machine anew"
            }
            Self::Disk(_) => "keep a copy of the disks with the snapshot and put it back",
            Self::Cpu(_) => "restore it on a host with the same CPUs, or save the machine here",
        }
    }
}
