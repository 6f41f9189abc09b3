//! Scripts: what a driver does, as bytes for fuzzers. Any bytes are a script.
//!
//! An operation is a byte and its operands, little-endian; what is cut off at the end reads as
//! zero. Addresses are 32 bits: offsets into the row's memory, or, with the highest bit, places
//! around holes and ends. Rows become scripts with [`encode`], the seeds of the fuzz targets.

use devices::Width;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::access::{Region, Transport};
use crate::bench::Bench;
use crate::lower::{Act, lower};
use crate::play::{self, Wrong, fill};
use crate::rows::engine;
use crate::step::{FIRST_RING, Row, Step, Subject};

/// The longest script that is played: bounds a run.
pub const MOST_BYTES: usize = 4096;

/// Good starts in a script, each of which is many accesses; further ones do nothing.
const MOST_STARTS: u32 = 3;

const WRITE: u8 = 0;
const READ: u8 = 1;
const COPY: u8 = 2;
const FILL: u8 = 3;
const SETTLE: u8 = 4;
const START: u8 = 5;
const PUBLISH: u8 = 6;
const KICK: u8 = 7;
const DESCRIPTOR: u8 = 8;
const STATUS: u8 = 9;
/// How many operations there are, with the last one: the host does something.
const OPERATIONS: u8 = 11;

const REGIONS: [Region; 8] = [
    Region::Window,
    Region::Common,
    Region::Notify,
    Region::Isr,
    Region::Device,
    Region::MsixTable,
    Region::MsixPending,
    Region::PciConfig,
];
const WIDTHS: [Width; 4] = [Width::Byte, Width::Word, Width::Dword, Width::Qword];

/// What scripts may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Anything.
    Everything,
    /// Good starts, rings, memory and doorbells, but no register by itself and no queue that is
    /// elsewhere: so that what has to come back is known.
    Requests,
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn number<const BYTES: usize>(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let len = self.0.len().min(BYTES);
        let (front, rest) = self.0.split_at(len);
        bytes
            .iter_mut()
            .zip(front)
            .for_each(|(to, from)| *to = *from);
        self.0 = rest;
        u64::from_le_bytes(bytes)
    }

    fn byte(&mut self) -> u8 {
        self.number::<1>().to_le_bytes()[0]
    }

    fn word(&mut self) -> u16 {
        let [low, high, ..] = self.number::<2>().to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn bytes(&mut self, len: usize) -> &[u8] {
        let (front, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        front
    }

    fn width(&mut self) -> Width {
        let index = usize::from(self.byte() % 4);
        WIDTHS.get(index).copied().unwrap_or(Width::Byte)
    }

    fn region(&mut self) -> Region {
        let index = usize::from(self.byte() % 8);
        REGIONS.get(index).copied().unwrap_or(Region::Window)
    }

    /// An address, 32 bits of script.
    fn address(&mut self) -> u64 {
        let code = self.number::<4>();
        let near = code & 0xfff;
        match code >> 28 {
            8 => devices::testing::HOLE - 0x800 + near,
            9 => devices::testing::SEAM - 0x800 + near,
            10 => devices::testing::AFTER_HOLE - 0x800 + near,
            11 => devices::testing::END - 0x800 + near,
            12 => u64::MAX - near,
            13 => crate::bench::WINDOW + near,
            14.. => code << 32 | near,
            _ => code & 0xf_ffff,
        }
    }
}

/// Plays a script against a device that was just made or reset.
///
/// # Errors
/// What must not be: a device that does not come to rest, or a queue with fewer requests back
/// than there should be.
pub fn run(
    bench: &mut Bench,
    subject: &'static Subject,
    script: &[u8],
    scope: Scope,
) -> Result<(), Wrong> {
    let mut script = Cursor(script.get(..MOST_BYTES).unwrap_or(script));
    let mut starts = MOST_STARTS;
    while !script.0.is_empty() {
        operation(bench, subject, &mut script, scope, &mut starts)?;
    }
    play::settle(bench)
}

fn operation(
    bench: &mut Bench,
    subject: &'static Subject,
    script: &mut Cursor<'_>,
    scope: Scope,
    starts: &mut u32,
) -> Result<(), Wrong> {
    let operation = script.byte() % OPERATIONS;
    match operation {
        WRITE => {
            let (region, offset) = (script.region(), script.number::<2>());
            let (width, value) = (script.width(), script.number::<8>());
            let value = value & (u64::MAX >> (64 - 8 * width.bytes()));
            if scope == Scope::Everything {
                write(bench, region, offset, width, value);
            }
        }
        READ => {
            let (region, offset, width) = (script.region(), script.number::<2>(), script.width());
            read(bench, region, offset, width);
        }
        COPY => {
            let (at, len) = (script.address(), script.byte());
            let bytes = script.bytes(len.into());
            store(bench, subject, scope, at, bytes);
        }
        FILL => {
            let (at, len, byte) = (script.address(), script.word(), script.byte());
            fill(at, len.into(), byte, |at, bytes| {
                store(bench, subject, scope, at, bytes);
                true
            });
        }
        SETTLE => play::settle(bench)?,
        START => {
            let choice = script.byte();
            if *starts == 0 {
                return Ok(());
            }
            *starts -= 1;
            let optional = subject.features | u64::from(choice & 3) << 28;
            start(bench, subject, optional | 1 << 32)?;
        }
        PUBLISH => {
            let (queue, head) = (script.byte(), script.word());
            publish(bench, queue % 8, head);
        }
        KICK => {
            let queue = script.byte();
            kick(bench, queue);
        }
        DESCRIPTOR => descriptor(bench, subject, script, scope),
        STATUS => {
            let value = script.byte();
            if scope == Scope::Everything {
                let (region, offset, width) =
                    crate::access::place(bench.transport(), crate::step::Register::Status);
                bench.write(region, offset, width, value.into());
            }
        }
        _ => engine::next_of_engine(&bench.host, script.byte()),
    }
    Ok(())
}

/// Writes a descriptor of a queue's usual table.
fn descriptor(bench: &Bench, subject: &Subject, script: &mut Cursor<'_>, scope: Scope) {
    let (queue, index) = (u16::from(script.byte() % 8), u64::from(script.byte()));
    let (at, len) = (script.address(), script.number::<4>());
    let (flags, next) = (script.word(), script.word());
    let mut bytes = at.to_le_bytes().to_vec();
    bytes.extend(&len.to_le_bytes()[..4]);
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    store(bench, subject, scope, ring_of(queue) + index * 16, &bytes);
}

/// Writes memory, in vain where there is none. The used rings are the device's alone where they
/// are to show what came back.
fn store(bench: &Bench, subject: &Subject, scope: Scope, at: u64, bytes: &[u8]) {
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let touches = |queue| {
        let used = ring_of(queue) + 0x2000;
        at < used + 0x1000 && used < at.saturating_add(len)
    };
    if scope == Scope::Everything || !(0..subject.queues).any(touches) {
        let _ = bench.ram.write_bytes(at, bytes);
    }
}

/// The usual place of a queue.
fn ring_of(queue: u16) -> u64 {
    FIRST_RING + u64::from(queue) * crate::step::RING_BYTES
}

/// The last offset in a region at which an access of `width` lies within it.
fn within(bench: &Bench, region: Region, offset: u64, width: Width) -> Option<u64> {
    let pci = bench.transport() == Transport::Pci;
    let len: u64 = match region {
        Region::PciConfig => {
            let split = offset % 4 + width.bytes() > 4;
            return (pci && !split).then_some(offset % 0x1000);
        }
        Region::Window if pci => 0x8000,
        _ => 0x1000,
    };
    let offset = offset % len;
    (offset + width.bytes() <= len).then_some(offset)
}

fn write(bench: &mut Bench, region: Region, offset: u64, width: Width, value: u64) {
    if let Some(offset) = within(bench, region, offset, width) {
        bench.write(region, offset, width, value);
    }
}

fn read(bench: &mut Bench, region: Region, offset: u64, width: Width) {
    if let Some(offset) = within(bench, region, offset, width) {
        bench.read(region, offset, width);
    }
}

fn kick(bench: &mut Bench, queue: u8) {
    match bench.transport() {
        Transport::Mmio => bench.write(Region::Window, 0x50, Width::Dword, queue.into()),
        Transport::Pci => {
            let offset = u64::from(queue) * 4;
            bench.write(Region::Notify, offset, Width::Word, queue.into());
        }
    }
}

/// Puts a head into the usual ring of a queue, after what it says it has.
fn publish(bench: &Bench, queue: u8, head: u16) {
    let ring = ring_of(queue.into()) + 0x1000;
    let index = u16::from_le(bench.ram.read(ring + 2).unwrap_or_default());
    let entry = ring + 4 + u64::from(index % crate::step::RING_SIZE) * 2;
    let _ = bench.ram.write_bytes(entry, &head.to_le_bytes());
    let _ = bench
        .ram
        .write_bytes(ring + 2, &index.wrapping_add(1).to_le_bytes());
}

/// A good start, as [`Step::Start`].
///
/// # Errors
/// When the device does not start.
pub fn start(bench: &mut Bench, subject: &'static Subject, features: u64) -> Result<(), Wrong> {
    perform(bench, subject, Some(features))
}

/// The driver resets the device.
pub fn reset(bench: &mut Bench) {
    let status = crate::step::Register::Status;
    let (region, offset, width) = crate::access::place(bench.transport(), status);
    bench.write(region, offset, width, 0);
}

/// The device is reset, starts and does its good request.
///
/// # Errors
/// When it does not: a wedged device.
pub fn revive(bench: &mut Bench, subject: &'static Subject) -> Result<(), Wrong> {
    engine::engine_behaves(&bench.host);
    perform(bench, subject, None)
}

/// What a start with these features, or else a revival, is made of; worked out once.
type Made = HashMap<(&'static str, Transport, Option<u64>), Rc<[Act]>>;

thread_local! {
    static MADE: RefCell<Made> = RefCell::new(HashMap::new());
}

fn perform(
    bench: &mut Bench,
    subject: &'static Subject,
    features: Option<u64>,
) -> Result<(), Wrong> {
    let world = bench.world();
    let step = features.map_or(Step::Revive, Step::Start);
    let make = || {
        let mut acts = Vec::new();
        crate::lower::steps(subject, &[step], world, &mut |act| acts.push(act));
        Rc::from(acts)
    };
    let key = (subject.name, world.transport, features);
    let acts = MADE.with_borrow_mut(|made| Rc::clone(made.entry(key).or_insert_with(make)));
    acts.iter().try_for_each(|act| play::perform(bench, act))
}

/// Every request of every queue came back, or the device is out of service. For
/// [`Scope::Requests`] on a device that gives everything back by itself.
///
/// # Errors
/// When some did not.
pub fn all_came_back(bench: &mut Bench, subject: &Subject) -> Result<(), Wrong> {
    engine::engine_behaves(&bench.host);
    let (region, offset, width) =
        crate::access::place(bench.transport(), crate::step::Register::Status);
    for queue in 0..subject.queues {
        if bench.read(region, offset, width) != 15 {
            return Ok(());
        }
        kick(bench, queue.to_le_bytes()[0]);
        play::settle(bench)?;
    }
    if bench.read(region, offset, width) != 15 {
        return Ok(());
    }
    let index = |at| u16::from_le(bench.ram.read(at).unwrap_or_default());
    for queue in 0..subject.queues {
        let published = index(ring_of(queue) + 0x1002);
        let back = index(ring_of(queue) + 0x2002);
        if published != back {
            return Err(format!("queue {queue}: {published:#x} sent, {back:#x} back").into());
        }
    }
    Ok(())
}

/// A row as a script: what its driver does, without what it wants to see. None where the host
/// acts.
#[must_use]
pub fn encode(row: &Row, bench: &Bench) -> Option<Vec<u8>> {
    let mut script = Vec::new();
    let mut started = usize::MAX;
    for lowered in lower(row, bench.world()) {
        match (row.steps.get(lowered.step), lowered.act) {
            (Some(Step::Revive), _) => break,
            (Some(Step::Start(features)), _) => {
                if started != lowered.step {
                    started = lowered.step;
                    let [.., choice, _, _, _, _] = features.to_be_bytes();
                    script.extend([START, choice >> 4]);
                }
            }
            (_, Act::Host(_)) => return None,
            (_, act) => encode_act(&act, &mut script),
        }
    }
    (script.len() <= MOST_BYTES).then_some(script)
}

fn encode_act(act: &Act, script: &mut Vec<u8>) {
    match act {
        Act::Write(Region::Window, 0x50, Width::Dword, queue) if *queue < 0x100 => {
            script.extend([KICK, queue.to_le_bytes()[0]]);
        }
        Act::Write(Region::Notify, offset, Width::Word, _) if offset % 4 == 0 => {
            script.extend([KICK, (offset / 4).to_le_bytes()[0]]);
        }
        Act::Write(region, offset, width, value) => {
            let region = REGIONS
                .iter()
                .position(|other| other == region)
                .unwrap_or(0);
            let width = WIDTHS.iter().position(|other| other == width).unwrap_or(0);
            let [region, ..] = region.to_le_bytes();
            let [width, ..] = width.to_le_bytes();
            script.extend([WRITE, region]);
            script.extend(&offset.to_le_bytes()[..2]);
            script.push(width);
            script.extend(value.to_le_bytes());
        }
        Act::Copy(at, bytes) => {
            for (part, bytes) in bytes.chunks(255).enumerate() {
                let at = at + 255 * u64::try_from(part).unwrap_or_default();
                script.push(COPY);
                script.extend(encode_address(at));
                let [len, ..] = bytes.len().to_le_bytes();
                script.push(len);
                script.extend(bytes);
            }
        }
        Act::Fill(at, len, byte) if *len <= 0xffff => {
            script.push(FILL);
            script.extend(encode_address(*at));
            script.extend(&len.to_le_bytes()[..2]);
            script.push(*byte);
        }
        Act::Settle | Act::Await(_) | Act::AwaitMemory(..) => script.push(SETTLE),
        _ => {}
    }
}

fn encode_address(at: u64) -> [u8; 4] {
    let hole = devices::testing::HOLE;
    let code = if (hole - 0x800..hole + 0x800).contains(&at) {
        8 << 28 | (at + 0x800 - hole)
    } else {
        at & 0xf_ffff
    };
    let [a, b, c, d, ..] = code.to_le_bytes();
    [a, b, c, d]
}
