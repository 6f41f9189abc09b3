//! The unix socket of a machine's API: made with care for what is at its path, removed at its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Longest path of a unix socket: Linux has 108 bytes for it, one of which ends it.
pub const MOST_PATH_BYTES: usize = 107;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 32;

/// A socket that cannot be made at a path.
#[derive(Debug, thiserror::Error)]
#[error("api socket {}: {problem}", path.display())]
pub struct SocketError {
    /// The path.
    pub path: PathBuf,
    /// Why.
    pub problem: SocketProblem,
}

/// Why a socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketProblem {
    /// No path at all.
    #[error("is empty")]
    Empty,
    /// A path that no unix socket can have.
    #[error(
        "is {0} bytes long, more than the {MOST_PATH_BYTES} that a unix socket's path can have"
    )]
    TooLong(usize),
    /// Something else than a socket is there.
    #[error("is {0}, not a socket")]
    Taken(&'static str),
    /// Another process answers there.
    #[error("is in use by another process")]
    InUse,
    /// The folder is missing, not writable, or the host failed otherwise.
    #[error("can't be made: {0}")]
    Host(#[source] io::Error),
}

impl SocketError {
    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self) -> String {
        let folder = folder_of(&self.path);
        match &self.problem {
            SocketProblem::Empty => "give it a path such as /run/coracle/api.sock".to_owned(),
            SocketProblem::TooLong(_) => {
                "give a shorter path, or one relative to the current folder".to_owned()
            }
            SocketProblem::Taken(_) => {
                "give a path at which nothing is; only a socket that nobody answers is replaced"
                    .to_owned()
            }
            SocketProblem::InUse => "give each machine a path of its own".to_owned(),
            SocketProblem::Host(error) => match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("make its folder, `mkdir -p {}`", folder.display())
                }
                io::ErrorKind::PermissionDenied => {
                    format!(
                        "give a path in a folder that you may write to; see `ls -ld {}`",
                        folder.display()
                    )
                }
                _ => "give a path in a folder of a local file system".to_owned(),
            },
        }
    }
}

/// A listening socket, whose file goes with it.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file, so that no other one is removed.
    made: Option<(u64, u64)>,
}

impl Listener {
    /// Makes a socket at `path`, which only its owner may use. A socket there that nobody answers,
    /// as a killed machine leaves it, is replaced.
    ///
    /// # Errors
    /// [`SocketError`] says what is there or what the host refused.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let refuse = |problem| SocketError {
            path: path.to_owned(),
            problem,
        };
        let len = path.as_os_str().len();
        if len == 0 {
            return Err(refuse(SocketProblem::Empty));
        }
        if len > MOST_PATH_BYTES {
            return Err(refuse(SocketProblem::TooLong(len)));
        }
        make(path).map_err(refuse)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection, which never waits; none when there is none.
    pub(crate) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match rustix::net::accept_with(&self.fd, flags) {
            Ok(stream) => Ok(Some(stream)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let there = rustix::fs::lstat(&self.path)
            .ok()
            .map(|stat| identity(&stat));
        if self.made.is_some() && there == self.made {
            // It fails only when the folder was taken from us meanwhile.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

fn make(path: &Path) -> Result<Listener, SocketProblem> {
    let host = |error: Errno| SocketProblem::Host(error.into());
    let address = SocketAddrUnix::new(path).map_err(host)?;
    // Held while the path is judged and taken, so that of two machines only one replaces what a
    // third one left. A folder that cannot be locked is used without.
    let folder = lock(folder_of(path));
    clear(path, &address)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let fd = fd.map_err(host)?;
    // The file gets its rights from the socket: there is no moment at which others may connect.
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(host)?;
    match rustix::net::bind(&fd, &address) {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => return Err(SocketProblem::InUse),
        Err(error) => return Err(host(error)),
    }
    let made = rustix::fs::lstat(path).ok().map(|stat| identity(&stat));
    let listener = Listener {
        fd,
        path: path.to_owned(),
        made,
    };
    rustix::net::listen(&listener.fd, BACKLOG).map_err(host)?;
    drop(folder);
    Ok(listener)
}

/// Removes a socket that nobody answers; anything else at the path is left alone.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketProblem> {
    let kind = match rustix::fs::lstat(path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        // What is wrong with the folder is told when the socket is made.
        Err(_) => return Ok(()),
    };
    match kind {
        FileType::Socket => {}
        FileType::Directory => return Err(SocketProblem::Taken("a directory")),
        FileType::Symlink => return Err(SocketProblem::Taken("a symbolic link")),
        FileType::RegularFile => return Err(SocketProblem::Taken("a file")),
        _ => return Err(SocketProblem::Taken("a special file")),
    }
    let host = |error: Errno| SocketProblem::Host(error.into());
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    match rustix::net::connect(probe.map_err(host)?, address) {
        Err(Errno::CONNREFUSED) => rustix::fs::unlink(path).map_err(host),
        Err(Errno::NOENT) => Ok(()),
        // Connected, or its queue is full, or not to be reached by us: somebody's.
        _ => Err(SocketProblem::InUse),
    }
}

fn lock(folder: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(folder, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&fd, FlockOperation::LockExclusive).ok()?;
    Some(fd)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn problem(path: &Path) -> String {
        let error = Listener::bind(path).unwrap_err();
        assert!(!error.remedy().is_empty());
        error.problem.to_string()
    }

    #[test]
    fn a_socket_is_its_owners_and_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let listener = Listener::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        assert!(listener.accept().unwrap().is_none());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_refused_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let live = UnixListener::bind(&path).unwrap();
        assert_eq!(problem(&path), "is in use by another process");
        assert!(UnixStream::connect(&path).is_ok(), "the live one lives on");
        drop(live);
        assert!(path.exists(), "it is stale now");
        let _listener = Listener::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(problem(&path), "is in use by another process");
    }

    #[test]
    fn of_many_at_once_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        drop(UnixListener::bind(&path).unwrap());
        let listeners = std::thread::scope(|scope| {
            let bind = || scope.spawn(|| Listener::bind(&path));
            let threads: Vec<_> = (0..8).map(|_| bind()).collect();
            let all = threads.into_iter().map(|thread| thread.join().unwrap());
            all.filter_map(Result::ok).collect::<Vec<_>>()
        });
        assert_eq!(listeners.len(), 1);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn whatever_else_is_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(problem(&file), "is a file, not a socket");
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
        assert_eq!(problem(folder.path()), "is a directory, not a socket");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(problem(&link), "is a symbolic link, not a socket");
        assert_eq!(problem(Path::new("")), "is empty");
        let missing = folder.path().join("no/api.sock");
        assert!(problem(&missing).contains("No such file or directory"));
        let long = folder.path().join("a".repeat(108));
        assert!(problem(&long).contains("more than the 107"));
    }

    #[test]
    fn a_path_that_another_took_meanwhile_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let listener = Listener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "x").unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
