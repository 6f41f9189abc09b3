//! A port on a unix socket: programs of the host connect to it, one at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use vmm_sys_util::epoll::{Epoll, EventSet};

use super::backend::{Interest, PortBackend, events};
use crate::log::RateLimit;
use crate::tty::Offered;

const LISTENER: u64 = 0;
const CONNECTION: u64 = 1;
/// How much is read at once.
const CHUNK: usize = 4096;

/// A socket that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers at the path.
    #[error("the console port's socket {} is in use by another process", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else than a socket is at the path.
    #[error("cannot make the console port's socket {}: a file is there", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// The host refused.
    #[error("cannot make the console port's socket {}", path.display())]
    Host {
        /// The path.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

/// A port's socket. While one program is connected, others wait; the socket's file goes with it.
#[derive(Debug)]
pub struct SocketPort {
    path: PathBuf,
    listener: UnixListener,
    connection: Option<UnixStream>,
    // Nobody reads what is written to the connection any more.
    deaf: bool,
    epoll: Epoll,
    listening: Interest,
    connected: Interest,
    accepted: u64,
    limit: RateLimit,
}

impl SocketPort {
    /// Listens at `path`. A socket that was left there by a process that is gone is replaced.
    ///
    /// # Errors
    /// When somebody answers there, something else is there, or the host refuses.
    pub fn listen(path: &Path) -> Result<Self, SocketError> {
        let host = |error| SocketError::Host {
            path: path.to_owned(),
            error,
        };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                make_room(path)?;
                UnixListener::bind(path)
            }
            result => result,
        };
        let listener = listener.map_err(host)?;
        listener.set_nonblocking(true).map_err(host)?;
        let mut port = Self {
            path: path.to_owned(),
            listener,
            connection: None,
            deaf: false,
            epoll: Epoll::new().map_err(host)?,
            listening: Interest::none(),
            connected: Interest::none(),
            accepted: 0,
            limit: RateLimit::new(),
        };
        port.listen_again(true);
        Ok(port)
    }

    /// How many programs have connected.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    fn listen_again(&mut self, on: bool) {
        let fd = self.listener.as_raw_fd();
        self.listening
            .set(&self.epoll, fd, LISTENER, events(on, false));
    }

    fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            let fd = connection.as_raw_fd();
            self.connected
                .set(&self.epoll, fd, CONNECTION, EventSet::empty());
            self.listen_again(true);
        }
    }
}

/// Takes away a socket that nobody listens at.
fn make_room(path: &Path) -> Result<(), SocketError> {
    let host = |error| SocketError::Host {
        path: path.to_owned(),
        error,
    };
    let path_of = || path.to_owned();
    let there = std::fs::symlink_metadata(path).map_err(host)?;
    if !there.file_type().is_socket() {
        return Err(SocketError::Taken { path: path_of() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(host)
        }
        Ok(_) => Err(SocketError::InUse { path: path_of() }),
        Err(error) => Err(host(error)),
    }
}

impl Drop for SocketPort {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AsRawFd for SocketPort {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

impl PortBackend for SocketPort {
    fn kind(&self) -> &'static str {
        "socket"
    }

    fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    fn event(&mut self) -> bool {
        if self.connection.is_some() {
            return false;
        }
        let accepted = self.listener.accept();
        let connection = accepted.and_then(|(connection, _)| {
            connection.set_nonblocking(true)?;
            Ok(connection)
        });
        match connection {
            Ok(connection) => {
                self.accepted = self.accepted.saturating_add(1);
                self.connection = Some(connection);
                self.deaf = false;
                self.listen_again(false);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                // Mostly for want of file descriptors; tried again when the guest does something.
                self.limit.warn(format_args!(
                    "console: nobody can connect to {} for now: {error}",
                    self.path.display()
                ));
                self.listen_again(false);
                false
            }
        }
    }

    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let mut chunk = [0; CHUNK];
        let (chunk, _) = chunk.split_at_mut(room.min(CHUNK));
        if chunk.is_empty() {
            return;
        }
        match connection.read(chunk) {
            Ok(0) => self.close(),
            Ok(len) => bytes.extend_from_slice(chunk.get(..len).unwrap_or_default()),
            Err(error) if passes(&error) => {}
            Err(_) => self.close(),
        }
    }

    fn offer(&mut self, data: &[u8]) -> Offered {
        let mut offered = Offered::default();
        let connection = self.connection.as_mut().filter(|_| !self.deaf);
        let Some(connection) = connection else {
            offered.dropped = data.len();
            return offered;
        };
        match connection.write(data) {
            Ok(written) => offered.written = written,
            Err(error) if passes(&error) => {}
            Err(_) => {
                // What it sent before is still read, up to its end.
                self.deaf = true;
                offered.dropped = data.len();
            }
        }
        offered
    }

    fn want(&mut self, input: bool, output: bool) {
        let Some(connection) = &self.connection else {
            self.listen_again(true);
            return;
        };
        let wanted = events(input, output && !self.deaf);
        self.connected
            .set(&self.epoll, connection.as_raw_fd(), CONNECTION, wanted);
    }
}

fn passes(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_with_care() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        let port = SocketPort::listen(&path).unwrap();
        assert!(matches!(
            SocketPort::listen(&path),
            Err(SocketError::InUse { .. })
        ));
        drop(port);
        assert!(!path.exists());
        // Left over by a process that was killed.
        drop(UnixListener::bind(&path).unwrap());
        drop(SocketPort::listen(&path).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            SocketPort::listen(&path),
            Err(SocketError::Taken { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let nowhere = dir.path().join("no/port");
        let error = SocketPort::listen(&nowhere).unwrap_err();
        assert!(matches!(error, SocketError::Host { .. }));
    }

    #[test]
    fn programs_come_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        let mut port = SocketPort::listen(&path).unwrap();
        assert!(!port.event() && !port.is_open());
        assert_eq!(port.offer(b"x").dropped, 1);
        let mut first = UnixStream::connect(&path).unwrap();
        let mut second = UnixStream::connect(&path).unwrap();
        assert!(port.event() && port.is_open() && !port.event());
        first.write_all(b"one").unwrap();
        second.write_all(b"two").unwrap();
        let mut bytes = Vec::new();
        port.read(4096, &mut bytes);
        assert_eq!(bytes, b"one");
        assert_eq!(port.offer(b"hello").written, 5);
        let mut hello = [0; 5];
        first.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        // What it sent before it went is read.
        first.write_all(b"bye").unwrap();
        drop(first);
        assert_eq!(port.offer(b"hello").dropped, 5);
        port.read(4096, &mut bytes);
        assert!(port.is_open());
        port.read(4096, &mut bytes);
        assert_eq!(bytes, b"onebye");
        assert!(!port.is_open());
        assert!(port.event());
        port.read(2, &mut bytes);
        assert_eq!(bytes, b"onebyetw");
        assert_eq!(port.accepted(), 2);
    }
}
