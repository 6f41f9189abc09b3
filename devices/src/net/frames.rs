//! One end of a pair of sockets on which each message is a frame: what a network in another
//! process, such as the user-mode one, is reached by.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair, sockopt};

use super::{Link, Offloads, Received, Sent, receive_from, send_to};
use crate::ram::GuestRam;
use crate::virtio::Span;

/// Room for frames under way, where the host grants it: a few of the longest.
const BUFFER_BYTES: usize = 4 << 20;

/// A network behind a socket.
#[derive(Debug)]
pub struct Frames {
    socket: OwnedFd,
    name: &'static str,
    mtu: u16,
}

/// The two ends of a network: ours, and the one for the process that is it.
///
/// # Errors
/// When the process has no file descriptor left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Less is granted where net.core.wmem_max is small, and is enough.
    let _ = sockopt::set_socket_send_buffer_size(&pair.0, BUFFER_BYTES);
    Ok(pair)
}

impl Frames {
    /// The network that `name` says behind our end of a pair, with packets of up to `mtu` bytes.
    #[must_use]
    pub fn new(socket: OwnedFd, name: &'static str, mtu: u16) -> Self {
        Self { socket, name, mtu }
    }

    fn is_here(&self, queue: u16) -> io::Result<&OwnedFd> {
        let none = io::ErrorKind::InvalidInput;
        (queue == 0).then_some(&self.socket).ok_or(none.into())
    }
}

/// The message that says what the guest takes unfinished: four bytes, as no frame has.
#[must_use]
pub fn offloads_message(offloads: Offloads) -> [u8; 4] {
    let bit = |set: bool, bit: u32| u32::from(set) << bit;
    let bits = bit(offloads.checksum, 0) | bit(offloads.tso4, 1) | bit(offloads.tso6, 2);
    bits.to_le_bytes()
}

impl Link for Frames {
    fn describe(&self) -> String {
        self.name.to_owned()
    }

    fn queues(&self) -> u16 {
        1
    }

    fn fd(&self, queue: u16) -> Option<BorrowedFd<'_>> {
        self.is_here(queue).ok().map(AsFd::as_fd)
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            ecn: false,
            ..Offloads::ALL
        }
    }

    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        send(&self.socket, &offloads_message(offloads), flags)?;
        Ok(())
    }

    fn set_active(&mut self, _queues: u16) -> io::Result<()> {
        Ok(())
    }

    fn receive(
        &mut self,
        queue: u16,
        head: &mut [u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Received> {
        receive_from(self.is_here(queue)?, head, ram, spans)
    }

    fn send(
        &mut self,
        queue: u16,
        head: &[u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Sent> {
        send_to(self.is_here(queue)?, head, ram, spans)
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{RecvFlags, recv};

    use super::*;
    use crate::net::HEADER_BYTES;
    use crate::testing::small_ram;

    const ROOM: Span = Span {
        at: 0x1000,
        len: 1514,
    };

    #[test]
    fn frames_go_both_ways_and_the_end_is_seen() {
        let ram = small_ram();
        let (ours, theirs) = pair().unwrap();
        let mut link = Frames::new(ours, "user", 1500);
        let mut head = [0; HEADER_BYTES];
        let nothing = link.receive(0, &mut head, &ram, &[ROOM]).unwrap();
        assert_eq!(nothing, Received::Nothing);
        let frame: Vec<u8> = (0..100).collect();
        send(&theirs, &frame, SendFlags::NOSIGNAL).unwrap();
        let received = link.receive(0, &mut head, &ram, &[ROOM]).unwrap();
        assert_eq!(received, Received::Frame(100));
        assert_eq!(head, frame[..HEADER_BYTES]);
        let part = Span { len: 88, ..ROOM };
        assert_eq!(link.send(0, &head, &ram, &[part]).unwrap(), Sent::Whole);
        let mut back = [0; 200];
        let (bytes, _) = recv(&theirs, &mut back[..], RecvFlags::empty()).unwrap();
        assert_eq!(back[..bytes], frame);
        drop(theirs);
        let end = link.receive(0, &mut head, &ram, &[ROOM]).unwrap();
        assert_eq!(end, Received::Closed);
        link.send(0, &head, &ram, &[part]).unwrap_err();
    }

    #[test]
    fn the_other_side_is_told_of_offloads() {
        let (ours, theirs) = pair().unwrap();
        let mut link = Frames::new(ours, "user", 1500);
        for (offloads, message) in [(Offloads::ALL, [7, 0, 0, 0]), (Offloads::default(), [0; 4])] {
            link.set_offloads(offloads).unwrap();
            let mut back = [9; 8];
            let (bytes, _) = recv(&theirs, &mut back[..], RecvFlags::empty()).unwrap();
            assert_eq!(back[..bytes], message);
        }
    }

    #[test]
    fn a_full_socket_is_no_error_and_other_queues_are_none() {
        let ram = small_ram();
        let (ours, _theirs) = pair().unwrap();
        let mut link = Frames::new(ours, "user", 1500);
        let head = [0; HEADER_BYTES];
        let until_full = || link.send(0, &head, &ram, &[ROOM]).unwrap();
        let sent: Vec<Sent> = std::iter::repeat_with(until_full)
            .take(100_000)
            .take_while(|sent| *sent == Sent::Whole)
            .collect();
        assert!((1..100_000).contains(&sent.len()), "{}", sent.len());
        assert!(link.fd(1).is_none());
        link.send(1, &head, &ram, &[ROOM]).unwrap_err();
    }
}
