//! What the bare guest and its host say to each other: a program in the initrd, answers as lines
//! on the serial port. Constants and numbers only; both sides are compiled with this file.
//!
//! A program is a header, records of one size, and the bytes that records refer to by their
//! offset from the program's first byte. Everything is little-endian.

/// The header's first eight bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"BareOps1");
/// Bytes of the header: the magic, the number of records, TSC ticks in a microsecond, zero.
pub const HEADER: usize = 32;
/// Bytes of a record: opcode, width, space, a zero byte, `count` (u32), then `at`, `value` and
/// `mask` (u64 each).
pub const RECORD: usize = 32;

/// The guest's own code, tables and stack are here; programs leave it alone.
pub const GUEST: (u64, u64) = (0x10_0000, 0x20_0000);
/// Where the loads keep their rings and buffers, which end at [`LOAD_END`].
pub const LOAD: u64 = 0x20_0000;
/// Where the loads' memory ends; the program may not reach below.
pub const LOAD_END: u64 = 0x1a0_0000;

/// Begins a row, whose number is `value`. The steps behind it are counted from zero.
pub const ROW: u8 = 1;
/// Writes `value`.
pub const WRITE: u8 = 2;
/// Reads; the row fails unless the result is `value` where `mask` has bits.
pub const EXPECT: u8 = 3;
/// Reads until the same holds; the row fails after `count` microseconds.
pub const UNTIL: u8 = 4;
/// Reads until the same does not hold any more; the row fails after `count` microseconds.
pub const WHILE: u8 = 5;
/// Copies `mask` bytes from offset `value` of the program to memory.
pub const COPY: u8 = 6;
/// The row fails unless `mask` bytes of memory are those at offset `value` of the program.
pub const COMPARE: u8 = 7;
/// Sets `mask` bytes of memory to `value`.
pub const FILL: u8 = 8;
/// Does nothing for `count` microseconds.
pub const PAUSE: u8 = 9;
/// Prints the TSC.
pub const MARK: u8 = 10;
/// The block load: `at` is the device's window, the parameters are eight numbers (u64 each) at
/// offset `value` of the program.
pub const BLOCK: u8 = 11;
/// The vsock load, likewise.
pub const VSOCK: u8 = 12;
/// Starts a virtio device with all its queues; each gets `count` writable buffers per mask bit.
pub const START: u8 = 13;
/// Halts for ever, with interrupts off.
pub const IDLE: u8 = 14;

/// The network load, likewise; only the guest that is made for it knows it.
pub const NET: u8 = 15;
/// What the network load does with its connection: takes all that comes,
pub const SINK: u64 = 0;
/// sends zeroes,
pub const SOURCE: u64 = 1;
/// or sends zeroes for as many bytes as come.
pub const ECHO: u64 = 2;

/// `space` of memory and of ports.
pub const MEMORY: u8 = 0;
/// See [`MEMORY`].
pub const PORT: u8 = 1;
