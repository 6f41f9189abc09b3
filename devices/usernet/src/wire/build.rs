//! Frames that the network makes itself: headers around a payload, with all sums.

use super::{ETHERNET_BYTES, ICMP, ICMPV6, IPV4, IPV4_BYTES, IPV6, Mac, TCP, UDP};
use super::{put, sum};
use crate::link::HEADER_BYTES;
use std::net::{IpAddr, SocketAddr};

const HOPS: u8 = 64;

/// Who sends a frame to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Macs {
    pub(crate) from: Mac,
    pub(crate) to: Mac,
}

/// The virtio-net header of a frame without any offload: one buffer and nothing else.
pub(crate) const PLAIN: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// Starts a message: virtio-net's header and the Ethernet header.
pub(crate) fn start(macs: Macs, kind: u16) -> Vec<u8> {
    let mut message = PLAIN.to_vec();
    message.extend_from_slice(&macs.to);
    message.extend_from_slice(&macs.from);
    message.extend_from_slice(&kind.to_be_bytes());
    message
}

/// A message with an IP packet of one of our protocols, whose sum is filled in.
pub(crate) fn ip(macs: Macs, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip_with_hops(macs, from, to, (protocol, HOPS), payload)
}

/// The same with a hop limit of its own, which neighbour discovery asks for.
pub(crate) fn ip_with_hops(
    macs: Macs,
    from: IpAddr,
    to: IpAddr,
    (protocol, hops): (u8, u8),
    payload: &[u8],
) -> Vec<u8> {
    let kind = if from.is_ipv4() { IPV4 } else { IPV6 };
    let mut message = start(macs, kind);
    ip_header(&mut message, from, to, (protocol, hops), payload.len());
    let at = message.len();
    message.extend_from_slice(payload);
    if let Some(payload) = message.get_mut(at..) {
        fill_sum(payload, from, to, protocol);
    }
    message
}

fn ip_header(
    message: &mut Vec<u8>,
    from: IpAddr,
    to: IpAddr,
    (protocol, hops): (u8, u8),
    payload: usize,
) {
    let at = message.len();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(IPV4_BYTES + payload).unwrap_or(u16::MAX);
            message.extend_from_slice(&[0x45, 0]);
            message.extend_from_slice(&total.to_be_bytes());
            // Don't fragment: such packets need no identification.
            message.extend_from_slice(&[0, 0, 0x40, 0, hops, protocol, 0, 0]);
            message.extend_from_slice(&from.octets());
            message.extend_from_slice(&to.octets());
            if let Some(header) = message.get_mut(at..) {
                let sum = !sum::fold(sum::of(header));
                put(header, 10, &sum.to_be_bytes());
            }
        }
        (from, to) => {
            let length = u16::try_from(payload).unwrap_or(u16::MAX);
            message.extend_from_slice(&[0x60, 0, 0, 0]);
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(&[protocol, hops]);
            for address in [from, to] {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                message.extend_from_slice(&address.octets());
            }
        }
    }
}

/// Where a protocol's header has its sum.
fn sum_at(protocol: u8) -> Option<usize> {
    match protocol {
        ICMP | ICMPV6 => Some(2),
        TCP => Some(16),
        UDP => Some(6),
        _ => None,
    }
}

/// Fills in the sum of a payload.
pub(crate) fn fill_sum(payload: &mut [u8], from: IpAddr, to: IpAddr, protocol: u8) {
    let Some(at) = sum_at(protocol) else { return };
    put(payload, at, &[0, 0]);
    let head = match protocol {
        ICMP => 0,
        _ => sum::pseudo(from, to, protocol, payload.len()),
    };
    let sum = !sum::fold(head + sum::of(payload));
    // Zero would mean that there is no sum.
    let sum = if protocol == UDP && sum == 0 {
        0xffff
    } else {
        sum
    };
    put(payload, at, &sum.to_be_bytes());
}

/// A message with a UDP datagram.
pub(crate) fn udp(macs: Macs, from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let payload = udp_payload(from.port(), to.port(), data);
    ip(macs, from.ip(), to.ip(), UDP, &payload)
}

fn udp_payload(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    let mut payload = Vec::with_capacity(8 + data.len());
    for field in [from, to, length, 0] {
        payload.extend_from_slice(&field.to_be_bytes());
    }
    payload.extend_from_slice(data);
    payload
}

/// Messages with a UDP datagram in IPv4 fragments of at most `mtu` bytes.
pub(crate) fn udp_fragments(
    macs: Macs,
    (from, to): (SocketAddr, SocketAddr),
    id: u16,
    mtu: u16,
    data: &[u8],
) -> Vec<Vec<u8>> {
    const MORE: u16 = 0x2000;
    let mut payload = udp_payload(from.port(), to.port(), data);
    fill_sum(&mut payload, from.ip(), to.ip(), UDP);
    // Offsets count in units of eight bytes.
    let room = (usize::from(mtu) - IPV4_BYTES) / 8 * 8;
    let count = payload.len().div_ceil(room);
    let parts = payload.chunks(room).enumerate();
    parts
        .map(|(index, part)| {
            let mut message = start(macs, IPV4);
            ip_header(&mut message, from.ip(), to.ip(), (UDP, HOPS), part.len());
            let offset = u16::try_from(index * room / 8).unwrap_or(0);
            let more = if index + 1 < count { MORE } else { 0 };
            let at = HEADER_BYTES + ETHERNET_BYTES;
            if let Some(header) = message.get_mut(at..) {
                put(header, 4, &id.to_be_bytes());
                put(header, 6, &(offset | more).to_be_bytes());
                put(header, 10, &[0, 0]);
                let sum = !sum::fold(sum::of(header));
                put(header, 10, &sum.to_be_bytes());
            }
            message.extend_from_slice(part);
            message
        })
        .collect()
}

/// A message with a TCP segment without data or options.
pub(crate) fn tcp(
    macs: Macs,
    (from, to): (SocketAddr, SocketAddr),
    (seq, ack): (u32, u32),
    flags: u8,
) -> Vec<u8> {
    let mut payload = Vec::with_capacity(20);
    payload.extend_from_slice(&from.port().to_be_bytes());
    payload.extend_from_slice(&to.port().to_be_bytes());
    payload.extend_from_slice(&seq.to_be_bytes());
    payload.extend_from_slice(&ack.to_be_bytes());
    payload.extend_from_slice(&[0x50, flags, 0, 0, 0, 0, 0, 0]);
    ip(macs, from.ip(), to.ip(), TCP, &payload)
}

/// Why a packet did not get to where it should: types and codes of ICMP and ICMPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// Nobody is there, or no way leads there.
    Host,
    /// Nobody listens.
    Port,
    /// The policy refuses it.
    Prohibited,
}

/// A message that tells the sender of the packet `about` that it got nowhere.
pub(crate) fn unreachable(
    macs: Macs,
    (gateway, to): (IpAddr, IpAddr),
    why: Unreachable,
    about: &[u8],
) -> Vec<u8> {
    let (protocol, kind, code, most) = match (gateway, why) {
        (IpAddr::V4(_), Unreachable::Host) => (ICMP, 3, 1, 548),
        (IpAddr::V4(_), Unreachable::Port) => (ICMP, 3, 3, 548),
        (IpAddr::V4(_), Unreachable::Prohibited) => (ICMP, 3, 13, 548),
        (IpAddr::V6(_), Unreachable::Host) => (ICMPV6, 1, 3, 1232),
        (IpAddr::V6(_), Unreachable::Port) => (ICMPV6, 1, 4, 1232),
        (IpAddr::V6(_), Unreachable::Prohibited) => (ICMPV6, 1, 1, 1232),
    };
    let mut payload = vec![kind, code, 0, 0, 0, 0, 0, 0];
    payload.extend_from_slice(about.get(..most).unwrap_or(about));
    ip(macs, gateway, to, protocol, &payload)
}

/// The first bytes of a UDP packet as the guest sent it, for [`unreachable`].
pub(crate) fn udp_head(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut packet = Vec::new();
    ip_header(&mut packet, from.ip(), to.ip(), (UDP, HOPS), 8);
    packet.extend_from_slice(&udp_payload(from.port(), to.port(), &[]));
    packet
}
