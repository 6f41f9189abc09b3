//! Block requests on engines: all rows of a disk again on io_uring and four queues, and what
//! drivers and hosts do while requests are in the air.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use devices::disk::engine::{Begun, Finished, Operation, Task};
use devices::disk::{
    Access, Disk, Engine, EngineChoice, Geometry, RawDisk, Topology, TransferError,
};
use devices::limit::{BucketSpec, Limits};
use devices::testing::{Desk, Fate, LateDisk, SharedDisk};
use devices::virtio::blk::Block;
use devices::virtio::{DeviceCommand, Span};
use devices::{GuestRam, Width};

use super::subjects::{BLOCK, BLOCK_WRITTEN, DISK_ID, block_header};
use super::{F_INDIRECT, F_VERSION_1, List, block, buffer, disk_image, request, revive, start};
use crate::Transport;
use crate::step::{At, Fixture, Host, Register, Row, Step, Subject};

const F_FLUSH: u64 = 1 << 9;
const F_CONFIG_WCE: u64 = 1 << 11;
const F_MQ: u64 = 1 << 12;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
const QUEUES: u16 = 4;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;

const OK: u8 = 0;
const IOERR: u8 = 1;

/// [`BLOCK`]'s disk as a file, on io_uring where the host has it, with four queues.
pub static URING: Subject = Subject {
    name: "block-uring",
    queues: QUEUES,
    features: BLOCK.features | F_MQ,
    make: || uring(false),
    good: BLOCK.good,
    boot: None,
};

/// The same for rows that change it.
pub static URING_WRITTEN: Subject = Subject {
    name: "block-uring-written",
    good: BLOCK_WRITTEN.good,
    ..URING
};

/// The same, read-only.
pub static URING_READ_ONLY: Subject = Subject {
    name: "block-uring-ro",
    features: F_VERSION_1 | F_MQ,
    make: || uring(true),
    ..URING
};

/// A disk whose engine ends requests when a row says so, and at once until then. Its engine has
/// room for four.
pub static LATE: Subject = Subject {
    name: "block-late",
    make: || {
        let disk = SharedDisk::new(disk_image());
        let (late, desk) = LateDisk::new(disk.clone(), 4);
        desk.promptly(true);
        let block = Block::new(Box::new(late), DISK_ID).with_queues(QUEUES);
        Fixture {
            device: Box::new(block),
            backend: Box::new(Backend { desk, disk }),
        }
    },
    ..URING
};

/// The same with all that a driver can ask for, for scripts.
pub static LATE_WRITTEN: Subject = Subject {
    name: "block-late-written",
    features: LATE.features | F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES,
    good: BLOCK_WRITTEN.good,
    ..LATE
};

/// What the engine of [`LATE`] does next, for any byte of a script; nothing on other hosts.
pub fn next_of_engine(host: &Host, byte: u8) {
    let Some(Backend { desk, .. }) = host.backend.downcast_ref() else {
        return;
    };
    let high = byte >> 3;
    let fate = match high % 6 {
        0 => Fate::Late,
        1 => Fate::Twice,
        2 => Fate::AtOnce,
        3 => Fate::Refused,
        4 => Fate::Fails { done: 0, errno: 5 },
        _ => Fate::Fails {
            done: 512,
            errno: 28,
        },
    };
    match byte % 8 {
        0 => drop(desk.end_one()),
        1 => desk.end_all(),
        2 => desk.newest_first(high & 1 != 0),
        3 | 4 => desk.promptly(high & 1 != 0),
        5 => desk.fate_of_flushes(fate),
        6 => desk.fate(u64::from(high / 6) * 512, fate),
        _ if high == 31 => desk.lose(5),
        _ => desk.ring(),
    }
}

/// The engine of [`LATE`] ends all that it has and does well from now on.
pub fn engine_behaves(host: &Host) {
    if let Some(Backend { desk, .. }) = host.backend.downcast_ref() {
        desk.behave();
    }
}

/// The host's side of [`LATE`].
struct Backend {
    desk: Desk,
    disk: SharedDisk,
}

fn uring(read_only: bool) -> Fixture {
    let (disk, file) = on_io_uring(read_only);
    let disk = Prompt {
        disk,
        zeroes: file,
        ended: Vec::new(),
        silence: io::pipe().expect("a pipe"),
    };
    let block = Block::new(Box::new(disk), DISK_ID).with_queues(QUEUES);
    Fixture::alone(block)
}

/// A file of [`disk_image`] that is gone when it is closed, as a disk and as it is.
fn on_io_uring(read_only: bool) -> (RawDisk, File) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let (path, own) = (file.path(), file.as_file().try_clone());
    std::fs::write(path, disk_image()).expect("room for an image");
    let access = Access {
        read_only,
        engine: EngineChoice::IoUring,
        ..Access::default()
    };
    let disk = RawDisk::open_with(path, access).expect("a disk");
    (disk, own.expect("a descriptor"))
}

/// Whether this host has io_uring; without it, disks work within their calls.
#[must_use]
pub fn host_has_io_uring() -> bool {
    on_io_uring(false).0.engine().is_some()
}

/// A disk whose engine has ended what it was given by the time that it says it has begun: rows do
/// not wait for the kernel. What the host's file system may not have is done by hand.
struct Prompt {
    disk: RawDisk,
    zeroes: File,
    ended: Vec<Finished>,
    /// Nothing ever ends beside a call.
    silence: (PipeReader, PipeWriter),
}

impl Prompt {
    fn inner(&mut self) -> &mut dyn Engine {
        self.disk.engine().expect("asked only where there is one")
    }
}

impl Disk for Prompt {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn topology(&self) -> Topology {
        self.disk.topology()
    }

    fn engine(&mut self) -> Option<&mut dyn Engine> {
        self.disk.engine()?;
        Some(self)
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        self.disk.read(offset, ram, into)
    }

    fn write(&mut self, offset: u64, ram: &GuestRam, from: &[Span]) -> Result<(), TransferError> {
        self.disk.write(offset, ram, from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.discard(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        let zeroes = vec![0; usize::try_from(len).unwrap_or_default()];
        self.zeroes.write_all_at(&zeroes, offset)
    }
}

impl Engine for Prompt {
    fn depth(&self) -> u16 {
        // As shallow as it can be: a second request waits for the first.
        1
    }

    fn begin(&mut self, tag: u16, operation: &Operation<'_>) -> Begun {
        match operation.task {
            Task::Zero { .. } => Begun::Refused,
            _ => self.inner().begin(tag, operation),
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        let mut ended = std::mem::take(&mut self.ended);
        let inner = self.inner();
        inner.submit()?;
        while inner.running() > 0 {
            inner.wait(Duration::from_secs(1));
            inner.finished(&mut ended);
            inner.submit()?;
        }
        self.ended = ended;
        Ok(())
    }

    fn finished(&mut self, done: &mut Vec<Finished>) {
        done.append(&mut self.ended);
    }

    fn running(&self) -> usize {
        self.ended.len()
    }

    fn wait(&mut self, patience: Duration) {
        self.inner().wait(patience);
    }

    fn cancel(&mut self) {
        self.inner().cancel();
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.silence.0.as_fd()
    }
}

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("late");
    orders(&mut list);
    failures(&mut list);
    resets(&mut list);
    sizes(&mut list);
    swaps(&mut list);
    limits(&mut list);
    caches(&mut list);
    [again(), list.rows()].concat()
}

/// The rows of the block device on other queues of a disk with an engine. Not those whose host
/// fails, which this one does not, and not those that want several requests back in the order in
/// which they were asked.
fn again() -> Vec<Row> {
    let left_out = |step: &Step| match step {
        Step::Host(..) => true,
        Step::ExpectUsed(_, entries) => entries.len() > 1,
        _ => false,
    };
    let rows = block::rows().into_iter();
    let rows = rows.filter(|row| !row.steps.iter().any(left_out));
    rows.zip((0..QUEUES).cycle()).map(on_queue).collect()
}

fn on_queue((mut row, queue): (Row, u16)) -> Row {
    row.subject = match row.subject.name {
        "block" => &URING,
        "block-written" => &URING_WRITTEN,
        "block-ro" => &URING_READ_ONLY,
        other => unreachable!("no rows of {other} among those of the block device"),
    };
    let sets_up = |step: &Step| {
        let registers = matches!(step, Step::Write(..) | Step::RawWrite(..));
        registers || matches!(step, Step::Queue { .. } | Step::Ring(_) | Step::Enable(_))
    };
    // A row that sets its queues up by itself stays where it is.
    let to = if row.steps.iter().any(sets_up) {
        0
    } else {
        queue
    };
    row.id = row.id.replace("block-", "uring-");
    row.about = format!("{}, on io_uring and queue {to}", row.about);
    for step in &mut row.steps {
        match step {
            Step::Start(features) => *features |= F_MQ,
            Step::Descriptor { queue, .. }
            | Step::Publish(queue, _)
            | Step::AvailableEntry(queue, ..)
            | Step::AvailableIndex(queue, _)
            | Step::AvailableFlags(queue, _)
            | Step::UsedEvent(queue, _)
            | Step::ExpectUsed(queue, _)
            | Step::ExpectUsedCount(queue, _)
                if *queue == 0 =>
            {
                *queue = to;
            }
            Step::Kick(queue) if *queue == 0 => *queue = to.into(),
            _ => {}
        }
    }
    row
}

fn backend(host: &mut Host) -> &mut Backend {
    host.backend.downcast_mut().expect("the row's backend")
}

fn desk(what: &'static str, act: fn(&mut Host)) -> Vec<Step> {
    vec![Step::Host(what, act)]
}

/// From now on requests end when the row says so.
fn late() -> Vec<Step> {
    desk("the engine takes its time", |host| {
        backend(host).desk.promptly(false);
    })
}

fn end_one() -> Vec<Step> {
    desk("the oldest request ends", |host| {
        assert!(backend(host).desk.end_one(), "nothing was in the air");
    })
}

fn end_all() -> Vec<Step> {
    desk("all that is in the air ends", |host| {
        backend(host).desk.end_all();
    })
}

/// The engine is quick again, and nothing is in the air any more.
fn quick() -> Vec<Step> {
    desk("the engine is quick again", |host| {
        let Backend { desk, .. } = backend(host);
        desk.promptly(true);
        desk.end_all();
    })
}

fn alive() -> Vec<Step> {
    [quick(), revive()].concat()
}

/// The places of request `n` of a row: header, status, data, first descriptor.
fn places(n: u64) -> (At, At, At, u16) {
    let head = u16::try_from(n % 5 * 3).expect("small");
    (
        buffer(n * 0x40),
        buffer(n * 0x40 + 0x20),
        buffer(0x4000 + n * 0x200),
        head,
    )
}

/// Request `n` of a row for a sector, on a queue.
fn ask(queue: u16, n: u64, kind: u32, sector: u64) -> Vec<Step> {
    let (header, status, data, head) = places(n);
    let fill = if kind == OUT { 0xa0 } else { 0x5a };
    let pieces = match kind {
        FLUSH => vec![(header, 16, false), (status, 1, true)],
        _ => vec![
            (header, 16, false),
            (data, 512, kind == IN),
            (status, 1, true),
        ],
    };
    let memory = vec![
        Step::Memory(header, block_header(kind, sector)),
        Step::Memory(status, vec![0xee]),
        Step::Fill(data, 512, fill),
    ];
    [memory, request(queue, head, &pieces), vec![Step::Settle]].concat()
}

/// Requests come back on a queue in this order: each with its number, status and bytes.
fn back(queue: u16, ended: &[(u64, u8, u32)]) -> Vec<Step> {
    let heads = ended.iter().map(|(n, _, written)| (places(*n).3, *written));
    let used = Step::ExpectUsed(queue, heads.collect());
    let statuses = ended
        .iter()
        .map(|(n, status, _)| Step::ExpectMemory(places(*n).1, vec![*status]));
    std::iter::once(used).chain(statuses).collect()
}

/// The data of a read that was request `n`.
fn read(n: u64, byte: u8) -> Vec<Step> {
    vec![Step::ExpectMemory(places(n).2, vec![byte; 512])]
}

fn nothing(queue: u16) -> Vec<Step> {
    vec![Step::ExpectUsed(queue, vec![])]
}

fn go() -> Vec<Step> {
    start(F_FLUSH | F_MQ | F_INDIRECT)
}

fn add(list: &mut List, spec: &'static str, about: &str, parts: Vec<Vec<Step>>) {
    list.add(&LATE, spec, about, parts.into_iter().chain([alive()]));
}

fn orders(list: &mut List) {
    let two = || [ask(0, 0, IN, 3), ask(0, 1, IN, 4)].concat();
    let newest = || {
        desk("the latest request ends first", |host| {
            backend(host).desk.newest_first(true);
        })
    };
    add(
        list,
        "2.7.8",
        "two reads end in another order than they were asked",
        vec![
            go(),
            late(),
            newest(),
            two(),
            nothing(0),
            end_one(),
            back(0, &[(1, OK, 513)]),
            read(1, 5),
            end_one(),
            back(0, &[(0, OK, 513)]),
            read(0, 4),
        ],
    );
    add(
        list,
        "2.7.8",
        "requests on four queues come back on the queue that they came from",
        vec![
            go(),
            late(),
            (0..4)
                .flat_map(|q| ask(q, q.into(), IN, q.into()))
                .collect(),
            end_all(),
            (0..4_u16)
                .rev()
                .flat_map(|q| [back(q, &[(q.into(), OK, 513)]), nothing(q)].concat())
                .collect(),
        ],
    );
    add(
        list,
        "2.7.13.1",
        "a head in the air is published again: out of service, and the request itself ends",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            vec![Step::Publish(0, 0), Step::Kick(0), Step::ExpectNeedsReset],
            end_all(),
            back(0, &[(0, OK, 513)]),
            read(0, 4),
        ],
    );
    let (header, status, data, _) = places(0);
    add(
        list,
        "2.7.13",
        "descriptors and header are rewritten in the air: the copies count",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            super::chain(
                0,
                0,
                &[(buffer(0x9000), 4, false), (buffer(0x9100), 9, true)],
            ),
            vec![Step::Memory(header, block_header(OUT, u64::MAX))],
            end_all(),
            vec![
                Step::ExpectUsed(0, vec![(0, 513)]),
                Step::ExpectMemory(status, vec![OK]),
                Step::ExpectMemory(data, vec![4; 512]),
                Step::ExpectMemory(buffer(0x9100), vec![0; 9]),
            ],
        ],
    );
    add(
        list,
        "5.2.6",
        "data to be written changes in the air: what is there when it ends is written",
        vec![
            go(),
            late(),
            ask(0, 0, OUT, 3),
            vec![Step::Fill(data, 512, 4)],
            end_all(),
            back(0, &[(0, OK, 1)]),
        ],
    );
    add(
        list,
        "2.7.6",
        "more requests on four queues than the engine has room for: all come back",
        vec![
            go(),
            late(),
            (0..20_u64)
                .flat_map(|n| ask(u16::try_from(n / 5).expect("small"), n, IN, n))
                .collect(),
            quick(),
            (0..4_u16)
                .map(|queue| Step::ExpectUsedCount(queue, 5))
                .collect(),
            (0..20_u64)
                .flat_map(|n| read(n, u8::try_from(n + 1).expect("small")))
                .collect(),
        ],
    );
    add(
        list,
        "2.1.2",
        "a queue breaks while others' requests are in the air: those end, and a reset mends it",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            ask(3, 1, IN, 4),
            vec![
                Step::AvailableIndex(2, 0x4000),
                Step::Kick(2),
                Step::ExpectNeedsReset,
            ],
            end_all(),
            back(0, &[(0, OK, 513)]),
            back(3, &[(1, OK, 513)]),
            vec![Step::Kick(0), Step::Kick(1), Step::Kick(2)],
            nothing(2),
        ],
    );
    add(
        list,
        "5.2.5",
        "four queues without the first: the device needs a reset",
        vec![
            vec![Step::Reset, Step::Status(1), Step::Status(3)],
            vec![Step::Features(F_VERSION_1 | F_MQ), Step::Status(11)],
            (1..4).map(Step::Ring).collect(),
            vec![Step::Status(15), Step::ExpectNeedsReset],
        ],
    );
    add(
        list,
        "5.2.5",
        "the first and the last of four queues: both work",
        vec![
            vec![Step::Reset, Step::Status(1), Step::Status(3)],
            vec![Step::Features(F_VERSION_1 | F_MQ), Step::Status(11)],
            vec![Step::Ring(0), Step::Ring(3), Step::Status(15)],
            ask(3, 0, IN, 3),
            ask(0, 1, IN, 4),
            back(3, &[(0, OK, 513)]),
            back(0, &[(1, OK, 513)]),
        ],
    );
}

fn failures(list: &mut List) {
    let spec = "5.2.6.2";
    let mut fails = |about: &str, act: fn(&mut Host), kind, written| {
        let parts = vec![
            go(),
            late(),
            desk("what begins at sector 3 fails", act),
            ask(1, 0, kind, 3),
            ask(2, 1, IN, 5),
            end_all(),
            back(1, &[(0, IOERR, written)]),
            back(2, &[(1, OK, 513)]),
            read(1, 6),
            desk("the disk is well again", |host| {
                backend(host).desk.fate(3 * 512, Fate::Late);
            }),
        ];
        add(list, spec, about, parts);
    };
    let eio: fn(&mut Host) = |host| {
        let fate = Fate::Fails { done: 0, errno: 5 };
        backend(host).desk.fate(3 * 512, fate);
    };
    let enospc: fn(&mut Host) = |host| {
        let fate = Fate::Fails { done: 0, errno: 28 };
        backend(host).desk.fate(3 * 512, fate);
    };
    fails("a read in the air fails (EIO)", eio, IN, 0);
    fails("a write in the air fails (EIO)", eio, OUT, 1);
    fails(
        "a write in the air finds the disk full (ENOSPC)",
        enospc,
        OUT,
        1,
    );
    let twice: fn(&mut Host) = |host| backend(host).desk.fate(3 * 512, Fate::Twice);
    add(
        list,
        spec,
        "a read comes back short and is gone on with",
        vec![
            go(),
            late(),
            desk("what begins at sector 3 comes short", twice),
            ask(0, 0, IN, 3),
            end_one(),
            nothing(0),
            end_one(),
            back(0, &[(0, OK, 513)]),
            read(0, 4),
        ],
    );
    let refused: fn(&mut Host) = |host| backend(host).desk.fate(3 * 512, Fate::Refused);
    add(
        list,
        spec,
        "a request that the engine does not take: those before it end first",
        vec![
            go(),
            late(),
            desk("what begins at sector 3 is refused", refused),
            ask(0, 0, IN, 5),
            nothing(0),
            ask(0, 1, IN, 3),
            back(0, &[(0, OK, 513), (1, OK, 513)]),
            read(1, 4),
        ],
    );
    add(
        list,
        spec,
        "the engine is lost with requests in the air: each of them comes back",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            desk("the host takes no more", |host| backend(host).desk.lose(5)),
            ask(1, 1, IN, 4),
            ask(2, 2, IN, 5),
            back(0, &[(0, OK, 513)]),
            back(1, &[(1, OK, 513)]),
            back(2, &[(2, OK, 513)]),
            [read(0, 4), read(1, 5), read(2, 6)].concat(),
        ],
    );
}

fn resets(list: &mut List) {
    let spec = "2.4.1";
    let data = places(0).2;
    let untouched = || vec![Step::ExpectMemory(data, vec![0x77; 512])];
    add(
        list,
        spec,
        "a reset with a read in the air: its memory is the driver's again",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            vec![Step::Reset, Step::Fill(data, 512, 0x77)],
            end_all(),
            untouched(),
            vec![Step::ExpectReasons(0)],
        ],
    );
    add(
        list,
        spec,
        "a reset with a full engine and requests that wait for room",
        vec![
            go(),
            late(),
            (0..10_u64)
                .flat_map(|n| ask(u16::try_from(n / 5).expect("small"), n, IN, n))
                .collect(),
            vec![Step::Reset, Step::Fill(data, 512, 0x77)],
            end_all(),
            untouched(),
        ],
    );
    add(
        list,
        spec,
        "ten resets with requests in the air on four queues",
        vec![
            (0..10)
                .flat_map(|_| {
                    let asked = (0..4).flat_map(|q| ask(q, q.into(), OUT, 3));
                    [go(), late(), asked.collect(), vec![Step::Reset]].concat()
                })
                .collect(),
            quick(),
            go(),
            // What the good request reads.
            vec![Step::Fill(data, 512, 4)],
            request(
                0,
                0,
                &[
                    (places(0).0, 16, false),
                    (data, 512, false),
                    (places(0).1, 1, true),
                ],
            ),
            vec![Step::ExpectUsed(0, vec![(0, 1)])],
        ],
    );
    list.only(Transport::Mmio);
    add(
        list,
        "4.2.2.2",
        "a queue is taken back with a read in the air, and the others' requests end",
        vec![
            go(),
            late(),
            ask(1, 0, IN, 3),
            ask(2, 1, IN, 4),
            vec![
                Step::Write(Register::QueueSelect, 1),
                Step::Write(Register::QueueEnable, 0),
                Step::Expect(Register::QueueEnable, 0),
                Step::Fill(data, 512, 0x77),
            ],
            end_all(),
            untouched(),
            vec![Step::ExpectUsedCount(1, 0)],
            back(2, &[(1, OK, 513)]),
        ],
    );
    list.only(None);
}

/// The capacity is this, and the driver was told of a change.
fn capacity(sectors: u64) -> Vec<Step> {
    vec![
        Step::ExpectReasons(2),
        Step::ExpectConfig(0, Width::Qword, sectors),
    ]
}

fn set_sectors(host: &mut Host, sectors: usize) {
    backend(host).disk.resize(sectors * 512);
    let done = host.handle.ask(DeviceCommand::Rescan);
    done.expect("a disk may have another size");
}

fn sizes(list: &mut List) {
    let spec = "5.2.5";
    let larger = || desk("the disk has 80 sectors", |host| set_sectors(host, 80));
    let smaller = || desk("the disk has 10 sectors", |host| set_sectors(host, 10));
    let as_before = || desk("the disk has 64 sectors", |host| set_sectors(host, 64));
    add(
        list,
        spec,
        "the disk grows with a read in the air: both are told, and the new sectors work",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            larger(),
            capacity(80),
            ask(1, 1, IN, 79),
            end_all(),
            back(0, &[(0, OK, 513)]),
            back(1, &[(1, OK, 513)]),
            [read(0, 4), read(1, 0)].concat(),
        ],
    );
    add(
        list,
        spec,
        "the disk shrinks with requests in the air beyond its new end: they fail",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 20),
            ask(0, 1, OUT, 21),
            ask(1, 2, IN, 3),
            smaller(),
            capacity(10),
            end_all(),
            back(0, &[(0, IOERR, 0), (1, IOERR, 1)]),
            back(1, &[(2, OK, 513)]),
        ],
    );
    add(
        list,
        spec,
        "the disk shrinks while requests wait for room: those beyond its new end fail",
        vec![
            go(),
            late(),
            (0..4).flat_map(|n| ask(0, n, IN, n)).collect(),
            ask(1, 5, IN, 20),
            ask(2, 6, OUT, 9),
            smaller(),
            quick(),
            vec![Step::ExpectUsedCount(0, 4)],
            back(1, &[(5, IOERR, 0)]),
            back(2, &[(6, OK, 1)]),
        ],
    );
    add(
        list,
        spec,
        "the disk shrinks and grows again with a read in the air beyond the end between",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 20),
            smaller(),
            as_before(),
            end_all(),
            back(0, &[(0, OK, 513)]),
            vec![Step::ExpectConfig(0, Width::Qword, 64)],
        ],
    );
    add(
        list,
        spec,
        "the disk shrinks with requests in the air, and then the driver resets",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 20),
            smaller(),
            vec![Step::Reset],
            as_before(),
            end_all(),
        ],
    );
    add(
        list,
        spec,
        "the disk changes its size ten times with requests in the air",
        vec![
            go(),
            late(),
            (0..4).flat_map(|n| ask(0, n, IN, n)).collect(),
            (0..10)
                .flat_map(|_| [smaller(), larger()].concat())
                .collect(),
            as_before(),
            end_all(),
            back(0, &[(0, OK, 513), (1, OK, 513), (2, OK, 513), (3, OK, 513)]),
        ],
    );
}

/// Puts another image into the drive.
fn swap(host: &mut Host, image: Vec<u8>) {
    let disk = SharedDisk::new(image);
    let (late, desk) = LateDisk::new(disk.clone(), 4);
    let done = host.handle.ask(DeviceCommand::ReplaceDisk(Box::new(late)));
    done.expect("a disk may be replaced");
    *backend(host) = Backend { desk, disk };
}

fn swaps(list: &mut List) {
    let spec = "5.2.5";
    let as_before = || {
        desk("the first image is back", |host| {
            swap(host, disk_image());
        })
    };
    add(
        list,
        spec,
        "another image with a read in the air: that one ends in the old image",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            desk("another image of 32 sectors", |host| {
                swap(host, vec![0x99; 32 * 512]);
            }),
            back(0, &[(0, OK, 513)]),
            read(0, 4),
            vec![Step::ExpectConfig(0, Width::Qword, 32)],
            ask(1, 1, IN, 3),
            end_all(),
            back(1, &[(1, OK, 513)]),
            read(1, 0x99),
            as_before(),
        ],
    );
    add(
        list,
        spec,
        "a smaller image while requests wait for room: those go to it, or beyond its end",
        vec![
            go(),
            late(),
            (0..4).flat_map(|n| ask(0, n, IN, n)).collect(),
            ask(1, 5, IN, 20),
            ask(2, 6, IN, 9),
            desk("another image of 10 sectors", |host| {
                swap(host, vec![0x99; 10 * 512]);
            }),
            quick(),
            vec![Step::ExpectUsedCount(0, 4)],
            back(1, &[(5, IOERR, 0)]),
            back(2, &[(6, OK, 513)]),
            read(6, 0x99),
            as_before(),
        ],
    );
    add(
        list,
        spec,
        "a read-only image is refused with a read in the air, which goes on",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            desk("a read-only image is refused", |host| {
                let disk = SharedDisk::new(vec![0; 512]).read_only();
                let swap = DeviceCommand::ReplaceDisk(Box::new(disk));
                assert!(host.handle.ask(swap).is_err(), "it was taken");
            }),
            nothing(0),
            end_all(),
            back(0, &[(0, OK, 513)]),
            read(0, 4),
            vec![Step::ExpectConfig(0, Width::Qword, 64)],
        ],
    );
    add(
        list,
        spec,
        "another image, whose flush of the old one fails, with requests in the air and waiting",
        vec![
            go(),
            late(),
            (0..5).flat_map(|n| ask(0, n, IN, n)).collect(),
            desk("a swap that fails", |host| {
                backend(host).disk.fail_with(Some(5));
                let disk = SharedDisk::new(vec![0; 512]);
                let swap = DeviceCommand::ReplaceDisk(Box::new(disk));
                assert!(host.handle.ask(swap).is_err(), "it was taken");
                backend(host).disk.fail_with(None);
            }),
            end_all(),
            vec![Step::ExpectUsedCount(0, 5)],
            read(4, 5),
        ],
    );
    add(
        list,
        spec,
        "an image without an engine takes over from one that has requests in the air",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            desk("an image without an engine", |host| {
                let disk = SharedDisk::new(disk_image());
                let swap = DeviceCommand::ReplaceDisk(Box::new(disk));
                host.handle.ask(swap).expect("a disk may be replaced");
            }),
            back(0, &[(0, OK, 513)]),
            ask(1, 1, IN, 4),
            back(1, &[(1, OK, 513)]),
            read(1, 5),
        ],
    );
}

/// As many operations, or sectors, in an hour.
fn limit(host: &mut Host, operations: Option<u64>, sectors: Option<u64>) {
    let bucket = |size| BucketSpec {
        size,
        burst: 0,
        refill: Duration::from_secs(3600),
    };
    let limits = Limits {
        bytes: sectors.map(|sectors| bucket(sectors * 512)),
        operations: operations.map(bucket),
    };
    let done = host.handle.ask(DeviceCommand::Limit(limits));
    done.expect("limits may be set");
}

fn limits(list: &mut List) {
    let spec = "2.7.8";
    let lifted = || desk("the limits are lifted", |host| limit(host, None, None));
    let one = || desk("one operation an hour", |host| limit(host, Some(1), None));
    let sectors = || desk("two sectors an hour", |host| limit(host, None, Some(2)));
    add(
        list,
        spec,
        "a limit comes with a read in the air, which is not held back",
        vec![
            go(),
            late(),
            ask(0, 0, IN, 3),
            one(),
            end_all(),
            back(0, &[(0, OK, 513)]),
            lifted(),
        ],
    );
    add(
        list,
        spec,
        "requests behind a limit wait, with one in the air, until the limit is lifted",
        vec![
            go(),
            late(),
            one(),
            ask(0, 0, IN, 3),
            ask(1, 1, IN, 4),
            ask(0, 2, IN, 5),
            end_all(),
            back(0, &[(0, OK, 513)]),
            nothing(1),
            lifted(),
            end_all(),
            back(1, &[(1, OK, 513)]),
            back(0, &[(2, OK, 513)]),
        ],
    );
    add(
        list,
        spec,
        "a limit on bytes comes with writes in the air and is lifted with reads that wait",
        vec![
            go(),
            late(),
            ask(0, 0, OUT, 20),
            ask(1, 1, OUT, 21),
            sectors(),
            (2..5).flat_map(|n| ask(2, n, IN, n)).collect(),
            end_all(),
            back(0, &[(0, OK, 1)]),
            back(1, &[(1, OK, 1)]),
            back(2, &[(2, OK, 513), (3, OK, 513)]),
            nothing(2),
            lifted(),
            end_all(),
            back(2, &[(4, OK, 513)]),
        ],
    );
    add(
        list,
        "2.4.1",
        "a reset while requests wait for a limit and others are in the air",
        vec![
            go(),
            late(),
            one(),
            (0..4).flat_map(|q| ask(q, q.into(), IN, 3)).collect(),
            vec![Step::Reset],
            lifted(),
            end_all(),
            vec![Step::ExpectReasons(0)],
        ],
    );
    add(
        list,
        spec,
        "a hundred changes of limits with requests in the air",
        vec![
            go(),
            late(),
            (0..4)
                .flat_map(|q| ask(q, q.into(), IN, q.into()))
                .collect(),
            (0..50).flat_map(|_| [one(), sectors()].concat()).collect(),
            lifted(),
            end_all(),
            (0..4)
                .map(|queue| Step::ExpectUsedCount(queue, 1))
                .collect(),
        ],
    );
}

fn caches(list: &mut List) {
    let spec = "5.2.6.2";
    let begin = || start(F_FLUSH | F_MQ | F_CONFIG_WCE);
    let off = || vec![Step::WriteConfig(32, Width::Byte, 0)];
    add(
        list,
        spec,
        "the cache is turned off with a write in the air: the next write is flushed",
        vec![
            begin(),
            late(),
            ask(0, 0, OUT, 20),
            off(),
            ask(1, 1, OUT, 21),
            end_one(),
            back(0, &[(0, OK, 1)]),
            end_one(),
            nothing(1),
            end_one(),
            back(1, &[(1, OK, 1)]),
            desk("two writes and a flush", |host| {
                let log = backend(host).desk.log();
                assert_eq!(log, [Task::Write, Task::Write, Task::Flush]);
            }),
        ],
    );
    add(
        list,
        spec,
        "a flush with writes in the air on another queue ends by itself",
        vec![
            begin(),
            late(),
            ask(0, 0, OUT, 20),
            ask(1, 1, FLUSH, 0),
            desk("the latest request ends first", |host| {
                backend(host).desk.newest_first(true);
            }),
            end_one(),
            back(1, &[(1, OK, 1)]),
            nothing(0),
            end_one(),
            back(0, &[(0, OK, 1)]),
        ],
    );
    add(
        list,
        spec,
        "a write through the cache whose flush fails: an error",
        vec![
            start(F_MQ),
            late(),
            desk("flushes fail (EIO)", |host| {
                let fate = Fate::Fails { done: 0, errno: 5 };
                backend(host).desk.fate_of_flushes(fate);
            }),
            ask(0, 0, OUT, 20),
            end_one(),
            nothing(0),
            end_one(),
            back(0, &[(0, IOERR, 1)]),
            desk("flushes work again", |host| {
                backend(host).desk.fate_of_flushes(Fate::Late);
            }),
        ],
    );
}
