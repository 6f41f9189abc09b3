//! The block device on an engine that delays, reorders, fails, comes short, refuses and is lost:
//! every head comes back once, with the right status, and the device lives on.

use std::collections::BTreeMap;

use super::*;
use crate::bus::Width;
use crate::limit::BucketSpec;
use crate::testing::{Desk, Fate, LateDisk, SharedDisk};
use crate::virtio::transport::mmio::{CONFIG, QUEUE_NOTIFY};

mod random;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const ZEROES: u32 = 13;

/// A device on an engine, its driver, and what the driver waits for.
struct Late {
    driver: GuestDriver,
    desk: Desk,
    disk: SharedDisk,
    /// The status and the data of each head that is out, by queue.
    out: BTreeMap<(u32, u16), (Buffer, Buffer)>,
}

/// What came back: the status, how many bytes the device says it wrote, and the data.
type Back = (u8, u32, Vec<u8>);

impl Late {
    fn with(queues: u16, depth: u16, wanted: u64, make: impl FnOnce(Block) -> Block) -> Self {
        let bytes = (1..=64_u8).flat_map(|sector| [sector; 512]).collect();
        let disk = SharedDisk::new(bytes);
        let (late, desk) = LateDisk::new(disk.clone(), depth);
        let block = make(Block::new(Box::new(late), "late").with_queues(queues));
        Self {
            driver: GuestDriver::started_with(Box::new(block), wanted),
            desk,
            disk,
            out: BTreeMap::new(),
        }
    }

    fn new(queues: u16, depth: u16) -> Self {
        Self::with(queues, depth, u64::MAX, |block| block)
    }

    /// Hands a request over without ringing.
    fn publish(&mut self, queue: u32, kind: u32, sector: u64, data: Buffer) -> u16 {
        let head = self.driver.holding(&header(kind, sector));
        let status = Buffer::writable(self.driver.holding(&[0x77]).at, 1);
        let buffers = if data.len == 0 {
            vec![head, status]
        } else {
            vec![head, data, status]
        };
        let head = self.driver.ring(queue).add(&buffers);
        let fresh = self.out.insert((queue, head), (status, data)).is_none();
        assert!(fresh, "the test reuses head {head}");
        head
    }

    fn ask(&mut self, queue: u32, kind: u32, sector: u64, data: Buffer) -> u16 {
        let head = self.publish(queue, kind, sector, data);
        self.driver.kick(queue);
        head
    }

    fn read(&mut self, queue: u32, sector: u64) -> u16 {
        let room = self.driver.room(512);
        self.ask(queue, READ, sector, room)
    }

    fn write(&mut self, queue: u32, sector: u64, byte: u8) -> u16 {
        let data = self.driver.holding(&[byte; 512]);
        self.ask(queue, WRITE, sector, data)
    }

    fn flush(&mut self, queue: u32) -> u16 {
        self.ask(queue, FLUSH, 0, Buffer::readable(0, 0))
    }

    /// What has come back: each head was out, and is not any more.
    fn back(&mut self) -> BTreeMap<(u32, u16), Back> {
        self.driver.run();
        let mut all = BTreeMap::new();
        let queues = u32::try_from(self.driver.rings.len()).unwrap();
        for queue in 0..queues {
            while let Some((head, written)) = self.driver.ring(queue).take_used() {
                let out = self.out.remove(&(queue, head));
                let (status, data) = out.unwrap_or_else(|| panic!("{head} was not out"));
                let status = self.driver.bytes(status)[0];
                let back = (status, written, self.driver.bytes(data));
                all.insert((queue, head), back);
            }
        }
        all
    }

    /// Ends all, however often that is: the statuses, by queue and head.
    fn statuses(&mut self) -> BTreeMap<(u32, u16), u8> {
        let mut all = BTreeMap::new();
        loop {
            let back = self.back();
            all.extend(back.into_iter().map(|(key, (status, ..))| (key, status)));
            if !self.desk.end_one() {
                return all;
            }
        }
    }

    /// A request that has to succeed.
    fn alive(&mut self) {
        self.desk.fate(63 * 512, Fate::Late);
        let head = self.read(0, 63);
        assert_eq!(self.statuses().get(&(0, head)), Some(&OK), "alive");
    }

    fn number(&self, name: &str) -> u64 {
        match self.driver.handle.inspect().unwrap().find(name) {
            Some(Value::Number(number)) => *number,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn engine(&self) -> Option<Value> {
        self.driver
            .handle
            .inspect()
            .unwrap()
            .find("engine")
            .cloned()
    }
}

#[test]
fn conforms_with_an_engine() {
    let device = || {
        let (disk, desk) = LateDisk::new(SharedDisk::new(vec![7; 64 * 512]), 4);
        desk.promptly(true);
        Box::new(Block::new(Box::new(disk), "")) as Box<dyn VirtioDevice>
    };
    conformance::check(&device, 0);
}

/// What is in the air is nothing that the driver sees, in whatever order it ends.
#[test]
fn requests_come_back_as_they_end() {
    for newest_first in [false, true] {
        let mut late = Late::new(1, 8);
        late.desk.newest_first(newest_first);
        let heads: Vec<u16> = (0..3).map(|sector| late.read(0, sector)).collect();
        assert_eq!(late.back().len(), 0);
        assert_eq!((late.desk.running(), late.number("in_flight")), ((3, 3), 3));
        assert!(!late.driver.interrupted());
        let next = if newest_first { heads[2] } else { heads[0] };
        late.desk.end_one();
        let back = late.back();
        assert_eq!(back.keys().collect::<Vec<_>>(), [&(0, next)]);
        assert!(late.driver.interrupted());
        late.desk.end_all();
        for ((_, head), (status, written, data)) in late.back() {
            let sector = heads.iter().position(|other| *other == head).unwrap();
            let byte = u8::try_from(sector + 1).unwrap();
            assert_eq!((status, written, data), (OK, 513, vec![byte; 512]));
        }
        assert!(late.out.is_empty());
        assert_eq!((late.number("in_flight"), late.number("reads")), (0, 3));
    }
}

/// Each way in which an operation can end, for each kind of request.
#[test]
fn every_fate_has_its_status() {
    let fails = |done, errno| Fate::Fails { done, errno };
    let io = |kind, errno: i32| {
        let of_ranges = kind == DISCARD || kind == ZEROES;
        if of_ranges && errno == EOPNOTSUPP {
            UNSUPP
        } else {
            IOERR
        }
    };
    let mut late = Late::new(1, 8);
    let mut errors = 0;
    for kind in [READ, WRITE, FLUSH, DISCARD, ZEROES] {
        for (fate, errno) in [
            (Fate::Late, 0),
            (Fate::Twice, 0),
            (Fate::AtOnce, 0),
            (Fate::Refused, 0),
            (fails(0, EIO), EIO),
            (fails(512, ENOSPC), ENOSPC),
            (fails(0, EOPNOTSUPP), EOPNOTSUPP),
        ] {
            late.desk.fate(512, fate);
            late.desk.fate_of_flushes(fate);
            let data = match kind {
                READ => late.driver.room(512),
                WRITE => late.driver.holding(&[9; 512]),
                FLUSH => Buffer::readable(0, 0),
                _ => late.driver.holding(&segment(1, 1, 0)),
            };
            let head = late.ask(0, kind, 1, data);
            let expected = if errno == 0 { OK } else { io(kind, errno) };
            errors += u64::from(expected == IOERR);
            let statuses = late.statuses();
            assert_eq!(statuses.get(&(0, head)), Some(&expected), "{kind} {fate:?}");
            assert_eq!(late.number("host_errors"), errors, "{kind} {fate:?}");
            late.alive();
        }
    }
    assert_eq!(late.number("refused"), 2, "discard and write zeroes");
    assert_eq!((late.number("writes"), late.number("flushes")), (4, 4));
}

/// A read that comes short says how much of its buffer is filled.
#[test]
fn short_reads_say_how_far_they_came() {
    let mut late = Late::new(1, 8);
    let errno = EIO;
    late.desk.fate(0, Fate::Fails { done: 512, errno });
    let (head, status) = (late.driver.holding(&header(READ, 0)), late.driver.room(1));
    let data = [late.driver.room(512), late.driver.room(512)];
    let head = late.driver.ring(0).add(&[head, data[0], data[1], status]);
    late.out.insert((0, head), (status, data[1]));
    late.driver.kick(0);
    late.desk.end_all();
    let back = late.back();
    assert_eq!(back.get(&(0, head)), Some(&(IOERR, 512, vec![0; 512])));
    assert_eq!(late.driver.bytes(data[0]), [1; 512]);
}

/// What has to be submitted twice goes on by itself, without a doorbell or another request.
#[test]
fn what_goes_on_later_is_not_forgotten() {
    // It comes back from the submission itself.
    let mut late = Late::new(1, 8);
    late.desk.fate(0, Fate::Twice);
    late.desk.promptly(true);
    let head = late.read(0, 0);
    assert_eq!(late.back().get(&(0, head)).map(|back| back.0), Some(OK));
    // It comes back later.
    late.desk.promptly(false);
    let head = late.read(0, 0);
    late.desk.end_one();
    late.driver.run();
    assert_eq!(late.desk.running().0, 1, "it was not submitted again");
    late.desk.end_one();
    assert_eq!(late.back().get(&(0, head)).map(|back| back.0), Some(OK));
}

/// An engine that wakes the loop for nothing does so once.
#[test]
fn a_wake_for_nothing_is_no_storm() {
    let mut late = Late::new(1, 8);
    for _ in 0..2 {
        late.desk.ring();
        late.driver.run();
        late.alive();
    }
}

/// A full engine holds requests back, on every queue, and each of them goes on when it has room.
#[test]
fn a_full_engine_is_waited_for() {
    let mut late = Late::new(4, 2);
    for sector in 0..24 {
        late.read(u32::try_from(sector % 4).unwrap(), sector);
    }
    let statuses = late.statuses();
    assert_eq!(statuses.len(), 24);
    assert!(statuses.values().all(|status| *status == OK));
    assert_eq!(late.desk.running(), (0, 2));
}

/// An engine that takes no more is done without: what it never began is carried out all the same,
/// what it did begin ends as always, and the driver sees nothing of it.
#[test]
fn a_lost_engine_costs_no_request() {
    let mut late = Late::new(2, 4);
    late.read(0, 1);
    late.write(0, 2, 0xaa);
    late.desk.lose(EIO);
    for sector in 3..9 {
        let data = late.driver.holding(&[0xbb; 512]);
        late.publish(1, WRITE, sector, data);
    }
    late.driver.kick(1);
    let statuses = late.statuses();
    assert_eq!(statuses.len(), 8);
    assert!(
        statuses.values().all(|status| *status == OK),
        "{statuses:?}"
    );
    let bytes = late.disk.bytes();
    assert_eq!(bytes[2 * 512..3 * 512], [0xaa; 512]);
    assert_eq!(bytes[3 * 512..9 * 512], [0xbb; 6 * 512]);
    assert_eq!(late.engine(), Some(Value::Text("sync".into())));
    assert_eq!(
        (late.number("in_flight"), late.number("host_errors")),
        (0, 0)
    );
    late.alive();
    // Another image brings another engine.
    let (disk, desk) = LateDisk::new(late.disk.clone(), 4);
    let swap = DeviceCommand::ReplaceDisk(Box::new(disk));
    late.driver.handle.ask(swap).unwrap();
    late.desk = desk;
    late.read(0, 5);
    assert_eq!(late.desk.running().0, 1);
    late.alive();
}

/// The same when the loss is noticed while the engine is drained.
#[test]
fn an_engine_that_is_lost_while_it_is_drained() {
    let mut late = Late::new(1, 4);
    late.desk.fate(5 * 512, Fate::Refused);
    for sector in 0..4 {
        let room = late.driver.room(512);
        late.publish(0, READ, sector, room);
    }
    let room = late.driver.room(512);
    late.publish(0, READ, 5, room);
    late.desk.lose(ENOSPC);
    late.driver.kick(0);
    let statuses = late.statuses();
    assert_eq!(statuses.len(), 5);
    assert!(
        statuses.values().all(|status| *status == OK),
        "{statuses:?}"
    );
    late.alive();
}

/// 2.4.1: after a reset nothing is written into memory any more, which is the driver's again.
#[test]
fn a_reset_ends_what_is_in_the_air() {
    let mut late = Late::new(2, 8);
    let rooms: Vec<Buffer> = (0..6).map(|_| late.driver.room(512)).collect();
    for (sector, room) in (0..).zip(&rooms) {
        late.ask(u32::try_from(sector % 2).unwrap(), READ, sector, *room);
    }
    assert_eq!(late.desk.running().0, 6);
    late.driver.reset();
    late.out.clear();
    assert_eq!(late.desk.running().0, 0);
    for room in &rooms {
        late.driver.ram.write_bytes(room.at, &[0x5a; 512]).unwrap();
    }
    late.desk.end_all();
    late.driver.run();
    for room in &rooms {
        assert_eq!(late.driver.bytes(*room), [0x5a; 512]);
    }
    assert!(!late.driver.interrupted());
    late.driver.start(u64::MAX);
    late.alive();
    assert_eq!(late.number("in_flight"), 0);
}

/// A queue that is taken back loses its requests; the others', those that wait for room too, go on.
#[test]
fn a_queue_that_is_taken_back_leaves_the_others() {
    let mut late = Late::new(2, 2);
    for sector in 0..6 {
        late.read(0, sector);
    }
    let mut others: Vec<u16> = (6..12).map(|sector| late.read(1, sector)).collect();
    late.driver.set(register::QUEUE_SELECT, 0);
    late.driver.set(register::QUEUE_READY, 0);
    let taken = late.driver.ring(0).used_index();
    let statuses = late.statuses();
    assert_eq!(late.driver.ring(0).used_index(), taken);
    others.retain(|head| statuses.get(&(1, *head)) != Some(&OK));
    assert!(others.is_empty(), "{others:?} did not come back");
}

/// 2.1.2: a queue that is broken needs the reset; what was in the air before comes back.
#[test]
fn a_broken_queue_leaves_what_is_in_the_air() {
    let mut late = Late::new(4, 8);
    let heads: Vec<_> = (0..4).map(|queue| (queue, late.read(queue, 3))).collect();
    late.driver.ring(2).set_available_index(0x4000);
    late.driver.kick(2);
    assert!(late.driver.needs_reset());
    let statuses = late.statuses();
    assert!(heads.iter().all(|head| statuses.get(head) == Some(&OK)));
    late.driver.start(u64::MAX);
    late.alive();
}

/// 5.2.6.2: a flush covers what was reported before it; here the engine has it in that order.
#[test]
fn flushes_follow_what_they_make_last() {
    let through = |block: Block| block.writing_through();
    for mut late in [
        Late::with(2, 8, !wire::F_FLUSH, |block| block),
        Late::with(2, 8, !wire::F_CONFIG_WCE, through),
        Late::with(2, 8, u64::MAX, through),
    ] {
        late.write(0, 3, 1);
        late.write(1, 4, 1);
        late.desk.end_all();
        assert_eq!(late.back().len(), 0, "written and not flushed");
        late.desk.end_all();
        assert_eq!(late.back().len(), 2);
        assert_eq!(
            late.desk.log(),
            [Task::Write, Task::Write, Task::Flush, Task::Flush]
        );
        // A write that failed is not flushed, and a flush that failed is a write that failed.
        let errno = EIO;
        late.desk.fate(3 * 512, Fate::Fails { done: 0, errno });
        let head = late.write(0, 3, 1);
        assert_eq!(late.statuses(), BTreeMap::from([((0, head), IOERR)]));
        assert_eq!(late.desk.log(), [Task::Write]);
        late.desk.fate_of_flushes(Fate::Fails { done: 0, errno });
        let head = late.write(0, 4, 1);
        assert_eq!(late.statuses(), BTreeMap::from([((0, head), IOERR)]));
    }
    let mut late = Late::new(2, 8);
    late.write(0, 3, 1);
    late.flush(1);
    assert_eq!(late.statuses().len(), 2);
    assert_eq!(late.desk.log(), [Task::Write, Task::Flush]);
}

/// 5.2.6.2: the cache is off for a write whose driver had turned it off before it asked, even if
/// the loop has not been told of that yet.
#[test]
fn the_cache_is_off_at_once() {
    let mut late = Late::new(1, 8);
    late.driver.write(CONFIG + 32, Width::Byte, 0);
    late.write(0, 3, 1);
    late.statuses();
    assert_eq!(late.desk.log(), [Task::Write, Task::Flush]);
    late.driver.write(CONFIG + 32, Width::Byte, 1);
    late.write(0, 3, 1);
    late.statuses();
    assert_eq!(late.desk.log(), [Task::Write]);
    // Without flushes there is no cache (5.2.5.2).
    late.driver.start(!wire::F_FLUSH);
    assert_eq!(late.driver.read(CONFIG + 32, Width::Byte), 0);
    // Turned off while a turn runs.
    let host = Host::default();
    let block = Block::new(Box::new(host.clone()), "");
    let config = block.config_space();
    let mut driver = GuestDriver::started(Box::new(block));
    let status = driver.room(1);
    let write = [
        driver.holding(&header(WRITE, 0)),
        driver.holding(&[1; 512]),
        status,
    ];
    let read = [driver.holding(&header(READ, 0)), driver.room(512), status];
    driver.ring(0).add(&read);
    let (ram, setup) = (driver.ram.clone(), driver.ring(0).setup);
    let second = driver.ring(0).chain(&write);
    host.0.lock().unwrap().meanwhile = Some(Box::new(move || {
        config.write(32, 1, 0);
        ram.write(setup.available + 6, &second.to_le()).unwrap();
        ram.write(setup.available + 2, &2_u16.to_le()).unwrap();
    }));
    driver.set(QUEUE_NOTIFY, 0);
    driver.step();
    assert_eq!(host.calls(), ["read", "write", "flush"]);
}

/// Another image: what is in the air lands in the old one, what waits goes to the new one.
#[test]
fn an_image_is_swapped_in_flight() {
    let mut late = Late::new(2, 2);
    let old: Vec<u16> = (0..2).map(|n| late.write(0, n, 0x11)).collect();
    let new: Vec<u16> = (2..6).map(|n| late.write(1, n, 0x22)).collect();
    let other = SharedDisk::new(vec![0; 4 * 512]);
    let (disk, desk) = LateDisk::new(other.clone(), 2);
    let before = late.disk.flushes();
    let swap = DeviceCommand::ReplaceDisk(Box::new(disk));
    late.driver.handle.ask(swap).unwrap();
    assert_eq!(late.disk.flushes(), before + 1, "what was reported lasts");
    assert_eq!(late.disk.bytes()[..1024], [0x11; 1024]);
    late.desk = desk;
    let statuses = late.statuses();
    let of = |queue, heads: &[u16]| -> Vec<u8> {
        let each = heads.iter().map(|head| statuses[&(queue, *head)]);
        each.collect()
    };
    assert_eq!(of(0, &old), [OK, OK]);
    // The new image has four sectors only.
    assert_eq!(of(1, &new), [OK, OK, IOERR, IOERR]);
    assert_eq!(other.bytes()[1024..], [0x22; 1024]);
    assert_eq!(late.driver.config(0), 4);
    assert!(late.driver.interrupted());
}

/// A swap whose flush fails changes nothing, and nothing hangs on it.
#[test]
fn a_swap_that_fails_leaves_all_as_it_was() {
    let mut late = Late::new(2, 2);
    for sector in 0..6 {
        late.read(0, sector);
    }
    late.disk.fail_with(Some(EIO));
    let (disk, _desk) = LateDisk::new(SharedDisk::new(vec![0; 512]), 2);
    let swap = DeviceCommand::ReplaceDisk(Box::new(disk));
    let error = late.driver.handle.ask(swap).unwrap_err();
    assert!(matches!(error, CommandError::Host(_)), "{error}");
    late.disk.fail_with(None);
    assert_eq!(late.statuses().len(), 6);
    assert_eq!(late.driver.config(0), 64);
    late.alive();
}

/// A disk that shrinks fails what lies beyond its end, in the air or waiting, and nothing else.
#[test]
fn a_disk_is_resized_in_flight() {
    let mut late = Late::new(1, 2);
    let heads: Vec<u16> = [1, 20, 2, 30].map(|sector| late.read(0, sector)).into();
    late.disk.resize(10 * 512);
    late.driver.handle.ask(DeviceCommand::Rescan).unwrap();
    assert_eq!(late.driver.config(0), 10);
    let statuses = late.statuses();
    let each = heads.iter().map(|head| statuses[&(0, *head)]);
    assert_eq!(each.collect::<Vec<_>>(), [OK, IOERR, OK, IOERR]);
    assert_eq!((late.number("host_errors"), late.number("refused")), (1, 1));
    late.disk.resize(64 * 512);
    late.driver.handle.ask(DeviceCommand::Rescan).unwrap();
    assert_eq!(late.driver.config(0), 64);
    late.alive();
}

/// Limits that come while requests are in the air hold what comes next; without them all goes on.
#[test]
fn limits_change_in_flight() {
    let mut late = Late::new(2, 2);
    for sector in 0..8 {
        late.read(u32::try_from(sector % 2).unwrap(), sector);
    }
    let operations = Some(BucketSpec {
        size: 1,
        burst: 0,
        refill: std::time::Duration::from_secs(3600),
    });
    let limits = Limits {
        bytes: None,
        operations,
    };
    late.driver
        .handle
        .ask(DeviceCommand::Limit(limits))
        .unwrap();
    // Those in the air, the one of each queue that has only waited for room, and one more.
    let first = late.statuses().len();
    assert!((2..=5).contains(&first), "{first} came");
    assert!(!late.driver.step(), "the device spins");
    let none = DeviceCommand::Limit(Limits::default());
    late.driver.handle.ask(none).unwrap();
    let mut all = first;
    while all < 8 {
        all += late.statuses().len();
    }
    assert!(late.number("throttled") >= 1);
}

/// A file on each real engine, with more requests on four queues than an engine has room for; a
/// reset in their middle; and all of it once more.
#[test]
fn real_engines_serve_four_queues() {
    use crate::disk::{Access, EngineChoice};

    let (blocks, bytes) = (400_u64, 4096_u32);
    for engine in [
        EngineChoice::Sync,
        EngineChoice::Auto,
        EngineChoice::IoUring,
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(blocks * u64::from(bytes)).unwrap();
        let access = Access {
            engine,
            ..Access::default()
        };
        let disk = RawDisk::open_with(file.path(), access).unwrap();
        let block = Block::new(Box::new(disk), "").with_queues(4);
        let mut driver = GuestDriver::started(Box::new(block));
        let status = driver.room(1);
        let publish = |driver: &mut GuestDriver, kind, number: u64, data: Buffer| {
            let queue = u32::try_from(number % 4).unwrap();
            let head = driver.holding(&header(kind, number * 8));
            driver.ring(queue).add(&[head, data, status]);
        };
        let finish = |driver: &mut GuestDriver, count: u64| {
            (0..4).for_each(|queue| driver.set(QUEUE_NOTIFY, queue));
            let mut ended = 0;
            while ended < count {
                driver.run();
                for queue in 0..4 {
                    ended += std::iter::from_fn(|| driver.ring(queue).take_used()).count() as u64;
                }
            }
            assert_eq!(ended, count);
        };
        let pages: Vec<Buffer> = (0..8_u8)
            .map(|n| driver.holding(&vec![n + 1; 4096]))
            .collect();
        // Eighty chains of three descriptors fit into a ring.
        let some = |n: u64| (n * 320..(n + 1) * 320).map(move |n| n % blocks);
        for number in some(0) {
            publish(
                &mut driver,
                WRITE,
                number,
                pages[usize::try_from(number % 8).unwrap()],
            );
        }
        finish(&mut driver, 320);
        let room = driver.room(bytes * 4);
        for number in some(1) {
            let at = room.at + number % 4 * u64::from(bytes);
            publish(&mut driver, READ, number, Buffer::writable(at, bytes));
        }
        (0..4).for_each(|queue| driver.set(QUEUE_NOTIFY, queue));
        driver.step();
        driver.reset();
        driver.ram.write_bytes(room.at, &[0x5a; 4096 * 4]).unwrap();
        driver.run();
        assert!(driver.bytes(room).iter().all(|byte| *byte == 0x5a));
        driver.start(u64::MAX);
        for number in some(0) {
            let number = number % 8;
            let at = room.at + number % 4 * u64::from(bytes);
            publish(&mut driver, READ, number, Buffer::writable(at, bytes));
        }
        finish(&mut driver, 320);
        assert_eq!(driver.bytes(status), [OK]);
        for number in 0..320_u64 {
            let mut found = [0; 4096];
            let at = number * u64::from(bytes);
            std::os::unix::fs::FileExt::read_exact_at(file.as_file(), &mut found, at).unwrap();
            let byte = u8::try_from(number % 8).unwrap() + 1;
            assert!(found.iter().all(|found| *found == byte), "block {number}");
        }
    }
}

/// A pause waits for what the engine has, without waiting in the loop, and for no limit.
#[test]
fn a_pause_brings_what_was_taken_to_its_end() {
    let limits = Limits {
        operations: Some(BucketSpec {
            size: 2,
            burst: 0,
            refill: std::time::Duration::from_secs(3600),
        }),
        ..Limits::default()
    };
    let mut late = Late::with(1, 2, u64::MAX, |block| block.limited(limits).unwrap());
    let heads: Vec<u16> = (0..6).map(|sector| late.read(0, sector)).collect();
    assert_eq!(late.desk.running(), (2, 2));
    let rest = late.driver.handle.begin_pause().unwrap();
    late.driver.run();
    let at_rest = || rest.within(std::time::Duration::ZERO);
    assert_eq!(at_rest(), None);
    // It goes on though the limits would hold it up, two at a time for want of room.
    for left in (1..=heads.len()).rev() {
        assert_eq!(at_rest(), None, "{left} are not back");
        assert!(late.desk.end_one(), "{left} are not back");
        late.driver.run();
    }
    assert_eq!(at_rest(), Some(Ok(())));
    assert_eq!(late.back().len(), heads.len());
    // What comes now waits for the end of the pause.
    late.read(0, 7);
    assert_eq!(late.desk.running().0, 0);
    late.driver.handle.resume().unwrap();
    late.driver.run();
    late.driver
        .handle
        .ask(DeviceCommand::Limit(Limits::default()))
        .unwrap();
    late.driver.run();
    assert_eq!(late.desk.running().0, 1);
    late.desk.behave();
    assert_eq!(late.back().len(), 1);
    late.alive();
}

/// A host that hangs: the pause does not come about, and once it is given up all is as before.
#[test]
fn a_pause_that_is_given_up_leaves_requests_as_they_were() {
    let mut late = Late::new(1, 8);
    let head = late.read(0, 3);
    let rest = late.driver.handle.begin_pause().unwrap();
    late.driver.run();
    assert_eq!(rest.within(std::time::Duration::ZERO), None);
    late.driver.handle.resume().unwrap();
    let other = late.read(0, 4);
    assert_eq!(late.desk.running().0, 2, "it takes requests again");
    late.desk.end_all();
    let back = late.back();
    assert_eq!((back[&(0, head)].0, back[&(0, other)].0), (OK, OK));
    assert!(
        matches!(
            rest.within(std::time::Duration::ZERO),
            Some(Err(crate::virtio::SlotGone))
        ),
        "nobody tells of a rest that never was"
    );
}
