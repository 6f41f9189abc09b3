//! The guest's end: a socket of messages, each a frame behind the header of virtio-net.

use crate::config::Offloads;
use crate::counters::Counters;
use crate::error::{ServeError, is_again};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of `virtio_net_hdr_v1` in front of each frame.
pub const HEADER_BYTES: usize = 12;
/// Bytes of the longest message: an IP packet of 65,535 bytes with its Ethernet header, and room
/// for a VLAN tag.
pub const MAX_MESSAGE_BYTES: usize = HEADER_BYTES + 65_550 + 4;
/// Bytes of the message that says which offloads the guest takes: no frame is as short.
pub const OFFLOADS_BYTES: usize = 4;

/// Frames that wait because the guest takes none; with more the guest's are not read, with twice as
/// many more are dropped.
const BACKLOG: usize = 64;
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
    /// A message of so many bytes.
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
    /// What the guest's driver takes.
    pub(crate) offloads: Offloads,
    backlog: VecDeque<Vec<u8>>,
    /// Room for a message that is being made.
    scratch: Vec<u8>,
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link {
    pub(crate) fn new(socket: OwnedFd, offloads: Offloads) -> Result<Self, ServeError> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(ServeError::host("the guest's socket"))?;
        // Less is granted where net.core.wmem_max is small: then more waits in the backlog.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BYTES);
        Ok(Self {
            socket,
            offloads,
            backlog: VecDeque::new(),
            scratch: Vec::new(),
        })
    }

    /// The next message, into `room` of [`MAX_MESSAGE_BYTES`] and one more; none when there is none
    /// yet.
    pub(crate) fn receive(&self, room: &mut [u8]) -> Result<Option<Received>, Errno> {
        let bytes = match rustix::net::recv(&self.socket, &mut *room, RecvFlags::DONTWAIT) {
            Ok((bytes, _)) => bytes,
            Err(Errno::CONNRESET) => 0,
            Err(errno) if is_again(errno) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if bytes == 0 {
            return Ok(Some(Received::End));
        }
        if bytes == OFFLOADS_BYTES
            && let Some(bits) = room.first_chunk()
        {
            return Ok(Some(Received::Offloads(offloads(*bits))));
        }
        Ok(Some(Received::Message(bytes)))
    }

    /// True while frames go straight into the socket.
    pub(crate) fn has_room(&self) -> bool {
        self.backlog.is_empty()
    }

    /// True when so many frames wait that the guest's are not read.
    pub(crate) fn is_clogged(&self) -> bool {
        self.backlog.len() >= BACKLOG
    }

    /// Sends a message, or keeps it for when the guest takes some again.
    pub(crate) fn send(&mut self, message: &[u8], counters: &mut Counters) {
        let sent = self.backlog.is_empty() && self.try_send(message);
        if !sent {
            if self.backlog.len() >= 2 * BACKLOG {
                counters.drops.backlog += 1;
                return;
            }
            self.backlog.push_back(message.to_vec());
        }
        counters.rx_packets += 1;
        let bytes = message.len().saturating_sub(HEADER_BYTES);
        counters.rx_bytes += u64::try_from(bytes).unwrap_or(0);
    }

    /// Sends what waits, as far as the guest takes it.
    pub(crate) fn flush(&mut self) {
        while let Some(message) = self.backlog.front() {
            if !self.try_send(message) {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// False when the socket is full. One that is closed takes everything: its end is read soon.
    fn try_send(&self, message: &[u8]) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        !matches!(rustix::net::send(&self.socket, message, flags), Err(errno) if is_again(errno))
    }

    /// Room for a message of so many bytes; what it holds is left over from others.
    pub(crate) fn take_scratch(&mut self, bytes: usize) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        if scratch.len() < bytes {
            scratch.resize(MAX_MESSAGE_BYTES.max(bytes), 0);
        }
        scratch
    }

    pub(crate) fn give_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }
}
