use super::*;
use crate::document::Metadata;
use crate::service::{Settings, Version};
use crate::testing::raw::{
    ACK, FIN, PSH, RST, SYN, Tcp, URG, arp, ethernet, ip, name, numbers, segment,
};
use crate::testing::{GUEST, GUEST_MAC, Guest, responder};
use smoltcp::socket::tcp::State;

#[test]
fn a_guest_reads_its_metadata() {
    let mut guest = Guest::new(Version::V1);
    let answer = guest.ask("GET /latest/ HTTP/1.1\nHost: 169.254.169.254");
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nServer: Coracle\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: 9\r\n\r\nlong\nname"
    );
    let answer = guest.ask("GET /latest/name HTTP/1.1\nAccept: application/json");
    assert!(answer.ends_with("application/json\r\nContent-Length: 9\r\n\r\n\"coracle\""));
    // More than any buffer on the way takes.
    let answer = guest.ask("GET /latest/long HTTP/1.0");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.len(), 40_000);
    assert!(body.starts_with("abc") && body.chars().nth(39_999) == Some('l'));
    let counters = guest.responder.counters();
    assert_eq!((counters.opened, counters.requests), (3, 3));
    assert_eq!((counters.malformed, counters.dropped), (0, 0));
    assert!(guest.responder.flows.is_empty(), "nothing is left over");
    assert_eq!(guest.responder.due(guest.now), None);
}

#[test]
fn a_token_opens_version_2() {
    let mut guest = Guest::new(Version::V2);
    assert!(
        guest
            .ask("GET /latest/name HTTP/1.1")
            .starts_with("HTTP/1.1 401 ")
    );
    let answer = guest.ask("PUT /latest/api/token HTTP/1.1\nX-metadata-token-ttl-seconds: 60");
    assert!(
        answer.contains("\r\nX-metadata-token-ttl-seconds: 60\r\n"),
        "{answer}"
    );
    let (_, token) = answer.split_once("\r\n\r\n").unwrap();
    let with = format!("GET /latest/name HTTP/1.1\nX-metadata-token: {token}");
    assert!(guest.ask(&with).ends_with("coracle"));
    guest.wait(Duration::from_secs(60));
    assert!(guest.ask(&with).starts_with("HTTP/1.1 401 "));
    let counters = guest.responder.counters();
    assert_eq!((counters.no_token, counters.invalid_token), (1, 1));
}

#[test]
fn a_connection_takes_many_requests_in_pieces_of_any_size() {
    let request = b"GET /latest/name HTTP/1.1\r\nA: b\r\n\r\n";
    for size in [1, 2, 7, request.len(), 3 * request.len()] {
        let mut guest = Guest::new(Version::V1);
        let handle = guest.connect();
        let all = request.repeat(12);
        let mut answers = Vec::new();
        for piece in all.chunks(size) {
            guest.send(handle, piece);
            answers.extend(guest.receive(handle));
        }
        let text = String::from_utf8(answers).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 12, "{size}");
        assert_eq!(text.matches("\r\n\r\ncoracle").count(), 12, "{size}");
        assert_eq!(guest.state(handle), State::Established);
    }
}

#[test]
fn requests_wait_while_the_guest_reads_no_answers() {
    let mut guest = Guest::new(Version::V1);
    let handle = guest.connect();
    // Far more answers than fit, and nobody takes them.
    let request = b"GET /latest/long HTTP/1.1\r\n\r\n";
    let socket = guest.socket(handle);
    for _ in 0..100 {
        socket.send_slice(request).unwrap();
    }
    guest.turn();
    assert!(guest.responder.counters().requests < 4);
    let mut count = 0;
    for _ in 0..1000 {
        count += guest.receive(handle).len();
    }
    assert!(count > 100 * 40_000, "{count}");
    assert_eq!(guest.responder.counters().requests, 100);
}

#[test]
fn the_end_of_what_a_guest_sends_does_not_end_what_it_gets() {
    let mut guest = Guest::new(Version::V1);
    let handle = guest.connect();
    guest
        .socket(handle)
        .send_slice(b"GET /latest/name HTTP/1.1\r\n\r\n")
        .unwrap();
    guest.socket(handle).close();
    guest.turn();
    assert!(guest.receive(handle).ends_with(b"coracle"));
    guest.turn();
    // A half request is answered with an end.
    let handle = guest.connect();
    guest.send(handle, b"GET /latest/name HT");
    guest.socket(handle).close();
    guest.turn();
    assert_eq!(guest.receive(handle), b"");
    guest.wait(Duration::from_secs(11));
    assert_eq!(guest.state(handle), State::Closed);
    assert!(guest.responder.flows.is_empty());
}

#[test]
fn quiet_connections_end_and_the_quietest_makes_room() {
    let mut guest = Guest::new(Version::V1);
    let handles: Vec<_> = (0..MOST_FLOWS)
        .map(|_| {
            guest.wait(Duration::from_millis(10));
            guest.connect()
        })
        .collect();
    guest.wait(Duration::from_millis(10));
    assert_eq!(guest.responder.flows.len(), MOST_FLOWS);
    guest.check();
    assert_eq!(guest.responder.counters().replaced, 1);
    // The first was the quietest; it hears so when it speaks.
    guest.send(handles[0], b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(guest.state(handles[0]), State::Closed);
    guest.send(handles[1], b"GET /latest/name HTTP/1.1\r\n\r\n");
    assert!(guest.receive(handles[1]).ends_with(b"coracle"));
    let due = guest.responder.due(guest.now).unwrap();
    assert!(due <= guest.now + Duration::from_secs(60));
    // Its end is told to the guest, which need not agree for ever.
    guest.wait(Duration::from_secs(1));
    guest.wait(Duration::from_secs(60));
    assert_eq!(guest.state(handles[1]), State::CloseWait);
    guest.wait(Duration::from_secs(1));
    guest.wait(Duration::from_secs(60));
    assert_eq!(guest.responder.flows.len(), 0);
    assert_eq!(guest.state(handles[1]), State::Closed);
    assert_eq!(guest.responder.due(guest.now), None);
}

#[test]
fn what_is_sent_goes_one_hop_and_again_if_it_is_lost() {
    let (mut responder, now) = responder(Version::V1);
    let peer = Peer::open(&mut responder, now);
    let mut ask = Tcp::new(ACK | PSH, peer.seq, peer.ack);
    ask.data = b"GET /latest/name HTTP/1.1\r\n\r\n".to_vec();
    responder.take(&ask.frame(), now);
    let first = responder.next(now).unwrap();
    assert_eq!(segment(&first).0, 1, "hops");
    assert!(segment(&first).1.ends_with(b"coracle"));
    assert_eq!(peer.names(&mut responder, now), "");
    let due = responder.due(now).unwrap();
    assert!(due > now && due <= now + Duration::from_secs(3));
    assert_eq!(responder.next(due).unwrap()[34..], first[34..]);
    // Nobody answers: it is given up, once, and for good.
    let mut at = due;
    for _ in 0..100 {
        let Some(due) = responder.due(at) else { break };
        at = due;
        while responder.next(at).is_some() {}
    }
    assert!(responder.flows.is_empty());
    assert!(at < now + Duration::from_secs(61), "{:?}", at - now);
}

/// A connection made by hand.
struct Peer {
    seq: u32,
    ack: u32,
}

impl Peer {
    fn open(responder: &mut Responder, now: Instant) -> Self {
        responder.take(&Tcp::new(SYN, 999, 0).frame(), now);
        let frame = responder.next(now).expect("an answer");
        assert_eq!(name(&frame), "SA");
        let (seq, ack) = numbers(&frame);
        assert_eq!(ack, 1000);
        let peer = Self {
            seq: 1000,
            ack: seq.wrapping_add(1),
        };
        responder.take(&Tcp::new(ACK, peer.seq, peer.ack).frame(), now);
        assert_eq!(peer.names(responder, now), "");
        peer
    }

    /// What comes now, in a few words each.
    fn names(&self, responder: &mut Responder, now: Instant) -> String {
        let frames = std::iter::from_fn(|| responder.next(now));
        frames
            .map(|frame| name(&frame))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What a frame is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Malformed,
    Unusual,
    Whole,
}

use Counted::{Malformed, Unusual, Whole};

/// A hostile row: its name, the frame, what it is answered with, and what it is counted as.
type Row = (&'static str, Vec<Vec<u8>>, &'static str, Counted);

fn syn() -> Vec<u8> {
    Tcp::new(SYN, 1, 0).bytes()
}

fn tcp(change: impl FnOnce(&mut Tcp)) -> Vec<u8> {
    let mut tcp = Tcp::new(SYN, 1, 0);
    change(&mut tcp);
    tcp.frame()
}

/// A SYN in a packet that is changed.
fn in_ip(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    ip(6, GUEST, &syn(), change)
}

/// A frame that is changed after its sums were made.
fn spoilt(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = tcp(|_| {});
    change(&mut frame);
    frame
}

fn cut(frame: &[u8], bytes: usize) -> Vec<u8> {
    frame[..bytes].to_vec()
}

fn asking() -> Vec<u8> {
    arp(1, GUEST_MAC, GUEST)
}

/// Frames of ARP and Ethernet.
fn low_rows() -> Vec<Row> {
    let others = (0..6).map(|place| {
        let mut frame = asking();
        frame[14 + place] ^= 1;
        ("ARP of another kind", vec![frame], "", Malformed)
    });
    let mut rows = vec![
        ("nothing", vec![vec![]], "", Malformed),
        ("a byte", vec![vec![0]], "", Malformed),
        (
            "a header cut short",
            vec![cut(&asking(), 13)],
            "",
            Malformed,
        ),
        ("a header alone", vec![cut(&asking(), 14)], "", Malformed),
        ("ARP cut short", vec![cut(&asking(), 41)], "", Malformed),
        ("ARP", vec![asking()], "arp", Whole),
        (
            "ARP with more behind",
            vec![[asking(), vec![9; 18]].concat()],
            "arp",
            Whole,
        ),
        (
            "ARP that answers",
            vec![arp(2, GUEST_MAC, GUEST)],
            "",
            Unusual,
        ),
        (
            "ARP of operation 0",
            vec![arp(0, GUEST_MAC, GUEST)],
            "",
            Unusual,
        ),
        (
            "ARP of operation 255",
            vec![arp(255, GUEST_MAC, GUEST)],
            "",
            Unusual,
        ),
        (
            "ARP of a group",
            vec![arp(1, [1, 0, 0, 0, 0, 1], GUEST)],
            "",
            Unusual,
        ),
        (
            "ARP of nobody",
            vec![arp(1, GUEST_MAC, Ipv4Addr::UNSPECIFIED)],
            "arp",
            Whole,
        ),
        (
            "ARP of ourselves",
            vec![arp(1, GUEST_MAC, DEFAULT_ADDRESS)],
            "arp",
            Whole,
        ),
        (
            "another kind",
            vec![ethernet([0x86, 0xdd], &syn())],
            "",
            Malformed,
        ),
        ("a tag", vec![ethernet([0x81, 0], &syn())], "", Malformed),
    ];
    rows.extend(others);
    rows
}

/// Packets.
fn packet_rows() -> Vec<Row> {
    let of = |protocol| ip(protocol, GUEST, &syn(), |_| {});
    let from = |address: [u8; 4]| ip(6, address.into(), &syn(), |_| {});
    vec![
        ("no packet", vec![ethernet(IPV4_KIND, &[])], "", Malformed),
        (
            "a packet cut short",
            vec![ethernet(IPV4_KIND, &[0x45; 19])],
            "",
            Malformed,
        ),
        (
            "version 6",
            vec![in_ip(|data| data[0] = 0x65)],
            "",
            Malformed,
        ),
        (
            "version 0",
            vec![in_ip(|data| data[0] = 0x05)],
            "",
            Malformed,
        ),
        (
            "a header of 16 bytes",
            vec![in_ip(|data| data[0] = 0x44)],
            "",
            Malformed,
        ),
        (
            "a header of nothing",
            vec![in_ip(|data| data[0] = 0x40)],
            "",
            Malformed,
        ),
        (
            "a header beyond the end",
            vec![in_ip(|data| data[0] = 0x4f)],
            "",
            Malformed,
        ),
        (
            "a length of 0",
            vec![in_ip(|data| data[2..4].fill(0))],
            "",
            Malformed,
        ),
        (
            "a length of the header",
            vec![in_ip(|data| data[3] = 20)],
            "",
            Malformed,
        ),
        (
            "a length beyond the end",
            vec![in_ip(|data| data[3] += 1)],
            "",
            Malformed,
        ),
        (
            "the longest length",
            vec![in_ip(|data| data[2..4].fill(255))],
            "",
            Malformed,
        ),
        (
            "a wrong sum",
            vec![spoilt(|frame| frame[24] ^= 1)],
            "",
            Malformed,
        ),
        (
            "a first fragment",
            vec![in_ip(|data| data[6] = 0x20)],
            "",
            Malformed,
        ),
        (
            "a last fragment",
            vec![in_ip(|data| data[7] = 1)],
            "",
            Malformed,
        ),
        ("UDP", vec![of(17)], "", Unusual),
        ("ICMP", vec![of(1)], "", Unusual),
        ("protocol 0", vec![of(0)], "", Unusual),
        ("protocol 255", vec![of(255)], "", Unusual),
        ("from a group", vec![from([224, 0, 0, 1])], "", Whole),
        ("from everybody", vec![from([255; 4])], "", Whole),
        ("from nobody", vec![from([0; 4])], "", Whole),
        (
            "from ourselves",
            vec![from(DEFAULT_ADDRESS.octets())],
            "SA",
            Whole,
        ),
        (
            "bytes behind the packet",
            vec![spoilt(|frame| frame.extend([7; 40]))],
            "SA",
            Whole,
        ),
        (
            "the evil bit and no more hops",
            vec![in_ip(|data| {
                data[6] |= 0x80;
                data[8] = 0;
            })],
            "SA",
            Whole,
        ),
    ]
}

const IPV4_KIND: [u8; 2] = [8, 0];

/// Segments without a connection.
fn segment_rows() -> Vec<Row> {
    let flags = |flags| tcp(|tcp| tcp.flags = flags);
    let options = |options: &[u8]| tcp(|tcp| tcp.options = options.to_vec());
    let bytes = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = syn();
        change(&mut bytes);
        ip(6, GUEST, &bytes, |_| {})
    };
    vec![
        (
            "a segment cut short",
            vec![bytes(&|bytes| bytes.truncate(19))],
            "",
            Malformed,
        ),
        (
            "a header of 16 bytes",
            vec![bytes(&|bytes| bytes[12] = 0x40)],
            "",
            Malformed,
        ),
        (
            "a header of nothing",
            vec![bytes(&|bytes| bytes[12] = 0)],
            "",
            Malformed,
        ),
        (
            "a header beyond the end",
            vec![bytes(&|bytes| bytes[12] = 0xf0)],
            "",
            Malformed,
        ),
        (
            "from port 0",
            vec![bytes(&|bytes| bytes[..2].fill(0))],
            "",
            Malformed,
        ),
        (
            "to port 0",
            vec![bytes(&|bytes| bytes[2..4].fill(0))],
            "",
            Malformed,
        ),
        ("another port", vec![tcp(|tcp| tcp.port = 81)], "RA", Whole),
        ("an acknowledgement", vec![flags(ACK)], "R", Whole),
        ("an end", vec![flags(FIN)], "R", Whole),
        ("an end and more", vec![flags(FIN | ACK | PSH)], "R", Whole),
        ("a reset", vec![flags(RST)], "", Whole),
        ("a reset and more", vec![flags(RST | ACK)], "", Whole),
        ("no flag", vec![flags(0)], "R", Whole),
        ("all flags", vec![flags(63)], "", Whole),
        ("opens and ends", vec![flags(SYN | FIN)], "", Whole),
        ("opens and resets", vec![flags(SYN | RST)], "", Whole),
        ("opens and acknowledges", vec![flags(SYN | ACK)], "R", Whole),
        (
            "opens with urgent data",
            vec![flags(SYN | URG)],
            "SA",
            Whole,
        ),
        (
            "opens with data",
            vec![tcp(|tcp| tcp.data = vec![b'G'; 1000])],
            "SA",
            Whole,
        ),
        (
            "a largest segment of 0",
            vec![options(&[2, 4, 0, 0])],
            "SA",
            Whole,
        ),
        (
            "a largest segment of 1",
            vec![options(&[2, 4, 0, 1])],
            "SA",
            Whole,
        ),
        ("an option of 0 bytes", vec![options(&[9, 0])], "", Whole),
        ("an option of 1 byte", vec![options(&[9, 1])], "", Whole),
        (
            "an option beyond the end",
            vec![options(&[9, 60])],
            "",
            Whole,
        ),
        ("a scale of 255", vec![options(&[3, 3, 255])], "SA", Whole),
        (
            "a scale of 14 and no window",
            vec![tcp(|tcp| {
                tcp.options = vec![3, 3, 14];
                tcp.window = 0;
            })],
            "SA",
            Whole,
        ),
        ("ten options", vec![options(&[1; 10])], "SA", Whole),
        ("opens twice", vec![tcp(|_| {}), tcp(|_| {})], "SA", Whole),
        (
            "opens twice with two numbers",
            vec![tcp(|_| {}), tcp(|tcp| tcp.seq = 9999)],
            "SA",
            Whole,
        ),
        (
            "opens and takes it back",
            vec![tcp(|_| {}), tcp(|tcp| (tcp.flags, tcp.seq) = (RST, 2))],
            "",
            Whole,
        ),
    ]
}

#[test]
fn hostile_frames_are_answered_or_counted() {
    let rows = [low_rows(), packet_rows(), segment_rows()].concat();
    assert!(rows.len() >= 60, "{}", rows.len());
    let mut wrong = Vec::new();
    for (name, frames, expected, wanted) in rows {
        let (mut responder, now) = responder(Version::V1);
        for frame in &frames {
            responder.take(frame, now);
        }
        let told = Peer { seq: 0, ack: 0 }.names(&mut responder, now);
        let counters = responder.counters();
        assert_eq!(counters.frames, frames.len() as u64, "{name}");
        let counted = match (counters.malformed, counters.unusual) {
            (0, 0) => Whole,
            (1, 0) => Malformed,
            (0, 1) => Unusual,
            _ => panic!("{name}: {counters:?}"),
        };
        if (&*told, counted) != (expected, wanted) {
            wrong.push(format!(
                "{name}: {told:?} {counted:?}, not {expected:?} {wanted:?}"
            ));
        }
        Guest::with(responder, now).check();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What an open connection is sent, and what comes back.
type Talk = (&'static str, Vec<Tcp>, &'static str);

/// Segments on a connection; numbers are told from where it stands.
fn talks() -> Vec<Talk> {
    let at = |flags, seq, ack| Tcp::new(flags, seq, ack);
    let with = |flags, seq, data: &[u8]| Tcp {
        data: data.to_vec(),
        ..Tcp::new(flags, seq, 0)
    };
    let ask = b"GET /latest/name HTTP/1.1\r\n\r\n";
    let answer = "A112";
    vec![
        ("a request", vec![with(ACK, 0, ask)], answer),
        (
            "a request twice",
            vec![with(ACK, 0, ask), with(ACK, 0, ask)],
            "A A112",
        ),
        (
            "a request whose end comes first",
            vec![with(ACK, 10, &ask[10..]), with(ACK, 0, &ask[..10])],
            "A A A112",
        ),
        (
            "a request that overlaps",
            vec![with(ACK, 0, &ask[..10]), with(ACK, 5, &ask[5..])],
            answer,
        ),
        (
            "data before the window",
            vec![with(ACK, u32::MAX - 10, b"x")],
            "A",
        ),
        ("data beyond the window", vec![with(ACK, 5000, b"x")], "A"),
        ("data far away", vec![with(ACK, 1 << 31, b"x")], "A"),
        (
            "more than the window",
            vec![with(ACK, 0, &[b'x'; 5000])],
            "A",
        ),
        (
            "an acknowledgement of what was never sent",
            vec![at(ACK, 0, 5000)],
            "A",
        ),
        (
            "an acknowledgement of long ago",
            vec![at(ACK, 0, u32::MAX - 5000)],
            "",
        ),
        ("a reset", vec![at(RST, 0, 0)], ""),
        ("a reset in the window", vec![at(RST, 5, 0)], ""),
        ("a reset beyond the window", vec![at(RST, 50_000, 0)], ""),
        ("an opening in between", vec![at(SYN, 0, 0)], ""),
        ("an opening far away", vec![at(SYN, 1 << 31, 0)], ""),
        (
            "an opening that acknowledges",
            vec![at(SYN | ACK, 0, 0)],
            "",
        ),
        ("no flag", vec![with(0, 0, b"x")], ""),
        ("an end", vec![at(FIN | ACK, 0, 0)], "FA"),
        (
            "an end twice",
            vec![at(FIN | ACK, 0, 0), at(FIN | ACK, 0, 0)],
            "A FA",
        ),
        ("an end beyond a gap", vec![at(FIN | ACK, 5, 0)], ""),
        (
            "a request and an end",
            vec![with(ACK | FIN, 0, ask)],
            "FA112",
        ),
        ("garbage", vec![with(ACK, 0, &[0; 100])], "FA149"),
        (
            "data behind the end",
            vec![at(FIN | ACK, 0, 0), with(ACK, 1, ask)],
            "FA112",
        ),
        ("urgent data", vec![with(ACK | URG | PSH, 0, ask)], answer),
        ("a thousand acknowledgements", vec![at(ACK, 0, 0); 1000], ""),
        (
            "a thousand single bytes",
            (0..1000).map(|seq| with(ACK, seq, b"A")).collect(),
            "A",
        ),
    ]
}

#[test]
fn hostile_connections_are_answered_and_end() {
    let mut wrong = Vec::new();
    for (what, segments, expected) in talks() {
        let (mut responder, mut now) = responder(Version::V1);
        let peer = Peer::open(&mut responder, now);
        for mut segment in segments {
            segment.seq = segment.seq.wrapping_add(peer.seq);
            segment.ack = segment.ack.wrapping_add(peer.ack);
            responder.take(&segment.frame(), now);
        }
        let told = peer.names(&mut responder, now);
        if told != expected {
            wrong.push(format!("{what}: {told:?}, not {expected:?}"));
        }
        assert!(responder.flows.len() <= 1);
        // Whatever it is that is left, it goes in time.
        for _ in 0..100 {
            let Some(due) = responder.due(now) else { break };
            now = now.max(due);
            while responder.next(now).is_some() {}
        }
        assert!(responder.flows.is_empty(), "{what}");
        assert_eq!(responder.due(now), None, "{what}");
        Guest::with(responder, now).check();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_thousand_openings_cost_no_more_than_the_most() {
    let (mut responder, now) = responder(Version::V1);
    for place in 0..1000_u16 {
        let mut bytes = syn();
        bytes[..2].copy_from_slice(&(place + 1).to_be_bytes());
        responder.take(&ip(6, GUEST, &bytes, |_| {}), now);
    }
    assert_eq!(responder.flows.len(), MOST_FLOWS);
    let counters = responder.counters();
    assert_eq!((counters.opened, counters.replaced), (1000, 970));
    let frames = std::iter::from_fn(|| responder.next(now)).count();
    assert_eq!(frames, MOST_FLOWS);
    Guest::with(responder, now).check();
}

#[test]
fn a_guest_that_takes_nothing_fills_no_memory() {
    let (mut responder, now) = responder(Version::V1);
    for _ in 0..1000 {
        responder.take(&asking(), now);
    }
    assert_eq!(responder.counters().dropped, 936);
    assert_eq!(std::iter::from_fn(|| responder.next(now)).count(), 64);
    Guest::with(responder, now).check();
}

#[test]
fn an_empty_service_answers_too() {
    let now = Instant::now();
    let service = Service::new(Metadata::default(), Settings::default(), now).unwrap();
    let responder = Responder::new(service, DEFAULT_ADDRESS, 68, 1, now);
    let mut guest = Guest::with(responder, now);
    // In packets as small as they may be.
    assert!(
        guest
            .ask("GET /latest HTTP/1.1")
            .ends_with("Resource not found: /latest.")
    );
}
