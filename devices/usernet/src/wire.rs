//! Bytes of frames: where the fields are, sums, and the frames that the network makes itself.

pub(crate) mod build;
pub(crate) mod sum;
pub(crate) mod tcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) type Mac = [u8; 6];

pub(crate) const ETHERNET_BYTES: usize = 14;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const BROADCAST: Mac = [0xff; 6];

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// The header before a piece in IPv6.
const FRAGMENT: u8 = 44;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// Extension headers of IPv6 that are looked past: more are no honest packet's.
const MOST_EXTENSIONS: usize = 4;

/// Two bytes of a field, in network order.
pub(crate) fn be16(data: &[u8], at: usize) -> Option<u16> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

/// Four bytes of a field, in network order.
pub(crate) fn be32(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Writes into a field; one that lies outside is left alone.
pub(crate) fn put(data: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = data.get_mut(at..at.saturating_add(field.len())) {
        place.copy_from_slice(field);
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ethernet {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) kind: u16,
}

impl Ethernet {
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        Some(Self {
            to: *frame.first_chunk()?,
            from: *frame.get(6..)?.first_chunk()?,
            kind: be16(frame, 12)?,
        })
    }
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is shorter than it says, or a field has no meaning.
    Malformed,
    /// A sum is wrong.
    Checksum,
    /// It is a part of a packet.
    Fragment,
}

/// A piece of an IP packet.
#[derive(Clone, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) id: u32,
    /// Where in the packet its data is.
    pub(crate) offset: usize,
    pub(crate) data: &'a [u8],
    /// Whether it is not the last.
    pub(crate) more: bool,
    /// What the whole packet begins with, but for its length and sum.
    pub(crate) header: Vec<u8>,
}

impl<'a> Piece<'a> {
    /// Reads what [`Packet::ipv4`] has found to be a piece.
    pub(crate) fn ipv4(data: &'a [u8]) -> Option<Self> {
        let whole = data.get(..be16(data, 2)?.into())?;
        let (head, data) = whole.split_at_checked(usize::from(data.first()? & 15) * 4)?;
        let place = be16(head, 6)?;
        let mut header = head.to_vec();
        put(&mut header, 6, &[0, 0]);
        Some(Self {
            from: Ipv4Addr::from_bits(be32(head, 12)?).into(),
            to: Ipv4Addr::from_bits(be32(head, 16)?).into(),
            protocol: *head.get(9)?,
            id: be16(head, 4)?.into(),
            offset: usize::from(place & 0x1fff) * 8,
            data,
            more: place & 0x2000 != 0,
            header,
        })
    }

    /// Reads what [`Packet::ipv6`] has found to be a piece: one with headers before that of the
    /// fragment is none of an honest guest.
    pub(crate) fn ipv6(data: &'a [u8]) -> Option<Self> {
        let whole = data.get(..IPV6_BYTES + usize::from(be16(data, 4)?))?;
        let (head, rest) = whole.split_at_checked(IPV6_BYTES)?;
        let (fragment, data) = rest.split_at_checked(8)?;
        if *head.get(6)? != FRAGMENT {
            return None;
        }
        let place = be16(fragment, 2)?;
        let protocol = *fragment.first()?;
        let mut header = head.to_vec();
        put(&mut header, 6, &[protocol]);
        Some(Self {
            from: ipv6_at(whole, 8)?.into(),
            to: ipv6_at(whole, 24)?.into(),
            protocol,
            id: be32(fragment, 4)?,
            offset: usize::from(place & 0xfff8),
            data,
            more: place & 1 != 0,
            header,
        })
    }
}

/// Makes the length in an IP packet's header what the packet has, and its sum right.
pub(crate) fn mend_length(packet: &mut [u8]) {
    let bytes = packet.len();
    let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let (at, length) = if is_ipv4 {
        (2, bytes)
    } else {
        (4, bytes.saturating_sub(IPV6_BYTES))
    };
    // No piece reaches beyond what a length can be.
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    put(packet, at, &length.to_be_bytes());
    if is_ipv4 {
        put(packet, 10, &[0, 0]);
        let head = usize::from(packet.first().map_or(0, |first| first & 15)) * 4;
        let sum = !sum::fold(sum::of(packet.get(..head).unwrap_or_default()));
        put(packet, 10, &sum.to_be_bytes());
    }
}

/// An IP packet whose headers hold what they promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// The packet without what lies behind it in the frame.
    pub(crate) whole: &'a [u8],
    /// What the protocol gets.
    pub(crate) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads an IPv4 packet.
    pub(crate) fn ipv4(data: &'a [u8]) -> Result<Self, Bad> {
        Self::ipv4_fields(data).ok_or(Bad::Malformed)?
    }

    fn ipv4_fields(data: &'a [u8]) -> Option<Result<Self, Bad>> {
        let first = *data.first()?;
        let header = usize::from(first & 15) * 4;
        let total = usize::from(be16(data, 2)?);
        if first >> 4 != 4 || header < IPV4_BYTES || total < header {
            return None;
        }
        let whole = data.get(..total)?;
        let (head, payload) = whole.split_at_checked(header)?;
        if sum::fold(sum::of(head)) != 0xffff {
            return Some(Err(Bad::Checksum));
        }
        // All but "don't fragment": more to come, or not the first.
        if be16(head, 6)? & 0x3fff != 0 {
            return Some(Err(Bad::Fragment));
        }
        Some(Ok(Self {
            from: Ipv4Addr::from_bits(be32(head, 12)?).into(),
            to: Ipv4Addr::from_bits(be32(head, 16)?).into(),
            protocol: *head.get(9)?,
            hop_limit: *head.get(8)?,
            whole,
            payload,
        }))
    }

    /// Reads an IPv6 packet, past its extension headers.
    pub(crate) fn ipv6(data: &'a [u8]) -> Result<Self, Bad> {
        Self::ipv6_fields(data).ok_or(Bad::Malformed)?
    }

    fn ipv6_fields(data: &'a [u8]) -> Option<Result<Self, Bad>> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const OPTIONS: u8 = 60;
        if data.first()? >> 4 != 6 {
            return None;
        }
        let length = usize::from(be16(data, 4)?);
        let whole = data.get(..IPV6_BYTES + length)?;
        let mut protocol = *whole.get(6)?;
        let mut payload = whole.get(IPV6_BYTES..)?;
        for _ in 0..=MOST_EXTENSIONS {
            match protocol {
                FRAGMENT => return Some(Err(Bad::Fragment)),
                HOP_BY_HOP | OPTIONS => {
                    protocol = *payload.first()?;
                    let length = usize::from(*payload.get(1)?) * 8 + 8;
                    payload = payload.get(length..)?;
                }
                ROUTING => return None,
                _ => {
                    return Some(Ok(Self {
                        from: ipv6_at(whole, 8)?.into(),
                        to: ipv6_at(whole, 24)?.into(),
                        protocol,
                        hop_limit: *whole.get(7)?,
                        whole,
                        payload,
                    }));
                }
            }
        }
        None
    }

    /// True when the sum over the payload, with the addresses, comes out right.
    pub(crate) fn sum_is_right(&self) -> bool {
        let sum = if self.protocol == ICMP {
            sum::of(self.payload)
        } else {
            let head = sum::pseudo(self.from, self.to, self.protocol, self.payload.len());
            head + sum::of(self.payload)
        };
        sum::fold(sum) == 0xffff
    }
}

/// An IPv6 address in a packet.
pub(crate) fn ipv6_at(data: &[u8], at: usize) -> Option<Ipv6Addr> {
    let bytes: &[u8; 16] = data.get(at..)?.first_chunk()?;
    Some(Ipv6Addr::from(*bytes))
}

/// Ports and data of a UDP datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) data: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads a datagram whose sum need not be looked at when it is `partial`.
    pub(crate) fn parse(packet: &Packet<'a>, partial: bool) -> Result<Self, Bad> {
        let bytes = packet.payload;
        let length = be16(bytes, 4).map(usize::from).ok_or(Bad::Malformed)?;
        let data = bytes.get(8..length).ok_or(Bad::Malformed)?;
        let sum = be16(bytes, 6).ok_or(Bad::Malformed)?;
        // No sum at all is for IPv4 only.
        let without = sum == 0 && packet.to.is_ipv4();
        let summed = Packet {
            payload: bytes.get(..length).ok_or(Bad::Malformed)?,
            ..*packet
        };
        if !partial && !without && !summed.sum_is_right() {
            return Err(Bad::Checksum);
        }
        let to = be16(bytes, 2).ok_or(Bad::Malformed)?;
        let from = be16(bytes, 0).ok_or(Bad::Malformed)?;
        if to == 0 || from == 0 {
            return Err(Bad::Malformed);
        }
        Ok(Self { from, to, data })
    }
}
