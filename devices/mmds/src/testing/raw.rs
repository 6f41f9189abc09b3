//! Frames made by hand.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Ipv4Packet, TcpPacket, TcpRepr};

use super::{GUEST, GUEST_MAC};
use crate::frame::{ETHERNET_BYTES, IPV4, head};
use crate::responder::{DEFAULT_ADDRESS, MAC};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;
pub(crate) const URG: u8 = 32;

/// A frame of a kind.
pub(crate) fn ethernet(kind: [u8; 2], data: &[u8]) -> Vec<u8> {
    let mut frame = head(GUEST_MAC, MAC, kind).to_vec();
    frame.extend_from_slice(data);
    frame
}

/// An ARP packet.
pub(crate) fn arp(operation: u8, mac: [u8; 6], from: Ipv4Addr) -> Vec<u8> {
    let mut data = vec![0, 1, 8, 0, 6, 4, 0, operation];
    data.extend_from_slice(&mac);
    data.extend_from_slice(&from.octets());
    data.extend_from_slice(&[0; 6]);
    data.extend_from_slice(&DEFAULT_ADDRESS.octets());
    ethernet([8, 6], &data)
}

/// An IPv4 packet in a frame, its sum right after `change`.
pub(crate) fn ip(
    protocol: u8,
    from: Ipv4Addr,
    payload: &[u8],
    change: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).expect("a packet");
    let mut data = vec![0x45, 0];
    data.extend_from_slice(&total.to_be_bytes());
    data.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
    data.extend_from_slice(&from.octets());
    data.extend_from_slice(&DEFAULT_ADDRESS.octets());
    data.extend_from_slice(payload);
    change(&mut data);
    let end = (usize::from(data[0] & 15) * 4).clamp(20, data.len());
    data[10..12].fill(0);
    let sum: u32 = data[..end]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !((sum >> 16) + (sum & 0xffff));
    data[10..12].copy_from_slice(&sum.to_be_bytes()[2..]);
    ethernet(IPV4, &data)
}

/// A segment of TCP.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Tcp {
    pub(crate) fn new(flags: u8, seq: u32, ack: u32) -> Self {
        Self {
            port: 80,
            seq,
            ack,
            flags,
            window: 8192,
            options: Vec::new(),
            data: Vec::new(),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = 5000_u16.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.ack.to_be_bytes());
        let words = u8::try_from((20 + options.len()) / 4).expect("a header");
        bytes.extend_from_slice(&[words << 4, self.flags]);
        bytes.extend_from_slice(&self.window.to_be_bytes());
        // No sum: the guest leaves it to its network.
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&options);
        bytes.extend_from_slice(&self.data);
        bytes
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        ip(6, GUEST, &self.bytes(), |_| {})
    }
}

/// What a frame of the responder is, in a few words: flags, and how much data.
pub(crate) fn name(frame: &[u8]) -> String {
    if frame[12..14] != IPV4 {
        return "arp".to_owned();
    }
    let (_, bytes) = segment(frame);
    let tcp = TcpPacket::new_checked(&bytes[..]).expect("a segment");
    let flags = [
        ("S", tcp.syn()),
        ("F", tcp.fin()),
        ("R", tcp.rst()),
        ("A", tcp.ack()),
    ];
    let flags: String = flags
        .iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| *name)
        .collect();
    match tcp.payload().len() {
        0 => flags,
        bytes => format!("{flags}{bytes}"),
    }
}

/// The segment in a frame, whose sums are right: its packet's hop limit, and the segment.
pub(crate) fn segment(frame: &[u8]) -> (u8, Vec<u8>) {
    let packet = Ipv4Packet::new_checked(&frame[ETHERNET_BYTES..]).expect("a packet");
    let tcp = TcpPacket::new_checked(packet.payload()).expect("a segment");
    let ends = (packet.src_addr().into(), packet.dst_addr().into());
    TcpRepr::parse(&tcp, &ends.0, &ends.1, &ChecksumCapabilities::default()).expect("its sum");
    (packet.hop_limit(), packet.payload().to_vec())
}

/// The numbers of a segment: its own, and what it acknowledges.
pub(crate) fn numbers(frame: &[u8]) -> (u32, u32) {
    let (_, bytes) = segment(frame);
    let at = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (at(4), at(8))
}
