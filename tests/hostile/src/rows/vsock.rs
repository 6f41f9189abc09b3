//! Packets of the socket device (virtio 1.2, 5.10).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;

use devices::Width;
use devices::virtio::DeviceCommand;
use devices::virtio::vsock::{SocketFile, Vsock};

use super::{F_INDIRECT, F_VERSION_1, INDIRECT, List, NEXT, Piece, WRITE, buffer, chain, t};
use crate::step::{At, Fixture, Host, RING_SIZE, Row, Step, Subject};

const CID: u64 = 3;
const HOST: u64 = 2;
/// A port of the host where somebody listens, and one where nobody does.
const SERVED: u32 = 52;
const NOBODY: u32 = 53;
/// What the device can hold of a connection's data.
const ROOM: u32 = 256 << 10;

const F_STREAM: u64 = 1 << 0;
const F_SEQPACKET: u64 = 1 << 1;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RST: u16 = 3;
const SHUTDOWN: u16 = 4;
const RW: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

const RECEIVE: u32 = 1;
const SEND: u32 = 2;

/// A device of guest 3, with a host program on port 52.
pub static VSOCK: Subject = Subject {
    name: "vsock",
    queues: 3,
    features: F_VERSION_1,
    make: || {
        let folder = HostFolder::serving(SERVED);
        let file = SocketFile::listen(&folder.device()).expect("a socket");
        Fixture {
            device: Box::new(Vsock::new(CID, file).expect("descriptors")),
            backend: Box::new(Programs {
                folder,
                stream: None,
            }),
        }
    },
    good: || {
        let mut talk = Talk::on(Vec::new());
        talk.give(1);
        talk.say(packet(REQUEST).from(9).to(NOBODY), &[]);
        talk.hear(answer(RST).from(NOBODY).to(9).told(0, 0));
        talk.steps
    },
    boot: None,
};

/// A folder for a device's socket, with a host program that serves a port.
#[derive(Debug)]
pub struct HostFolder {
    folder: tempfile::TempDir,
    /// Where the host program hears of connections; it does not wait for them.
    pub listener: UnixListener,
}

thread_local! {
    // By port. Making one takes as long as a row.
    static FOLDERS: RefCell<BTreeMap<u32, Rc<HostFolder>>> = const {
        RefCell::new(BTreeMap::new())
    };
}

impl HostFolder {
    /// The folder of this thread for a port. One device at a time is in it; what others have left
    /// there is gone.
    ///
    /// # Panics
    /// When the host has no room for it.
    #[must_use]
    pub fn serving(port: u32) -> Rc<HostFolder> {
        let folder = FOLDERS.with_borrow_mut(|folders| {
            let folder = folders.entry(port);
            Rc::clone(folder.or_insert_with(|| Rc::new(HostFolder::new(port))))
        });
        while folder.listener.accept().is_ok() {}
        folder
    }

    fn new(port: u32) -> HostFolder {
        // In memory where there is such a place: it is ten times as fast.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a folder");
        let listener = UnixListener::bind(folder.path().join(format!("v_{port}")));
        let listener = listener.expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        HostFolder { folder, listener }
    }

    /// Where the device's socket is to be.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        self.folder.path().join("v")
    }
}

/// The programs of the host.
struct Programs {
    folder: Rc<HostFolder>,
    stream: Option<UnixStream>,
}

impl Programs {
    fn of(host: &mut Host) -> &mut Programs {
        host.backend.downcast_mut().expect("the subject's host")
    }

    /// The stream of the host program, which accepts it first if it has none.
    fn stream(&mut self) -> &mut UnixStream {
        let listener = &self.folder.listener;
        self.stream.get_or_insert_with(|| {
            let (stream, _) = listener.accept().expect("a connection");
            stream.set_nonblocking(true).expect("a socket");
            stream
        })
    }

    /// What can be read now, and whether the stream has ended.
    fn read(&mut self) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        match self.stream().read_to_end(&mut all) {
            Ok(_) => (all, true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (all, false),
            Err(_) => (all, true),
        }
    }
}

/// A packet's header.
#[derive(Clone, Copy, Debug)]
struct Packet {
    cids: (u64, u64),
    ports: (u32, u32),
    len: Option<u32>,
    kind: u16,
    op: u16,
    flags: u32,
    credit: (u32, u32),
}

/// A packet of the guest's port 9 to the served port.
fn packet(op: u16) -> Packet {
    Packet {
        cids: (CID, HOST),
        ports: (9, SERVED),
        len: None,
        kind: 1,
        op,
        flags: 0,
        credit: (4096, 0),
    }
}

/// A packet of the device on that connection.
fn answer(op: u16) -> Packet {
    Packet {
        cids: (HOST, CID),
        ports: (SERVED, 9),
        credit: (ROOM, 0),
        ..packet(op)
    }
}

impl Packet {
    fn from(mut self, port: u32) -> Packet {
        self.ports.0 = port;
        self
    }

    fn to(mut self, port: u32) -> Packet {
        self.ports.1 = port;
        self
    }

    fn flags(mut self, flags: u32) -> Packet {
        self.flags = flags;
        self
    }

    fn told(mut self, room: u32, forwarded: u32) -> Packet {
        self.credit = (room, forwarded);
        self
    }

    fn cids(mut self, from: u64, to: u64) -> Packet {
        self.cids = (from, to);
        self
    }

    fn kind(mut self, kind: u16) -> Packet {
        self.kind = kind;
        self
    }

    /// A length that is not that of the data.
    fn len(mut self, len: u32) -> Packet {
        self.len = Some(len);
        self
    }

    fn bytes(self, data: &[u8]) -> Vec<u8> {
        let real = u32::try_from(data.len()).expect("small");
        let mut bytes = Vec::new();
        bytes.extend(self.cids.0.to_le_bytes());
        bytes.extend(self.cids.1.to_le_bytes());
        bytes.extend(self.ports.0.to_le_bytes());
        bytes.extend(self.ports.1.to_le_bytes());
        bytes.extend(self.len.unwrap_or(real).to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.credit.0.to_le_bytes());
        bytes.extend(self.credit.1.to_le_bytes());
        bytes.extend(data);
        bytes
    }
}

/// Where receive buffer `head` is, and how long it is.
fn inbox(head: u16) -> At {
    buffer(0x1000 * u64::from(head))
}
const INBOX_BYTES: u32 = 0x1000;
/// Where the packets of the guest are.
const OUTBOX: At = At::Memory(crate::step::BUFFERS + 0x2_0000);

/// Steps, with what the driver knows of its rings.
struct Talk {
    steps: Vec<Step>,
    given: u16,
    heard: u16,
    said: u16,
}

impl Talk {
    /// On a device that has started in `steps`.
    fn on(steps: Vec<Step>) -> Talk {
        Talk {
            steps,
            given: 0,
            heard: 0,
            said: 0,
        }
    }

    /// A start, and eight receive buffers.
    fn begin() -> Talk {
        let mut talk = Talk::on(vec![Step::Start(F_VERSION_1 | F_INDIRECT)]);
        talk.give(8);
        talk
    }

    /// The same, and a connection from port 9 to the served port.
    fn connected() -> Talk {
        let mut talk = Talk::begin();
        talk.say(packet(REQUEST), &[]);
        talk.hear(answer(RESPONSE));
        talk
    }

    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Gives receive buffers.
    fn give(&mut self, count: u16) {
        for _ in 0..count {
            let head = self.given % RING_SIZE;
            self.give_chain(&[(inbox(head), INBOX_BYTES, true)]);
        }
        self.step(Step::Kick(0));
    }

    /// Adds one receive buffer of these pieces, of which the first has the next number.
    fn give_chain(&mut self, pieces: &[Piece]) {
        let head = self.given % RING_SIZE;
        self.steps.extend(chain(0, head, pieces));
        self.step(Step::Publish(0, head));
        self.given += u16::try_from(pieces.len()).expect("few");
    }

    /// Sends a packet in two pieces, header and data, which the device takes.
    fn say(&mut self, header: Packet, data: &[u8]) {
        let bytes = header.bytes(data);
        let data_len = u32::try_from(data.len()).expect("small");
        let pieces = [(OUTBOX, 44, false), (OUTBOX.plus(44), data_len, false)];
        let pieces = if data.is_empty() {
            &pieces[..1]
        } else {
            &pieces
        };
        self.say_in(OUTBOX, bytes, pieces);
    }

    /// Sends bytes that are put at `at`, in these pieces.
    fn say_in(&mut self, at: At, bytes: Vec<u8>, pieces: &[Piece]) {
        self.step(Step::Memory(at, bytes));
        self.steps.extend(chain(1, 0, pieces));
        self.said += 1;
        self.step(Step::Publish(1, 0));
        self.step(Step::Kick(1));
        self.step(Step::ExpectUsed(1, vec![(0, 0)]));
    }

    /// The device sends this.
    fn hear(&mut self, header: Packet) {
        self.hear_data(header, &[]);
    }

    fn hear_data(&mut self, header: Packet, data: &[u8]) {
        let head = self.heard % RING_SIZE;
        self.heard += 1;
        let len = u32::try_from(44 + data.len()).expect("small");
        self.step(Step::ExpectUsed(0, vec![(head, len)]));
        self.step(Step::ExpectMemory(inbox(head), header.bytes(data)));
    }

    /// The device sends these at once; none is a receive buffer that comes back unused.
    fn hear_all(&mut self, packets: &[Option<(Packet, &[u8])>]) {
        let first = self.heard;
        self.heard += u16::try_from(packets.len()).expect("few");
        let heads = (first..).map(|head| head % RING_SIZE);
        let len = |packet: &Option<(Packet, &[u8])>| {
            let len = packet.map_or(0, |(_, data)| 44 + data.len());
            u32::try_from(len).expect("small")
        };
        let used = heads.clone().zip(packets.iter().map(len)).collect();
        self.step(Step::ExpectUsed(0, used));
        for (head, packet) in heads.zip(packets) {
            if let Some((header, data)) = packet {
                self.step(Step::ExpectMemory(inbox(head), header.bytes(data)));
            }
        }
    }

    /// The device sends nothing.
    fn silence(&mut self) {
        self.step(Step::ExpectUsed(0, vec![]));
    }

    /// The connection does what a connection does.
    fn alive(&mut self) {
        self.say(packet(CREDIT_REQUEST), &[]);
    }

    /// The connection is gone.
    fn gone(&mut self) {
        self.say(packet(CREDIT_UPDATE), &[]);
        self.hear(answer(RST).told(0, 0));
        self.silence();
    }

    fn host(&mut self, what: &'static str, act: fn(&mut Host)) {
        self.step(Step::Host(what, act));
    }
}

/// A list of rows about the device.
struct Rows(List);

impl Rows {
    fn add(&mut self, spec: &'static str, about: &str, build: impl FnOnce(&mut Talk), talk: Talk) {
        let mut talk = talk;
        build(&mut talk);
        talk.step(Step::Revive);
        self.0.add(&VSOCK, spec, about, [talk.steps]);
    }

    /// A row without a connection.
    fn fresh(&mut self, spec: &'static str, about: &str, build: impl FnOnce(&mut Talk)) {
        self.add(spec, about, build, Talk::begin());
    }

    /// A row with one.
    fn connected(&mut self, spec: &'static str, about: &str, build: impl FnOnce(&mut Talk)) {
        self.add(spec, about, build, Talk::connected());
    }

    /// A row that starts by itself.
    fn bare(&mut self, spec: &'static str, about: &str, steps: Vec<Step>) {
        self.add(spec, about, |_| {}, Talk::on(steps));
    }
}

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = Rows(List::new("vsock"));
    shapes(&mut rows);
    addresses(&mut rows);
    kinds(&mut rows);
    strangers(&mut rows);
    requests(&mut rows);
    operations(&mut rows);
    data(&mut rows);
    credit(&mut rows);
    host_data(&mut rows);
    ends(&mut rows);
    receive_buffers(&mut rows);
    events(&mut rows);
    configuration(&mut rows);
    set_up(&mut rows);
    resets(&mut rows);
    host_programs(&mut rows);
    rows.0.rows()
}

fn arrived(host: &mut Host) {
    let (data, ended) = Programs::of(host).read();
    assert!(data == b"hello" && !ended, "{data:?}, {ended}");
}

fn nothing_arrived(host: &mut Host) {
    let (data, _) = Programs::of(host).read();
    assert!(data.is_empty(), "{data:?}");
}

/// How a packet lies in its descriptors.
fn shapes(rows: &mut Rows) {
    let spec = "5.10.6";
    for (len, about) in [
        (0, "a packet without a byte is dropped"),
        (1, "a packet of one byte is dropped"),
        (43, "a packet one byte shorter than a header is dropped"),
    ] {
        rows.connected(spec, about, |talk| {
            let mut bytes = packet(RW).bytes(&[]);
            bytes.truncate(len);
            let len = u32::try_from(len).expect("small");
            talk.say_in(OUTBOX, bytes, &[(OUTBOX, len, false)]);
            talk.silence();
            talk.alive();
            talk.hear(answer(CREDIT_UPDATE));
        });
    }
    let hello = packet(RW).bytes(b"hello");
    let cases: [(&str, At, Vec<Piece>); 5] = [
        (
            "header and data may share a descriptor",
            OUTBOX,
            vec![(OUTBOX, 49, false)],
        ),
        (
            "a header may be cut in two within a field",
            OUTBOX,
            vec![(OUTBOX, 13, false), (OUTBOX.plus(13), 36, false)],
        ),
        (
            "a packet may lie in fifteen descriptors",
            OUTBOX,
            (0..15)
                .map(|piece: u32| {
                    let len = if piece == 14 { 7 } else { 3 };
                    (OUTBOX.plus(u64::from(piece) * 3), len, false)
                })
                .collect(),
        ),
        (
            "data may lie in several descriptors",
            OUTBOX,
            vec![
                (OUTBOX, 44, false),
                (OUTBOX.plus(44), 1, false),
                (OUTBOX.plus(45), 3, false),
                (OUTBOX.plus(48), 1, false),
            ],
        ),
        (
            "a packet may run over the seam of two pieces of memory",
            At::Seam(-46),
            vec![(At::Seam(-46), 49, false)],
        ),
    ];
    for (about, at, pieces) in cases {
        let hello = hello.clone();
        rows.connected(spec, about, move |talk| {
            talk.say_in(at, hello, &pieces);
            talk.host("has got it", arrived);
        });
    }
    rows.connected(
        spec,
        "bytes behind a packet's length are not data",
        |talk| {
            talk.say(packet(RW).len(5), b"hello, and more that is not meant");
            talk.host("has got it", arrived);
        },
    );
    rows.connected(spec, "a packet may lie in an indirect table", |talk| {
        let table = buffer(0x3_0000);
        talk.step(Step::Memory(OUTBOX, packet(RW).bytes(b"hello")));
        talk.step(t(table, 0, OUTBOX, 44, NEXT, 1));
        talk.step(t(table, 1, OUTBOX.plus(44), 5, 0, 0));
        talk.step(Step::Descriptor {
            queue: 1,
            index: 0,
            at: table,
            len: 32,
            flags: INDIRECT,
            next: 0,
        });
        talk.step(Step::Publish(1, 0));
        talk.step(Step::Kick(1));
        talk.step(Step::ExpectUsed(1, vec![(0, 0)]));
        talk.host("has got it", arrived);
    });
    rows.connected(
        spec,
        "writable descriptors behind a packet stay as they are",
        |talk| {
            let spare = buffer(0x3_0000);
            talk.step(Step::Fill(spare, 64, 0x77));
            let pieces = [(OUTBOX, 49, false), (spare, 64, true)];
            talk.say_in(OUTBOX, packet(RW).bytes(b"hello"), &pieces);
            talk.step(Step::ExpectMemory(spare, vec![0x77; 64]));
            talk.host("has got it", arrived);
        },
    );
    rows.connected(spec, "a packet in writable descriptors is none", |talk| {
        talk.say_in(OUTBOX, packet(RW).bytes(b"hello"), &[(OUTBOX, 49, true)]);
        talk.step(Step::ExpectMemory(OUTBOX, packet(RW).bytes(b"hello")));
        talk.host("has got nothing", nothing_arrived);
    });
    rows.fresh(
        spec,
        "a ring full of packets is taken at one ring of the bell",
        |talk| {
            for head in 0..8_u16 {
                let at = OUTBOX.plus(u64::from(head) * 64);
                let stranger = packet(RW).from(100 + u32::from(head));
                talk.step(Step::Memory(at, stranger.bytes(&[])));
                talk.steps.extend(chain(1, head, &[(at, 44, false)]));
                talk.step(Step::Publish(1, head));
            }
            talk.step(Step::Kick(1));
            talk.step(Step::ExpectUsed(1, (0..8).map(|head| (head, 0)).collect()));
            talk.step(Step::ExpectUsed(0, (0..8).map(|head| (head, 44)).collect()));
            for head in 0..8_u16 {
                let reset = answer(RST).to(100 + u32::from(head)).told(0, 0);
                talk.step(Step::ExpectMemory(inbox(head), reset.bytes(&[])));
            }
        },
    );
    for (what, queue) in [("a packet", 1_u16), ("a receive buffer", 0)] {
        let about = format!("{what} beyond memory puts the device out of service");
        rows.connected("2.7.5", &about, |talk| {
            let flags = if queue == 0 { WRITE } else { 0 };
            let head = if queue == 0 { 12 } else { 0 };
            if queue == 0 {
                // The good ones are used up first.
                (0..7).for_each(|_| {
                    talk.alive();
                    talk.hear(answer(CREDIT_UPDATE));
                });
            }
            talk.step(Step::Descriptor {
                queue,
                index: head,
                at: At::Hole(-8),
                len: 64,
                flags,
                next: 0,
            });
            talk.step(Step::Publish(queue, head));
            talk.step(Step::Kick(queue.into()));
            if queue == 0 {
                talk.alive();
            }
            talk.step(Step::ExpectNeedsReset);
        });
    }
}

/// Who a packet is from and for.
fn addresses(rows: &mut Rows) {
    for (cid, who) in [
        (0, "the hypervisor"),
        (1, "the local loop"),
        (2, "the host"),
        (4, "another guest"),
        (0xffff_ffff, "anybody"),
        (CID | 1 << 32, "this guest, with reserved bits,"),
        (u64::MAX, "nobody there can be"),
    ] {
        let about = format!("a request that claims to be from {who} is dropped");
        rows.fresh("5.10.6.2", &about, |talk| {
            talk.say(packet(REQUEST).cids(cid, HOST), &[]);
            talk.silence();
        });
    }
    for (cid, who) in [
        (0, "the hypervisor"),
        (1, "the local loop"),
        (CID, "the guest itself"),
        (4, "another guest"),
        (0xffff_ffff, "anybody"),
        (HOST | 1 << 32, "the host, with reserved bits,"),
        (u64::MAX, "nobody there can be"),
    ] {
        let about = format!("a request for {who} is refused and goes nowhere");
        rows.fresh("5.10.6.2", &about, |talk| {
            talk.say(packet(REQUEST).cids(CID, cid), &[]);
            talk.hear(answer(RST).cids(cid, CID).told(0, 0));
            talk.silence();
        });
    }
    rows.connected(
        "5.10.6.2",
        "another's data does not enter a connection",
        |talk| {
            talk.say(packet(RW).cids(4, HOST), b"other");
            talk.silence();
            talk.host("has got nothing", nothing_arrived);
            talk.say(packet(RW), b"hello");
            talk.host("has got it", arrived);
        },
    );
    rows.connected(
        "5.10.6.2",
        "another's RST does not end a connection",
        |talk| {
            talk.say(packet(RST).cids(4, HOST), &[]);
            talk.alive();
            talk.hear(answer(CREDIT_UPDATE));
        },
    );
    rows.connected(
        "5.10.6.2",
        "data for another does not enter a connection",
        |talk| {
            talk.say(packet(RW).cids(CID, 4), b"other");
            talk.hear(answer(RST).cids(4, CID).told(0, 0));
            talk.host("has got nothing", nothing_arrived);
            talk.alive();
            talk.hear(answer(CREDIT_UPDATE));
        },
    );
}

/// Socket types.
fn kinds(rows: &mut Rows) {
    let spec = "5.10.6.4.2";
    for kind in [0, 2, 3, 0xffff] {
        let about = format!("a request of socket type {kind:#x} is answered with RST");
        rows.fresh(spec, &about, |talk| {
            talk.say(packet(REQUEST).kind(kind), &[]);
            talk.hear(answer(RST).kind(kind).told(0, 0));
        });
    }
    rows.fresh(
        spec,
        "a RST of an unknown socket type is not answered",
        |talk| {
            talk.say(packet(RST).kind(7), &[]);
            talk.silence();
        },
    );
    rows.connected(
        spec,
        "data of another type does not enter a stream of that address",
        |talk| {
            talk.say(packet(RW).kind(2), b"other");
            talk.hear(answer(RST).kind(2).told(0, 0));
            talk.host("has got nothing", nothing_arrived);
            talk.alive();
            talk.hear(answer(CREDIT_UPDATE));
        },
    );
}

/// Operations without a connection.
fn strangers(rows: &mut Rows) {
    for (op, name) in [
        (0, "the invalid operation"),
        (RESPONSE, "an answer"),
        (SHUTDOWN, "a shutdown"),
        (RW, "data"),
        (CREDIT_UPDATE, "credit"),
        (CREDIT_REQUEST, "a request for credit"),
        (8, "the first unknown operation"),
        (0xffff, "the last unknown operation"),
    ] {
        let about = format!("{name} without a connection is answered with RST");
        rows.fresh("5.10.6.5", &about, |talk| {
            talk.say(packet(op).flags(3), &[]);
            talk.hear(answer(RST).told(0, 0));
            talk.silence();
        });
    }
    rows.fresh(
        "5.10.6.5",
        "a RST without a connection is not answered",
        |talk| {
            talk.say(packet(RST), &[]);
            talk.silence();
        },
    );
    rows.fresh(
        "5.10.6.5",
        "data without a connection is not kept for a later one",
        |talk| {
            talk.say(packet(RW), b"early");
            talk.hear(answer(RST).told(0, 0));
            talk.say(packet(REQUEST), &[]);
            talk.hear(answer(RESPONSE));
            talk.host("has got nothing", nothing_arrived);
        },
    );
}

/// Requests for a connection.
fn requests(rows: &mut Rows) {
    let spec = "5.10.6.5";
    rows.fresh(
        spec,
        "a request for a port where somebody listens is answered",
        |talk| {
            talk.say(packet(REQUEST), &[]);
            talk.hear(answer(RESPONSE));
            talk.silence();
        },
    );
    for (port, which) in [
        (NOBODY, "where nobody listens"),
        (0, "zero"),
        (u32::MAX, "that means any"),
    ] {
        let about = format!("a request for a port {which} is refused");
        rows.fresh(spec, &about, |talk| {
            talk.say(packet(REQUEST).to(port), &[]);
            talk.hear(answer(RST).from(port).told(0, 0));
        });
    }
    rows.fresh(
        spec,
        "a guest may connect from the port that means any",
        |talk| {
            talk.say(packet(REQUEST).from(u32::MAX), &[]);
            talk.hear(answer(RESPONSE).to(u32::MAX));
        },
    );
    rows.connected(spec, "a second request for a connection ends it", |talk| {
        talk.say(packet(REQUEST), &[]);
        talk.hear(answer(RST));
        talk.gone();
    });
    rows.connected(
        spec,
        "another port of the guest is another connection",
        |talk| {
            talk.say(packet(REQUEST).from(10), &[]);
            talk.hear(answer(RESPONSE).to(10));
            talk.say(packet(RST), &[]);
            talk.say(packet(CREDIT_REQUEST).from(10), &[]);
            talk.hear(answer(CREDIT_UPDATE).to(10));
        },
    );
    rows.fresh(spec, "data in a request is ignored", |talk| {
        talk.say(packet(REQUEST), b"early");
        talk.hear(answer(RESPONSE));
        talk.host("has got nothing", nothing_arrived);
    });
    rows.fresh(spec, "flags in a request are ignored", |talk| {
        talk.say(packet(REQUEST).flags(u32::MAX), &[]);
        talk.hear(answer(RESPONSE));
        talk.alive();
        talk.hear(answer(CREDIT_UPDATE));
    });
    rows.fresh(
        "5.10.6.3",
        "a request that has handed on data before any was sent is refused",
        |talk| {
            talk.say(packet(REQUEST).told(4096, 1), &[]);
            talk.hear(answer(RST).told(0, 0));
            talk.gone();
        },
    );
    rows.connected(
        spec,
        "the ports of a connection that was reset can be used again",
        |talk| {
            talk.say(packet(RST), &[]);
            talk.gone();
            talk.say(packet(REQUEST), &[]);
            talk.hear(answer(RESPONSE));
        },
    );
}

/// Operations that an open connection has no use for.
fn operations(rows: &mut Rows) {
    for (op, name) in [
        (0, "the invalid operation"),
        (RESPONSE, "an answer"),
        (8, "the first unknown operation"),
        (0xffff, "the last unknown operation"),
    ] {
        let about = format!("{name} on an open connection ends it");
        rows.connected("5.10.6.5", &about, |talk| {
            talk.say(packet(op), &[]);
            talk.hear(answer(RST));
            talk.gone();
        });
    }
    rows.connected(
        "5.10.6.5",
        "a RST ends a connection without an answer",
        |talk| {
            talk.say(packet(RST), &[]);
            talk.silence();
            talk.host("has seen the end", |host| {
                assert!(Programs::of(host).read().1);
            });
            talk.gone();
        },
    );
}

/// Data of the guest.
fn data(rows: &mut Rows) {
    let spec = "5.10.6.4";
    rows.connected(spec, "data reaches the host program", |talk| {
        talk.say(packet(RW), b"hello");
        talk.silence();
        talk.host("has got it", arrived);
    });
    rows.connected(spec, "no data is no end", |talk| {
        talk.say(packet(RW), b"");
        talk.host("has got nothing", nothing_arrived);
        talk.alive();
        talk.hear(answer(CREDIT_UPDATE));
    });
    for (len, what) in [
        (6, "one byte"),
        (0x7fff_ffff, "two gibibytes"),
        (u32::MAX, "almost four gibibytes"),
    ] {
        let about = format!("a length {what} beyond the descriptors ends the connection");
        rows.connected(spec, &about, |talk| {
            talk.say(packet(RW).len(len), b"hello");
            talk.hear(answer(RST));
            talk.host("has got nothing", nothing_arrived);
            talk.gone();
        });
    }
    let big = |len: u32| {
        move |talk: &mut Talk| {
            let header = packet(RW).len(len).bytes(&[]);
            let pieces = [
                (OUTBOX, 44, false),
                (OUTBOX, 131_073, false),
                (OUTBOX, 131_072, false),
            ];
            talk.say_in(OUTBOX, header, &pieces);
        }
    };
    rows.connected(
        "5.10.6.3",
        "as much as the device has room for is taken at once",
        |talk| {
            big(ROOM)(talk);
            talk.host("has got some of it", |host| {
                let (data, ended) = Programs::of(host).read();
                assert!(!data.is_empty() && !ended);
            });
        },
    );
    rows.connected(
        "5.10.6.3",
        "one byte more than the device has room for ends the connection",
        |talk| {
            big(ROOM + 1)(talk);
            talk.hear(answer(RST));
            talk.gone();
        },
    );
}

/// Credit of the guest.
fn credit(rows: &mut Rows) {
    let spec = "5.10.6.3";
    rows.connected(spec, "a request for credit is answered", |talk| {
        talk.say(packet(CREDIT_REQUEST), &[]);
        talk.hear(answer(CREDIT_UPDATE));
        talk.silence();
    });
    rows.connected(spec, "credit counts what was handed on", |talk| {
        talk.say(packet(RW), b"hello");
        talk.say(packet(CREDIT_REQUEST), &[]);
        talk.hear(answer(CREDIT_UPDATE).told(ROOM, 5));
    });
    rows.connected(spec, "credit is not told without need", |talk| {
        (0..4).for_each(|_| talk.say(packet(RW), b"hello"));
        talk.say(packet(CREDIT_UPDATE), &[]);
        talk.silence();
    });
    rows.connected(
        spec,
        "credit is told when half of the room is used",
        |talk| {
            let header = packet(RW).len(ROOM / 2 + 1).bytes(&[]);
            let pieces = [(OUTBOX, 44, false), (OUTBOX, ROOM / 2 + 1, false)];
            talk.say_in(OUTBOX, header, &pieces);
            talk.hear(answer(CREDIT_UPDATE).told(ROOM, ROOM / 2 + 1));
        },
    );
    for (forwarded, what) in [
        (1, "one byte"),
        (0x7fff_ffff, "almost half the range"),
        (0x8000_0000, "half the range"),
    ] {
        let about = format!("having handed on {what} more than was sent ends the connection");
        rows.connected(spec, &about, |talk| {
            talk.say(packet(CREDIT_UPDATE).told(4096, forwarded), &[]);
            talk.hear(answer(RST));
            talk.gone();
        });
    }
    rows.connected(spec, "news that was overtaken is no offence", |talk| {
        talk.say(packet(CREDIT_UPDATE).told(4096, u32::MAX), &[]);
        talk.alive();
        talk.hear(answer(CREDIT_UPDATE));
    });
    rows.connected(
        spec,
        "credit in a packet of data is judged like any other",
        |talk| {
            talk.say(packet(RW).told(4096, 2), b"hello");
            talk.hear(answer(RST));
            talk.gone();
        },
    );
    rows.connected(
        spec,
        "a room of all that can be counted is no harm",
        |talk| {
            talk.say(packet(CREDIT_UPDATE).told(u32::MAX, 0), &[]);
            talk.host("sends", send_hello);
            talk.hear_data(answer(RW), b"hello");
        },
    );
}

fn send_hello(host: &mut Host) {
    Programs::of(host)
        .stream()
        .write_all(b"hello")
        .expect("room");
}

fn send_much(host: &mut Host) {
    Programs::of(host)
        .stream()
        .write_all(&[7; 6000])
        .expect("room");
}

/// Data of the host program.
fn host_data(rows: &mut Rows) {
    let spec = "5.10.6.3";
    rows.connected(
        "5.10.6.4",
        "data of the host program reaches the guest",
        |talk| {
            talk.host("sends", send_hello);
            talk.hear_data(answer(RW), b"hello");
        },
    );
    rows.connected(
        spec,
        "no more is sent than the guest has room for, and then it is asked",
        |talk| {
            talk.say(packet(CREDIT_UPDATE).told(2000, 0), &[]);
            talk.host("sends", send_much);
            let asked = Some((answer(CREDIT_REQUEST), &[][..]));
            talk.hear_all(&[Some((answer(RW), &[7; 2000])), asked]);
            talk.silence();
            talk.say(packet(CREDIT_UPDATE).told(2000, 1500), &[]);
            talk.hear_all(&[Some((answer(RW), &[7; 1500])), asked]);
        },
    );
    rows.connected(spec, "a guest without room is sent nothing", |talk| {
        talk.say(packet(CREDIT_UPDATE).told(0, 0), &[]);
        talk.host("sends", send_hello);
        talk.hear(answer(CREDIT_REQUEST));
        talk.silence();
        talk.say(packet(CREDIT_UPDATE).told(4096, 0), &[]);
        talk.hear_data(answer(RW), b"hello");
    });
    rows.connected(
        spec,
        "a guest whose room shrinks below what it holds is sent nothing",
        |talk| {
            talk.host("sends", send_hello);
            talk.hear_data(answer(RW), b"hello");
            talk.say(packet(CREDIT_UPDATE).told(4, 0), &[]);
            talk.host("sends", send_hello);
            talk.hear(answer(CREDIT_REQUEST));
            talk.say(packet(CREDIT_UPDATE).told(4096, 5), &[]);
            talk.hear_data(answer(RW), b"hello");
        },
    );
    rows.connected(
        "5.10.6.4",
        "a packet is no larger than its buffer",
        |talk| {
            talk.say(packet(CREDIT_UPDATE).told(100_000, 0), &[]);
            talk.host("sends", send_much);
            let most = usize::try_from(INBOX_BYTES - 44).expect("small");
            let (first, second) = (vec![7; most], vec![7; 6000 - most]);
            talk.hear_all(&[Some((answer(RW), &first)), Some((answer(RW), &second))]);
        },
    );
}

/// Halves and wholes of connections that end.
fn ends(rows: &mut Rows) {
    let spec = "5.10.6.5";
    for (flags, what) in [(0, "that says nothing"), (0xffff_fffc, "of unknown kinds")] {
        let about = format!("a shutdown {what} ends nothing");
        rows.connected(spec, &about, |talk| {
            talk.say(packet(SHUTDOWN).flags(flags), &[]);
            talk.say(packet(RW), b"hello");
            talk.host("has got it", arrived);
            talk.host("sends", send_hello);
            talk.hear_data(answer(RW).told(ROOM, 5), b"hello");
        });
    }
    rows.connected(
        spec,
        "a shutdown of both ways is answered with RST",
        |talk| {
            talk.say(packet(SHUTDOWN).flags(RECEIVE | SEND), &[]);
            talk.hear(answer(RST));
            talk.host("has seen the end", |host| {
                assert!(Programs::of(host).read().1);
            });
            talk.gone();
        },
    );
    for (first, second, order) in [(SEND, RECEIVE, "sending"), (RECEIVE, SEND, "receiving")] {
        let about = format!("a shutdown of {order} and then the other way ends the connection");
        rows.connected(spec, &about, |talk| {
            talk.say(packet(SHUTDOWN).flags(first), &[]);
            talk.silence();
            talk.say(packet(SHUTDOWN).flags(second), &[]);
            talk.hear(answer(RST));
            talk.gone();
        });
    }
    rows.connected(spec, "the same shutdown twice is one", |talk| {
        talk.say(packet(SHUTDOWN).flags(SEND), &[]);
        talk.say(packet(SHUTDOWN).flags(SEND), &[]);
        talk.silence();
        talk.host("sends", send_hello);
        talk.hear_data(answer(RW), b"hello");
    });
    rows.connected(
        spec,
        "the end of the guest's data reaches the host program behind it",
        |talk| {
            talk.say(packet(RW), b"hello");
            talk.say(packet(SHUTDOWN).flags(SEND), &[]);
            talk.host("has got all", |host| {
                assert_eq!(Programs::of(host).read(), (b"hello".to_vec(), true));
            });
        },
    );
    rows.connected(
        spec,
        "data after the guest's end of sending ends the connection",
        |talk| {
            talk.say(packet(SHUTDOWN).flags(SEND), &[]);
            talk.say(packet(RW), b"more");
            talk.hear(answer(RST));
            talk.gone();
        },
    );
    rows.connected(spec, "a guest that receives no more may send", |talk| {
        talk.say(packet(SHUTDOWN).flags(RECEIVE), &[]);
        talk.say(packet(RW), b"hello");
        talk.host("has got it", |host| {
            assert_eq!(Programs::of(host).read().0, b"hello");
        });
        talk.silence();
    });
    rows.connected(
        spec,
        "a host program that leaves is told of and then waited for",
        |talk| {
            talk.host("leaves", |host| {
                let programs = Programs::of(host);
                programs.stream();
                programs.stream = None;
            });
            talk.hear(answer(SHUTDOWN).flags(RECEIVE | SEND));
            talk.silence();
            talk.say(packet(RST), &[]);
            talk.gone();
        },
    );
    rows.connected(
        spec,
        "data for a host program that has left is lost without harm",
        |talk| {
            talk.host("leaves", |host| {
                let programs = Programs::of(host);
                programs.stream();
                programs.stream = None;
            });
            talk.hear(answer(SHUTDOWN).flags(RECEIVE | SEND));
            talk.say(packet(RW), b"lost");
            talk.say(packet(CREDIT_REQUEST), &[]);
            talk.hear(answer(CREDIT_UPDATE).told(ROOM, 4));
        },
    );
}

/// What the guest receives into.
fn receive_buffers(rows: &mut Rows) {
    let spec = "5.10.6.4.1";
    for len in [1, 43, 44] {
        let about = format!("a receive buffer of {len} bytes comes back unused");
        rows.add(
            spec,
            &about,
            |talk| {
                talk.give_chain(&[(inbox(0), len, true)]);
                talk.give(1);
                talk.say(packet(RW), &[]);
                talk.hear_all(&[None, Some((answer(RST).told(0, 0), &[]))]);
            },
            Talk::on(vec![Step::Start(F_VERSION_1)]),
        );
    }
    rows.add(
        spec,
        "a readable receive buffer comes back unused",
        |talk| {
            talk.give_chain(&[(inbox(0), 4096, false)]);
            talk.give(1);
            talk.say(packet(RW), &[]);
            talk.hear_all(&[None, Some((answer(RST).told(0, 0), &[]))]);
        },
        Talk::on(vec![Step::Start(F_VERSION_1)]),
    );
    let cases: [(&str, &[(u64, u32)]); 3] = [
        (
            "a header may go into two pieces of a buffer",
            &[(0, 20), (20, 100)],
        ),
        (
            "header and data may go into pieces of their own",
            &[(0, 44), (44, 100)],
        ),
        ("the least buffer takes a packet without data", &[(0, 45)]),
    ];
    for (about, pieces) in cases {
        rows.add(
            spec,
            about,
            |talk| {
                let pieces: Vec<Piece> = pieces
                    .iter()
                    .map(|(at, len)| (inbox(0).plus(*at), *len, true))
                    .collect();
                talk.give_chain(&pieces);
                talk.step(Step::Kick(0));
                talk.say(packet(RW), &[]);
                talk.hear(answer(RST).told(0, 0));
            },
            Talk::on(vec![Step::Start(F_VERSION_1)]),
        );
    }
    rows.add(
        spec,
        "a packet may go over the seam of two pieces of memory",
        |talk| {
            talk.give_chain(&[(At::Seam(-10), 100, true)]);
            talk.step(Step::Kick(0));
            talk.say(packet(RW), &[]);
            talk.step(Step::ExpectUsed(0, vec![(0, 44)]));
            let reset = answer(RST).told(0, 0).bytes(&[]);
            talk.step(Step::ExpectMemory(At::Seam(-10), reset));
        },
        Talk::on(vec![Step::Start(F_VERSION_1)]),
    );
    rows.add(
        "5.10.6.1",
        "answers wait for buffers and come in order",
        |talk| {
            (20..26).for_each(|port| talk.say(packet(RW).from(port), &[]));
            talk.give(2);
            talk.step(Step::ExpectUsed(0, vec![(0, 44), (1, 44)]));
            talk.give(4);
            talk.step(Step::ExpectUsed(0, (2..6).map(|head| (head, 44)).collect()));
            for head in 0..6_u16 {
                let reset = answer(RST).to(20 + u32::from(head)).told(0, 0);
                talk.step(Step::ExpectMemory(inbox(head), reset.bytes(&[])));
            }
        },
        Talk::on(vec![Step::Start(F_VERSION_1)]),
    );
    rows.add(
        "5.10.6.1",
        "a guest without a buffer can connect, and hears of it later",
        |talk| {
            talk.say(packet(REQUEST), &[]);
            talk.say(packet(RW), b"hello");
            talk.host("has got it", arrived);
            talk.host("sends", send_hello);
            talk.silence();
            talk.give(4);
            let (told, data) = (answer(RESPONSE).told(ROOM, 5), answer(RW).told(ROOM, 5));
            talk.step(Step::ExpectUsed(0, vec![(0, 44), (1, 49)]));
            talk.step(Step::ExpectMemory(inbox(0), told.bytes(&[])));
            talk.step(Step::ExpectMemory(inbox(1), data.bytes(b"hello")));
        },
        Talk::on(vec![Step::Start(F_VERSION_1)]),
    );
}

fn reset_transport(host: &mut Host) {
    host.handle
        .send(DeviceCommand::ResetTransport)
        .expect("a device");
}

/// A buffer of the event queue.
fn event_buffer(talk: &mut Talk, head: u16, len: u32) {
    let at = buffer(0x4_0000 + 0x100 * u64::from(head));
    talk.step(Step::Fill(at, 16, 0xee));
    talk.steps.extend(chain(2, head, &[(at, len, true)]));
    talk.step(Step::Publish(2, head));
    talk.step(Step::Kick(2));
}

/// The event queue.
fn events(rows: &mut Rows) {
    let spec = "5.10.6.7";
    let at = buffer(0x4_0000);
    rows.connected(
        spec,
        "event buffers are kept while nothing happens",
        |talk| {
            (0..4).for_each(|head| event_buffer(talk, head, 4));
            talk.step(Step::ExpectUsed(2, vec![]));
        },
    );
    rows.connected(
        spec,
        "a transport reset is told and ends all connections",
        |talk| {
            event_buffer(talk, 0, 8);
            talk.host("resets the transport", reset_transport);
            talk.step(Step::ExpectUsed(2, vec![(0, 4)]));
            talk.step(Step::ExpectMemory(
                at,
                vec![0, 0, 0, 0, 0xee, 0xee, 0xee, 0xee],
            ));
            talk.silence();
            talk.gone();
        },
    );
    rows.connected(spec, "a transport reset waits for a buffer", |talk| {
        talk.host("resets the transport", reset_transport);
        talk.step(Step::ExpectUsed(2, vec![]));
        event_buffer(talk, 0, 4);
        talk.step(Step::ExpectUsed(2, vec![(0, 4)]));
        event_buffer(talk, 1, 4);
        talk.step(Step::ExpectUsed(2, vec![]));
    });
    rows.connected(
        spec,
        "an event buffer that is too small leaves the event to the next",
        |talk| {
            talk.host("resets the transport", reset_transport);
            event_buffer(talk, 0, 3);
            talk.step(Step::ExpectUsed(2, vec![(0, 3)]));
            event_buffer(talk, 1, 4);
            talk.step(Step::ExpectUsed(2, vec![(1, 4)]));
        },
    );
    rows.fresh(spec, "a readable event buffer is no buffer", |talk| {
        talk.host("resets the transport", reset_transport);
        talk.steps.extend(chain(2, 0, &[(at, 4, false)]));
        talk.step(Step::Publish(2, 0));
        talk.step(Step::Kick(2));
        talk.step(Step::ExpectUsed(2, vec![(0, 0)]));
        event_buffer(talk, 1, 4);
        talk.step(Step::ExpectUsed(2, vec![(1, 4)]));
    });
}

/// The context ID.
fn configuration(rows: &mut Rows) {
    let spec = "5.10.4";
    let read = |about: &str, field, width, value, rows: &mut Rows| {
        let steps = vec![Step::Reset, Step::ExpectConfig(field, width, value)];
        rows.bare(spec, about, steps);
    };
    read(
        "the low half of the context ID is the guest's",
        0,
        Width::Dword,
        CID,
        rows,
    );
    read(
        "the high half of the context ID is reserved",
        4,
        Width::Dword,
        0,
        rows,
    );
    read(
        "the context ID can be read by bytes",
        0,
        Width::Byte,
        CID,
        rows,
    );
    read("behind the context ID is nothing", 8, Width::Dword, 0, rows);
    let steps = vec![
        Step::Start(F_VERSION_1),
        Step::WriteConfig(0, Width::Dword, 7),
        Step::WriteConfig(4, Width::Dword, 7),
        Step::ExpectConfig(0, Width::Dword, CID),
        Step::ExpectConfig(4, Width::Dword, 0),
    ];
    rows.bare(spec, "a driver cannot choose its context ID", steps);
}

/// Features and queues.
fn set_up(rows: &mut Rows) {
    let offered = |mask, value| vec![Step::Reset, Step::ExpectOffered { mask, value }];
    rows.bare("5.10.3", "streams are offered", offered(F_STREAM, F_STREAM));
    rows.bare(
        "5.10.3",
        "packets with borders are not offered",
        offered(F_SEQPACKET, 0),
    );
    let steps = vec![
        Step::Reset,
        Step::Status(1),
        Step::Status(3),
        Step::Features(F_VERSION_1 | F_STREAM | F_SEQPACKET),
        Step::Status(11),
        Step::ExpectStatus(3),
    ];
    rows.bare("5.10.3", "packets with borders cannot be had", steps);
    rows.add(
        "5.10.3",
        "a driver that accepts streams gets them",
        |talk| {
            talk.give(2);
            talk.say(packet(REQUEST), &[]);
            talk.hear(answer(RESPONSE));
        },
        Talk::on(vec![Step::Start(F_VERSION_1 | F_STREAM)]),
    );
    for missing in 0..3_u16 {
        let about = format!("a driver without queue {missing} is told to begin again");
        let mut steps = vec![
            Step::Reset,
            Step::Status(1),
            Step::Status(3),
            Step::Features(F_VERSION_1),
            Step::Status(11),
        ];
        steps.extend((0..3).filter(|queue| *queue != missing).map(Step::Ring));
        steps.push(Step::Status(15));
        steps.push(Step::ExpectNeedsReset);
        rows.bare("5.10.2", &about, steps);
    }
}

/// Resets and rings that break in the middle of a connection.
fn resets(rows: &mut Rows) {
    rows.connected(
        "2.4.1",
        "a reset of the device ends all connections",
        |talk| {
            talk.host("accepts", |host| assert!(!Programs::of(host).read().1));
            talk.step(Step::Start(F_VERSION_1));
            talk.host("has seen the end", |host| {
                assert!(Programs::of(host).read().1);
            });
            (talk.given, talk.heard) = (0, 0);
            talk.give(4);
            talk.gone();
        },
    );
    for (queue, which) in [(1_u16, "transmit"), (0, "receive")] {
        let about =
            format!("an index of the {which} ring that jumps puts the device out of service");
        rows.connected("2.7.6", &about, |talk| {
            if queue == 0 {
                (0..7).for_each(|_| {
                    talk.alive();
                    talk.hear(answer(CREDIT_UPDATE));
                });
            }
            talk.step(Step::AvailableIndex(queue, 0x8000));
            talk.step(Step::Kick(queue.into()));
            if queue == 0 {
                talk.say(packet(CREDIT_REQUEST), &[]);
            }
            talk.step(Step::ExpectNeedsReset);
            talk.host("sends in vain", send_hello);
            talk.step(Step::ExpectUsedCount(0, 0));
        });
    }
}

/// Connections that a host program wants.
fn host_programs(rows: &mut Rows) {
    const PORT: u32 = 7;
    let asked = |talk: &mut Talk| {
        talk.host("asks for port 7", |host| {
            let programs = Programs::of(host);
            let mut stream = UnixStream::connect(programs.folder.device()).expect("a listener");
            stream.write_all(b"CONNECT 7\n").expect("room");
            stream.set_nonblocking(true).expect("a socket");
            programs.stream = Some(stream);
        });
        talk.hear(answer(REQUEST).from(1 << 30).to(PORT));
    };
    let reply = |op| packet(op).from(PORT).to(1 << 30);
    let back = |op| answer(op).from(1 << 30).to(PORT);
    let spec = "5.10.6.5";
    rows.fresh(
        spec,
        "a host program is told that the guest accepted",
        |talk| {
            asked(talk);
            talk.say(reply(RESPONSE), &[]);
            talk.host("is told", |host| {
                let told = Programs::of(host).read();
                assert_eq!(told, (b"OK 1073741824\n".to_vec(), false));
            });
            talk.say(reply(RESPONSE), &[]);
            talk.hear(back(RST));
        },
    );
    rows.fresh(
        spec,
        "a host program whose request is refused sees the end",
        |talk| {
            asked(talk);
            talk.say(reply(RST), &[]);
            talk.silence();
            talk.host("has seen the end", |host| {
                assert_eq!(Programs::of(host).read(), (Vec::new(), true));
            });
        },
    );
    for (op, name) in [
        (RW, "data"),
        (SHUTDOWN, "a shutdown"),
        (CREDIT_UPDATE, "credit"),
        (REQUEST, "a request of its own"),
    ] {
        let about = format!("{name} instead of an answer ends the connection");
        rows.fresh(spec, &about, |talk| {
            asked(talk);
            talk.say(reply(op).flags(3), b"");
            talk.hear(back(RST));
            talk.host("has seen the end", |host| {
                assert_eq!(Programs::of(host).read(), (Vec::new(), true));
            });
        });
    }
}
