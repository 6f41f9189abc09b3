//! Programs of the bare guest: operations as values, encoded into the bytes of its initrd.
//!
//! A program is a list of rows, each a list of steps that run until one fails; then the row has
//! failed and the next one begins. Addresses are guest-physical. A program may use all memory of
//! its machine but [`GUEST`] (and, when it has loads, [`LOAD`] to [`LOAD_END`]) and the program
//! itself, which the monitor puts at the end of memory below 3 GiB.

use super::wire;
use std::time::Duration;

pub use super::wire::{GUEST, LOAD, LOAD_END};

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At an address: memory or a register.
    Memory(u64),
    /// At an I/O port; values of at most four bytes.
    Port(u16),
}

/// How many bytes one access has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1
    Byte,
    /// 2
    Word,
    /// 4
    Dword,
    /// 8
    Qword,
}

impl Width {
    fn bytes(self) -> u8 {
        match self {
            Width::Byte => 1,
            Width::Word => 2,
            Width::Dword => 4,
            Width::Qword => 8,
        }
    }

    /// All bits of this width.
    #[must_use]
    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(self.bytes()))
    }
}

/// What is read where, and what it is compared with: `found & mask == value & mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Where to read.
    pub place: Place,
    /// How much.
    pub width: Width,
    /// Bits that count.
    pub mask: u64,
    /// What they should be.
    pub value: u64,
}

/// One step. Everything but a failed check goes on to the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Begins a row; its number comes back with its result.
    Row(u64),
    /// Writes a value. A doorbell is rung like this too.
    Write(Place, Width, u64),
    /// Fails unless the check holds.
    Expect(Check),
    /// Reads until the check holds, fails after that long.
    Until(Check, Duration),
    /// Reads until the check does not hold, fails after that long.
    While(Check, Duration),
    /// Puts bytes into memory.
    Copy(u64, Vec<u8>),
    /// Fails unless memory holds these bytes.
    Compare(u64, Vec<u8>),
    /// Sets `len` bytes of memory from `at` on to `byte`.
    Fill {
        /// First address.
        at: u64,
        /// How many bytes.
        len: u64,
        /// Their value.
        byte: u8,
    },
    /// Does nothing, without an exit, for that long.
    Pause(Duration),
    /// Prints the TSC.
    Mark,
    /// Drives a virtio-blk device of the virtio-mmio window at this address.
    Block(u64, BlockLoad),
    /// Drives a virtio-vsock device likewise.
    Vsock(u64, VsockLoad),
    /// Drives a virtio-net device likewise; only the guest [`super::NET`] knows how.
    Net(u64, NetLoad),
    /// Starts the virtio device of a virtio-mmio window with all its queues and without
    /// interrupts; the queues whose bits are set get writable buffers.
    Start(u64, u64),
    /// Halts for ever with interrupts off.
    Idle,
}

/// A block load: one kind of request at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLoad {
    /// Write instead of read.
    pub write: bool,
    /// At random instead of in order.
    pub random: bool,
    /// Bytes of a request, a multiple of 512. `depth` times this is at most 16 MiB.
    pub block: u64,
    /// Requests in flight, at most 64.
    pub depth: u64,
    /// Bytes of the device that are used, from its start.
    pub span: u64,
    /// Ends after that long, or
    pub time: Duration,
    /// after that many requests.
    pub count: u64,
}

/// A vsock load: the guest listens on a port and counts what a host's connection sends, or sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockLoad {
    /// The guest's port.
    pub port: u32,
    /// The guest sends instead of receiving.
    pub send: bool,
    /// Ends after that many bytes of payload.
    pub bytes: u64,
}

/// A network load: the guest accepts one TCP connection of the host, from whatever address to
/// whatever address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetLoad {
    /// What the guest does with it.
    pub kind: NetKind,
    /// Features to agree on, if they are offered, of the lower 32.
    pub features: u32,
    /// Bytes of a receive buffer, which has to hold a frame with its header.
    pub buffer: u64,
    /// Bytes of a segment that the guest sends: more than 1460 need HOST_TSO4 and CSUM.
    pub segment: u64,
    /// Ends after that many bytes of payload, or
    pub bytes: u64,
    /// after that long.
    pub time: Duration,
}

/// The features that let frames be of 64 KiB: CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4.
pub const NET_OFFLOADS: u32 = 1 | 1 << 1 | 1 << 7 | 1 << 11;

impl NetLoad {
    /// One with frames of 64 KiB, when there are offloads, or of an MTU of 1500.
    #[must_use]
    pub fn new(kind: NetKind, features: u32, bytes: u64) -> NetLoad {
        let (buffer, segment) = match features {
            0 => (2 << 10, 1460),
            _ => (68 << 10, 44 * 1460),
        };
        NetLoad {
            kind,
            features,
            buffer,
            segment,
            bytes,
            time: Duration::from_secs(20),
        }
    }
}

/// What the guest does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetKind {
    /// Takes all that comes.
    Sink,
    /// Sends zeroes.
    Source,
    /// Sends a zero for every byte that comes.
    Echo,
}

/// A program under construction.
#[derive(Debug, Default)]
pub struct Program {
    ops: Vec<Op>,
}

impl Program {
    /// No steps yet.
    #[must_use]
    pub fn new() -> Program {
        Program::default()
    }

    /// One more step.
    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// One more row.
    pub fn row(&mut self, number: u64, steps: impl IntoIterator<Item = Op>) {
        self.ops.push(Op::Row(number));
        self.ops.extend(steps);
    }

    /// The bytes of the initrd. `ticks` are TSC ticks in a microsecond, for the times.
    #[must_use]
    pub fn encode(&self, ticks: u64) -> Vec<u8> {
        let blobs_at = wire::HEADER + self.ops.len() * wire::RECORD;
        let mut encoder = Encoder {
            records: Vec::new(),
            blobs: Vec::new(),
            blobs_at: blobs_at as u64,
            ticks,
        };
        for word in [wire::MAGIC, self.ops.len() as u64, ticks, 0] {
            encoder.records.extend(word.to_le_bytes());
        }
        self.ops.iter().for_each(|op| encoder.op(op));
        encoder.records.extend(encoder.blobs);
        encoder.records
    }
}

/// A record before it is bytes.
#[derive(Default)]
struct Record {
    opcode: u8,
    width: u8,
    space: u8,
    count: u32,
    at: u64,
    value: u64,
    mask: u64,
}

struct Encoder {
    records: Vec<u8>,
    blobs: Vec<u8>,
    blobs_at: u64,
    ticks: u64,
}

impl Encoder {
    fn op(&mut self, op: &Op) {
        let of = |opcode| Record {
            opcode,
            ..Record::default()
        };
        let record = match op {
            Op::Row(number) => Record {
                value: *number,
                ..of(wire::ROW)
            },
            Op::Write(place, width, value) => Record {
                width: width.bytes(),
                value: *value,
                ..at(*place, wire::WRITE)
            },
            Op::Expect(wanted) => check(wire::EXPECT, wanted, Duration::ZERO),
            Op::Until(wanted, time) => check(wire::UNTIL, wanted, *time),
            Op::While(wanted, time) => check(wire::WHILE, wanted, *time),
            Op::Copy(at, bytes) => self.blob(wire::COPY, *at, bytes),
            Op::Compare(at, bytes) => self.blob(wire::COMPARE, *at, bytes),
            Op::Fill { at, len, byte } => Record {
                at: *at,
                value: u64::from(*byte),
                mask: *len,
                ..of(wire::FILL)
            },
            Op::Pause(time) => Record {
                count: micros(*time),
                ..of(wire::PAUSE)
            },
            Op::Mark => of(wire::MARK),
            Op::Block(window, load) => self.block(*window, load),
            Op::Vsock(window, load) => {
                let words = [load.port.into(), load.send.into(), load.bytes];
                self.parameters(wire::VSOCK, *window, &words)
            }
            Op::Net(window, load) => self.net(*window, load),
            Op::Start(window, queues) => Record {
                at: *window,
                mask: *queues,
                ..of(wire::START)
            },
            Op::Idle => of(wire::IDLE),
        };
        self.put(&record);
    }

    fn net(&mut self, window: u64, load: &NetLoad) -> Record {
        let kind = match load.kind {
            NetKind::Sink => wire::SINK,
            NetKind::Source => wire::SOURCE,
            NetKind::Echo => wire::ECHO,
        };
        let words = [
            kind,
            load.features.into(),
            load.buffer,
            load.segment,
            load.bytes,
            self.ticks_of(load.time),
        ];
        self.parameters(wire::NET, window, &words)
    }

    fn ticks_of(&self, time: Duration) -> u64 {
        u64::from(micros(time)) * self.ticks
    }

    fn block(&mut self, window: u64, load: &BlockLoad) -> Record {
        let ticks = self.ticks_of(load.time);
        let words = [
            load.write.into(),
            load.random.into(),
            load.block,
            load.depth,
            load.span,
            ticks,
            load.count,
        ];
        self.parameters(wire::BLOCK, window, &words)
    }

    fn parameters(&mut self, opcode: u8, window: u64, words: &[u64]) -> Record {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.blob(opcode, window, &bytes)
    }

    fn blob(&mut self, opcode: u8, at: u64, bytes: &[u8]) -> Record {
        let offset = self.blobs_at + self.blobs.len() as u64;
        self.blobs.extend(bytes);
        // Parameters are read as words.
        self.blobs.resize(self.blobs.len().next_multiple_of(8), 0);
        Record {
            opcode,
            at,
            value: offset,
            mask: bytes.len() as u64,
            ..Record::default()
        }
    }

    fn put(&mut self, record: &Record) {
        let head = [record.opcode, record.width, record.space, 0];
        self.records.extend(head);
        self.records.extend(record.count.to_le_bytes());
        for word in [record.at, record.value, record.mask] {
            self.records.extend(word.to_le_bytes());
        }
    }
}

fn at(place: Place, opcode: u8) -> Record {
    let (space, at) = match place {
        Place::Memory(address) => (wire::MEMORY, address),
        Place::Port(port) => (wire::PORT, port.into()),
    };
    Record {
        opcode,
        space,
        at,
        ..Record::default()
    }
}

fn check(opcode: u8, check: &Check, time: Duration) -> Record {
    let mask = check.mask & check.width.mask();
    Record {
        width: check.width.bytes(),
        count: micros(time),
        value: check.value & mask,
        mask,
        ..at(check.place, opcode)
    }
}

/// Microseconds, at most an hour and some.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_header_records_and_blobs() {
        let mut program = Program::new();
        let place = Place::Memory(0xd000_0070);
        program.row(7, [Op::Write(place, Width::Dword, 0)]);
        let wanted = Check {
            place: Place::Port(0x3fd),
            width: Width::Byte,
            mask: u64::MAX,
            value: 0x120,
        };
        program.push(Op::Until(wanted, Duration::from_millis(2)));
        program.push(Op::Copy(0x3000, b"abc".to_vec()));
        program.push(Op::Compare(0x3000, b"abcd".to_vec()));
        let bytes = program.encode(2400);
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words[..4], [wire::MAGIC, 5, 2400, 0]);
        assert_eq!(words[4..8], [1, 0, 7, 0]);
        assert_eq!(words[8..12], [0x0402, 0xd000_0070, 0, 0]);
        assert_eq!(words[12..16], [2000 << 32 | 0x01_0104, 0x3fd, 0x20, 0xff]);
        let blobs = 32 * 6;
        assert_eq!(words[16..20], [6, 0x3000, blobs, 3]);
        assert_eq!(words[20..24], [7, 0x3000, blobs + 8, 4]);
        assert_eq!(
            bytes[usize::try_from(blobs).unwrap()..],
            *b"abc\0\0\0\0\0abcd\0\0\0\0"
        );
    }
}
