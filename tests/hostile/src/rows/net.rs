//! Frames, buffers and commands of the network device (virtio 1.2, 5.1).

use std::io::ErrorKind;

use devices::Width;
use devices::inspect::Value;
use devices::net::Offloads;
use devices::testing::{FarEnd, TestLink};
use devices::virtio::net::{Net, Settings, SourceMac};
use devices::virtio::{DeviceCommand, NetCommand};

use super::{
    F_EVENT_IDX, F_INDIRECT, F_VERSION_1, INDIRECT, List, NEXT, Piece, WRITE, buffer, chain,
    request, t,
};
use crate::step::{At, Fixture, Host, RING_SIZE, Row, Step, Subject};

mod commands;
mod receiving;
mod sending;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const RX: u16 = 0;
const TX: u16 = 1;
const CONTROL: u16 = 2;

const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_GUEST_OFFLOADS: u64 = 1 << 2;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_GUEST_ECN: u64 = 1 << 9;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_HOST_ECN: u64 = 1 << 13;
const F_MERGEABLE: u64 = 1 << 15;
const F_CTRL_VQ: u64 = 1 << 17;
const F_MQ: u64 = 1 << 22;
/// What this device offers in any case, and each bit of it.
const ALWAYS: u64 = 1 << 3 | 1 << 5 | F_MERGEABLE | 1 << 16 | F_CTRL_VQ;
/// All that a driver can leave to the device, and the device to it.
const UNFINISHED: u64 = F_CSUM
    | F_GUEST_CSUM
    | F_GUEST_OFFLOADS
    | F_GUEST_TSO4
    | F_GUEST_TSO6
    | F_GUEST_ECN
    | F_HOST_TSO4
    | F_HOST_TSO6
    | F_HOST_ECN;
/// What most rows accept.
const ALL: u64 = ALWAYS | UNFINISHED;

/// A device with one pair of queues.
pub static NET: Subject = Subject {
    name: "net",
    queues: 3,
    features: F_VERSION_1 | ALL,
    make: || fixture(1, SourceMac::Own, Offloads::ALL),
    good: send_one,
    boot: None,
};

/// The same, whose guest may send from any address.
static NET_ANY: Subject = Subject {
    name: "net-any",
    make: || fixture(1, SourceMac::Any, Offloads::ALL),
    ..NET
};

/// The same on a link that leaves nothing unfinished.
static NET_PLAIN: Subject = Subject {
    name: "net-plain",
    features: F_VERSION_1 | ALWAYS,
    make: || fixture(1, SourceMac::Own, Offloads { ..NONE }),
    ..NET
};

/// A device with four pairs of queues.
pub static NET_MQ: Subject = Subject {
    name: "net-mq",
    queues: 9,
    features: F_VERSION_1 | ALL | F_MQ,
    make: || fixture(4, SourceMac::Own, Offloads::ALL),
    ..NET
};

const NONE: Offloads = Offloads {
    checksum: false,
    tso4: false,
    tso6: false,
    ecn: false,
};

fn fixture(pairs: u16, source: SourceMac, can: Offloads) -> Fixture {
    let (link, far) = TestLink::new(pairs, 1500);
    let settings = Settings {
        mac: MAC,
        source,
        ..Settings::default()
    };
    let net = Net::new(Box::new(link.with_offloads(can)), &settings);
    Fixture {
        device: Box::new(net.expect("no limits")),
        backend: Box::new(Some(far)),
    }
}

/// All rows of this device.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("net");
    sending::add(&mut list);
    receiving::add(&mut list);
    commands::add(&mut list);
    list.rows()
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    flags: u8,
    gso: u8,
    len: u16,
    size: u16,
    start: u16,
    offset: u16,
    buffers: u16,
}

/// That of a large segment of TCP over IPv4.
const TCP: Head = Head {
    flags: 1,
    gso: 1,
    len: 54,
    size: 1448,
    start: 34,
    offset: 16,
    buffers: 0,
};

impl Head {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.flags, self.gso];
        for field in [self.len, self.size, self.start, self.offset, self.buffers] {
            bytes.extend(field.to_le_bytes());
        }
        bytes
    }
}

/// A frame with so many bytes behind the header of Ethernet.
fn frame(head: Head, source: [u8; 6], bytes: usize) -> Vec<u8> {
    let mut frame = head.bytes();
    frame.extend([0xff; 6]);
    frame.extend(source);
    frame.extend([8, 0]);
    frame.extend((0..bytes).map(|at| u8::try_from(at % 251).expect("small")));
    frame
}

/// A frame of 72 bytes, its header included.
fn plain() -> Vec<u8> {
    frame(Head::default(), MAC, 46)
}

/// Where frames to send lie.
fn outgoing(offset: u64) -> At {
    buffer(0x4_0000 + offset)
}

/// Puts a frame into memory, in pieces of these lengths and the rest in one more, and sends it.
fn send(head: u16, bytes: &[u8], cuts: &[u32]) -> Vec<Step> {
    let mut steps = vec![Step::Memory(outgoing(0), bytes.to_vec())];
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = 0;
    let whole = u32::try_from(bytes.len()).expect("small");
    for cut in cuts {
        pieces.push((outgoing(at.into()), *cut, false));
        at += cut;
    }
    pieces.push((outgoing(at.into()), whole - at, false));
    steps.extend(request(TX, head, &pieces));
    steps
}

/// One good frame, which comes back.
fn send_one() -> Vec<Step> {
    let at = buffer(0x7_0000);
    let mut steps = vec![Step::Memory(at, plain())];
    steps.extend(request(TX, 0, &[(at, 72, false)]));
    steps.push(Step::ExpectUsed(TX, vec![(0, 0)]));
    steps
}

/// The other end of the link, unless it is gone.
fn far(host: &mut Host) -> &mut FarEnd {
    let far: &mut Option<FarEnd> = host.backend.downcast_mut().expect("the subject's host");
    far.as_mut().expect("an end that is not gone")
}

/// Everything that came out of the link, but for what filled it.
fn came(host: &mut Host) -> Vec<Vec<u8>> {
    let far = far(host);
    let all = std::iter::from_fn(|| far.receive(0));
    all.filter(|frame| frame.iter().any(|byte| *byte != 0))
        .collect()
}

/// Exactly one frame came, as [`frame`] makes it.
fn came_as(host: &mut Host, head: Head, source: [u8; 6], bytes: usize) {
    let frames = came(host);
    let [got] = &frames[..] else {
        panic!("{} frames came", frames.len());
    };
    let wanted = frame(head, source, bytes);
    assert_eq!(got[..12], wanted[..12], "the header");
    assert!(*got == wanted, "another frame, of {} bytes", got.len());
}

/// A good frame came.
fn came_plain() -> Step {
    Step::Host("it came", |host| came_as(host, Head::default(), MAC, 46))
}

/// Nothing came.
fn nothing_came() -> Step {
    Step::Host("nothing came", |host| assert_eq!(came(host).len(), 0))
}

/// What the device counts.
fn count(host: &mut Host, name: &str) -> u64 {
    let report = host.handle.inspect().expect("a device");
    match report.find(name) {
        Some(Value::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

/// A frame arrives from the host.
fn arrive(host: &mut Host, frame: &[u8]) {
    assert!(far(host).send(0, frame), "the link is full");
}

/// The frame that most rows receive.
fn arrives() -> Step {
    Step::Host("a frame of 72 bytes arrives", |host| {
        arrive(host, &frame(Head::default(), OTHER, 46));
    })
}

/// The same frame is in memory, in so many buffers.
fn received_at(at: At, buffers: u16) -> Step {
    let head = Head {
        buffers,
        ..Head::default()
    };
    Step::ExpectMemory(at, frame(head, OTHER, 46))
}

/// Gives a receive buffer of these pieces.
fn give(head: u16, pieces: &[(At, u32)]) -> Vec<Step> {
    let pieces: Vec<Piece> = pieces.iter().map(|(at, len)| (*at, *len, true)).collect();
    request(RX, head, &pieces)
}

fn used(queue: u16, entries: &[(u16, u32)]) -> Vec<Step> {
    vec![Step::ExpectUsed(queue, entries.to_vec())]
}

fn started(features: u64) -> Vec<Step> {
    vec![Step::Start(F_VERSION_1 | features)]
}

fn revive() -> Vec<Step> {
    vec![Step::Revive]
}
