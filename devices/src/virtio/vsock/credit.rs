//! Credit (virtio 1.2, 5.10.6.3): how much each side of a connection may send. Pure arithmetic on
//! 32-bit counters that go round.

use std::collections::VecDeque;

/// What a guest's queued packet costs it beside its data. Linux ends a connection when its queued
/// packets, counted so, are more than its buffer, which the protocol has no word for.
const PACKET_COST: u32 = 768;
/// Most packets that are under way on a connection.
const PACKETS: u32 = 4096;
/// The most that is ever under way to the guest. Far below half the counters' range, so that
/// ahead and behind can be told apart.
const UNDER_WAY: u32 = 1 << 30;

/// The guest told of credit that cannot be, or sent more than it had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Violation;

/// Why nothing may be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Exhausted {
    /// The guest's buffer is full. It tells of its own accord when it no longer is.
    Bytes,
    /// Too many small packets are under way. Their end may not be worth a packet to the guest.
    Packets,
}

/// The counters of one connection. "Out" is towards the guest.
#[derive(Debug)]
pub(super) struct Credit {
    out_sent: u32,
    out_forwarded: u32,
    out_room: u32,
    // Where each packet under way ends, in terms of `out_sent`.
    out_packets: VecDeque<u32>,
    in_room: u32,
    in_received: u32,
    in_forwarded: u32,
    in_told: u32,
}

impl Credit {
    /// Counters that begin at `first`, zero but in tests; the guest may send `room` bytes.
    pub(super) fn new(room: u32, first: u32) -> Self {
        Self {
            out_sent: first,
            out_forwarded: first,
            out_room: 0,
            out_packets: VecDeque::new(),
            in_room: room,
            in_received: first,
            in_forwarded: first,
            in_told: first,
        }
    }

    /// Bytes that the guest has not handed on.
    fn under_way(&self) -> u32 {
        self.out_sent.wrapping_sub(self.out_forwarded)
    }

    /// Takes what a packet of the guest tells of its buffer: whether it handed anything on.
    ///
    /// # Errors
    /// When it claims to have handed on what was never sent.
    pub(super) fn told(&mut self, buf_alloc: u32, fwd_cnt: u32) -> Result<bool, Violation> {
        let advance = fwd_cnt.wrapping_sub(self.out_forwarded);
        self.out_room = buf_alloc;
        if advance == 0 {
            return Ok(false);
        }
        if advance > self.under_way() {
            // Two threads of a guest may swap their packets: older news is no offence.
            let behind = self.out_sent.wrapping_sub(fwd_cnt) < u32::MAX / 2;
            return if behind { Ok(false) } else { Err(Violation) };
        }
        self.out_forwarded = fwd_cnt;
        let left = self.under_way();
        let sent = self.out_sent;
        // A packet is under way until its last byte is handed on.
        let gone = |end: &u32| sent.wrapping_sub(*end) >= left;
        while self.out_packets.front().is_some_and(gone) {
            self.out_packets.pop_front();
        }
        Ok(true)
    }

    /// How many bytes may be sent now.
    pub(super) fn bytes(&self) -> u32 {
        let room = self.out_room.min(UNDER_WAY);
        room.saturating_sub(self.under_way())
    }

    /// How many packets may be sent now.
    pub(super) fn packets(&self) -> usize {
        let most = (self.out_room / PACKET_COST).clamp(1, PACKETS);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        most.saturating_sub(self.out_packets.len())
    }

    /// Why nothing may be sent; none when something may.
    pub(super) fn exhausted(&self) -> Option<Exhausted> {
        if self.bytes() == 0 {
            Some(Exhausted::Bytes)
        } else if self.packets() == 0 {
            Some(Exhausted::Packets)
        } else {
            None
        }
    }

    /// A packet with `len` bytes goes to the guest.
    pub(super) fn sent(&mut self, len: u32) {
        self.out_sent = self.out_sent.wrapping_add(len);
        self.out_packets.push_back(self.out_sent);
    }

    /// A packet with `len` bytes came from the guest.
    ///
    /// # Errors
    /// When it is more than the guest was allowed.
    pub(super) fn received(&mut self, len: u32) -> Result<(), Violation> {
        let held = self.in_received.wrapping_sub(self.in_forwarded);
        if len > self.in_room.saturating_sub(held) {
            return Err(Violation);
        }
        self.in_received = self.in_received.wrapping_add(len);
        Ok(())
    }

    /// `len` of the bytes received are handed on.
    pub(super) fn forwarded(&mut self, len: u32) {
        self.in_forwarded = self.in_forwarded.wrapping_add(len);
    }

    /// What a packet to the guest tells: `buf_alloc` and `fwd_cnt`.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.in_told = self.in_forwarded;
        (self.in_room, self.in_forwarded)
    }

    /// Whether the guest should be told, though nothing else is to be sent: it may be waiting for
    /// room that is there, and enough has become free to be worth a packet.
    pub(super) fn is_news(&self) -> bool {
        let untold = self.in_forwarded.wrapping_sub(self.in_told);
        let seen_used = self.in_received.wrapping_sub(self.in_told);
        let all_free = self.in_received == self.in_forwarded;
        seen_used > self.in_room / 2 && (all_free || untold >= self.in_room / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn credit(first: u32) -> Credit {
        let mut credit = Credit::new(1000, first);
        assert_eq!(credit.told(4000, first), Ok(false));
        credit
    }

    #[test]
    fn what_was_never_sent_cannot_be_handed_on() {
        for first in [0, u32::MAX - 100, u32::MAX, 1 << 31] {
            let mut credit = credit(first);
            credit.sent(300);
            let at = |count: u32| first.wrapping_add(count);
            assert_eq!(credit.bytes(), 3700);
            assert_eq!(credit.told(4000, at(301)), Err(Violation), "{first:#x}");
            assert_eq!(credit.told(4000, at(200)), Ok(true));
            assert_eq!(credit.bytes(), 3900);
            assert_eq!(credit.told(4000, at(100)), Ok(false), "older news");
            assert_eq!(credit.told(4000, at(300)), Ok(true));
            assert_eq!(credit.told(4000, at(1 << 30)), Err(Violation));
            assert_eq!(credit.bytes(), 4000);
        }
    }

    #[test]
    fn a_buffer_that_shrinks_leaves_no_credit() {
        let mut credit = credit(0);
        credit.sent(3000);
        assert_eq!(credit.told(2999, 0), Ok(false));
        assert_eq!(credit.exhausted(), Some(Exhausted::Bytes));
        assert_eq!(credit.told(0, 3000), Ok(true));
        assert_eq!(credit.exhausted(), Some(Exhausted::Bytes));
        assert_eq!(credit.told(u32::MAX, 3000), Ok(false));
        assert_eq!(credit.bytes(), UNDER_WAY);
    }

    #[test]
    fn small_packets_are_counted_too() {
        let mut credit = credit(u32::MAX - 2);
        for _ in 0..5 {
            assert_eq!(credit.exhausted(), None);
            credit.sent(1);
        }
        assert_eq!(credit.exhausted(), Some(Exhausted::Packets));
        assert_eq!(credit.told(4000, u32::MAX), Ok(true));
        assert_eq!(credit.packets(), 2);
        // However small the buffer, one packet may be under way.
        assert_eq!(credit.told(9, 2), Ok(true));
        assert_eq!((credit.packets(), credit.bytes()), (1, 9));
    }

    #[test]
    fn the_guest_gets_no_more_than_its_room() {
        let mut credit = credit(u32::MAX - 500);
        assert_eq!(credit.received(1000), Ok(()));
        assert_eq!(credit.received(1), Err(Violation));
        credit.forwarded(10);
        assert_eq!(credit.received(11), Err(Violation));
        assert_eq!(credit.received(10), Ok(()));
        assert_eq!(credit.received(0), Ok(()));
        assert_eq!(credit.received(u32::MAX), Err(Violation));
    }

    #[test]
    fn news_is_told_when_the_guest_may_wait_for_it() {
        let mut credit = credit(0);
        credit.received(500).unwrap();
        credit.forwarded(500);
        assert!(!credit.is_news(), "half is free as far as the guest knows");
        credit.received(400).unwrap();
        credit.forwarded(100);
        assert!(credit.is_news());
        assert_eq!(credit.tell(), (1000, 600));
        credit.received(300).unwrap();
        assert!(!credit.is_news());
        credit.forwarded(10);
        assert!(!credit.is_news(), "too little");
        credit.forwarded(590);
        assert!(credit.is_news());
        credit.tell();
        assert!(!credit.is_news());
    }

    proptest! {
        /// Whatever happens, as much is under way as was sent and not handed on, and a guest that
        /// keeps to the rules is never accused, wherever the counters stand.
        #[test]
        fn a_good_guest_and_its_credit_agree(
            first: u32,
            steps in prop::collection::vec((0_u8..4, 0_u32..2000), 1..200),
        ) {
            let mut credit = credit(first);
            let (mut sent, mut handed_on) = (0_u64, 0_u64);
            let (mut received, mut forwarded) = (0_u64, 0_u64);
            let at = |count: u64| first.wrapping_add(u32::try_from(count & 0xffff_ffff).unwrap());
            for (what, amount) in steps {
                match what {
                    0 => {
                        let len = amount.min(credit.bytes());
                        if len > 0 && credit.packets() > 0 {
                            credit.sent(len);
                            sent += u64::from(len);
                        }
                    }
                    1 => {
                        handed_on += u64::from(amount).min(sent - handed_on);
                        prop_assert!(credit.told(4000, at(handed_on)).is_ok());
                    }
                    2 => {
                        let free = 1000 - (received - forwarded);
                        let fits = u64::from(amount) <= free;
                        prop_assert_eq!(credit.received(amount).is_ok(), fits);
                        received += if fits { amount.into() } else { 0 };
                    }
                    _ => {
                        let len = u64::from(amount).min(received - forwarded);
                        credit.forwarded(u32::try_from(len).unwrap());
                        forwarded += len;
                        prop_assert_eq!(credit.in_forwarded, at(forwarded));
                    }
                }
                prop_assert_eq!(u64::from(credit.under_way()), sent - handed_on);
                prop_assert_eq!(u64::from(credit.bytes()), 4000 - (sent - handed_on));
            }
        }
    }
}
