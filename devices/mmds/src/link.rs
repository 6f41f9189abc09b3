//! A responder in front of a network: the guest's frames to its address end here, all others pass
//! as they are.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use devices::GuestRam;
use devices::inspect::Report;
use devices::net::{HEADER_BYTES, Link, Offloads, Received, Sent};
use devices::timer::Timer;
use devices::virtio::Span;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::frame::ETHERNET_BYTES;
use crate::responder::Responder;
use crate::service::Service;

/// A frame to the address is never longer: what a client sends is short, and its window small.
const MOST_BYTES: usize = 16 << 10;
/// The header of virtio-net in front of a frame that is finished and lies in one buffer.
const PLAIN: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A network with a metadata service in front of it.
#[derive(Debug)]
pub struct MetadataLink {
    inner: Box<dyn Link>,
    responder: Responder,
    /// Runs out when the responder has something for the guest.
    timer: Timer,
    armed: Option<Instant>,
    /// The frame that is being taken.
    scratch: Vec<u8>,
}

impl MetadataLink {
    /// Puts `service` in front of `inner`, at `address`.
    ///
    /// # Errors
    /// When the process has no file descriptor left, or the host no random bytes.
    pub fn new(inner: Box<dyn Link>, service: Service, address: Ipv4Addr) -> io::Result<Self> {
        let mut seed = [0; 8];
        getrandom(&mut seed, GetRandomFlags::empty())?;
        let seed = u64::from_ne_bytes(seed);
        let responder = Responder::new(service, address, inner.mtu(), seed, Instant::now());
        Ok(Self {
            inner,
            responder,
            timer: Timer::new()?,
            armed: None,
            scratch: Vec::new(),
        })
    }

    /// Takes a frame if it is for the responder.
    fn take(&mut self, head: &[u8], ram: &GuestRam, spans: &[Span]) -> bool {
        let pieces = Pieces { head, ram, spans };
        let mut kind = [0; 2];
        let mut target = [0; 4];
        let is_ours = pieces.copy(ETHERNET_BYTES - 2, &mut kind)
            && Responder::target_at(kind).is_some_and(|at| pieces.copy(at, &mut target))
            && self.responder.address().octets() == target;
        if !is_ours {
            return false;
        }
        let now = Instant::now();
        let mut frame = std::mem::take(&mut self.scratch);
        pieces.gather(&mut frame);
        self.responder.take(&frame, now);
        self.scratch = frame;
        self.arm(now);
        true
    }

    /// The next frame of the responder, for the guest.
    fn give(&mut self, head: &mut [u8], ram: &GuestRam, spans: &[Span]) -> Option<Received> {
        // Nothing is looked at while there is nothing to come.
        self.armed?;
        let now = Instant::now();
        let frame = self.responder.next(now);
        self.arm(now);
        Some(match put(&frame?, head, ram, spans) {
            Some(bytes) => Received::Frame(bytes),
            None => Received::TooLarge,
        })
    }

    /// Sets the timer for when the responder has something to do.
    fn arm(&mut self, now: Instant) {
        let due = self.responder.due(now);
        if due == self.armed && due.is_none_or(|due| due > now) {
            return;
        }
        self.armed = due;
        match due {
            Some(due) => self.timer.after(due.saturating_duration_since(now)),
            None => self.timer.stop(),
        }
    }
}

/// Puts a frame behind its header into the room that there is: how many bytes that are, or none
/// when it is too long.
fn put(frame: &[u8], head: &mut [u8], ram: &GuestRam, spans: &[Span]) -> Option<usize> {
    let (header, front) = head.split_at_mut_checked(HEADER_BYTES)?;
    header.copy_from_slice(&PLAIN);
    let (first, mut rest) = frame.split_at_checked(front.len()).unwrap_or((frame, &[]));
    front.get_mut(..first.len())?.copy_from_slice(first);
    for span in spans {
        let room = usize::try_from(span.len).unwrap_or_default();
        let (piece, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
        ram.write_bytes(span.at, piece).ok()?;
        rest = later;
    }
    rest.is_empty()
        .then(|| HEADER_BYTES.saturating_add(frame.len()))
}

/// A frame of the guest behind the header of virtio-net: its first bytes, then what is in guest
/// memory.
struct Pieces<'a> {
    head: &'a [u8],
    ram: &'a GuestRam,
    spans: &'a [Span],
}

impl Pieces<'_> {
    /// Fills `bytes` with those of the frame from `at` on: whether it has so many.
    fn copy(&self, at: usize, bytes: &mut [u8]) -> bool {
        let front = self.head.get(HEADER_BYTES..).unwrap_or_default();
        let mut skip = at;
        let mut left = bytes;
        let have = front.get(skip..).unwrap_or_default();
        let count = have.len().min(left.len());
        let (place, rest) = left.split_at_mut(count);
        place.copy_from_slice(have.get(..count).unwrap_or_default());
        left = rest;
        skip = skip.saturating_sub(front.len());
        for span in self.spans {
            if left.is_empty() {
                return true;
            }
            let length = usize::try_from(span.len).unwrap_or_default();
            let count = length.saturating_sub(skip).min(left.len());
            let (place, rest) = left.split_at_mut(count);
            let from = span
                .at
                .wrapping_add(u64::try_from(skip).unwrap_or_default());
            if count > 0 && self.ram.read_bytes(from, place).is_err() {
                return false;
            }
            left = rest;
            skip = skip.saturating_sub(length);
        }
        left.is_empty()
    }

    /// All of the frame, but no more than it may have.
    fn gather(&self, frame: &mut Vec<u8>) {
        let spans = self.spans.iter().map(|span| usize::try_from(span.len));
        let behind = spans.fold(0_usize, |all, len| {
            all.saturating_add(len.unwrap_or_default())
        });
        let front = self.head.len().saturating_sub(HEADER_BYTES);
        let length = front.saturating_add(behind);
        frame.clear();
        // A longer one is not read, and so is none.
        if length <= MOST_BYTES {
            frame.resize(length, 0);
            if !self.copy(0, frame) {
                frame.clear();
            }
        }
    }
}

impl Link for MetadataLink {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn queues(&self) -> u16 {
        self.inner.queues()
    }

    fn fd(&self, queue: u16) -> Option<BorrowedFd<'_>> {
        self.inner.fd(queue)
    }

    fn beside(&self) -> Option<BorrowedFd<'_>> {
        Some(self.timer.as_fd())
    }

    fn mtu(&self) -> u16 {
        self.inner.mtu()
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()> {
        self.inner.set_offloads(offloads)
    }

    fn set_active(&mut self, queues: u16) -> io::Result<()> {
        self.inner.set_active(queues)
    }

    fn receive(
        &mut self,
        queue: u16,
        head: &mut [u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Received> {
        if queue == 0
            && let Some(received) = self.give(head, ram, spans)
        {
            return Ok(received);
        }
        self.inner.receive(queue, head, ram, spans)
    }

    fn send(
        &mut self,
        queue: u16,
        head: &[u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Sent> {
        if self.take(head, ram, spans) {
            return Ok(Sent::Whole);
        }
        self.inner.send(queue, head, ram, spans)
    }

    fn report(&self) -> Option<(&'static str, Report)> {
        Some(("metadata", self.responder.counters().report()))
    }
}

#[cfg(test)]
mod tests;
