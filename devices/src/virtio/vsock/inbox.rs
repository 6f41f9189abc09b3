//! The guest's receive buffers: what goes into them, several at a time and without a copy.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use zerocopy::IntoBytes;

use super::counters::{Counters, add, bump};
use super::wire::{HEADER_BYTES, Header};
use crate::ram::GuestRam;
use crate::sys::stream::Pieces;
use crate::virtio::{Chain, Virtqueue};

/// The most data in one packet.
pub(super) const PACKET_BYTES: usize = 64 << 10;
/// How many packets one system call fills.
const PACKETS_A_CALL: usize = 32;
/// The least buffer that is of use: a header and a byte.
const LEAST_BYTES: u64 = HEADER_BYTES as u64 + 1;
/// How many useless buffers are given back in one go, before others have their turn.
const USELESS: usize = 256;

/// What came of receiving into the guest's buffers.
#[derive(Debug)]
pub(super) enum Received {
    /// So many bytes; `all` when the socket has no more for now.
    Data {
        /// How many bytes.
        bytes: usize,
        /// Whether the socket was emptied.
        all: bool,
    },
    /// The socket has nothing now.
    Nothing,
    /// The stream has ended.
    End,
    /// The guest has no buffer.
    Starved,
    /// The host's error.
    Failed(io::Error),
}

/// The receive queue, with those of its buffers that were taken and not yet used.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Virtqueue,
    ram: GuestRam,
    taken: VecDeque<Chain>,
    starved: bool,
}

impl Inbox {
    pub(super) fn new(queue: Virtqueue, ram: GuestRam) -> Self {
        Self {
            queue,
            ram,
            taken: VecDeque::new(),
            starved: false,
        }
    }

    /// Whether the guest had no buffer when one was wanted.
    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// The guest may have new buffers.
    pub(super) fn refilled(&mut self) {
        self.starved = false;
    }

    /// Makes sure that at least `count` buffers are taken, if there are: how many are.
    fn take(&mut self, count: usize, counters: &mut Counters) -> usize {
        let mut useless = 0;
        while self.taken.len() < count && useless < USELESS {
            let Ok(Some(chain)) = self.queue.pop() else {
                // The guest rings when it has one.
                self.starved = self.taken.is_empty();
                break;
            };
            if chain.writable_bytes() >= LEAST_BYTES {
                self.taken.push_back(chain);
                continue;
            }
            self.queue.refuse(chain);
            bump(&mut counters.rx_too_small);
            useless += 1;
        }
        if self.starved {
            bump(&mut counters.rx_starved);
        }
        self.taken.len()
    }

    /// Whether a packet can be sent now.
    pub(super) fn has_room(&mut self, counters: &mut Counters) -> bool {
        !self.starved && self.take(1, counters) > 0
    }

    /// Sends a packet without data, for which there [is room](Self::has_room).
    pub(super) fn send(&mut self, header: &Header, counters: &mut Counters) {
        if let Some(chain) = self.taken.pop_front() {
            self.finish(chain, header, 0);
            bump(&mut counters.rx_packets);
        }
    }

    /// Fills buffers with what `socket` has: at most `limit` bytes in at most `packets` packets.
    /// `header` makes the header of a packet with so many bytes.
    pub(super) fn receive(
        &mut self,
        socket: impl AsFd,
        (limit, packets): (usize, usize),
        counters: &mut Counters,
        header: &mut dyn FnMut(u32) -> Header,
    ) -> Received {
        let ram = self.ram.clone();
        let mut pieces = Pieces::new(&ram);
        let mut rooms = [0_usize; PACKETS_A_CALL];
        let mut wanted = 0_usize;
        for (index, room) in rooms.iter_mut().take(packets).enumerate() {
            let left = limit.saturating_sub(wanted).min(PACKET_BYTES);
            if left == 0 || self.starved || self.take(index.saturating_add(1), counters) <= index {
                break;
            }
            let Some(chain) = self.taken.get(index) else {
                break;
            };
            *room = pieces.add(chain.writable(), HEADER_BYTES as u64, left);
            wanted = wanted.saturating_add(*room);
            if *room == 0 {
                break;
            }
        }
        if wanted == 0 {
            return Received::Starved;
        }
        let received = match pieces.receive(socket) {
            Ok(0) => return Received::End,
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
            Err(error) => return Received::Failed(error),
        };
        self.hand_over(received, &rooms, counters, header);
        Received::Data {
            bytes: received,
            all: received < wanted,
        }
    }

    fn hand_over(
        &mut self,
        received: usize,
        rooms: &[usize],
        counters: &mut Counters,
        header: &mut dyn FnMut(u32) -> Header,
    ) {
        add(&mut counters.rx_bytes, received);
        let mut left = received;
        for room in rooms {
            let len = left.min(*room);
            if len == 0 {
                break;
            }
            left = left.saturating_sub(len);
            if let Some(chain) = self.taken.pop_front() {
                let len = u32::try_from(len).unwrap_or_default();
                self.finish(chain, &header(len), len);
                bump(&mut counters.rx_packets);
            }
        }
    }

    fn finish(&mut self, mut chain: Chain, header: &Header, len: u32) {
        chain.write(&self.ram, header.as_bytes());
        let header_bytes = u32::try_from(HEADER_BYTES).unwrap_or_default();
        self.queue.complete(chain, len.saturating_add(header_bytes));
    }

    /// Tells the guest of what it got.
    pub(super) fn notify(&mut self) {
        self.queue.notify();
    }
}
