//! Frames to the guest: straight from the host into its buffers, one or more for each frame.
//!
//! Before a frame is received, its guest has given room for the largest. Where it has not, the
//! frame is received beside guest memory, so that its size is known: it goes on if it fits, waits
//! for more buffers, or is lost when there is no hope of any. Without a buffer nothing is received
//! at all, and the frames wait on the host.

use std::collections::VecDeque;

use zerocopy::{FromZeros, IntoBytes};

use super::counters::{Counters, bump};
use super::wire::{ETHERNET_BYTES, Header};
use crate::limit::Throttle;
use crate::net::{HEADER_BYTES, Link, MOST_FRAME_BYTES, Offloads, Received};
use crate::ram::GuestRam;
use crate::virtio::{Chain, Interrupt, Span, Virtqueue};

/// A turn ends after this many frames or bytes.
const FRAMES_A_TURN: usize = 64;
const BYTES_A_TURN: usize = 1 << 20;
/// A frame is received when the limits let so many bytes through, whatever its size is then.
const WORTH: u64 = 1514;
/// A link that fails this often in a row is taken for lost.
const FAILURES: u32 = 8;

/// What a queue needs to receive.
#[derive(Debug)]
pub(super) struct Inlet<'a> {
    pub(super) link: &'a mut dyn Link,
    pub(super) number: u16,
    pub(super) ram: &'a GuestRam,
    pub(super) throttle: &'a mut Throttle,
    pub(super) counters: &'a mut Counters,
    pub(super) interrupt: &'a Interrupt,
    /// What may come unfinished.
    pub(super) agreed: Offloads,
    /// The largest frame, its header included.
    pub(super) most: usize,
}

/// What a queue waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wait {
    /// Frames of the host.
    Frames,
    /// Buffers of the guest.
    Buffers,
    /// Tokens of the limits; the timer tells.
    Tokens,
    /// Nothing: the link is gone.
    Lost,
}

/// What came of one look for a frame.
enum Next {
    /// It has so many bytes.
    Frame(usize),
    /// Something was done, and there may be more.
    Again,
    Wait(Wait),
}

/// How far the guest's buffers go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stock {
    Enough,
    /// The guest has given no more, and rings when it does.
    Dry,
    /// There may be more than were looked at.
    Unknown,
}

/// A buffer of the guest.
#[derive(Debug)]
struct Buffer {
    chain: Chain,
    room: usize,
}

/// A receive queue.
#[derive(Debug)]
pub(super) struct Receiver {
    queue: Virtqueue,
    mergeable: bool,
    held: VecDeque<Buffer>,
    room: usize,
    /// The most buffers that were there at once, which the guest may be expected to give again.
    most_buffers: usize,
    spans: Vec<Span>,
    /// Where frames are received that guest memory may have no room for, made when needed first.
    spare: Vec<u8>,
    /// The length of a frame that waits there.
    parked: Option<usize>,
    failures: u32,
    pub(super) wait: Wait,
}

impl Receiver {
    pub(super) fn new(queue: Virtqueue, mergeable: bool) -> Self {
        Self {
            queue,
            mergeable,
            held: VecDeque::new(),
            room: 0,
            most_buffers: 0,
            spans: Vec::new(),
            spare: Vec::new(),
            parked: None,
            failures: 0,
            wait: Wait::Buffers,
        }
    }

    /// Receives frames, for one turn.
    pub(super) fn turn(&mut self, inlet: &mut Inlet<'_>) {
        let mut bytes = 0_usize;
        let mut was = self.wait;
        let mut wait = Wait::Frames;
        for _ in 0..FRAMES_A_TURN {
            match self.next(inlet) {
                Next::Frame(len) => {
                    bytes = bytes.saturating_add(len);
                    was = Wait::Frames;
                }
                Next::Again => {}
                Next::Wait(for_what) => {
                    wait = for_what;
                    break;
                }
            }
            if bytes >= BYTES_A_TURN {
                break;
            }
        }
        self.queue.notify();
        if wait == Wait::Buffers && was != wait {
            bump(&mut inlet.counters.rx_starved);
        }
        self.wait = wait;
    }

    fn next(&mut self, inlet: &mut Inlet<'_>) -> Next {
        if !self.queue.is_live() || self.queue.broken().is_some() {
            self.forget();
            return Next::Wait(Wait::Buffers);
        }
        if let Some(bytes) = self.parked {
            return self.unpark(inlet, bytes);
        }
        let stock = self.fill(inlet, inlet.most);
        if self.held.is_empty() {
            return match stock {
                Stock::Dry => Next::Wait(Wait::Buffers),
                _ => Next::Again,
            };
        }
        if inlet.throttle.grant(WORTH).is_none() {
            if self.wait != Wait::Tokens {
                bump(&mut inlet.counters.rx.throttled);
            }
            return Next::Wait(Wait::Tokens);
        }
        if self.fits(inlet.most) {
            self.receive(inlet)
        } else {
            self.receive_beside(inlet)
        }
    }

    /// The queue is no longer ours.
    fn forget(&mut self) {
        self.held.clear();
        (self.room, self.parked) = (0, None);
    }

    /// Takes buffers of the guest until there is room for so many bytes.
    fn fill(&mut self, inlet: &mut Inlet<'_>, bytes: usize) -> Stock {
        for _ in 0..self.queue.size() {
            let enough = match self.mergeable {
                true => self.room >= bytes,
                false => !self.held.is_empty(),
            };
            if enough {
                return Stock::Enough;
            }
            let Ok(Some(chain)) = self.queue.pop() else {
                return Stock::Dry;
            };
            let room = usize::try_from(chain.writable_bytes()).unwrap_or_default();
            if room < HEADER_BYTES || !chain.readable().is_empty() {
                bump(&mut inlet.counters.rx_bad_buffers);
                self.queue.refuse(chain);
                continue;
            }
            self.held.push_back(Buffer { chain, room });
            self.room = self.room.saturating_add(room);
            let there = self.held.len().saturating_add(self.queue.waiting().into());
            self.most_buffers = self.most_buffers.max(there);
        }
        Stock::Unknown
    }

    /// Whether a frame of so many bytes, its header included, has room.
    fn fits(&self, bytes: usize) -> bool {
        let front = || self.held.front().is_some_and(|buffer| buffer.room >= bytes);
        match self.mergeable {
            true => self.room >= bytes,
            false => front(),
        }
    }

    /// Receives into guest memory, which has room for any frame.
    fn receive(&mut self, inlet: &mut Inlet<'_>) -> Next {
        self.gather();
        let mut header = Header::new_zeroed();
        let (number, ram) = (inlet.number, inlet.ram);
        let got = inlet
            .link
            .receive(number, header.as_mut_bytes(), ram, &self.spans);
        match self.judge(inlet, got) {
            Ok(bytes) => self.deliver(inlet, header, bytes, None),
            Err(next) => next,
        }
    }

    /// Receives beside guest memory, which may have no room for the frame.
    fn receive_beside(&mut self, inlet: &mut Inlet<'_>) -> Next {
        let most = HEADER_BYTES.saturating_add(MOST_FRAME_BYTES);
        self.spare.resize(most, 0);
        let got = inlet
            .link
            .receive(inlet.number, &mut self.spare, inlet.ram, &[]);
        match self.judge(inlet, got) {
            Ok(bytes) => self.unpark(inlet, bytes),
            Err(next) => next,
        }
    }

    /// The length of a frame that came, or what to do without one.
    fn judge(
        &mut self,
        inlet: &mut Inlet<'_>,
        got: std::io::Result<Received>,
    ) -> Result<usize, Next> {
        let failures = std::mem::take(&mut self.failures);
        match got {
            Ok(Received::Frame(bytes)) => Ok(bytes),
            Ok(Received::Nothing) => Err(Next::Wait(Wait::Frames)),
            Ok(Received::TooLarge) => {
                bump(&mut inlet.counters.rx_too_large);
                Err(Next::Again)
            }
            Ok(Received::Closed) => Err(Next::Wait(Wait::Lost)),
            Err(error) => {
                bump(&mut inlet.counters.rx.host_errors);
                let about = format_args!("a frame could not be received: {error}");
                inlet.interrupt.warn(about);
                self.failures = failures.saturating_add(1);
                match self.failures < FAILURES {
                    true => Err(Next::Again),
                    false => Err(Next::Wait(Wait::Lost)),
                }
            }
        }
    }

    /// Hands on a frame that was received beside guest memory, if there is room for it by now.
    fn unpark(&mut self, inlet: &mut Inlet<'_>, bytes: usize) -> Next {
        self.parked = Some(bytes);
        let stock = self.fill(inlet, bytes);
        if !self.fits(bytes) {
            return match stock {
                Stock::Unknown => Next::Again,
                _ if self.is_hopeless() => {
                    self.parked = None;
                    bump(&mut inlet.counters.rx_too_large);
                    Next::Again
                }
                _ => Next::Wait(Wait::Buffers),
            };
        }
        self.parked = None;
        let spare = std::mem::take(&mut self.spare);
        let frame = spare.get(..bytes).unwrap_or_default();
        let (header, data) = frame.split_at_checked(HEADER_BYTES).unwrap_or_default();
        let mut copy = Header::new_zeroed();
        for (to, from) in copy.as_mut_bytes().iter_mut().zip(header) {
            *to = *from;
        }
        let next = self.deliver(inlet, copy, bytes, Some(data));
        self.spare = spare;
        next
    }

    /// Whether the guest cannot be expected to give more room before it has received what waits:
    /// one buffer has to be enough, or it has no more than half of its buffers in its own hands.
    fn is_hopeless(&self) -> bool {
        let held = self.held.len();
        held > 0 && (!self.mergeable || held.saturating_mul(2) >= self.most_buffers)
    }

    /// Lists the guest memory that a frame goes to, without its header's.
    fn gather(&mut self) {
        self.spans.clear();
        let mut skip = u32::try_from(HEADER_BYTES).unwrap_or_default();
        let buffers = if self.mergeable { self.held.len() } else { 1 };
        for buffer in self.held.iter().take(buffers) {
            for span in buffer.chain.writable() {
                let behind = skip.min(span.len);
                skip = skip.saturating_sub(behind);
                let len = span.len.saturating_sub(behind);
                if len > 0 {
                    let at = span.at.wrapping_add(behind.into());
                    self.spans.push(Span { at, len });
                }
            }
        }
    }

    /// Completes the buffers of a frame that is in guest memory, or in `data` but for its header.
    fn deliver(
        &mut self,
        inlet: &mut Inlet<'_>,
        header: Header,
        bytes: usize,
        data: Option<&[u8]>,
    ) -> Next {
        let frame = bytes.saturating_sub(HEADER_BYTES);
        if frame < ETHERNET_BYTES {
            bump(&mut inlet.counters.rx.malformed);
            return Next::Again;
        }
        let buffers = self.buffers_for(bytes);
        let count = u16::try_from(buffers).unwrap_or(u16::MAX);
        let Ok(header) = header.for_guest(frame, inlet.agreed, count) else {
            bump(&mut inlet.counters.rx.bad_offloads);
            return Next::Again;
        };
        if let Some(front) = self.held.front_mut() {
            front.chain.write(inlet.ram, header.as_bytes());
        }
        let mut data = data.unwrap_or_default();
        let mut left = bytes;
        let room = &mut self.room;
        let filled = self.held.drain(..buffers).map(|mut buffer| {
            let len = buffer.room.min(left);
            left = left.saturating_sub(len);
            *room = room.saturating_sub(buffer.room);
            let copied = buffer.chain.write(inlet.ram, data);
            data = data.get(copied..).unwrap_or_default();
            (buffer.chain, u32::try_from(len).unwrap_or_default())
        });
        self.queue.complete_together(filled);
        inlet.throttle.spend(frame as u64);
        inlet.counters.rx.count(frame as u64);
        Next::Frame(frame)
    }

    /// How many buffers so many bytes fill.
    fn buffers_for(&self, bytes: usize) -> usize {
        let mut left = bytes;
        let needed = self.held.iter().take_while(|buffer| {
            let more = left > 0;
            left = left.saturating_sub(buffer.room);
            more
        });
        needed.count()
    }
}
