//! A file that appears under its name only when it is complete and on the disk.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::disk::overlay::error::OverlayError;
use crate::disk::overlay::files::{hex, io_error};
use crate::disk::overlay::header::DeltaId;

/// A file that is being written beside its final name. Dropped unfinished, it is removed.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: File,
    temporary: PathBuf,
    target: PathBuf,
    named: bool,
}

impl NewFile {
    pub(super) fn begin(target: &Path) -> Result<Self, OverlayError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let id = hex(&random(target)?);
        let temporary = target.with_file_name(format!(".{name}.{}", id.get(..8).unwrap_or(&id)));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = options
            .open(&temporary)
            .map_err(|error| io_error(target, "create", error))?;
        Ok(Self {
            file,
            temporary,
            target: target.to_owned(),
            named: false,
        })
    }

    /// Gives the file its name, which nothing may have yet.
    pub(super) fn finish(self) -> Result<(), OverlayError> {
        self.name(RenameFlags::NOREPLACE)
    }

    /// Gives the file its name and the permissions of what had it before.
    pub(super) fn replace(self, old: &File) -> Result<(), OverlayError> {
        let mode = old.metadata().map(|metadata| metadata.permissions().mode());
        mode.and_then(|mode| {
            self.file
                .set_permissions(Permissions::from_mode(mode & 0o7777))
        })
        .map_err(|error| io_error(&self.target, "give permissions to", error))?;
        self.name(RenameFlags::empty())
    }

    fn name(mut self, flags: RenameFlags) -> Result<(), OverlayError> {
        let failed = |doing| {
            let target = self.target.clone();
            move |error: io::Error| io_error(&target, doing, error)
        };
        self.file.sync_all().map_err(failed("write"))?;
        match renameat_with(CWD, &self.temporary, CWD, &self.target, flags) {
            Err(Errno::EXIST) => {
                let path = self.target.clone();
                return Err(OverlayError::Exists { path });
            }
            // File systems that cannot promise to replace nothing can link.
            Err(Errno::INVAL | Errno::NOSYS) if flags == RenameFlags::NOREPLACE => {
                self.link()?;
            }
            result => result.map_err(|error| failed("name")(error.into()))?,
        }
        self.named = true;
        sync_folder(&self.target).map_err(failed("write the folder of"))
    }

    fn link(&self) -> Result<(), OverlayError> {
        match std::fs::hard_link(&self.temporary, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = self.target.clone();
                Err(OverlayError::Exists { path })
            }
            Err(error) => Err(io_error(&self.target, "name", error)),
            Ok(()) => {
                let removed = std::fs::remove_file(&self.temporary);
                removed.map_err(|error| io_error(&self.temporary, "remove", error))
            }
        }
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

/// Something that no other delta has.
pub(super) fn random(path: &Path) -> Result<DeltaId, OverlayError> {
    let mut id = DeltaId::default();
    getrandom(&mut id, GetRandomFlags::empty())
        .map_err(|error| io_error(path, "get random numbers for", error.into()))?;
    Ok(id)
}
