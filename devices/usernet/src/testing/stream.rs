//! A TCP connection of the test guest, on a link that loses nothing: what would have to be sent
//! again is an error.

use super::Wire;
use crate::wire::build::Macs;
use crate::wire::tcp::{ACK, FIN, PSH, RST, SYN, Segment, mss_of};
use crate::wire::{TCP, be16, put};
use std::io;
use std::net::SocketAddr;

/// Window sizes are told in units of 128 bytes.
const SHIFT: u8 = 7;
const FIRST_SEQ: u32 = 0xffff_fff0;

/// Names a stream of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub(super) usize);

/// A connection.
#[derive(Debug)]
pub struct Stream {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    own_mss: u16,
    /// The largest segment that the network says it takes.
    mss: u16,
    unacknowledged: u32,
    next: u32,
    /// The number up to which the other side takes data.
    right_edge: u32,
    shift: u8,
    expected: u32,
    acknowledged: u32,
    window: u32,
    told_window: u32,
    received: Vec<u8>,
    count: u64,
    keeps: bool,
    is_open: bool,
    is_closed: bool,
    is_ended: bool,
    is_reset: bool,
}

impl Stream {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr, window: u32, own_mss: u16) -> Self {
        Self {
            local,
            remote,
            own_mss,
            mss: own_mss,
            unacknowledged: FIRST_SEQ,
            next: FIRST_SEQ,
            right_edge: FIRST_SEQ,
            shift: 0,
            expected: 0,
            acknowledged: 0,
            window,
            told_window: 0,
            received: Vec::new(),
            count: 0,
            keeps: true,
            is_open: false,
            is_closed: false,
            is_ended: false,
            is_reset: false,
        }
    }

    /// True once the connection is made.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// True once the other side has sent its last.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// True once the other side has broken the connection, or refused it.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// True when everything that was sent, the end too, has been acknowledged.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.unacknowledged == self.next
    }

    /// Bytes received so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Who the other is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The largest segment that the network says it takes.
    #[must_use]
    pub fn mss(&self) -> u16 {
        self.mss
    }

    pub(super) fn only_count(&mut self) {
        self.keeps = false;
        self.received = Vec::new();
    }

    pub(super) fn open(&mut self, wire: &mut Wire, macs: Macs, flags: u8) -> io::Result<()> {
        let [high, low] = self.own_mss.to_be_bytes();
        let options = [2, 4, high, low, 3, 3, SHIFT, 1];
        self.emit(wire, macs, flags, &options, &[])?;
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    fn free(&self) -> u32 {
        let used = u32::try_from(self.received.len()).unwrap_or(u32::MAX);
        self.window.saturating_sub(used)
    }

    fn emit(
        &mut self,
        wire: &mut Wire,
        macs: Macs,
        flags: u8,
        options: &[u8],
        data: &[u8],
    ) -> io::Result<()> {
        let free = self.free();
        let shift = if flags & SYN != 0 { 0 } else { SHIFT };
        let window = u16::try_from(free >> shift).unwrap_or(u16::MAX);
        let mut head = vec![0; 20];
        put(&mut head, 0, &self.local.port().to_be_bytes());
        put(&mut head, 2, &self.remote.port().to_be_bytes());
        put(&mut head, 4, &self.next.to_be_bytes());
        if flags & ACK != 0 {
            put(&mut head, 8, &self.expected.to_be_bytes());
        }
        let words = u8::try_from((20 + options.len()) / 4).unwrap_or(5);
        put(&mut head, 12, &[words << 4, flags]);
        put(&mut head, 14, &window.to_be_bytes());
        head.extend_from_slice(options);
        self.acknowledged = self.expected;
        self.told_window = u32::from(window) << shift;
        wire.send_tcp(macs, (self.local, self.remote), &head, data, self.mss)
    }

    pub(super) fn take(&mut self, segment: &Segment, bytes: &[u8]) -> io::Result<()> {
        if segment.is(RST) {
            self.is_reset = true;
            return Ok(());
        }
        let window = u32::from(be16(bytes, 14).unwrap_or(0));
        if segment.is(SYN) {
            if let Some(mss) = mss_of(bytes) {
                self.mss = mss.min(self.own_mss);
            }
            self.shift = window_scale(bytes).unwrap_or(0);
            self.expected = segment.seq.wrapping_add(1);
            self.is_open |= segment.is(ACK);
            // The first window has no scale.
            self.unacknowledged = if segment.is(ACK) {
                segment.ack
            } else {
                self.next
            };
            self.right_edge = self.unacknowledged.wrapping_add(window);
            return Ok(());
        }
        if segment.is(ACK) {
            self.is_open = true;
            if segment.ack.wrapping_sub(self.next).cast_signed() > 0 {
                return Err(io::Error::other(
                    "an acknowledgement of what was never sent",
                ));
            }
            self.unacknowledged = segment.ack;
            self.right_edge = segment.ack.wrapping_add(window << self.shift);
        }
        let data = bytes.get(segment.header..).unwrap_or_default();
        let length = u32::try_from(data.len()).unwrap_or(0);
        if (length > 0 || segment.is(FIN)) && segment.seq != self.expected {
            // A probe of a closed window repeats a byte at most.
            if length <= 1 {
                self.acknowledged = self.expected.wrapping_sub(1);
                return Ok(());
            }
            return Err(io::Error::other(format!(
                "a segment at {} instead of {}: the link has lost one or sent it twice",
                segment.seq, self.expected
            )));
        }
        if length > self.free() {
            // More than there is room for, as a probe: it is not taken.
            self.acknowledged = self.expected.wrapping_sub(1);
            return Ok(());
        }
        self.expected = self
            .expected
            .wrapping_add(length + u32::from(segment.is(FIN)));
        self.count += u64::from(length);
        if self.keeps {
            self.received.extend_from_slice(data);
        }
        self.is_ended |= segment.is(FIN);
        Ok(())
    }

    /// Acknowledges what has come, if something has.
    pub(super) fn acknowledge(&mut self, wire: &mut Wire, macs: Macs) -> io::Result<()> {
        let is_new = self.acknowledged != self.expected;
        let has_more_room = self.free() / 2 >= self.told_window && self.told_window < self.window;
        if self.is_open && !self.is_reset && (is_new || has_more_room) {
            self.emit(wire, macs, ACK, &[], &[])?;
        }
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        wire: &mut Wire,
        macs: Macs,
        large: bool,
        data: &[u8],
    ) -> io::Result<usize> {
        const LARGEST: usize = 65_000;
        let most = if large { LARGEST } else { self.mss.into() };
        let mut sent = 0;
        while sent < data.len() && self.is_open && !self.is_closed {
            let window = self.right_edge.wrapping_sub(self.next).cast_signed();
            let window = usize::try_from(window).unwrap_or(0);
            let bytes = most.min(window).min(data.len() - sent);
            if bytes == 0 || !wire.has_room()? {
                break;
            }
            self.emit(wire, macs, ACK | PSH, &[], &data[sent..sent + bytes])?;
            sent += bytes;
            self.next = self.next.wrapping_add(u32::try_from(bytes).unwrap_or(0));
        }
        Ok(sent)
    }

    pub(super) fn close(&mut self, wire: &mut Wire, macs: Macs) -> io::Result<()> {
        self.emit(wire, macs, FIN | ACK, &[], &[])?;
        self.next = self.next.wrapping_add(1);
        self.is_closed = true;
        Ok(())
    }

    pub(super) fn abort(&mut self, wire: &mut Wire, macs: Macs) -> io::Result<()> {
        self.is_closed = true;
        self.emit(wire, macs, RST | ACK, &[], &[])
    }

    pub(super) fn read(&mut self, wire: &mut Wire, macs: Macs) -> io::Result<Vec<u8>> {
        let received = std::mem::take(&mut self.received);
        self.acknowledge(wire, macs)?;
        Ok(received)
    }
}

fn window_scale(bytes: &[u8]) -> Option<u8> {
    let header = usize::from(*bytes.get(12)? >> 4) * 4;
    let mut at = 20;
    while at < header {
        match (*bytes.get(at)?, bytes.get(at + 1), bytes.get(at + 2)) {
            (0, ..) => return None,
            (1, ..) => at += 1,
            (3, _, Some(shift)) => return Some(*shift),
            (_, Some(length), _) => at += usize::from(*length).max(2),
            _ => return None,
        }
    }
    None
}

/// The protocol's number, for those who build packets.
pub(super) const PROTOCOL: u8 = TCP;
