//! Frames from the guest: their headers are copied out and checked, the rest goes straight from
//! guest memory to the host.

use zerocopy::IntoBytes;

use super::SourceMac;
use super::counters::{Counters, bump};
use super::wire::{ETHERNET_BYTES, Header, SOURCE};
use crate::limit::Throttle;
use crate::net::{HEADER_BYTES, Link, MOST_FRAME_BYTES, Offloads, Sent};
use crate::ram::GuestRam;
use crate::virtio::{Chain, Interrupt, Virtqueue};

/// A turn ends after this many frames or bytes.
const FRAMES_A_TURN: usize = 64;
const BYTES_A_TURN: usize = 1 << 20;
/// What is copied of a frame, so that the guest cannot change it once it was checked.
const HEAD_BYTES: usize = HEADER_BYTES + ETHERNET_BYTES;

/// What a queue needs to send.
#[derive(Debug)]
pub(super) struct Outlet<'a> {
    pub(super) link: &'a mut dyn Link,
    /// The queue of the link.
    pub(super) number: u16,
    pub(super) ram: &'a GuestRam,
    pub(super) throttle: &'a mut Throttle,
    pub(super) counters: &'a mut Counters,
    pub(super) interrupt: &'a Interrupt,
    /// What may come unfinished.
    pub(super) agreed: Offloads,
    pub(super) mac: [u8; 6],
    pub(super) source: SourceMac,
    /// Whether the link is up.
    pub(super) up: bool,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Went {
    /// The guest has sent no more.
    Idle,
    /// The turn has done enough.
    More,
    /// The host has no room.
    Full,
    /// Tokens of the limits are missing; the timer tells.
    Limited,
}

/// A frame of the guest.
#[derive(Debug)]
struct Frame {
    chain: Chain,
    head: [u8; HEAD_BYTES],
    bytes: usize,
    paid: bool,
    waited: bool,
}

/// Why a frame is none, or may not go.
enum Wrong {
    Malformed,
    Offload,
    Spoofed,
}

/// A transmit queue.
#[derive(Debug)]
pub(super) struct Sender {
    queue: Virtqueue,
    /// What was taken and cannot go now.
    held: Option<Frame>,
}

impl Sender {
    pub(super) fn new(queue: Virtqueue) -> Self {
        let held = None;
        Self { queue, held }
    }

    /// Sends frames, for one turn.
    pub(super) fn turn(&mut self, outlet: &mut Outlet<'_>) -> Went {
        let mut bytes = 0_usize;
        let mut went = Went::More;
        for _ in 0..FRAMES_A_TURN {
            if bytes >= BYTES_A_TURN {
                break;
            }
            let Some(taken) = self.take(outlet) else {
                went = Went::Idle;
                break;
            };
            let Some(mut frame) = taken else {
                continue;
            };
            let stuck = outlet.send(&mut frame);
            bytes = bytes.saturating_add(frame.bytes);
            if let Some(why) = stuck {
                self.held = Some(frame);
                went = why;
                break;
            }
            self.queue.complete(frame.chain, 0);
        }
        self.queue.notify();
        went
    }

    /// The next frame: none when there is no more, and none within when it was dropped.
    fn take(&mut self, outlet: &mut Outlet<'_>) -> Option<Option<Frame>> {
        if !self.queue.is_live() {
            self.held = None;
            return None;
        }
        if let Some(frame) = self.held.take() {
            return Some(Some(frame));
        }
        let chain = self.queue.pop().ok().flatten()?;
        match outlet.parse(chain) {
            Ok(frame) => Some(Some(frame)),
            Err((chain, wrong)) => {
                let counters = &mut *outlet.counters;
                match wrong {
                    Wrong::Malformed => bump(&mut counters.tx.malformed),
                    Wrong::Offload => bump(&mut counters.tx.bad_offloads),
                    // Counted where it is found.
                    Wrong::Spoofed => {}
                }
                self.queue.complete(chain, 0);
                Some(None)
            }
        }
    }
}

impl Outlet<'_> {
    /// Copies out what is checked, and checks it.
    fn parse(&mut self, mut chain: Chain) -> Result<Frame, (Chain, Wrong)> {
        let least = HEAD_BYTES as u64;
        let most = HEADER_BYTES.saturating_add(MOST_FRAME_BYTES) as u64;
        let bytes = chain.readable_bytes();
        if !chain.writable().is_empty() || !(least..=most).contains(&bytes) {
            return Err((chain, Wrong::Malformed));
        }
        let bytes = usize::try_from(bytes).unwrap_or_default();
        let bytes = bytes.saturating_sub(HEADER_BYTES);
        let Ok(header) = chain.take_header::<Header>(self.ram) else {
            return Err((chain, Wrong::Malformed));
        };
        let Ok(header) = header.for_host(bytes, self.agreed) else {
            return Err((chain, Wrong::Offload));
        };
        let mut head = [0; HEAD_BYTES];
        let (front, ethernet) = head.split_at_mut(HEADER_BYTES);
        for (to, from) in front.iter_mut().zip(header.as_bytes()) {
            *to = *from;
        }
        chain.read(self.ram, ethernet);
        if ethernet.get(SOURCE) != Some(&self.mac) {
            bump(&mut self.counters.tx_spoofed);
            if self.source == SourceMac::Own {
                return Err((chain, Wrong::Spoofed));
            }
        }
        Ok(Frame {
            chain,
            head,
            bytes,
            paid: false,
            waited: false,
        })
    }

    /// Sends a frame, or drops it: why it has to wait, if it does.
    fn send(&mut self, frame: &mut Frame) -> Option<Went> {
        if !self.up {
            bump(&mut self.counters.tx_link_down);
            return None;
        }
        let bytes = frame.bytes as u64;
        if !frame.paid && !self.throttle.take(bytes, 1) {
            if !std::mem::replace(&mut frame.waited, true) {
                bump(&mut self.counters.tx.throttled);
            }
            return Some(Went::Limited);
        }
        frame.paid = true;
        let rest = frame.chain.readable();
        match self.link.send(self.number, &frame.head, self.ram, rest) {
            Ok(Sent::Whole) => self.counters.tx.count(bytes),
            Ok(Sent::Full) => {
                bump(&mut self.counters.tx_full);
                return Some(Went::Full);
            }
            Err(error) => {
                bump(&mut self.counters.tx.host_errors);
                let about = format_args!("a frame could not be sent: {error}");
                self.interrupt.warn(about);
            }
        }
        None
    }
}
