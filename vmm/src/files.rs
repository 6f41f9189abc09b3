//! Opens the files that a machine is made of, without waiting (a FIFO as kernel is an error and
//! not a hang) and with errors that name the field, the path and what to do.

mod image;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use api::spec::DiskFormat;
use devices::disk::{OpenProblem, open};
use devices::host;

use crate::config::{Config, DiskConfig};

pub use image::{Image, open_kernel, reads_acpi};

/// The guest that comes with Coracle.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its kernel, an ELF image or a bzImage.
    pub kernel: &'static [u8],
    /// Its system image, the bytes of its root disk.
    pub system: &'static [u8],
}

/// The open files of a machine.
#[derive(Debug)]
pub struct Files {
    /// The kernel image.
    pub kernel: Image,
    /// The initial RAM disk.
    pub initrd: Option<OpenFile>,
    /// The user's disks, in the order of [`Config::disks`].
    pub disks: Vec<File>,
    /// The system image of the built-in guest, where it is what starts.
    pub system: Option<&'static [u8]>,
}

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    /// The file, at its start.
    pub file: File,
    /// Its length in bytes.
    pub len: u64,
}

/// A file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{field} {}: {problem}", path.display())]
pub struct FileError {
    /// The field that names the file.
    pub field: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The host refuses to open it.
    #[error("can't be opened: {}", host::reason(.0))]
    Open(io::Error),
    /// It is no disk, or can't be used as one is asked to.
    #[error(transparent)]
    Disk(OpenProblem),
    /// It is something else than a file.
    #[error("is {0}, not a file")]
    Kind(&'static str),
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It can't be read.
    #[error("can't be read: {}", host::reason(.0))]
    Read(io::Error),
}

impl FileError {
    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self) -> String {
        let (field, path) = (self.field, self.path.display());
        match &self.problem {
            FileProblem::Open(error) | FileProblem::Read(error) => match error.kind() {
                io::ErrorKind::NotFound => format!("check the path of the {field}"),
                io::ErrorKind::PermissionDenied => {
                    format!("give yourself the right to it, as with `chmod u+r {path}`")
                }
                _ => format!("check that `head -c1 {path}` works"),
            },
            FileProblem::Disk(problem) => problem.remedy(&self.path),
            FileProblem::Kind(_) => format!("give the path of a file as {field}"),
            FileProblem::Empty => format!("check that the {field} was written completely"),
        }
    }
}

impl Files {
    /// Opens all that `config` names; `built_in` is used where it names no kernel.
    ///
    /// # Errors
    /// The first file that can't be used.
    pub fn open(config: &Config, built_in: BuiltIn) -> Result<Self, FileError> {
        let (kernel, system) = match &config.kernel {
            Some(kernel) => {
                let open = open_file("kernel", &kernel.path)?;
                (Image::File(open), None)
            }
            None => (Image::Memory(built_in.kernel), Some(built_in.system)),
        };
        let initrd = config
            .initrd
            .as_deref()
            .map(|path| open_file("initrd", path))
            .transpose()?;
        Ok(Self {
            kernel,
            initrd,
            disks: open_disks(config)?,
            system,
        })
    }
}

/// Opens the disks of `config`, in its order.
///
/// # Errors
/// The first that can't be used.
pub fn open_disks(config: &Config) -> Result<Vec<File>, FileError> {
    config.disks.iter().map(open_disk).collect()
}

/// Opens a file that only the command line reads, with the same care and errors.
///
/// # Errors
/// When it can't be used.
pub fn open_input(field: &'static str, path: &Path) -> Result<OpenFile, FileError> {
    open_file(field, path)
}

fn open_file(field: &'static str, path: &Path) -> Result<OpenFile, FileError> {
    let refuse = |problem| FileError {
        field,
        path: path.to_owned(),
        problem,
    };
    let fd = host::open(path, OFlags::RDONLY).map_err(|e| refuse(FileProblem::Open(e.into())))?;
    let open = measure(fd).map_err(refuse)?;
    match open.len {
        0 => Err(refuse(FileProblem::Empty)),
        _ => Ok(open),
    }
}

/// Opens a disk's image, as its machine will.
pub(crate) fn open_disk(disk: &DiskConfig) -> Result<File, FileError> {
    let refuse = |problem| FileError {
        field: "disk",
        path: disk.path.clone(),
        problem: FileProblem::Disk(problem),
    };
    let access = disk.access();
    let file = open::open_file(&disk.path, access).map_err(refuse)?;
    // The capacity of other formats is in their headers, which are read when the device is built.
    if disk.format == DiskFormat::Raw {
        open::check_capacity(&file).map_err(refuse)?;
    }
    Ok(file)
}

/// The length of a regular file.
fn measure(fd: OwnedFd) -> Result<OpenFile, FileProblem> {
    let stat = rustix::fs::fstat(&fd).map_err(|e| FileProblem::Read(e.into()))?;
    let len = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(0),
        other => return Err(FileProblem::Kind(host::name(other))),
    };
    Ok(OpenFile {
        file: fd.into(),
        len,
    })
}
