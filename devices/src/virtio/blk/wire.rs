//! The structures and numbers of virtio-blk (virtio 1.2, 5.2).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The driver gets `seg_max`.
pub const F_SEG_MAX: u64 = 1 << 2;
/// The device is read-only.
pub const F_RO: u64 = 1 << 5;
/// The driver gets `blk_size`.
pub const F_BLK_SIZE: u64 = 1 << 6;
/// The driver flushes what has to last.
pub const F_FLUSH: u64 = 1 << 9;
/// The driver gets the topology.
pub const F_TOPOLOGY: u64 = 1 << 10;
/// The driver can turn the write cache on and off.
pub const F_CONFIG_WCE: u64 = 1 << 11;
/// There is more than one queue.
pub const F_MQ: u64 = 1 << 12;
/// Space can be given back.
pub const F_DISCARD: u64 = 1 << 13;
/// Ranges can be zeroed without sending zeroes.
pub const F_WRITE_ZEROES: u64 = 1 << 14;

/// Request types (5.2.6).
pub(super) mod kind {
    pub(in super::super) const IN: u32 = 0;
    pub(in super::super) const OUT: u32 = 1;
    pub(in super::super) const FLUSH: u32 = 4;
    pub(in super::super) const GET_ID: u32 = 8;
    pub(in super::super) const DISCARD: u32 = 11;
    pub(in super::super) const WRITE_ZEROES: u32 = 13;
}

/// How a request ended (5.2.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Status {
    /// It is done.
    Ok = 0,
    /// It was not, or not wholly, done.
    IoError = 1,
    /// The device does not know it.
    Unsupported = 2,
}

/// What a request begins with.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) kind: U32,
    pub(super) reserved: U32,
    pub(super) sector: U64,
}

/// A range of a discard or write-zeroes request.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Segment {
    pub(super) sector: U64,
    pub(super) sectors: U32,
    pub(super) flags: U32,
}

/// Segment flag: the space may be given back.
pub(super) const UNMAP: u32 = 1;

/// Where `writeback` is in the configuration.
pub(super) const WRITEBACK: usize = 32;

/// The configuration fields (5.2.4), up to those of write zeroes.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Config {
    pub(super) capacity: U64,
    pub(super) size_max: U32,
    pub(super) seg_max: U32,
    pub(super) cylinders: U16,
    pub(super) heads: u8,
    pub(super) sectors: u8,
    pub(super) blk_size: U32,
    pub(super) physical_block_exp: u8,
    pub(super) alignment_offset: u8,
    pub(super) min_io_size: U16,
    pub(super) opt_io_size: U32,
    pub(super) writeback: u8,
    pub(super) unused0: u8,
    pub(super) num_queues: U16,
    pub(super) max_discard_sectors: U32,
    pub(super) max_discard_seg: U32,
    pub(super) discard_sector_alignment: U32,
    pub(super) max_write_zeroes_sectors: U32,
    pub(super) max_write_zeroes_seg: U32,
    pub(super) write_zeroes_may_unmap: u8,
    pub(super) unused1: [u8; 3],
}
