//! Frames that no honest guest sends: each is answered as its protocol says or dropped under the
//! right number, and the network goes on.

use super::*;
use crate::testing::{Guest, Other, Wire};
use crate::wire::build::Macs;
use crate::wire::tcp::{ACK, FIN, PSH, RST, SYN};
use crate::wire::{put, sum};
use std::net::Ipv6Addr;

/// Where the IP packet is in a message, and what is in an IPv4 or IPv6 packet without options.
const IP: usize = HEADER_BYTES + ETHERNET_BYTES;
const IN4: usize = IP + 20;
const IN6: usize = IP + 40;

const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GATEWAY: [u8; 6] = [0x52, 0x55, 0x0a, 0, 0x02, 0x02];
const MACS: Macs = Macs {
    from: GUEST,
    to: GATEWAY,
};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Dropped and counted under this name, without an answer.
    Drop(&'static str),
    /// Refused with an ICMP message, and counted under this name.
    Refuse(&'static str),
    /// A stray segment, answered with a reset.
    Reset,
    /// Answered with an IP protocol and the first byte of its payload.
    Answer(u8, u8),
    /// Answered with an ARP packet.
    Arp,
    /// Right, and nothing to answer.
    Silent,
}

use Fate::{Answer, Arp, Drop, Refuse, Reset, Silent};

const MALFORMED: Fate = Drop("malformed");
const CHECKSUM: Fate = Drop("checksum");
const FRAGMENT: Fate = Drop("fragment");
const FOREIGN: Fate = Drop("foreign");
const SPOOFED: Fate = Drop("spoofed");
const UNKNOWN: Fate = Drop("unknown");
const OFFLOAD: Fate = Drop("offload");

/// A row: what is wrong, what is written where into an honest frame, and its fate.
type Change = (&'static str, usize, &'static [u8], Fate);

struct Table {
    engine: Engine,
    guest: Guest,
    rows: usize,
}

impl Table {
    fn new() -> Self {
        let (wire, theirs) = Wire::pair().unwrap();
        // Nobody is reached from here, whatever gets through.
        let mut config = Config::default();
        config.policy.default = crate::Action::Deny;
        let guest = Guest::new(wire, config.gateway_mac);
        let engine = Engine::new(theirs, None, config).unwrap();
        Self {
            engine,
            guest,
            rows: 0,
        }
    }

    fn turn(&mut self) -> Vec<Other> {
        for _ in 0..3 {
            self.engine.turn(Some(Duration::ZERO)).unwrap();
        }
        // Connections that were never asked for are the table's matter, not the guest's.
        while self.guest.work(Duration::ZERO).unwrap() > 0 {}
        self.guest.others()
    }

    fn drops(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(&self.engine.counters().drops).unwrap() {
            serde_json::Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    /// Sends a message and compares what becomes of it.
    fn row(&mut self, name: &str, message: &[u8], fate: Fate) {
        self.rows += 1;
        let before = self.drops();
        self.guest.send_raw(message).unwrap();
        let answers = self.turn();
        let after = self.drops();
        let grown: Vec<&str> = after
            .iter()
            .filter(|(key, value)| before.get(*key) != Some(value))
            .map(|(key, _)| key.as_str())
            .collect();
        let ip: Vec<_> = answers.iter().map(|other| other.ip()).collect();
        let kinds: Vec<_> = ip
            .iter()
            .flatten()
            .map(|(_, kind, data)| (*kind, data[0]))
            .collect();
        let is_arp = answers.iter().any(|other| other.kind() == Some(ARP));
        let expected = match fate {
            Drop(_) | Silent => kinds.is_empty() && !is_arp,
            Refuse(_) => matches!(kinds[..], [(ICMP, 3) | (ICMPV6, 1)]),
            Reset => {
                let is_reset = |data: &[u8]| data[13] & RST != 0;
                matches!(&ip[..], [Some((_, TCP, data))] if is_reset(data))
            }
            Answer(protocol, first) => kinds == [(protocol, first)],
            Arp => is_arp,
        };
        assert!(
            expected,
            "{name}: {fate:?}, but the answers are {kinds:?}, ARP {is_arp}"
        );
        let counted: &[&str] = match fate {
            Drop(counter) | Refuse(counter) => &[counter],
            Reset => &["stray"],
            _ => &[],
        };
        assert_eq!(grown, counted, "{name}: {fate:?}");
        self.is_alive(name);
    }

    fn rows(&mut self, honest: &[u8], rows: &[Change], mend: fn(&mut [u8])) {
        for (name, at, bytes, fate) in rows {
            let mut message = honest.to_vec();
            put(&mut message, *at, bytes);
            mend(&mut message);
            self.row(name, &message, *fate);
        }
    }

    /// Sends a message cut at each length from `from` on.
    fn cuts(&mut self, name: &str, honest: &[u8], from: usize, fate: Fate) {
        for length in from..honest.len() {
            self.row(
                &format!("{name} of {length} bytes"),
                &honest[..length],
                fate,
            );
        }
    }

    fn is_alive(&mut self, name: &str) {
        let ping = v4(ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
        self.guest.send_raw(&ping).unwrap();
        let answers = self.turn();
        let is_reply = matches!(answers[..], [ref other]
            if matches!(other.ip(), Some((_, ICMP, [0, ..]))));
        assert!(is_reply, "{name}: the gateway does not answer any more");
    }
}

fn ends4() -> (IpAddr, IpAddr) {
    (
        Ipv4Addr::new(10, 0, 2, 15).into(),
        Ipv4Addr::new(10, 0, 2, 2).into(),
    )
}

fn ends6() -> (IpAddr, IpAddr) {
    let of = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into();
    (of(0x15), of(2))
}

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends4();
    build::ip(MACS, from, to, protocol, payload)
}

fn v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends6();
    build::ip(MACS, from, to, protocol, payload)
}

fn nd(to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let from = "fe80::15".parse::<Ipv6Addr>().unwrap().into();
    build::ip_with_hops(MACS, from, to.into(), (ICMPV6, 255), payload)
}

fn leave(_: &mut [u8]) {}

/// Makes the sum of an IPv4 header right again.
fn mend4(message: &mut [u8]) {
    let header = usize::from(message[IP] & 15) * 4;
    put(message, IP + 10, &[0, 0]);
    if let Some(header) = message.get(IP..IP + header) {
        let sum = !sum::fold(sum::of(header));
        put(message, IP + 10, &sum.to_be_bytes());
    }
}

/// Makes the sum of what is in an IPv4 packet right again.
fn mend_in4(message: &mut [u8]) {
    let (from, to) = ends4();
    let protocol = message[IP + 9];
    build::fill_sum(&mut message[IN4..], from, to, protocol);
}

/// The same for IPv6.
fn mend_in6(message: &mut [u8]) {
    let from = crate::wire::ipv6_at(message, IP + 8).unwrap().into();
    let to = crate::wire::ipv6_at(message, IP + 24).unwrap().into();
    let protocol = message[IP + 6];
    build::fill_sum(&mut message[IN6..], from, to, protocol);
}

fn arp() -> Vec<u8> {
    let mut message = build::start(
        Macs {
            to: BROADCAST,
            ..MACS
        },
        ARP,
    );
    message.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    message.extend_from_slice(&GUEST);
    message.extend_from_slice(&[10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    message
}

fn echo() -> Vec<u8> {
    v4(ICMP, &[8, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3, 4])
}

fn echo6() -> Vec<u8> {
    v6(ICMPV6, &[128, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3, 4])
}

fn segment(flags: u8) -> Vec<u8> {
    let (from, to) = ends4();
    let at = |ip, port| SocketAddr::new(ip, port);
    build::tcp(MACS, (at(from, 4000), at(to, 80)), (1000, 2000), flags)
}

fn datagram(port: u16, data: &[u8]) -> Vec<u8> {
    let (from, _) = ends4();
    let at = |ip, port| SocketAddr::new(ip, port);
    let to = if port == 53 {
        Ipv4Addr::new(10, 0, 2, 3)
    } else {
        Ipv4Addr::new(10, 0, 2, 2)
    };
    build::udp(MACS, at(from, 4000), at(to.into(), port), data)
}

#[test]
fn headers_of_messages_and_ethernet() {
    let mut table = Table::new();
    table.row("an honest ping", &echo(), Answer(ICMP, 0));
    table.row("one byte", &[1], MALFORMED);
    table.row("two bytes", &[0; 2], MALFORMED);
    table.row("a header that is cut", &[0; 11], MALFORMED);
    table.row("a header alone", &[0; 12], MALFORMED);
    table.row("no kind", &echo()[..IP - 1], MALFORMED);
    let mut long = echo();
    long.resize(MAX_MESSAGE_BYTES + 1, 0);
    table.row("longer than any frame", &long, MALFORMED);
    let mut padded = echo();
    padded.resize(200, 0xee);
    table.row("padding behind the packet", &padded, Answer(ICMP, 0));
    let mut full = echo();
    full.resize(MAX_MESSAGE_BYTES, 0);
    table.row("padding to the longest frame", &full, Answer(ICMP, 0));
    const TO: usize = HEADER_BYTES;
    const FROM: usize = HEADER_BYTES + 6;
    const KIND: usize = HEADER_BYTES + 12;
    table.rows(
        &echo(),
        &[
            ("unknown flags", 0, &[0xfe], Answer(ICMP, 0)),
            ("a sum that starts in the Ethernet header", 0, &[1], OFFLOAD),
            (
                "a partial sum behind the frame",
                0,
                &[1, 0, 0, 0, 0, 0, 34, 0, 200],
                OFFLOAD,
            ),
            (
                "a sum that starts behind the frame",
                0,
                &[1, 0, 0, 0, 0, 0, 0xff, 0xff],
                OFFLOAD,
            ),
            (
                "its offset overflows",
                0,
                &[1, 0, 0, 0, 0, 0, 34, 0, 0xff, 0xff],
                OFFLOAD,
            ),
            ("UDP fragmentation", 1, &[3], OFFLOAD),
            ("UDP segmentation", 1, &[5], OFFLOAD),
            ("an unknown segmentation", 1, &[0x7f], OFFLOAD),
            (
                "segmentation without a partial sum",
                1,
                &[1, 0, 0, 100],
                OFFLOAD,
            ),
            (
                "segmentation into nothing",
                0,
                &[1, 1, 0, 0, 0, 0, 34, 0, 16],
                OFFLOAD,
            ),
            ("ECN without segmentation", 1, &[0x80], Answer(ICMP, 0)),
            (
                "a header length that lies",
                2,
                &[0xff, 0xff],
                Answer(ICMP, 0),
            ),
            ("many buffers", 10, &[0xff, 0xff], Answer(ICMP, 0)),
            ("to another host", TO, &[2, 0, 0, 0, 0, 9], FOREIGN),
            ("to nobody", TO, &[0, 0, 0, 0, 0, 0], FOREIGN),
            ("to everybody", TO, &BROADCAST, Answer(ICMP, 0)),
            ("from everybody", FROM, &BROADCAST, FOREIGN),
            ("from a group", FROM, &[1, 0, 0x5e, 0, 0, 1], FOREIGN),
            ("from the gateway itself", FROM, &GATEWAY, FOREIGN),
            ("a length instead of a kind", KIND, &[0, 46], UNKNOWN),
            ("a VLAN", KIND, &[0x81, 0], UNKNOWN),
            ("two VLANs", KIND, &[0x88, 0xa8], UNKNOWN),
            ("MPLS", KIND, &[0x88, 0x47], UNKNOWN),
            ("LLDP", KIND, &[0x88, 0xcc], UNKNOWN),
            ("IPv6 that is IPv4", KIND, &[0x86, 0xdd], MALFORMED),
            ("ARP that is IPv4", KIND, &[8, 6], MALFORMED),
        ],
        leave,
    );
    assert_eq!(table.rows, 35);
}

#[test]
fn arp_packets() {
    let mut table = Table::new();
    table.row("an honest request", &arp(), Arp);
    table.cuts("ARP", &arp(), IP, MALFORMED);
    table.rows(
        &arp(),
        &[
            ("for the name server", IP + 24, &[10, 0, 2, 3], Arp),
            (
                "for another of the network",
                IP + 24,
                &[10, 0, 2, 77],
                Silent,
            ),
            ("for the guest itself", IP + 24, &[10, 0, 2, 15], Silent),
            ("for a host elsewhere", IP + 24, &[8, 8, 8, 8], Silent),
            ("for the host's loopback", IP + 24, &[127, 0, 0, 1], Silent),
            (
                "without an address, as a probe",
                IP + 14,
                &[0, 0, 0, 0],
                Arp,
            ),
            ("another kind of link", IP, &[0, 6], MALFORMED),
            ("another protocol", IP + 2, &[0x86, 0xdd], MALFORMED),
            ("long MAC addresses", IP + 4, &[8], MALFORMED),
            ("long IP addresses", IP + 5, &[16], MALFORMED),
            ("an answer", IP + 6, &[0, 2], Silent),
            ("reverse ARP", IP + 6, &[0, 3], MALFORMED),
            ("no operation", IP + 6, &[0, 0], MALFORMED),
            ("from a group", IP + 8, &[1], MALFORMED),
        ],
        leave,
    );
}

#[test]
fn ipv4_headers() {
    let mut table = Table::new();
    table.cuts("IPv4", &echo(), IP, MALFORMED);
    table.rows(
        &echo(),
        &[
            ("version 0", IP, &[5], MALFORMED),
            ("version 6 in an IPv4 frame", IP, &[0x65], MALFORMED),
            ("a header of 16 bytes", IP, &[0x44], MALFORMED),
            ("a header of nothing", IP, &[0x40], MALFORMED),
            ("a header longer than the packet", IP, &[0x4f], MALFORMED),
            ("no length", IP + 2, &[0, 0], MALFORMED),
            (
                "a length shorter than the header",
                IP + 2,
                &[0, 19],
                MALFORMED,
            ),
            (
                "a length longer than the frame",
                IP + 2,
                &[0, 200],
                MALFORMED,
            ),
            ("the greatest length", IP + 2, &[0xff, 0xff], MALFORMED),
            ("only a header", IP + 2, &[0, 20], CHECKSUM),
            ("more fragments of odd length", IP + 6, &[0x20, 0], FRAGMENT),
            ("the last fragment", IP + 6, &[0, 1], Silent),
            ("the last fragment twice", IP + 6, &[0, 1], FRAGMENT),
            ("the furthest fragment", IP + 6, &[0x1f, 0xff], FRAGMENT),
            ("the reserved flag", IP + 6, &[0xc0, 0], Answer(ICMP, 0)),
            ("no hops left", IP + 8, &[0], Answer(ICMP, 0)),
            ("IGMP", IP + 9, &[2], UNKNOWN),
            ("SCTP", IP + 9, &[132], UNKNOWN),
            ("IPv6 inside", IP + 9, &[41], UNKNOWN),
            ("ICMPv6 in IPv4", IP + 9, &[58], UNKNOWN),
            ("protocol 255", IP + 9, &[255], UNKNOWN),
            ("from the gateway", IP + 12, &[10, 0, 2, 2], SPOOFED),
            ("from the name server", IP + 12, &[10, 0, 2, 3], SPOOFED),
            ("from the network", IP + 12, &[10, 0, 2, 0], SPOOFED),
            (
                "from all of the network",
                IP + 12,
                &[10, 0, 2, 255],
                SPOOFED,
            ),
            ("from elsewhere", IP + 12, &[8, 8, 8, 8], SPOOFED),
            ("from nobody", IP + 12, &[0, 0, 0, 0], SPOOFED),
            ("from loopback", IP + 12, &[127, 0, 0, 1], SPOOFED),
            ("from a group", IP + 12, &[224, 0, 0, 1], SPOOFED),
            ("from everybody", IP + 12, &[255, 255, 255, 255], SPOOFED),
            (
                "another address of the network",
                IP + 12,
                &[10, 0, 2, 99],
                Answer(ICMP, 0),
            ),
            ("to a group", IP + 16, &[224, 0, 0, 251], UNKNOWN),
            ("to everybody", IP + 16, &[255, 255, 255, 255], UNKNOWN),
            ("to all of the network", IP + 16, &[10, 0, 2, 255], UNKNOWN),
            ("to nobody", IP + 16, &[0, 0, 0, 0], Drop("policy")),
            (
                "to the host's loopback",
                IP + 16,
                &[127, 0, 0, 1],
                Drop("policy"),
            ),
            (
                "to the metadata server",
                IP + 16,
                &[169, 254, 169, 254],
                Refuse("policy"),
            ),
            ("to itself", IP + 16, &[10, 0, 2, 15], Drop("policy")),
        ],
        mend4,
    );
    let wrong: &[Change] = &[
        ("a wrong sum", IP + 10, &[0x12, 0x34], CHECKSUM),
        ("no sum", IP + 10, &[0, 0], CHECKSUM),
    ];
    table.rows(&echo(), wrong, leave);
    let mut options = echo();
    options.splice(IN4..IN4, [0x83, 7, 4, 8, 8, 8, 8, 0]);
    put(&mut options, IP, &[0x47]);
    put(&mut options, IP + 2, &[0, 40]);
    mend4(&mut options);
    table.row("a route of its own", &options, Answer(ICMP, 0));
}

#[test]
fn ipv6_headers_and_extensions() {
    let mut table = Table::new();
    table.row("an honest ping", &echo6(), Answer(ICMPV6, 129));
    table.cuts("IPv6", &echo6(), IP, MALFORMED);
    let loopback = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let group = &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb];
    table.rows(
        &echo6(),
        &[
            ("version 4 in an IPv6 frame", IP, &[0x45], MALFORMED),
            (
                "a length longer than the frame",
                IP + 4,
                &[0, 99],
                MALFORMED,
            ),
            ("the greatest length", IP + 4, &[0xff, 0xff], MALFORMED),
            ("nothing inside", IP + 6, &[59], UNKNOWN),
            ("ICMP in IPv6", IP + 6, &[1], UNKNOWN),
            ("a fragment, by what its sum is", IP + 6, &[44], Silent),
            ("routing", IP + 6, &[43], MALFORMED),
            ("from the gateway", IP + 8 + 15, &[2], SPOOFED),
            ("from loopback", IP + 8, loopback, SPOOFED),
            ("from a group", IP + 8, group, SPOOFED),
            ("from another network", IP + 8, &[0x20, 1], SPOOFED),
            ("to a group", IP + 24, group, UNKNOWN),
            ("to loopback", IP + 24, loopback, Drop("policy")),
            (
                "to another of the network",
                IP + 24 + 15,
                &[77],
                Drop("policy"),
            ),
        ],
        mend_in6,
    );
    let with = |extensions: &[u8], first: u8| {
        let (from, to) = ends6();
        let mut message = echo6();
        message.splice(IN6..IN6, extensions.iter().copied());
        let length = u16::try_from(message.len() - IN6).unwrap();
        put(&mut message, IP + 4, &length.to_be_bytes());
        put(&mut message, IP + 6, &[first]);
        let at = (IN6 + extensions.len()).min(message.len());
        build::fill_sum(&mut message[at..], from, to, ICMPV6);
        message
    };
    let options = [58, 0, 1, 4, 0, 0, 0, 0];
    let more = [60, 0, 1, 4, 0, 0, 0, 0];
    let reply = Answer(ICMPV6, 129);
    table.row("options for each hop", &with(&options, 0), reply);
    table.row("options for the host", &with(&options, 60), reply);
    table.row(
        "four headers",
        &with(&[more, more, more, options].concat(), 60),
        reply,
    );
    let many = [more, more, more, more, more, options].concat();
    table.row("more headers than anybody has", &with(&many, 60), MALFORMED);
    table.row(
        "a header beyond the end",
        &with(&[58, 9, 0, 0, 0, 0, 0, 0], 0),
        MALFORMED,
    );
    table.row("a header without end", &with(&[0, 255], 0), MALFORMED);
    table.row(
        "headers and a fragment",
        &with(&[44, 0, 0, 0, 0, 0, 0, 0], 60),
        FRAGMENT,
    );
}

/// The pieces of a message, cut at these places of what is in its packet.
fn pieces(message: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let is_ipv4 = message[IP] >> 4 == 4;
    let (head, data) = message.split_at(if is_ipv4 { IN4 } else { IN6 });
    let ends = cuts.iter().copied().chain([data.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let cut = |(start, end): (usize, usize)| {
        let more = u16::from(end < data.len());
        let mut piece = head.to_vec();
        let place = u16::try_from(start).unwrap();
        if is_ipv4 {
            put(
                &mut piece,
                IP + 6,
                &((place / 8) | (more << 13)).to_be_bytes(),
            );
        } else {
            put(&mut piece, IP + 6, &[44]);
            piece.extend([head[IP + 6], 0]);
            piece.extend((place | more).to_be_bytes());
            piece.extend([0, 0, 0, 7]);
        }
        piece.extend(&data[start..end]);
        let length = piece.len() - if is_ipv4 { IP } else { IN6 };
        let at = if is_ipv4 { IP + 2 } else { IP + 4 };
        put(
            &mut piece,
            at,
            &u16::try_from(length).unwrap().to_be_bytes(),
        );
        if is_ipv4 {
            mend4(&mut piece);
        }
        piece
    };
    starts.zip(ends).map(cut).collect()
}

#[test]
fn packets_in_pieces() {
    let mut table = Table::new();
    let long = [&[8, 0, 0, 0, 0, 7, 0, 1][..], &[5; 1200]].concat();
    let long6 = [&[128, 0, 0, 0, 0, 7, 0, 1][..], &[5; 1100]].concat();
    for (whole, answer) in [
        (v4(ICMP, &long), Answer(ICMP, 0)),
        (v6(ICMPV6, &long6), Answer(ICMPV6, 129)),
    ] {
        let cut = pieces(&whole, &[400, 800]);
        for order in [
            [0, 1, 2],
            [2, 1, 0],
            [1, 2, 0],
            [0, 2, 1],
            [2, 0, 1],
            [1, 0, 2],
        ] {
            for (turn, place) in order.into_iter().enumerate() {
                let fate = if turn == 2 { answer } else { Silent };
                table.row(&format!("piece {place} of {order:?}"), &cut[place], fate);
            }
        }
        table.row("a piece", &cut[1], Silent);
        table.row("the same again", &cut[1], FRAGMENT);
        table.row("the first of others", &pieces(&whole, &[400])[0], Silent);
        table.row("one that overlaps", &pieces(&whole, &[392])[1], FRAGMENT);
        table.row("the last", &cut[2], Silent);
        table.row("one beyond it", &pieces(&whole, &[800, 1104])[1], FRAGMENT);
    }
    // The guest may begin as many as it likes.
    for id in 0..100_u8 {
        let mut piece = pieces(&v4(ICMP, &long), &[400])[0].clone();
        put(&mut piece, IP + 5, &[id]);
        mend4(&mut piece);
        let fate = if id < 8 { Silent } else { FRAGMENT };
        table.row(&format!("the {id}th that never ends"), &piece, fate);
    }
}

#[test]
fn icmp_messages() {
    let mut table = Table::new();
    let short = |length: usize| v4(ICMP, &[8, 0, 0, 0, 0, 7, 0][..length]);
    for length in 0..6 {
        // What has no place for a sum cannot have the right one.
        let fate = if length < 4 { CHECKSUM } else { MALFORMED };
        table.row(&format!("{length} bytes"), &short(length), fate);
    }
    table.row("an echo of 7 bytes", &short(7), MALFORMED);
    table.rows(
        &echo(),
        &[
            ("an echo reply", IN4, &[0], UNKNOWN),
            ("unreachable", IN4, &[3], UNKNOWN),
            ("a redirect", IN4, &[5], UNKNOWN),
            ("a router solicitation", IN4, &[10], UNKNOWN),
            ("a timestamp", IN4, &[13], UNKNOWN),
            ("an address mask", IN4, &[17], UNKNOWN),
            ("an echo with a code", IN4 + 1, &[1], UNKNOWN),
        ],
        mend_in4,
    );
    table.rows(
        &echo(),
        &[("a wrong sum", IN4 + 2, &[9, 9], CHECKSUM)],
        leave,
    );
    table.rows(
        &echo6(),
        &[("a wrong sum", IN6 + 2, &[9, 9], CHECKSUM)],
        leave,
    );
    table.rows(
        &echo6(),
        &[
            ("an echo reply", IN6, &[129], UNKNOWN),
            ("packet too big", IN6, &[2], UNKNOWN),
            ("a multicast query", IN6, &[130], UNKNOWN),
            ("a redirect", IN6, &[137], UNKNOWN),
        ],
        mend_in6,
    );
    let long = v4(ICMP, &[&[8, 0, 0, 0, 0, 7, 0, 1][..], &[0; 3000]].concat());
    table.row("an echo that its answer does not fit", &long, FRAGMENT);
}

#[test]
fn neighbours_and_routers() {
    let mut table = Table::new();
    let all = "ff02::2".parse().unwrap();
    let router: Ipv6Addr = "fe80::2".parse().unwrap();
    let advertisement = Answer(ICMPV6, 134);
    let neighbour = Answer(ICMPV6, 136);
    let solicit = nd(all, &[133, 0, 0, 0, 0, 0, 0, 0]);
    table.row("an honest solicitation", &solicit, advertisement);
    let ask = |target: Ipv6Addr| {
        nd(
            router,
            &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat(),
        )
    };
    let of = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    table.row("for the router", &ask(router), neighbour);
    table.row("for the gateway", &ask(of(2)), neighbour);
    table.row("for the name server", &ask(of(3)), neighbour);
    table.row("for another", &ask(of(9)), Silent);
    table.row("for a group", &ask("ff02::1".parse().unwrap()), Silent);
    table.rows(
        &solicit,
        &[
            ("from far away", IP + 7, &[254], MALFORMED),
            ("with a code", IN6 + 1, &[1], MALFORMED),
            ("an advertisement of the guest's", IN6, &[134], MALFORMED),
            ("a neighbour without a target", IN6, &[135], MALFORMED),
            ("an answer without a target", IN6, &[136], MALFORMED),
        ],
        mend_in6,
    );
    table.rows(
        &solicit,
        &[("a wrong sum", IN6 + 2, &[9, 9], CHECKSUM)],
        leave,
    );
    for length in 1..8 {
        let message = nd(all, &[133, 0, 0, 0, 0, 0, 0][..length]);
        let fate = if length < 4 { CHECKSUM } else { MALFORMED };
        table.row(&format!("a solicitation of {length} bytes"), &message, fate);
    }
    let answer = nd(router, &[136; 24]);
    let mut honest = answer.clone();
    put(&mut honest, IN6 + 1, &[0]);
    mend_in6(&mut honest);
    table.row("a neighbour's answer", &honest, Silent);
    assert!(table.rows > 18);
}

#[test]
fn tcp_segments() {
    let mut table = Table::new();
    for length in 0..20 {
        let message = v4(TCP, &segment(ACK)[IN4..][..length]);
        table.row(&format!("a segment of {length} bytes"), &message, MALFORMED);
    }
    table.rows(
        &segment(ACK),
        &[
            ("no header", IN4 + 12, &[0], MALFORMED),
            ("a header of 16 bytes", IN4 + 12, &[0x40], MALFORMED),
            (
                "a header longer than the segment",
                IN4 + 12,
                &[0xf0],
                MALFORMED,
            ),
            ("from port 0", IN4, &[0, 0], MALFORMED),
            ("to port 0", IN4 + 2, &[0, 0], MALFORMED),
        ],
        mend_in4,
    );
    table.rows(
        &segment(ACK),
        &[("a wrong sum", IN4 + 16, &[9, 9], CHECKSUM)],
        leave,
    );
    let stray = Drop("stray");
    for (name, flags, fate) in [
        ("a stray acknowledgement", ACK, Reset),
        ("stray data", ACK | PSH, Reset),
        ("a stray end", FIN | ACK, Reset),
        ("an answer to nothing", SYN | ACK, Reset),
        ("no flags", 0, Reset),
        ("all flags", 0xff, stray),
        ("a beginning and an end", SYN | FIN, Reset),
        ("a reset", RST, stray),
        ("a reset of a beginning", RST | SYN, stray),
        ("a beginning that the policy refuses", SYN, Refuse("policy")),
    ] {
        table.row(name, &segment(flags), fate);
    }
    let mut options = v4(
        TCP,
        &[&segment(SYN)[IN4..], &[2, 0, 3, 255, 8, 1, 1, 2]].concat(),
    );
    put(&mut options, IN4 + 12, &[0x70]);
    mend_in4(&mut options);
    table.row("options that make no sense", &options, Refuse("policy"));
    // A segment to be cut, with a partial sum that is anything.
    let mut large = v4(TCP, &[&segment(ACK)[IN4..], &[7; 30_000]].concat());
    put(&mut large, 0, &[1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0]);
    put(&mut large, IN4 + 16, &[9, 9]);
    table.row("a large stray segment", &large, Reset);
}

#[test]
fn udp_datagrams() {
    let mut table = Table::new();
    let honest = datagram(9999, b"data");
    table.row("to a closed port of the gateway", &honest, Drop("policy"));
    for length in 0..8 {
        let message = v4(UDP, &honest[IN4..][..length]);
        table.row(
            &format!("a datagram of {length} bytes"),
            &message,
            MALFORMED,
        );
    }
    table.rows(
        &honest,
        &[
            ("no length", IN4 + 4, &[0, 0], MALFORMED),
            (
                "a length shorter than the header",
                IN4 + 4,
                &[0, 7],
                MALFORMED,
            ),
            (
                "a length longer than the packet",
                IN4 + 4,
                &[0, 13],
                MALFORMED,
            ),
            ("the greatest length", IN4 + 4, &[0xff, 0xff], MALFORMED),
            ("a wrong sum", IN4 + 6, &[9, 9], CHECKSUM),
            ("no sum", IN4 + 6, &[0, 0], Drop("policy")),
            ("a length that leaves a rest", IN4 + 4, &[0, 10], CHECKSUM),
        ],
        leave,
    );
    table.rows(
        &honest,
        &[
            ("from port 0", IN4, &[0, 0], MALFORMED),
            ("to port 0", IN4 + 2, &[0, 0], MALFORMED),
        ],
        mend_in4,
    );
    let (from, to) = ends6();
    let at = |ip, port| SocketAddr::new(ip, port);
    let six = build::udp(MACS, at(from, 4000), at(to, 9999), b"data");
    table.rows(
        &six,
        &[("no sum in IPv6", IN6 + 6, &[0, 0], CHECKSUM)],
        leave,
    );
    let far = at("93.184.216.34".parse().unwrap(), 443);
    let message = build::udp(MACS, at(ends4().0, 4000), far, b"data");
    table.row(
        "to a host that the policy refuses",
        &message,
        Refuse("policy"),
    );
}

/// A DHCP message of a kind, with more options.
fn request(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut data = vec![0; 240];
    put(&mut data, 0, &[1, 1, 6, 0, 1, 2, 3, 4]);
    put(&mut data, 28, &GUEST);
    put(&mut data, 236, &[0x63, 0x82, 0x53, 0x63]);
    data.extend_from_slice(&[53, 1, kind]);
    data.extend_from_slice(options);
    data.push(255);
    data
}

fn to_server(data: &[u8]) -> Vec<u8> {
    let from = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 68);
    let to = SocketAddr::new(Ipv4Addr::BROADCAST.into(), 67);
    build::udp(
        Macs {
            to: BROADCAST,
            ..MACS
        },
        from,
        to,
        data,
    )
}

#[test]
fn dhcp_messages() {
    let mut table = Table::new();
    // A UDP payload starts with the server's port, 67.
    let answer = Answer(UDP, 0);
    table.row("a discovery", &to_server(&request(1, &[])), answer);
    for (name, kind, options, fate) in [
        (
            "a request for its address",
            3,
            &[50, 4, 10, 0, 2, 15][..],
            answer,
        ),
        ("a request for another", 3, &[50, 4, 10, 0, 2, 99], answer),
        (
            "a request of another server",
            3,
            &[54, 4, 10, 0, 2, 9],
            Silent,
        ),
        ("a request for nothing", 3, &[], answer),
        ("a decline", 4, &[], Silent),
        ("a release", 7, &[], Silent),
        ("a question", 8, &[], answer),
        ("no kind", 0, &[], MALFORMED),
        ("an offer", 2, &[], MALFORMED),
        ("an acknowledgement", 5, &[], MALFORMED),
        ("an unknown kind", 99, &[], MALFORMED),
        ("an option beyond the end", 1, &[12, 200, 1], MALFORMED),
        ("an option without length", 1, &[12], MALFORMED),
        ("a short address", 3, &[50, 3, 10, 0, 2], MALFORMED),
        ("a short server", 3, &[54, 0], MALFORMED),
        ("a kind without value", 1, &[53, 0], MALFORMED),
        ("much padding", 1, &[0; 500], answer),
        ("an option that is not known", 1, &[224, 2, 1, 1], answer),
        ("a list of wishes", 1, &[55, 4, 1, 3, 6, 26], answer),
    ] {
        table.row(name, &to_server(&request(kind, options)), fate);
    }
    for (name, at, bytes) in [
        ("an answer", 0, &[2][..]),
        ("another kind of link", 1, &[6]),
        ("long MAC addresses", 2, &[16]),
        ("relayed", 24, &[10, 0, 2, 9]),
        ("another cookie", 236, &[1, 2, 3, 4]),
    ] {
        let mut data = request(1, &[]);
        put(&mut data, at, bytes);
        table.row(name, &to_server(&data), MALFORMED);
    }
    for length in [0, 1, 43, 235, 236, 239] {
        let data = &request(1, &[])[..length];
        table.row(&format!("{length} bytes"), &to_server(data), MALFORMED);
    }
    table.row(
        "options without end",
        &to_server(&request(1, &[])[..243]),
        answer,
    );
}

#[test]
fn an_offer_says_what_the_guest_needs() {
    let (wire, theirs) = Wire::pair().unwrap();
    let mut config = Config {
        mtu: 9000,
        hostname: Some("box".to_owned()),
        ..Config::default()
    };
    config.dns.search = vec!["a.example".to_owned()];
    let gateway = config.gateway_mac;
    let engine = Engine::new(theirs, None, config).unwrap();
    let guest = Guest::new(wire, gateway);
    let mut table = Table {
        engine,
        guest,
        rows: 0,
    };
    let offered = |table: &mut Table, message: &[u8]| {
        table.guest.send_raw(&to_server(message)).unwrap();
        let answers = table.turn();
        let (from, port, data) = answers[0].udp().unwrap();
        assert_eq!((from.to_string().as_str(), port), ("10.0.2.2:67", 68));
        data.to_vec()
    };
    let offer = offered(&mut table, &request(1, &[]));
    assert_eq!(offer[4..8], [1, 2, 3, 4]);
    assert_eq!(offer[16..20], [10, 0, 2, 15]);
    let has = |offer: &[u8], option: &[u8]| {
        offer[240..]
            .windows(option.len())
            .any(|part| part == option)
    };
    for option in [
        &[53, 1, 2][..],
        &[1, 4, 255, 255, 255, 0],
        &[3, 4, 10, 0, 2, 2],
        &[6, 4, 10, 0, 2, 3],
        &[26, 2, 0x23, 0x28],
        &[12, 3, b'b', b'o', b'x'],
        b"\x0f\x09a.example",
        &[51, 4],
    ] {
        assert!(has(&offer, option), "{option:?}");
    }
    let refused = offered(&mut table, &request(3, &[50, 4, 10, 0, 2, 99]));
    assert!(has(&refused, &[53, 1, 6]));
    assert_eq!(refused[16..20], [0; 4]);
}

#[test]
fn dns_messages() {
    let mut table = Table::new();
    let query = |rest: &[u8]| {
        let head = &[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        datagram(53, &[head, rest].concat())
    };
    const NAME: &[u8] = b"\x03www\x07example\x03com\0\0\x01\0\x01";
    // The policy allows no name here: each honest question is refused.
    let refused = |table: &mut Table, name: &str, message: &[u8]| {
        let before = table.engine.counters().drops.names;
        table.guest.send_raw(message).unwrap();
        let answers = table.turn();
        let (_, _, data) = answers[0].udp().unwrap();
        assert_eq!(
            (data[3] & 15, table.engine.counters().drops.names),
            (5, before + 1),
            "{name}"
        );
        table.is_alive(name);
    };
    refused(&mut table, "an honest question", &query(NAME));
    refused(&mut table, "the root", &query(b"\0\0\x02\0\x01"));
    refused(&mut table, "another class", &query(b"\x01a\0\0\x01\0\x03"));
    let edns = [NAME, b"\0\0\x29\x10\0\0\0\0\0\0\0"].concat();
    refused(&mut table, "more behind the question", &query(&edns));
    for length in 0..12 {
        let message = datagram(53, &[0; 12][..length]);
        table.row(&format!("a message of {length} bytes"), &message, MALFORMED);
    }
    for length in 0..NAME.len() {
        table.row(
            &format!("a question of {length} bytes"),
            &query(&NAME[..length]),
            MALFORMED,
        );
    }
    let long = [&[63], &[b'a'; 63][..]].concat().repeat(5);
    for (name, rest) in [
        ("a pointer to itself", &b"\xc0\x0c\0\x01\0\x01"[..]),
        ("pointers in a circle", b"\xc0\x0e\xc0\x0c\0\x01\0\x01"),
        ("a pointer beyond the end", b"\xff\xff\0\x01\0\x01"),
        ("a label of a reserved kind", b"\x40a\0\0\x01\0\x01"),
        ("a label longer than the message", b"\x3fa\0\0\x01\0\x01"),
        ("a name that is too long", &long),
    ] {
        table.row(name, &query(rest), MALFORMED);
    }
    for (name, at, bytes) in [
        ("an answer", 2, &[0x81][..]),
        ("no question", 4, &[0, 0]),
        ("two questions", 4, &[0, 2]),
        ("many questions", 4, &[0xff, 0xff]),
    ] {
        let mut message = query(NAME);
        put(&mut message, IN4 + 8 + at, bytes);
        put(&mut message, IN4 + 6, &[0, 0]);
        table.row(name, &message, MALFORMED);
    }
    let huge = query(&[NAME, &[0; 5000]].concat());
    table.row("a question that is too long", &huge, MALFORMED);
}
