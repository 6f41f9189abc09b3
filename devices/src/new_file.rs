//! A file that appears under its name only when it is complete and on the disk.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// Something that no other file has.
pub type Id = [u8; 16];

/// A file that is being written beside its final name. Dropped unfinished, it is removed.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    named: bool,
}

/// What could not be done with a new file. Nothing has its name then that did not have it before.
#[derive(Debug, thiserror::Error)]
#[error("can't {doing} it")]
pub struct NewFileError {
    /// What was attempted, an infinitive.
    pub doing: &'static str,
    /// The host's reason.
    #[source]
    pub cause: io::Error,
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> NewFileError {
    move |cause| NewFileError { doing, cause }
}

impl NewFile {
    /// Begins the file that is to be at `target`.
    ///
    /// # Errors
    /// When there can be no file in that folder.
    pub fn begin(target: &Path) -> Result<Self, NewFileError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let id = random_id().map_err(failed("get random numbers for"))?;
        let [a, b, c, d, ..] = id;
        let id = u32::from_be_bytes([a, b, c, d]);
        let temporary = target.with_file_name(format!(".{name}.{id:08x}"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = options.open(&temporary).map_err(failed("create"))?;
        Ok(Self {
            file,
            temporary,
            target: target.to_owned(),
            named: false,
        })
    }

    /// What is written.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name, which nothing may have yet.
    ///
    /// # Errors
    /// When something has ([`io::ErrorKind::AlreadyExists`]), or the host does not keep the file.
    pub fn finish(self) -> Result<(), NewFileError> {
        self.name(RenameFlags::NOREPLACE)
    }

    /// Gives the file its name, whatever has had it. Who has that open goes on with it.
    ///
    /// # Errors
    /// When the host does not keep the file.
    pub fn replace(self) -> Result<(), NewFileError> {
        self.name(RenameFlags::empty())
    }

    /// As [`replace`](Self::replace), with the permissions of `old`.
    ///
    /// # Errors
    /// When the host does not keep the file.
    pub fn replace_like(self, old: &File) -> Result<(), NewFileError> {
        let mode = old.metadata().map(|metadata| metadata.permissions().mode());
        mode.and_then(|mode| {
            self.file
                .set_permissions(Permissions::from_mode(mode & 0o7777))
        })
        .map_err(failed("give permissions to"))?;
        self.replace()
    }

    fn name(mut self, flags: RenameFlags) -> Result<(), NewFileError> {
        self.file.sync_all().map_err(failed("write"))?;
        match renameat_with(CWD, &self.temporary, CWD, &self.target, flags) {
            // File systems that cannot promise to replace nothing can link.
            Err(Errno::INVAL | Errno::NOSYS) if flags == RenameFlags::NOREPLACE => {
                self.link()?;
            }
            result => result.map_err(|error| failed("name")(error.into()))?,
        }
        self.named = true;
        sync_folder(&self.target).map_err(failed("write the folder of"))
    }

    fn link(&self) -> Result<(), NewFileError> {
        std::fs::hard_link(&self.temporary, &self.target).map_err(failed("name"))?;
        std::fs::remove_file(&self.temporary).map_err(failed("remove the temporary name of"))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.named {
            // There is nobody to tell, and the error that led here says more.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// An identity that nothing else has.
///
/// # Errors
/// When the host has no random numbers.
pub fn random_id() -> io::Result<Id> {
    let mut id = Id::default();
    getrandom(&mut id, GetRandomFlags::empty())?;
    Ok(id)
}
