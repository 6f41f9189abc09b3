//! Unix sockets: the one that host programs connect to, made and removed with care, and those of
//! host programs that a guest connects to.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The longest path of a Unix socket: 108 bytes with the zero at its end.
pub const MAX_PATH_BYTES: usize = 107;
/// How many programs may wait to be accepted.
const BACKLOG: i32 = 128;
/// Only the user who runs the machine may connect.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A socket that cannot be made. What to do stands after the semicolon.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into a socket's address.
    #[error(
        "vsock {}: a socket's path has at most {MAX_PATH_BYTES} bytes, this one has {}; \
         choose a shorter path, or a relative one", .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// Another process listens on it.
    #[error(
        "vsock {}: a running program listens on this socket; give each machine a path of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// Something else has that name, and is not ours to remove.
    #[error("vsock {}: exists and is no socket; choose another path, or remove it", .0.display())]
    NotASocket(PathBuf),
    /// The host refuses.
    #[error("vsock {}: cannot {attempt}: {error}; {}", path.display(), remedy(*error))]
    Host {
        /// The socket's path.
        path: PathBuf,
        /// What was attempted.
        attempt: &'static str,
        /// The host's reason.
        error: Errno,
    },
}

fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::NOENT | Errno::NOTDIR => "make its folder first",
        Errno::ACCESS | Errno::PERM | Errno::ROFS => "choose a folder that you may write to",
        Errno::MFILE | Errno::NFILE => "raise the limit of open files, `ulimit -n`",
        _ => "choose another path",
    }
}

/// A listening socket with its file, which is removed at the end.
pub struct SocketFile {
    socket: OwnedFd,
    path: PathBuf,
    // The file as it was made: another one of that name is not ours to remove.
    identity: (u64, u64),
}

impl fmt::Debug for SocketFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SocketFile").field(&self.path).finish()
    }
}

impl SocketFile {
    /// Listens on `path`. A socket that a dead process left there is replaced; only the user who
    /// runs this process may connect.
    ///
    /// # Errors
    /// When the path is too long, in use or not to be made.
    pub fn listen(path: &Path) -> Result<Self, SocketError> {
        let address = address(path).ok_or_else(|| SocketError::TooLong(path.to_owned()))?;
        let failed = |attempt| {
            move |error| SocketError::Host {
                path: path.to_owned(),
                attempt,
                error,
            }
        };
        let _alone = lock_folder(path);
        make_way(path, &address)?;
        let socket = stream_socket().map_err(failed("make a socket"))?;
        // The file takes the socket's mode, so that it never has another.
        rustix::fs::fchmod(&socket, MODE).map_err(failed("restrict the socket"))?;
        rustix::net::bind(&socket, &address).map_err(failed("make the socket's file"))?;
        let stat = rustix::fs::lstat(path).map_err(failed("look at the socket's file"))?;
        let file = Self {
            socket,
            path: path.to_owned(),
            identity: (stat.st_dev, stat.st_ino),
        };
        rustix::net::listen(&file.socket, BACKLOG).map_err(failed("listen"))?;
        Ok(file)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next host program that connected.
    pub(super) fn accept(&self) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::accept_with(&self.socket, flags)
    }

    /// Connects to the host program that serves a port: its socket's name is this one's with an
    /// underscore and the port.
    pub(super) fn connect(&self, port: u32) -> Result<OwnedFd, Errno> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let address = address(Path::new(&path)).ok_or(Errno::NAMETOOLONG)?;
        let socket = stream_socket()?;
        rustix::net::connect(&socket, &address)?;
        Ok(socket)
    }
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _alone = lock_folder(&self.path);
        let ours = rustix::fs::lstat(&self.path)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity);
        if ours && let Err(error) = rustix::fs::unlink(&self.path) {
            log::warn!("vsock: cannot remove {}: {error}", self.path.display());
        }
    }
}

fn address(path: &Path) -> Option<SocketAddrUnix> {
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return None;
    }
    SocketAddrUnix::new(path).ok()
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Keeps other machines from judging or replacing the same file meanwhile. A folder that another
/// program has locked, or that cannot be opened, is done without.
fn lock_folder(path: &Path) -> Option<OwnedFd> {
    let folder = path.parent().filter(|one| !one.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(folder)
}

/// Removes a socket that nobody listens on.
fn make_way(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketError> {
    let failed = |attempt| {
        move |error| SocketError::Host {
            path: path.to_owned(),
            attempt,
            error,
        }
    };
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(failed("look at the socket's file")(error)),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    let probe = stream_socket().map_err(failed("make a socket"))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove the socket of a machine that is gone")(error)),
        },
        Err(Errno::NOENT) => Ok(()),
        // A queue that is full has an owner too.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(failed("find out whether the socket is in use")(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    #[test]
    fn the_file_is_private_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let socket = SocketFile::listen(&path).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(socket.accept().unwrap_err(), Errno::AGAIN);
        let _client = UnixStream::connect(&path).unwrap();
        socket.accept().unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn dead_sockets_are_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = SocketFile::listen(&path).unwrap();
        let again = SocketFile::listen(&path).unwrap_err();
        assert!(matches!(again, SocketError::InUse(_)), "{again}");
        UnixStream::connect(&path).unwrap();
        drop(socket);
        let other_kind = UnixDatagram::bind(&path).unwrap();
        let refused = SocketFile::listen(&path).unwrap_err();
        assert!(matches!(refused, SocketError::InUse(_)), "{refused}");
        drop(other_kind);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        let refused = SocketFile::listen(&path).unwrap_err();
        assert!(matches!(refused, SocketError::NotASocket(_)), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_file_that_another_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let socket = SocketFile::listen(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(socket);
        UnixStream::connect(&path).unwrap();
        drop(other);
    }

    #[test]
    fn paths_that_no_socket_can_have() {
        let folder = tempfile::tempdir().unwrap();
        let fill = MAX_PATH_BYTES - folder.path().as_os_str().len() - 1;
        let longest = folder.path().join("x".repeat(fill));
        assert_eq!(longest.as_os_str().as_bytes().len(), MAX_PATH_BYTES);
        let socket = SocketFile::listen(&longest).unwrap();
        assert_eq!(socket.connect(1).unwrap_err(), Errno::NAMETOOLONG);
        let longer = folder.path().join("x".repeat(fill + 1));
        let error = SocketFile::listen(&longer).unwrap_err().to_string();
        assert!(
            error.contains("at most 107 bytes, this one has 108; choose"),
            "{error}"
        );
        let error = SocketFile::listen(&folder.path().join("none/v")).unwrap_err();
        assert!(
            error.to_string().ends_with("; make its folder first"),
            "{error}"
        );
    }

    #[test]
    fn a_port_of_the_host_is_a_socket_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let socket = SocketFile::listen(&path).unwrap();
        assert_eq!(socket.connect(52).unwrap_err(), Errno::NOENT);
        let server = UnixListener::bind(folder.path().join("v_52")).unwrap();
        socket.connect(52).unwrap();
        server.accept().unwrap();
        drop(server);
        assert_eq!(socket.connect(52).unwrap_err(), Errno::CONNREFUSED);
    }
}
