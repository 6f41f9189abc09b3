//! The structures and numbers of virtio-vsock (virtio 1.2, 5.10).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The device has stream sockets (5.10.3).
pub const F_STREAM: u64 = 1 << 0;

/// The context ID of the host (5.10.4).
pub const HOST_CID: u64 = 2;

/// Packets are pieces of a stream; the only socket type here (5.10.6).
pub(super) const STREAM: u16 = 1;

/// What a packet is about (5.10.6).
pub mod op {
    /// A new connection is wanted.
    pub const REQUEST: u16 = 1;
    /// It is there.
    pub const RESPONSE: u16 = 2;
    /// The connection is no more, or never was.
    pub const RST: u16 = 3;
    /// One side will receive or send no more.
    pub const SHUTDOWN: u16 = 4;
    /// Data.
    pub const RW: u16 = 5;
    /// Nothing but the credit that every packet tells of.
    pub const CREDIT_UPDATE: u16 = 6;
    /// The other side is to tell its credit.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// SHUTDOWN: the sender of the packet will receive no more (5.10.6.5).
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// SHUTDOWN: the sender of the packet will send no more.
pub const SHUTDOWN_SEND: u32 = 2;

/// The length of [`Header`] in bytes.
pub const HEADER_BYTES: usize = size_of::<Header>();

/// What every packet begins with.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// The sender's context ID.
    pub src_cid: U64,
    /// The receiver's context ID.
    pub dst_cid: U64,
    /// The sender's port.
    pub src_port: U32,
    /// The receiver's port.
    pub dst_port: U32,
    /// How many bytes of data follow.
    pub len: U32,
    /// The socket type.
    pub kind: U16,
    /// What it is about, see [`op`].
    pub op: U16,
    /// More about that.
    pub flags: U32,
    /// How much the sender can hold.
    pub buf_alloc: U32,
    /// How much it has handed on of what it received.
    pub fwd_cnt: U32,
}

impl Header {
    /// The answer that ends what this packet is about: a RST from where it was sent to.
    pub(super) fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST.into(),
            ..Self::default()
        }
    }
}

/// The event that tells of lost connections and maybe another context ID (5.10.6.7).
pub(super) const TRANSPORT_RESET: u32 = 0;
/// The length of an event in bytes.
pub(super) const EVENT_BYTES: usize = 4;
