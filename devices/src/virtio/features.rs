//! Feature bits that belong to the transport and the rings, not to a device (virtio 1.2, 6).

/// A descriptor may point to a table of descriptors (2.7.5.3).
pub const RING_INDIRECT_DESC: u64 = 1 << 28;
/// Both sides say with an index when they want to hear from the other (2.7.7, 2.7.10).
pub const RING_EVENT_IDX: u64 = 1 << 29;
/// The device follows virtio 1.0 or later; a driver has to accept it (6.1).
pub const VERSION_1: u64 = 1 << 32;

/// What every device here offers beside its own features.
pub const OFFERED: u64 = RING_INDIRECT_DESC | RING_EVENT_IDX | VERSION_1;
