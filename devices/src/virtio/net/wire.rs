//! The structures and numbers of virtio-net (virtio 1.2, 5.1).

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::Offloads;

/// The driver may leave checksums to the device.
pub const F_CSUM: u64 = 1 << 0;
/// The driver takes frames with unfinished checksums.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// The driver can change what it takes unfinished.
pub const F_CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
/// The device tells the largest packet.
pub const F_MTU: u64 = 1 << 3;
/// The device has an address.
pub const F_MAC: u64 = 1 << 5;
/// The driver takes TCP over IPv4 uncut.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// The driver takes TCP over IPv6 uncut.
pub const F_GUEST_TSO6: u64 = 1 << 8;
/// The driver takes uncut TCP with marks of congestion.
pub const F_GUEST_ECN: u64 = 1 << 9;
/// The driver may leave cutting TCP over IPv4 to the device.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// The driver may leave cutting TCP over IPv6 to the device.
pub const F_HOST_TSO6: u64 = 1 << 12;
/// The device takes uncut TCP with marks of congestion.
pub const F_HOST_ECN: u64 = 1 << 13;
/// A received frame may lie in several buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// The device tells whether its link is up.
pub const F_STATUS: u64 = 1 << 16;
/// There is a queue for commands.
pub const F_CTRL_VQ: u64 = 1 << 17;
/// There is more than one pair of queues.
pub const F_MQ: u64 = 1 << 22;

/// The features of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direction {
    checksum: u64,
    tso4: u64,
    tso6: u64,
    ecn: u64,
}

/// What a driver takes unfinished. The commands of offloads use the same bits.
pub(super) const TO_GUEST: Direction = Direction {
    checksum: F_GUEST_CSUM,
    tso4: F_GUEST_TSO4,
    tso6: F_GUEST_TSO6,
    ecn: F_GUEST_ECN,
};
/// What a driver leaves to the device.
pub(super) const FROM_GUEST: Direction = Direction {
    checksum: F_CSUM,
    tso4: F_HOST_TSO4,
    tso6: F_HOST_TSO6,
    ecn: F_HOST_ECN,
};

impl Direction {
    /// The offloads that features stand for, as far as they can do without those that are missing.
    pub(super) fn offloads(self, features: u64) -> Offloads {
        let has = |feature| features & feature != 0;
        let plain = Offloads {
            checksum: has(self.checksum),
            tso4: has(self.tso4),
            tso6: has(self.tso6),
            ecn: has(self.ecn),
        };
        plain.both(Offloads::ALL)
    }

    /// The features that stand for offloads.
    pub(super) fn features(self, offloads: Offloads) -> u64 {
        let bit = |has, feature| if has { feature } else { 0 };
        bit(offloads.checksum, self.checksum)
            | bit(offloads.tso4, self.tso4)
            | bit(offloads.tso6, self.tso6)
            | bit(offloads.ecn, self.ecn)
    }

    /// Every bit that stands for an offload.
    pub(super) fn all(self) -> u64 {
        self.features(Offloads::ALL)
    }
}

/// The configuration (5.1.4).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Config {
    pub(super) mac: [u8; 6],
    pub(super) status: U16,
    pub(super) max_pairs: U16,
    pub(super) mtu: U16,
}

/// Where the status is in the configuration.
pub(super) const STATUS: usize = 6;
/// The link is up.
pub(super) const LINK_UP: u16 = 1;
/// The smallest packet that a device may name as its largest (5.1.4.1).
pub(super) const LEAST_MTU: u16 = 68;

/// The header in front of every frame (5.1.6).
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Header {
    /// What is unfinished or known: [`flags`].
    pub flags: u8,
    /// How the frame is to be cut: [`gso`].
    pub gso_type: u8,
    /// The length of the headers that each segment gets, for a hint.
    pub hdr_len: U16,
    /// How much data a segment gets.
    pub gso_size: U16,
    /// Where the checksum begins to count.
    pub csum_start: U16,
    /// Where it belongs, from there on.
    pub csum_offset: U16,
    /// How many buffers a received frame lies in.
    pub num_buffers: U16,
}

/// Flags of a [`Header`].
pub mod flags {
    /// The checksum is to be finished.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum was found to be right.
    pub const DATA_VALID: u8 = 2;
}

/// Ways to cut a frame, in a [`Header`].
pub mod gso {
    /// Not at all.
    pub const NONE: u8 = 0;
    /// As TCP over IPv4.
    pub const TCPV4: u8 = 1;
    /// As TCP over IPv6.
    pub const TCPV6: u8 = 4;
    /// In addition: it carries a mark of congestion.
    pub const ECN: u8 = 0x80;
}

/// The header of Ethernet.
pub(super) const ETHERNET_BYTES: usize = 14;
/// Where the address of the sender is in a frame.
pub(super) const SOURCE: std::ops::Range<usize> = 6..12;
/// What two tags of VLANs add to a frame.
pub(super) const TAG_BYTES: usize = 8;

/// What a command begins with (5.1.6.5).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Control {
    pub(super) class: u8,
    pub(super) command: u8,
}

/// Commands: class and number.
pub(super) mod control {
    /// How many pairs of queues are used; 16 bits.
    pub(in super::super) const MQ_PAIRS_SET: (u8, u8) = (4, 0);
    /// What the driver takes unfinished; 64 bits.
    pub(in super::super) const OFFLOADS_SET: (u8, u8) = (5, 0);
}

/// A command was carried out.
pub(super) const ACK_OK: u8 = 0;
/// A command was not.
pub(super) const ACK_ERROR: u8 = 1;
