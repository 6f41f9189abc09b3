//! What the TCP engine sees as its network device: one packet comes in, and what it sends goes to
//! the guest, as large segments where the guest takes them.

use crate::config::Offloads;
use crate::counters::Counters;
use crate::link::{HEADER_BYTES, Link};
use crate::net::Net;
use crate::wire::build::{Macs, PLAIN};
use crate::wire::tcp::{FIN, PSH, SYN, Segment, replace_mss};
use crate::wire::{ETHERNET_BYTES, IPV4, IPV6, TCP, be16, put, sum};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use std::net::IpAddr;

/// What the engine may put into one packet: as much as an IP packet holds. What the guest's link
/// takes is cut by the guest's driver, or here.
pub(super) const ENGINE_MTU: usize = 65_535;
/// What a segment of the guest's may hold, as the engine is told.
pub(super) const ENGINE_MSS: u16 = 65_475;

const HEADS: usize = HEADER_BYTES + ETHERNET_BYTES;

/// The guest's side for one connection, for one turn.
#[derive(Debug)]
pub(super) struct Port<'n> {
    packet: Option<&'n [u8]>,
    out: Out<'n>,
}

#[derive(Debug)]
struct Out<'n> {
    link: &'n mut Link,
    counters: &'n mut Counters,
    macs: Macs,
    mtu: u16,
    /// The guest's largest segment.
    mss: u16,
}

impl<'n> Port<'n> {
    pub(super) fn new(net: &'n mut Net, mss: u16, packet: Option<&'n [u8]>) -> Self {
        let macs = net.macs();
        Self {
            packet,
            out: Out {
                link: &mut net.link,
                counters: &mut net.counters,
                macs,
                mtu: net.config.mtu,
                mss,
            },
        }
    }
}

#[derive(Debug)]
pub(super) struct Rx<'a>(&'a [u8]);

impl phy::RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

#[derive(Debug)]
pub(super) struct Tx<'a, 'n>(&'a mut Out<'n>);

impl phy::TxToken for Tx<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut scratch = self.0.link.take_scratch(HEADS + length);
        // The engine asks for no more than a packet holds, and the room is made for that.
        let (message, _) = scratch.split_at_mut(HEADS + length);
        let (_, packet) = message.split_at_mut(HEADS);
        let result = fill(packet);
        self.0.send(message);
        self.0.link.give_scratch(scratch);
        result
    }
}

impl<'n> phy::Device for Port<'n> {
    type RxToken<'a>
        = Rx<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Tx<'a, 'n>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Rx<'_>, Tx<'_, 'n>)> {
        let packet = self.packet.take()?;
        Some((Rx(packet), Tx(&mut self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_, 'n>> {
        self.out.link.has_room().then_some(Tx(&mut self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities()
    }
}

fn capabilities() -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = ENGINE_MTU;
    // What comes in has been looked at, and what goes out is summed up here.
    capabilities.checksum = ChecksumCapabilities::ignored();
    capabilities.checksum.ipv4 = Checksum::Tx;
    capabilities
}

/// A device that has nothing and takes nothing, from which the engine learns what the others can.
#[derive(Debug)]
pub(super) struct Nothing;

#[derive(Debug)]
pub(super) enum Never {}

impl phy::RxToken for Never {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, _: F) -> R {
        match self {}
    }
}

impl phy::TxToken for Never {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, _: usize, _: F) -> R {
        match self {}
    }
}

impl phy::Device for Nothing {
    type RxToken<'a> = Never;
    type TxToken<'a> = Never;

    fn receive(&mut self, _: Instant) -> Option<(Never, Never)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<Never> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities()
    }
}

/// Where the parts of a packet of the engine are.
#[derive(Clone, Copy, Debug)]
struct Parts {
    from: IpAddr,
    to: IpAddr,
    /// Bytes of the IP header.
    ip: usize,
    segment: Segment,
}

impl Parts {
    fn of(packet: &[u8]) -> Option<Self> {
        let is4 = packet.first()? >> 4 == 4;
        if *packet.get(if is4 { 9 } else { 6 })? != TCP {
            return None;
        }
        let (ip, from, to) = if is4 {
            let at = |at| crate::wire::be32(packet, at).map(std::net::Ipv4Addr::from_bits);
            (20, at(12)?.into(), at(16)?.into())
        } else {
            let at = |at| crate::wire::ipv6_at(packet, at);
            (40, at(8)?.into(), at(24)?.into())
        };
        Some(Self {
            from,
            to,
            ip,
            segment: Segment::fields(packet.get(ip..)?)?,
        })
    }

    fn heads(&self) -> usize {
        self.ip + self.segment.header
    }

    /// Puts the sum of addresses and length, or that of everything, where the sum belongs.
    fn fill_sum(&self, packet: &mut [u8], partial: bool) {
        let Some(bytes) = packet.get_mut(self.ip..) else {
            return;
        };
        put(bytes, 16, &[0, 0]);
        let head = sum::pseudo(self.from, self.to, TCP, bytes.len());
        let sum = if partial {
            sum::fold(head)
        } else {
            !sum::fold(head + sum::of(bytes))
        };
        put(bytes, 16, &sum.to_be_bytes());
    }
}

impl Out<'_> {
    /// Sends what the engine has made: the packet behind room for the heads.
    fn send(&mut self, message: &mut [u8]) {
        let Some(packet) = message.get_mut(HEADS..) else {
            return;
        };
        let Some(parts) = Parts::of(packet) else {
            // Not TCP: the engine sends nothing else that anybody has asked for.
            return;
        };
        if let Some(bytes) = packet.get_mut(parts.ip..) {
            if parts.segment.is(SYN) {
                let heads = if parts.ip == 20 { 40 } else { 60 };
                replace_mss(bytes, self.mtu.saturating_sub(heads));
            } else {
                tell_less(bytes);
            }
        }
        let Offloads {
            checksum,
            tso4,
            tso6,
        } = self.link.offloads;
        let takes = if parts.ip == 20 { tso4 } else { tso6 };
        let is_large = parts.segment.data > usize::from(self.mss);
        if is_large && !takes {
            self.cut(message, parts);
            return;
        }
        parts.fill_sum(packet, checksum);
        self.heads(message, parts, checksum, is_large);
        self.link.send(message, self.counters);
    }

    /// Fills in the heads.
    fn heads(&self, message: &mut [u8], parts: Parts, partial: bool, is_large: bool) {
        const NEEDS_CHECKSUM: u8 = 1;
        const TCPV4: u8 = 1;
        const TCPV6: u8 = 4;
        put(message, 0, &PLAIN);
        let to16 = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
        if partial {
            put(message, 0, &[NEEDS_CHECKSUM]);
            put(message, 6, &to16(ETHERNET_BYTES + parts.ip));
            put(message, 8, &16_u16.to_le_bytes());
        }
        if is_large {
            put(message, 1, &[if parts.ip == 20 { TCPV4 } else { TCPV6 }]);
            put(message, 2, &to16(ETHERNET_BYTES + parts.heads()));
            put(message, 4, &self.mss.to_le_bytes());
        }
        put(message, HEADER_BYTES, &self.macs.to);
        put(message, HEADER_BYTES + 6, &self.macs.from);
        let kind = if parts.ip == 20 { IPV4 } else { IPV6 };
        put(message, HEADER_BYTES + 12, &kind.to_be_bytes());
    }

    /// Cuts a large segment for a guest that takes none.
    fn cut(&mut self, message: &[u8], parts: Parts) {
        let Some((heads, data)) = message.split_at_checked(HEADS + parts.heads()) else {
            return;
        };
        let chunks = data.chunks(self.mss.max(1).into());
        let last = chunks.len().saturating_sub(1);
        let mut seq = parts.segment.seq;
        for (index, chunk) in chunks.enumerate() {
            let mut small = [heads, chunk].concat();
            let flags = match index == last {
                true => parts.segment.flags,
                false => parts.segment.flags & !(FIN | PSH),
            };
            if let Some(packet) = small.get_mut(HEADS..) {
                set_length(packet, parts.ip);
                put(packet, parts.ip + 4, &seq.to_be_bytes());
                put(packet, parts.ip + 13, &[flags]);
                parts.fill_sum(packet, self.link.offloads.checksum);
            }
            self.heads(&mut small, parts, self.link.offloads.checksum, false);
            self.link.send(&small, self.counters);
            seq = seq.wrapping_add(u32::try_from(chunk.len()).unwrap_or(0));
        }
    }
}

/// Tells the guest of a window that is one unit smaller than the engine believes. The engine rounds
/// its window down to units, so that the right edge that it tells moves back and forth by less than
/// one; it drops what lies beyond the last, and the guest may have sent up to one before.
fn tell_less(bytes: &mut [u8]) {
    let window = be16(bytes, 14).unwrap_or(0).saturating_sub(1);
    put(bytes, 14, &window.to_be_bytes());
}

/// Corrects the length in an IP header, and its sum.
fn set_length(packet: &mut [u8], ip: usize) {
    let length = packet.len();
    let to16 = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    if ip != 20 {
        put(packet, 4, &to16(length - ip));
        return;
    }
    put(packet, 2, &to16(length));
    put(packet, 10, &[0, 0]);
    let sum = packet
        .get(..ip)
        .map_or(0, |header| !sum::fold(sum::of(header)));
    put(packet, 10, &sum.to_be_bytes());
    debug_assert_eq!(be16(packet, 2).map(usize::from), Some(length), "it fits");
}
