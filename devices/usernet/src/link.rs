//! The guest's end: a socket of messages, each a frame behind the header of virtio-net.

use crate::config::Offloads;
use crate::error::{ServeError, is_again};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of `virtio_net_hdr_v1` in front of each frame.
pub const HEADER_BYTES: usize = 12;
/// Bytes of the longest message: an IP packet of 65,535 bytes with its Ethernet header, and room
/// for a VLAN tag.
pub const MAX_MESSAGE_BYTES: usize = HEADER_BYTES + 65_550 + 4;
/// Bytes of the message that says which offloads the guest takes: no frame is as short.
pub const OFFLOADS_BYTES: usize = 4;

/// Room for frames in the socket, where the host grants it: a few of the longest.
const SEND_BYTES: usize = 4 << 20;

/// The message that tells the network which offloads the guest's driver has accepted.
#[must_use]
pub fn offloads_message(offloads: Offloads) -> [u8; OFFLOADS_BYTES] {
    let bit = |set: bool, bit: u32| u32::from(set) << bit;
    let bits = bit(offloads.checksum, 0) | bit(offloads.tso4, 1) | bit(offloads.tso6, 2);
    bits.to_le_bytes()
}

fn offloads(message: [u8; OFFLOADS_BYTES]) -> Offloads {
    let bits = u32::from_le_bytes(message);
    Offloads {
        checksum: bits & 1 != 0,
        // Segments have partial checksums.
        tso4: bits & 3 == 3,
        tso6: bits & 5 == 5,
    }
}

/// What came from the guest's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A message of so many bytes in [`Link::message`].
    Message(usize),
    /// The guest takes these from now on.
    Offloads(Offloads),
    /// The other end is closed.
    End,
}

/// The socket, with the frames that did not fit into it yet.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    message: Vec<u8>,
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, ServeError> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(ServeError::host("the guest's socket"))?;
        // Less is granted where net.core.wmem_max is small: then more waits in the backlog.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES);
        Ok(Self {
            socket,
            message: vec![0; MAX_MESSAGE_BYTES + 1],
        })
    }

    /// The next message, none when there is none yet.
    pub(crate) fn receive(&mut self) -> Result<Option<Received>, Errno> {
        let flags = RecvFlags::DONTWAIT;
        let bytes = match rustix::net::recv(&self.socket, self.message.as_mut_slice(), flags) {
            Ok((bytes, _)) => bytes,
            Err(Errno::CONNRESET) => 0,
            Err(errno) if is_again(errno) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if bytes == 0 {
            return Ok(Some(Received::End));
        }
        if bytes == OFFLOADS_BYTES
            && let Some(bits) = self.message.first_chunk()
        {
            return Ok(Some(Received::Offloads(offloads(*bits))));
        }
        Ok(Some(Received::Message(bytes)))
    }
}
