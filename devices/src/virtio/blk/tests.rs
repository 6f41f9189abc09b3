//! The block device against its driver (virtio 1.2, 5.2.6), on real files and a failing host.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Mutex;

use super::turn::REQUESTS_A_TURN;
use super::*;
use crate::bus::Width;
use crate::disk::{RawDisk, TransferError};
use crate::inspect::Value;
use crate::testing::driver::register;
use crate::testing::{AFTER_HOLE, Buffer, GuestDriver, HOLE, SEAM, conformance, persistence};
use crate::virtio::features;
use crate::virtio::transport::mmio::QUEUE_NOTIFY;

mod engine;

const SECTORS: u64 = 64;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// A file of 64 sectors, each filled with its number plus one.
fn image() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for sector in 0..SECTORS {
        let byte = u8::try_from(sector + 1).unwrap();
        file.write_all(&[byte; 512]).unwrap();
    }
    file
}

fn raw(file: &tempfile::NamedTempFile, read_only: bool) -> Box<dyn VirtioDevice> {
    let disk = RawDisk::open(file.path(), read_only).unwrap();
    Box::new(Block::new(Box::new(disk), "disk-of-the-test"))
}

fn contents(file: &tempfile::NamedTempFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(file.path())
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// Sends a request with `data` between header and status: what came as status, and how many
/// bytes the device says it wrote.
fn send(driver: &mut GuestDriver, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
    let status = driver.holding(&[0x77]);
    let status = Buffer::writable(status.at, 1);
    let mut buffers = vec![driver.holding(&header(kind, sector))];
    buffers.extend_from_slice(data);
    buffers.push(status);
    let written = driver.request(0, &buffers).expect("the request came back");
    (driver.bytes(status)[0], written)
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend_from_slice(&sectors.to_le_bytes());
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes
}

/// A disk whose host can be told to fail, and which notes what it is asked.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<HostState>>);

#[derive(Default)]
struct HostState {
    fail: Option<i32>,
    calls: Vec<&'static str>,
    read_only: bool,
    /// What the guest does during the next call.
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Host {
    fn call(&self, name: &'static str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.calls.push(name);
        if let Some(meanwhile) = state.meanwhile.take() {
            meanwhile();
        }
        state
            .fail
            .map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    fn fail(&self, errno: Option<i32>) {
        self.0.lock().unwrap().fail = errno;
    }

    fn driver(&self, features: u64) -> GuestDriver {
        let block = Block::new(Box::new(self.clone()), "");
        GuestDriver::started_with(Box::new(block), features)
    }
}

impl Disk for Host {
    fn geometry(&self) -> Geometry {
        let read_only = self.0.lock().unwrap().read_only;
        Geometry {
            bytes: SECTORS * 512,
            read_only,
        }
    }

    fn read(
        &mut self,
        _: u64,
        _: &GuestRam,
        _: &[super::super::Span],
    ) -> Result<(), TransferError> {
        self.call("read")
            .map_err(|error| TransferError { done: 0, error })
    }

    fn write(
        &mut self,
        _: u64,
        _: &GuestRam,
        _: &[super::super::Span],
    ) -> Result<(), TransferError> {
        self.call("write")
            .map_err(|error| TransferError { done: 0, error })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.call("flush")
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        self.call("discard")
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        self.call("zeroes")
    }
}

#[test]
fn conforms() {
    let file = image();
    conformance::check(&|| raw(&file, true), 0);
    conformance::check(&|| raw(&file, false), 0);
}

/// 5.2.4: what the configuration says.
#[test]
fn the_configuration_describes_the_disk() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    assert_eq!((driver.config(0), driver.config(4)), (64, 0));
    assert_eq!(driver.config(12), 254, "seg_max");
    assert_eq!(driver.config(20), 512, "blk_size");
    assert_eq!(driver.config(24), 0x0008_0003, "topology");
    let offered = driver.offered() & !features::OFFERED;
    assert_eq!(offered & wire::F_RO, 0);
    drop(driver);
    let mut driver = GuestDriver::started(raw(&file, true));
    let offered = driver.offered();
    assert_ne!(offered & wire::F_RO, 0);
    assert_eq!(offered & (wire::F_DISCARD | wire::F_WRITE_ZEROES), 0);
}

/// 5.2.6: data of any scattering, over the seam of two memory regions too.
#[test]
fn reads_and_writes_go_anywhere_in_memory() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    let data = [
        Buffer::writable(SEAM - 100, 700),
        Buffer::writable(AFTER_HOLE, 324),
        Buffer::writable(HOLE - 512, 512),
    ];
    assert_eq!(send(&mut driver, 0, 2, &data), (OK, 1537));
    let bytes: Vec<u8> = data.iter().flat_map(|b| driver.bytes(*b)).collect();
    for (sector, chunk) in (3..).zip(bytes.chunks(512)) {
        assert!(chunk.iter().all(|byte| *byte == sector), "sector {sector}");
    }
    let data = data.map(|b| Buffer::readable(b.at, b.len));
    assert_eq!(send(&mut driver, 1, 61, &data), (OK, 1));
    assert_eq!(contents(&file)[61 * 512..], bytes);
    assert_eq!(send(&mut driver, 4, 0, &[]), (OK, 1));
}

/// More pieces than one system call takes.
#[test]
fn requests_of_many_small_buffers() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    let data: Vec<Buffer> = (0..128)
        .map(|n| Buffer::writable(0x9_0000 + n * 24, 8))
        .collect();
    assert_eq!(send(&mut driver, 0, 10, &data), (OK, 1025));
    assert_eq!(driver.bytes(data[63]), [11; 8]);
    assert_eq!(driver.bytes(data[64]), [12; 8]);
    assert_eq!(driver.bytes(Buffer::readable(0x9_0000 + 8, 16)), [0; 16]);
    // As many as a request can have.
    let data: Vec<Buffer> = (0..254).map(|_| Buffer::writable(0x9_0000, 512)).collect();
    assert_eq!(send(&mut driver, 0, 0, &data).0, IOERR, "254 sectors of 64");
    let data: Vec<Buffer> = data.iter().take(64).copied().collect();
    assert_eq!(send(&mut driver, 0, 0, &data), (OK, 64 * 512 + 1));
}

/// 5.2.6.1: nothing beyond the capacity, no crooked lengths; not even a part is done.
#[test]
fn requests_outside_the_disk_fail_whole() {
    let file = image();
    let before = contents(&file);
    let mut driver = GuestDriver::started(raw(&file, false));
    for (sector, len) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (u64::MAX / 512 + 1, 512),
        (1 << 55, 512),
        (0, 511),
        (0, 1),
        (0, 513),
    ] {
        let room = driver.room(len);
        assert_eq!(
            send(&mut driver, 0, sector, &[room]).0,
            IOERR,
            "read {sector}+{len}"
        );
        assert!(driver.bytes(room).iter().all(|byte| *byte == 0));
        let data = Buffer::readable(room.at, len);
        assert_eq!(
            send(&mut driver, 1, sector, &[data]).0,
            IOERR,
            "write {sector}+{len}"
        );
    }
    assert_eq!(contents(&file), before);
    let room = driver.room(512);
    assert_eq!(send(&mut driver, 0, SECTORS - 1, &[room]), (OK, 513));
    assert_eq!(driver.bytes(room), [64; 512]);
}

/// 5.2.6.2: a read-only device never writes, whatever was accepted, and flushes with success.
#[test]
fn read_only_disks_are_not_written() {
    for accepted in [u64::MAX, !wire::F_RO] {
        let host = Host::default();
        host.0.lock().unwrap().read_only = true;
        let mut driver = host.driver(accepted);
        let data = driver.holding(&[9; 512]);
        assert_eq!(send(&mut driver, 1, 0, &[data]).0, IOERR);
        let range = driver.holding(&segment(0, 1, 0));
        assert_eq!(send(&mut driver, 11, 0, &[range]).0, IOERR);
        assert_eq!(send(&mut driver, 13, 0, &[range]).0, IOERR);
        assert_eq!(send(&mut driver, 4, 0, &[]).0, OK);
        assert!(host.calls().is_empty());
    }
}

/// 5.2.6.2: without FLUSH every write lasts before it is reported; with it, none has to.
#[test]
fn writes_last_when_the_driver_was_promised_so() {
    let host = Host::default();
    let mut driver = host.driver(!wire::F_FLUSH);
    let data = driver.holding(&[9; 512]);
    assert_eq!(send(&mut driver, 1, 0, &[data]).0, OK);
    assert_eq!(host.calls(), ["write", "flush"]);
    let range = driver.holding(&segment(0, 1, 0));
    assert_eq!(send(&mut driver, 13, 0, &[range]).0, OK);
    assert_eq!(host.calls(), ["zeroes", "flush"]);
    drop(driver);
    let mut driver = host.driver(u64::MAX);
    let data = driver.holding(&[9; 512]);
    assert_eq!(send(&mut driver, 1, 0, &[data]).0, OK);
    assert_eq!(host.calls(), ["write"]);
    assert_eq!(send(&mut driver, 4, 0, &[]).0, OK);
    assert_eq!(host.calls(), ["flush"]);
}

/// 5.2.6: twenty bytes, padded with zeroes, never more than there is room for.
#[test]
fn the_identifier_is_twenty_bytes() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, true));
    let room = driver.room(20);
    assert_eq!(send(&mut driver, 8, 0, &[room]), (OK, 21));
    assert_eq!(driver.bytes(room), *b"disk-of-the-test\0\0\0\0");
    for len in [0, 1, 19] {
        let room = driver.room(len);
        assert_eq!(send(&mut driver, 8, 0, &[room]).0, IOERR, "{len} bytes");
    }
    let scattered = [driver.room(7), driver.room(1), driver.room(40)];
    assert_eq!(send(&mut driver, 8, 0, &scattered), (OK, 20));
    let bytes: Vec<u8> = scattered.iter().flat_map(|b| driver.bytes(*b)).collect();
    assert_eq!(bytes[..20], *b"disk-of-the-test\0\0\0\0");
    assert_eq!(bytes[20..], [0; 28]);
    let long = Block::new(Box::new(Host::default()), &"x".repeat(100));
    assert_eq!(long.id, [b'x'; 20]);
}

/// 5.2.6.2: unknown types, SCSI commands of old among them, are unsupported.
#[test]
fn unknown_requests_are_unsupported() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    for kind in [2, 3, 5, 7, 9, 10, 12, 14, 15, 0x8000_0000, u32::MAX] {
        let data = [driver.holding(&[1; 512]), driver.room(512)];
        assert_eq!(send(&mut driver, kind, 0, &data).0, UNSUPP, "type {kind}");
    }
}

/// 2.7.4 and 5.2.6: chains that are no requests come back without harm.
#[test]
fn malformed_requests_come_back() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    let whole = driver.holding(&header(0, 0));
    assert_eq!(driver.request(0, &[whole]), Some(0), "no status");
    let write = [driver.holding(&header(1, 0)), driver.holding(&[5; 512])];
    assert_eq!(driver.request(0, &write), Some(0), "no status");
    assert_eq!(driver.request(0, &[Buffer::readable(0, 0)]), Some(0));
    for len in [0, 1, 15] {
        let short = [driver.holding(&[0; 16][..len]), driver.room(1)];
        driver.request(0, &short);
        assert_eq!(driver.bytes(short[1]), [IOERR], "a header of {len}");
    }
    // Header and status in one piece each with the data, as far as directions allow.
    let mut all = header(1, 5).to_vec();
    all.extend_from_slice(&[0x99; 512]);
    let joined = [driver.holding(&all), driver.room(1)];
    assert_eq!(driver.request(0, &joined), Some(1));
    assert_eq!(driver.bytes(joined[1]), [OK]);
    assert_eq!(contents(&file)[5 * 512..6 * 512], [0x99; 512]);
    let joined = [driver.holding(&header(0, 5)), driver.room(513)];
    assert_eq!(driver.request(0, &joined), Some(513));
    assert_eq!(driver.bytes(joined[1])[510..], [0x99, 0x99, OK]);
    assert_eq!(
        contents(&file)[..512],
        [1; 512],
        "the request without status wrote"
    );
    assert!(!driver.needs_reset());
}

/// 5.2.6 and 5.2.6.2: flags, limits and lengths of discard and write zeroes.
#[test]
fn ranges_are_checked_before_any_is_done() {
    let host = Host::default();
    let mut driver = host.driver(u64::MAX);
    let most = MOST_RANGE_SECTORS;
    let many = |count| segment(0, 1, 0).repeat(count);
    let cases: [(&str, u32, Vec<u8>, u8); 17] = [
        ("discard with unmap", 11, segment(0, 1, 1), UNSUPP),
        ("discard with an unknown flag", 11, segment(0, 1, 2), UNSUPP),
        ("zeroes with an unknown flag", 13, segment(0, 1, 2), UNSUPP),
        (
            "zeroes with unmap and more",
            13,
            segment(0, 1, 0x8000_0001),
            UNSUPP,
        ),
        (
            "a good range before a bad flag",
            11,
            [segment(0, 1, 0), segment(1, 1, 4)].concat(),
            UNSUPP,
        ),
        ("beyond the end", 11, segment(SECTORS, 1, 0), IOERR),
        ("over the end", 13, segment(SECTORS - 1, 2, 0), IOERR),
        ("wrapping", 13, segment(u64::MAX, 2, 0), IOERR),
        (
            "a good range before one beyond",
            13,
            [segment(0, 1, 0), segment(99, 1, 0)].concat(),
            IOERR,
        ),
        ("too many sectors", 11, segment(0, most + 1, 0), IOERR),
        ("all sectors there are", 11, segment(0, u32::MAX, 0), IOERR),
        ("no range", 11, Vec::new(), IOERR),
        ("a piece of a range", 11, vec![0; 15], IOERR),
        ("a range and a piece", 13, vec![0; 17], IOERR),
        ("too many ranges", 11, many(MOST_SEGMENTS + 1), IOERR),
        ("far too many ranges", 13, many(4000), IOERR),
        ("an empty range", 11, segment(3, 0, 0), OK),
    ];
    for (what, kind, ranges, expected) in cases {
        let data = driver.holding(&ranges);
        assert_eq!(send(&mut driver, kind, 0, &[data]).0, expected, "{what}");
        assert_eq!(host.calls(), [""; 0], "{what}");
    }
    let data = driver.holding(&many(MOST_SEGMENTS));
    assert_eq!(send(&mut driver, 11, 0, &[data]).0, OK);
    assert_eq!(host.calls(), ["discard"; MOST_SEGMENTS]);
}

/// 5.2.5: requests of features that were not accepted do not exist.
#[test]
fn ranges_want_their_features() {
    let host = Host::default();
    let mut driver = host.driver(!(wire::F_DISCARD | wire::F_WRITE_ZEROES));
    for kind in [11, 13] {
        let data = driver.holding(&segment(0, 1, 0));
        assert_eq!(send(&mut driver, kind, 0, &[data]).0, UNSUPP);
    }
    assert!(host.calls().is_empty());
}

/// 5.2.6.2: zeroed ranges read as zeroes, unmapped or not.
#[test]
fn zeroed_and_discarded_ranges() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    let unmap = [
        driver.holding(&segment(8, 8, 1)),
        driver.holding(&segment(20, 1, 1)),
    ];
    assert_eq!(send(&mut driver, 13, 0, &unmap), (OK, 1));
    let bytes = contents(&file);
    assert_eq!(bytes[8 * 512..16 * 512], [0; 8 * 512]);
    assert_eq!(bytes[20 * 512..21 * 512], [0; 512]);
    assert_eq!(bytes[16 * 512..17 * 512], [17; 512]);
    let keep = driver.holding(&segment(30, 4, 0));
    // Some file systems cannot zero without unmapping; then the driver is told and nothing
    // has changed.
    let zeroed = match send(&mut driver, 13, 0, &[keep]).0 {
        OK => 0,
        other => {
            assert_eq!(other, UNSUPP);
            31
        }
    };
    assert_eq!(contents(&file)[30 * 512], zeroed);
    let discard = driver.holding(&segment(40, 8, 0));
    assert_eq!(send(&mut driver, 11, 0, &[discard]), (OK, 1));
    assert_eq!(contents(&file).len(), 64 * 512, "the disk shrank");
}

/// A host that fails, or a file that shrank, costs a request and a count, never the device.
#[test]
fn host_errors_are_io_errors() {
    let (eio, enospc, eopnotsupp) = (5, 28, 95);
    let host = Host::default();
    let mut driver = host.driver(u64::MAX);
    for errno in [eio, enospc] {
        host.fail(Some(errno));
        let (data, room) = (driver.holding(&[1; 512]), driver.room(512));
        assert_eq!(send(&mut driver, 0, 0, &[room]), (IOERR, 0));
        assert_eq!(send(&mut driver, 1, 0, &[data]), (IOERR, 1));
        assert_eq!(send(&mut driver, 4, 0, &[]), (IOERR, 1));
        let range = driver.holding(&segment(0, 1, 0));
        assert_eq!(send(&mut driver, 11, 0, &[range]), (IOERR, 1));
    }
    host.fail(Some(eopnotsupp));
    let range = driver.holding(&segment(0, 1, 0));
    assert_eq!(send(&mut driver, 11, 0, &[range]), (UNSUPP, 1));
    assert_eq!(send(&mut driver, 13, 0, &[range]), (UNSUPP, 1));
    host.fail(None);
    assert_eq!(send(&mut driver, 4, 0, &[]), (OK, 1));

    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    file.as_file().set_len(512).unwrap();
    let room = driver.room(1024);
    assert_eq!(send(&mut driver, 0, 0, &[room]), (IOERR, 512));
    assert_eq!(send(&mut driver, 0, 4, &[room]), (IOERR, 0));
    let room = driver.room(512);
    assert_eq!(send(&mut driver, 0, 0, &[room]), (OK, 513));
}

/// One queue cannot keep the loop: a turn is bounded by requests and by bytes.
#[test]
fn a_turn_is_bounded() {
    let host = Host::default();
    let mut driver = host.driver(features::RING_INDIRECT_DESC);
    let (header, status) = (driver.holding(&header(4, 0)), driver.room(1));
    for _ in 0..100 {
        driver.ring(0).add(&[header, status]);
    }
    driver.set(QUEUE_NOTIFY, 0);
    driver.step();
    assert_eq!(usize::from(driver.ring(0).used_index()), REQUESTS_A_TURN);
    assert!(driver.interrupted());
    driver.run();
    assert_eq!(driver.ring(0).used_index(), 100);
    assert!(driver.interrupted());
    assert!(!driver.step());
}

/// 2.7.5.3.1 and 2.7.6 through the device: it stops, says so and comes back.
#[test]
fn a_hostile_chain_stops_the_device_until_reset() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    let status = driver.room(1);
    let outside = Buffer::writable(HOLE - 256, 512);
    let buffers = [driver.holding(&header(0, 0)), outside, status];
    driver.ring(0).add(&buffers);
    driver.kick(0);
    assert!(driver.needs_reset());
    assert_eq!(driver.ring(0).used_index(), 0);
    assert_eq!(driver.get(register::INTERRUPT_STATUS) & 2, 2);
    driver.start(u64::MAX);
    let room = driver.room(512);
    assert_eq!(send(&mut driver, 0, 0, &[room]), (OK, 513));
}

/// A header is read once: what the driver writes into it afterwards changes nothing, since the
/// data may be the header's own memory.
#[test]
fn reading_over_the_own_header_is_harmless() {
    let file = image();
    let mut driver = GuestDriver::started(raw(&file, false));
    let head = driver.holding(&[header(0, 7).to_vec(), vec![0; 512]].concat());
    let over = Buffer::writable(head.at, 512);
    let status = driver.room(1);
    let buffers = [Buffer::readable(head.at, 16), over, status];
    assert_eq!(driver.request(0, &buffers), Some(513));
    assert_eq!(driver.bytes(over), [8; 512]);
    assert_eq!(driver.bytes(status), [OK]);
}

#[test]
fn the_report_counts() {
    let host = Host::default();
    let mut driver = host.driver(u64::MAX);
    let room = driver.room(1024);
    send(&mut driver, 0, 0, &[room]);
    send(&mut driver, 99, 0, &[]);
    let handle = driver.handle.clone();
    let report = std::thread::spawn(move || handle.inspect());
    while !report.is_finished() {
        driver.run();
    }
    let report = report.join().unwrap().unwrap();
    for (name, value) in [("reads", 1), ("read_bytes", 1024), ("refused", 1)] {
        assert_eq!(report.find(name), Some(&Value::Number(value)), "{name}");
    }
}

/// A guest's header in sector 0 does not make another format of a raw image.
#[test]
fn the_format_is_never_guessed() {
    let mut file = image();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\x02\0\0\0\0\x0b/etc/passwd")
        .unwrap();
    let mut driver = GuestDriver::started(raw(&file, true));
    assert_eq!(driver.config(0), 64);
    let room = driver.room(512);
    assert_eq!(send(&mut driver, 0, 0, &[room]), (OK, 513));
    assert_eq!(driver.bytes(room), contents(&file)[..512]);
}

/// A limit set on a running device makes requests wait, and taking it away lets them go on.
#[test]
fn a_limit_is_kept() {
    use crate::limit::{BucketSpec, Limits};
    use crate::virtio::DeviceCommand;
    use std::time::Duration;

    let mut driver = Host::default().driver(u64::MAX);
    let read = |driver: &mut GuestDriver, bytes| {
        let header = driver.holding(&[0; 16]);
        let (data, status) = (driver.room(bytes), driver.room(1));
        driver.request(0, &[header, data, status])
    };
    assert_eq!(read(&mut driver, 1024), Some(1025));
    let limits = Limits {
        bytes: Some(BucketSpec {
            size: 1024,
            burst: 512,
            refill: Duration::from_secs(3600),
        }),
        operations: None,
    };
    driver.handle.send(DeviceCommand::Limit(limits)).unwrap();
    driver.run();
    assert_eq!(read(&mut driver, 1024), Some(1025));
    // Larger than the bucket: its first part goes, and the rest waits.
    assert_eq!(read(&mut driver, 2048), None);
    assert!(!driver.step(), "the device spins");
    let none = DeviceCommand::Limit(Limits::default());
    driver.handle.send(none).unwrap();
    while driver.ring(0).used_index() < 3 {
        driver.run();
    }
}

/// Any requests, with a save and a restore between any two turns: each is answered once, and the
/// data is what a disk holds that was never interrupted.
#[test]
fn a_load_goes_on_over_restores() {
    let file = image();
    let make = || raw(&file, false);
    let mut driver = GuestDriver::started(make());
    let mut expected = contents(&file);
    for round in 0..60_u64 {
        let mut asked = Vec::new();
        for part in 0..8_u64 {
            let sector = (round * 7 + part * 5) % SECTORS;
            let write = (round + part) % 3 != 0;
            let byte = u8::try_from((round + part * 16) & 0xff).unwrap();
            let at = usize::try_from(sector * 512).unwrap();
            let data = match write {
                true => driver.holding(&[byte; 512]),
                false => driver.room(512),
            };
            if write {
                expected[at..at + 512].fill(byte);
            }
            let status = driver.holding(&[0x77]);
            let status = Buffer::writable(status.at, 1);
            let header = driver.holding(&header(u32::from(write), sector));
            let head = driver.ring(0).add(&[header, data, status]);
            let content = expected[at..at + 512].to_vec();
            asked.push((head, status, data, content));
            if part == round % 8 {
                driver.set(QUEUE_NOTIFY, 0);
                driver.step();
                persistence::moved(&mut driver, &make);
            }
        }
        driver.kick(0);
        let mut back: Vec<_> = std::iter::from_fn(|| driver.ring(0).take_used()).collect();
        back.sort_unstable();
        let mut heads: Vec<_> = asked.iter().map(|(head, ..)| *head).collect();
        heads.sort_unstable();
        assert!(
            back.iter().map(|(head, _)| *head).eq(heads),
            "round {round}"
        );
        for (_, status, data, content) in asked {
            assert_eq!(driver.bytes(status), [OK]);
            assert!(!data.writable || driver.bytes(data) == content);
        }
    }
    assert!(contents(&file) == expected);
}

/// The cache that the driver turned off stays off, and a disk that has grown is told of.
#[test]
fn a_restored_driver_knows_its_disk() {
    let file = image();
    let make = || raw(&file, false);
    let mut driver = GuestDriver::started(make());
    driver.write(0x100 + wire::WRITEBACK as u64, Width::Byte, 0);
    driver.set(register::INTERRUPT_ACKNOWLEDGE, 3);
    let state = persistence::moved(&mut driver, &make);
    assert_eq!(driver.read(0x100 + wire::WRITEBACK as u64, Width::Byte), 0);
    assert_eq!(driver.get(register::INTERRUPT_STATUS) & 2, 0);
    file.as_file().set_len((SECTORS + 8) * 512).unwrap();
    driver.restore(&make, &state).unwrap();
    driver.resume();
    assert_eq!(driver.get(register::INTERRUPT_STATUS) & 2, 2);
    assert_eq!(u64::from(driver.config(0)), SECTORS + 8);
    assert_eq!(driver.read(0x100 + wire::WRITEBACK as u64, Width::Byte), 0);
    let read_only = || raw(&file, true);
    let refused = driver.restore(&read_only, &state).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("the guest uses features 11, 13, 14,")
    );
}
