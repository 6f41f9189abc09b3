//! Frames of Ethernet with ARP or IPv4 in them: which are for us, and what is in those.

use std::net::Ipv4Addr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket};

pub(crate) type Mac = [u8; 6];

/// The header of Ethernet.
pub(crate) const ETHERNET_BYTES: usize = 14;
pub(crate) const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];

/// What an ARP packet about Ethernet and IPv4 begins with, the operation behind it.
const ARP_KINDS: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];

/// Where a frame of this kind has the IPv4 address that it is for; none for other kinds.
pub(crate) fn target_at(kind: [u8; 2]) -> Option<usize> {
    match kind {
        ARP => Some(ETHERNET_BYTES + 24),
        IPV4 => Some(ETHERNET_BYTES + 16),
        _ => None,
    }
}

/// What a frame to our address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Somebody asks for our Ethernet address.
    Request { mac: Mac, address: Ipv4Addr },
    /// A segment of TCP.
    Segment(Segment<'a>),
    /// Something that is whole and not answered.
    Unusual,
}

/// A segment of TCP, in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) mac: Mac,
    /// The guest's end.
    pub(crate) peer: (Ipv4Addr, u16),
    /// The port that it is for.
    pub(crate) port: u16,
    /// It opens a connection, or tries to.
    pub(crate) opens: bool,
    /// The packet, without what lies behind it in the frame.
    pub(crate) packet: &'a [u8],
}

/// Reads a frame; none when it is not what it says.
pub(crate) fn read(frame: &[u8]) -> Option<Frame<'_>> {
    let mac: Mac = *frame.get(6..)?.first_chunk()?;
    let kind: [u8; 2] = *frame.get(12..)?.first_chunk()?;
    let data = frame.get(ETHERNET_BYTES..)?;
    match kind {
        ARP => request(data),
        IPV4 => segment(mac, data),
        _ => None,
    }
}

fn request(data: &[u8]) -> Option<Frame<'_>> {
    let packet: &[u8; 28] = data.first_chunk()?;
    if packet.first_chunk() != Some(&ARP_KINDS) {
        return None;
    }
    let mac: Mac = *packet.get(8..)?.first_chunk()?;
    let address: [u8; 4] = *packet.get(14..)?.first_chunk()?;
    let asks = packet.get(6..)?.first_chunk() == Some(&ARP_REQUEST);
    // An answer goes to one machine, which no group's address is.
    let one = mac.first()? & 1 == 0;
    Some(match asks && one {
        true => Frame::Request {
            mac,
            address: address.into(),
        },
        false => Frame::Unusual,
    })
}

fn segment(mac: Mac, data: &[u8]) -> Option<Frame<'_>> {
    let whole = Ipv4Packet::new_checked(data).ok()?;
    let packet = data.get(..usize::from(whole.total_len()))?;
    let whole = Ipv4Packet::new_checked(packet).ok()?;
    let has_options_only = whole.header_len() >= 20 && whole.version() == 4;
    let is_part = whole.more_frags() || whole.frag_offset() != 0;
    if !has_options_only || is_part || !whole.verify_checksum() {
        return None;
    }
    if whole.next_header() != IpProtocol::Tcp {
        return Some(Frame::Unusual);
    }
    let tcp = TcpPacket::new_checked(whole.payload()).ok()?;
    let peer = (whole.src_addr(), tcp.src_port());
    if tcp.header_len() < 20 || peer.1 == 0 || tcp.dst_port() == 0 {
        return None;
    }
    Some(Frame::Segment(Segment {
        mac,
        peer,
        port: tcp.dst_port(),
        opens: tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin(),
        packet,
    }))
}

/// The answer to a request for our Ethernet address.
pub(crate) fn reply(ours: (Mac, Ipv4Addr), theirs: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = head(ours.0, theirs.0, ARP).to_vec();
    frame.extend_from_slice(&ARP_KINDS);
    frame.extend_from_slice(&ARP_REPLY);
    for (mac, address) in [ours, theirs] {
        frame.extend_from_slice(&mac);
        frame.extend_from_slice(&address.octets());
    }
    frame
}

/// The header of a frame.
pub(crate) fn head(from: Mac, to: Mac, kind: [u8; 2]) -> [u8; ETHERNET_BYTES] {
    let mut head = [0; ETHERNET_BYTES];
    let fields = to.into_iter().chain(from).chain(kind);
    for (place, byte) in head.iter_mut().zip(fields) {
        *place = byte;
    }
    head
}
