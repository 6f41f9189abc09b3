//! What a network device sends its frames through on the host: the seam between the device and
//! its back ends.
//!
//! Every frame has the 12 bytes of virtio-net's header in front, little-endian, with its count of
//! buffers (virtio 1.2, 5.1.6). Frames that leave a checksum or their cutting into segments to
//! the other side say so there.

pub mod frames;
pub mod passt;
pub mod tap;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use crate::inspect::Report;
use crate::ram::GuestRam;
use crate::virtio::Span;

pub use crate::sys::frame::{receive_from, send_to};

/// The header in front of every frame.
pub const HEADER_BYTES: usize = 12;
/// The largest frame without its header: 64 KiB with what is in front of them (5.1.6.3.1).
pub const MOST_FRAME_BYTES: usize = 65_550;

/// What one side leaves to the other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offloads {
    /// A checksum of TCP or UDP may be unfinished.
    pub checksum: bool,
    /// TCP over IPv4 may come in frames of up to 64 KiB.
    pub tso4: bool,
    /// The same over IPv6.
    pub tso6: bool,
    /// Such frames may carry marks of congestion (ECN).
    pub ecn: bool,
}

impl Offloads {
    /// All of them.
    pub const ALL: Self = Self {
        checksum: true,
        tso4: true,
        tso6: true,
        ecn: true,
    };

    /// What both sides agree to. Segments cannot do without unfinished checksums, nor marks
    /// without segments.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        let checksum = self.checksum && other.checksum;
        let tso4 = checksum && self.tso4 && other.tso4;
        let tso6 = checksum && self.tso6 && other.tso6;
        let ecn = (tso4 || tso6) && self.ecn && other.ecn;
        Self {
            checksum,
            tso4,
            tso6,
            ecn,
        }
    }

    /// Whether frames may be larger than the largest packet.
    #[must_use]
    pub fn segments(self) -> bool {
        self.tso4 || self.tso6
    }
}

/// What came of a look for a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Received {
    /// There is none now.
    Nothing,
    /// One of so many bytes, its header included.
    Frame(usize),
    /// One that was larger than the room for it, and is lost.
    TooLarge,
    /// There will never be one again: the other end is gone. A message of no bytes says so too.
    Closed,
}

/// What became of a frame that was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
    /// It is on its way.
    Whole,
    /// There is no room now; the queue's descriptor becomes writable when there is.
    Full,
}

/// The host's end of a guest's network. Nothing here waits: a queue's descriptor says when there
/// is something to receive, or room again. An error concerns one frame, not those after it.
pub trait Link: Send {
    /// What it is, for people: `tap tap0`.
    fn describe(&self) -> String;

    /// How many queues it has, each for both directions.
    fn queues(&self) -> u16;

    /// The descriptor of a queue, the same all its life; none for a queue that is not there.
    fn fd(&self, queue: u16) -> Option<BorrowedFd<'_>>;

    /// One more descriptor that becomes readable when the first queue has something to receive,
    /// where there is one, the same all its life.
    fn beside(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The largest packet without the header of Ethernet, the same all its life.
    fn mtu(&self) -> u16;

    /// What it takes from the guest unfinished, and can give to it so.
    fn offloads(&self) -> Offloads;

    /// What may come unfinished from now on; nothing to begin with. Frames that wait already may
    /// still be as they were.
    ///
    /// # Errors
    /// The host's; the offloads are as they were then.
    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()>;

    /// Frames are to come through the first so many queues only. All are used to begin with.
    ///
    /// # Errors
    /// The host's.
    fn set_active(&mut self, queues: u16) -> io::Result<()>;

    /// Receives a frame: its first bytes into `head`, which takes its header at least, and what
    /// follows straight into guest memory.
    ///
    /// # Errors
    /// The host's. The frame is lost if there was one.
    fn receive(
        &mut self,
        queue: u16,
        head: &mut [u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Received>;

    /// Sends a frame: `head`, which holds its header at least, then what is in guest memory.
    ///
    /// # Errors
    /// The host's. The frame is not sent then, and another may be.
    fn send(&mut self, queue: u16, head: &[u8], ram: &GuestRam, spans: &[Span])
    -> io::Result<Sent>;

    /// What it counted, by its name, where the device doesn't count it.
    fn report(&self) -> Option<(&'static str, Report)> {
        None
    }
}

impl fmt::Debug for dyn Link + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.describe()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offload_needs_what_it_builds_on() {
        let none = Offloads::default();
        let tso4 = Offloads { tso4: true, ..none };
        let ecn = Offloads { ecn: true, ..none };
        let sum = Offloads {
            checksum: true,
            ..none
        };
        for (wanted, agreed) in [
            (tso4, none),
            (ecn, none),
            (Offloads { ecn: true, ..sum }, sum),
            (Offloads::ALL, Offloads::ALL),
            (none, none),
        ] {
            assert_eq!(wanted.both(Offloads::ALL), agreed, "{wanted:?}");
            assert_eq!(Offloads::ALL.both(wanted), agreed, "{wanted:?}");
        }
        let both = Offloads { tso6: true, ..sum };
        assert!(both.segments() && both.both(both) == both);
        assert!(!sum.segments() && both.both(sum) == sum);
    }
}
