//! Where machines are found: a folder for each, `$XDG_RUNTIME_DIR/coracle/machines/NAME`, with its
//! socket and a record of what runs it.
//!
//! A machine's process holds a lock in its folder, which ends with the process however that ends.
//! A folder whose lock nobody holds is what a machine left that was killed, and is swept by whoever
//! comes across it; nothing else than what a machine puts there is ever removed.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use api::machine::MachineRecord;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::failure::Failure;

const SOCKET: &str = "api.sock";
const RECORD: &str = "record.json";
const NEW_RECORD: &str = "record.new";
const LOCK: &str = "lock";

/// All that a machine puts into its folder beside the lock.
const OURS: [&str; 3] = [SOCKET, RECORD, NEW_RECORD];

/// The longest name.
const MOST_NAME_BYTES: usize = 64;

/// Names that are tried for a machine that was given none.
const TRIES: u32 = 100;

/// A record is shorter; what is longer is none.
const RECORD_BYTES: u64 = 64 << 10;

/// The folder of this user's machines.
#[derive(Debug)]
pub(crate) struct Registry {
    folder: PathBuf,
}

/// Why there is no folder of one's own.
#[derive(Debug)]
enum Refused {
    /// The name is another machine's.
    InUse,
    /// The host's reason.
    Host(io::Error),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        Self::Host(error.into())
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl Registry {
    /// That of this user.
    pub(crate) fn of_user() -> Self {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let user = rustix::process::geteuid();
        let base = match runtime.filter(|path| path.is_absolute()) {
            Some(path) => path.join("coracle"),
            None if user.is_root() => PathBuf::from("/run/coracle"),
            None => PathBuf::from(format!("/tmp/coracle-{}", user.as_raw())),
        };
        Self::at(&base)
    }

    /// Below a folder.
    pub(crate) fn at(base: &Path) -> Self {
        Self {
            folder: base.join("machines"),
        }
    }

    /// A folder for a machine, which is called `name` or, without one, after its process.
    ///
    /// # Errors
    /// When the name is no name or another machine's, or the host has no place.
    pub(crate) fn claim(&self, name: Option<&str>) -> Result<Claim, Failure> {
        if let Some(name) = name {
            check_name(name)?;
            return self
                .try_claim(name)
                .map_err(|refused| self.explain(name, &refused));
        }
        let pid = std::process::id();
        for number in 1..=TRIES {
            let name = match number {
                1 => format!("vm-{pid}"),
                _ => format!("vm-{pid}-{number}"),
            };
            match self.try_claim(&name) {
                // Another container's process of the same number.
                Err(Refused::InUse) => {}
                other => return other.map_err(|refused| self.explain(&name, &refused)),
            }
        }
        Err(Failure::host(
            format!("no name is free for process {pid}"),
            "give one with --name",
        ))
    }

    fn explain(&self, name: &str, refused: &Refused) -> Failure {
        match refused {
            Refused::InUse => Failure::input(
                format!("a machine that is called {name} runs already"),
                "give another --name; `coracle machine ls` lists what runs",
            ),
            Refused::Host(error) => Failure::host(
                format!(
                    "machine {name} has no place in {}: {error}",
                    self.folder.display()
                ),
                "set XDG_RUNTIME_DIR to a folder that is yours alone",
            ),
        }
    }

    fn try_claim(&self, name: &str) -> Result<Claim, Refused> {
        self.make()?;
        let folder = self.folder.join(name);
        loop {
            match private_folder(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error.into());
                }
                _ => {}
            }
            let lock = match open_lock(&folder, OFlags::CREATE) {
                // Somebody has just swept it.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(Refused::InUse),
                other => other?,
            }
            // Whoever sweeps holds the lock meanwhile, so what is there now stays.
            if is_at(&lock, &folder.join(LOCK)) {
                clear(&folder);
                let name = name.to_owned();
                return Ok(Claim { name, folder, lock });
            }
        }
    }

    /// Makes the folder itself, which nobody else may write to.
    fn make(&self) -> io::Result<()> {
        let base = self.folder.parent().unwrap_or(&self.folder);
        for folder in [base, &self.folder] {
            match private_folder(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::fs::create_dir_all(folder.parent().unwrap_or(folder))?;
                    private_folder(folder)?;
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let found = std::fs::symlink_metadata(base)?;
        let user = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != user || found.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!(
                "{} is not a folder that only you may write to",
                base.display()
            )));
        }
        Ok(())
    }

    /// All machines that run, by their names. What killed ones left is swept.
    ///
    /// # Errors
    /// When the folder cannot be read; one that is not there has no machines.
    pub(crate) fn all(&self) -> Result<Vec<MachineRecord>, Failure> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| {
                let folder = self.folder.display();
                Failure::host(
                    format!("the machines in {folder} can't be listed: {error}"),
                    "check who may read the folder",
                )
            })?,
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let names = names.filter_map(|name| name.into_string().ok());
        let mut found: Vec<_> = names.filter_map(|name| self.look(&name)).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The machine of a name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find(&self, name: &str) -> Result<MachineRecord, Failure> {
        check_name(name)?;
        self.look(name).ok_or_else(|| {
            Failure::input(
                format!("no machine is called {name}"),
                "`coracle machine ls` lists what runs",
            )
        })
    }

    /// The record of a machine that runs. One that is just starting has none yet.
    fn look(&self, name: &str) -> Option<MachineRecord> {
        let folder = self.folder.join(name);
        let lock = match open_lock(&folder, OFlags::empty()) {
            Ok(lock) => lock,
            Err(Errno::NOENT) => {
                // An empty one is nobody's, and made again by who is just making it.
                let _ = std::fs::remove_dir(&folder);
                return None;
            }
            Err(_) => return None,
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {}
            Ok(()) => {
                if is_at(&lock, &folder.join(LOCK)) {
                    sweep(&folder);
                }
                return None;
            }
            Err(_) => return None,
        }
        let path = folder.join(RECORD);
        let size = std::fs::symlink_metadata(&path).ok()?;
        if !size.is_file() || size.len() > RECORD_BYTES {
            return None;
        }
        let record: MachineRecord = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        (record.name == name).then_some(record)
    }
}

/// A folder of its own, as long as the machine runs.
#[derive(Debug)]
pub(crate) struct Claim {
    name: String,
    folder: PathBuf,
    /// Holds the lock.
    #[expect(dead_code, reason = "held, not read")]
    lock: OwnedFd,
}

impl Claim {
    /// What the machine is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its socket belongs.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// Lets others find the machine, whose API is at `socket`.
    ///
    /// # Errors
    /// The host's reason.
    pub(crate) fn publish(&self, socket: &Path) -> io::Result<()> {
        let record = MachineRecord {
            name: self.name.clone(),
            pid: std::process::id(),
            start_time: super::process::start_time_of_self()?,
            socket: std::path::absolute(socket)?,
            created_ms: super::process::now_ms(),
        };
        // Whole or not there at all.
        let new = self.folder.join(NEW_RECORD);
        std::fs::write(&new, serde_json::to_vec(&record)?)?;
        std::fs::rename(&new, self.folder.join(RECORD))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        sweep(&self.folder);
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

fn open_lock(folder: &Path, create: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | create;
    rustix::fs::openat(&folder, LOCK, flags, Mode::RUSR | Mode::WUSR)
}

/// Whether the file that was opened is the one at `path`.
fn is_at(opened: &OwnedFd, path: &Path) -> bool {
    let there = std::fs::symlink_metadata(path);
    let mine = rustix::fs::fstat(opened);
    mine.ok()
        .zip(there.ok())
        .is_some_and(|(mine, there)| (mine.st_dev, mine.st_ino) == (there.dev(), there.ino()))
}

/// Removes a folder with what its machine, which held the lock or whose lock is held now, put
/// there. What else is in it stays.
fn sweep(folder: &Path) {
    clear(folder);
    let _ = std::fs::remove_file(folder.join(LOCK));
    let _ = std::fs::remove_dir(folder);
}

/// Removes what a machine puts into its folder beside the lock.
fn clear(folder: &Path) {
    for name in OURS {
        // Mostly there is nothing.
        let _ = std::fs::remove_file(folder.join(name));
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let bytes = std::ffi::OsStr::new(name).as_bytes();
    let first = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    if first && bytes.len() <= MOST_NAME_BYTES && bytes.iter().all(|byte| good(*byte)) {
        return Ok(());
    }
    Err(Failure::input(
        format!("{name:?} is no name of a machine"),
        "use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first",
    ))
}
