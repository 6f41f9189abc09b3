//! The test guest's end of a link: messages with virtio-net's header on a socket pair, or plain
//! frames with their length in front, as passt has them.

use super::stream::PROTOCOL;
use crate::link::HEADER_BYTES;
use crate::wire::build::{self, Macs, PLAIN};
use crate::wire::tcp::Segment;
use crate::wire::{ETHERNET_BYTES, Packet, be16, put, sum};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A guest's end.
#[derive(Debug)]
pub enum Wire {
    /// Messages with virtio-net's header.
    Messages(OwnedFd),
    /// Frames without it, behind their length: a program that takes no offloads.
    Frames {
        /// The stream.
        socket: UnixStream,
        /// Bytes of frames that are not complete.
        read: Vec<u8>,
    },
}

impl Wire {
    /// A link of messages: the guest's end and the network's.
    ///
    /// # Errors
    /// The host's.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let kind = SocketType::SEQPACKET;
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4 << 20);
        Ok((Self::Messages(ours), theirs))
    }

    /// A stream of frames.
    #[must_use]
    pub fn frames(socket: UnixStream) -> Self {
        Self::Frames {
            socket,
            read: Vec::new(),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Messages(socket) => socket.as_fd(),
            Self::Frames { socket, .. } => socket.as_fd(),
        }
    }

    pub(super) fn wait(&self, patience: Duration) -> io::Result<()> {
        let has_frame = matches!(self, Self::Frames { read, .. } if frame(read).is_some());
        if !patience.is_zero() && !has_frame {
            self.poll(PollFlags::IN, patience)?;
        }
        Ok(())
    }

    fn poll(&self, flags: PollFlags, patience: Duration) -> io::Result<bool> {
        let fd = self.fd();
        let mut fds = [PollFd::new(&fd, flags)];
        let timeout = Timespec::try_from(patience).unwrap_or_default();
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// True when a message would not have to wait.
    pub(super) fn has_room(&self) -> io::Result<bool> {
        self.poll(PollFlags::OUT, Duration::ZERO)
    }

    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Messages(socket) => loop {
                match rustix::net::send(&*socket, message, SendFlags::NOSIGNAL) {
                    Err(Errno::INTR) => {}
                    sent => return sent.map(drop).map_err(Into::into),
                }
            },
            Self::Frames { socket, .. } => {
                let frame = message.get(HEADER_BYTES..).unwrap_or_default();
                let length = u32::try_from(frame.len()).unwrap_or(0).to_be_bytes();
                socket.write_all(&[&length, frame].concat())
            }
        }
    }

    /// Sends a segment whose sum the network need not have.
    pub(super) fn send_tcp(
        &mut self,
        macs: Macs,
        (from, to): (SocketAddr, SocketAddr),
        head: &[u8],
        data: &[u8],
        mss: u16,
    ) -> io::Result<()> {
        let payload = [head, data].concat();
        let mut message = build::ip(macs, from.ip(), to.ip(), PROTOCOL, &payload);
        if let Self::Messages(_) = self {
            offload(
                &mut message,
                from.ip(),
                to.ip(),
                (payload.len(), data.len()),
                mss,
            );
        }
        self.send(&message)
    }

    pub(super) fn receive(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Messages(socket) => {
                match rustix::net::recv(&*socket, room, RecvFlags::DONTWAIT) {
                    Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok((bytes, _)) => Ok(Some(bytes)),
                    Err(Errno::AGAIN | Errno::INTR) => Ok(None),
                    Err(errno) => Err(errno.into()),
                }
            }
            Self::Frames { socket, read } => {
                if frame(read).is_none() {
                    let mut more = vec![0; 1 << 20];
                    socket.set_nonblocking(true)?;
                    let bytes = socket.read(&mut more);
                    socket.set_nonblocking(false)?;
                    match bytes {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(bytes) => read.extend_from_slice(&more[..bytes]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                let Some(length) = frame(read).map(<[u8]>::len) else {
                    return Ok(None);
                };
                room[..HEADER_BYTES].copy_from_slice(&PLAIN);
                room[HEADER_BYTES..HEADER_BYTES + length].copy_from_slice(&read[4..4 + length]);
                read.drain(..4 + length);
                Ok(Some(HEADER_BYTES + length))
            }
        }
    }
}

/// The first whole frame.
fn frame(read: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(*read.first_chunk()?);
    read.get(4..4 + usize::try_from(length).ok()?)
}

/// Replaces the sum by its part, and says where the segment is to be cut.
fn offload(
    message: &mut [u8],
    from: IpAddr,
    to: IpAddr,
    (payload, data): (usize, usize),
    mss: u16,
) {
    let (ip, kind) = if from.is_ipv4() { (20, 1) } else { (40, 4) };
    let start = u16::try_from(ETHERNET_BYTES + ip).unwrap_or(0);
    put(message, 0, &[1]);
    put(message, 6, &start.to_le_bytes());
    put(message, 8, &16_u16.to_le_bytes());
    if data > usize::from(mss) {
        put(message, 1, &[kind]);
        put(message, 4, &mss.to_le_bytes());
    }
    let sum = sum::fold(sum::pseudo(from, to, PROTOCOL, payload));
    put(
        message,
        HEADER_BYTES + ETHERNET_BYTES + ip + 16,
        &sum.to_be_bytes(),
    );
}

/// Makes sure that a segment's sum is right, whole or partial, and its size what the header says.
pub(super) fn check(
    message: &[u8],
    packet: &Packet<'_>,
    segment: &Segment,
    mtu: u16,
) -> io::Result<()> {
    let partial = message.first().is_some_and(|flags| flags & 1 != 0);
    let is_right = if partial {
        let part = sum::fold(sum::pseudo(
            packet.from,
            packet.to,
            PROTOCOL,
            packet.payload.len(),
        ));
        be16(packet.payload, 16) == Some(part)
    } else {
        packet.sum_is_right()
    };
    if !is_right {
        return Err(io::Error::other("a TCP segment with a wrong sum"));
    }
    let is_large = message.get(1).is_some_and(|kind| *kind != 0);
    if !is_large && packet.whole.len() > usize::from(mtu) {
        return Err(io::Error::other(format!(
            "a segment of {} bytes that nobody is to cut",
            segment.data
        )));
    }
    Ok(())
}
