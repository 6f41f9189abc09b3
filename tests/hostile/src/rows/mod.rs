//! The table.

use crate::step::{At, BUFFERS, Row, Step};

pub mod ring;
pub mod subjects;

/// Descriptor flag: another descriptor follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: for the device to write.
pub const WRITE: u16 = 2;
/// Descriptor flag: a table of descriptors.
pub const INDIRECT: u16 = 4;
/// Feature: descriptors may be tables.
pub const F_INDIRECT: u64 = 1 << 28;
/// Feature: both sides say when they want to hear.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Feature: virtio 1.0, which every driver accepts.
pub const F_VERSION_1: u64 = 1 << 32;

/// All rows.
#[must_use]
pub fn all() -> Vec<Row> {
    ring::rows()
}

/// The disk behind the subject `block`: 64 sectors, each of them full of its number plus one.
#[must_use]
pub fn disk_image() -> Vec<u8> {
    (1..=64_u8).flat_map(|sector| [sector; 512]).collect()
}

/// A place among the row's buffers.
#[must_use]
pub fn buffer(offset: u64) -> At {
    At::Memory(BUFFERS + offset)
}

/// A piece of a request: where, how long, and whether the device writes it.
pub type Piece = (At, u32, bool);

/// Writes a chain from descriptor `head` on, without wrapping.
#[must_use]
pub fn chain(queue: u16, head: u16, pieces: &[Piece]) -> Vec<Step> {
    let last = pieces.len().saturating_sub(1);
    let steps = (head..).zip(pieces.iter().enumerate());
    steps
        .map(|(index, (number, &(at, len, writable)))| {
            let write = if writable { WRITE } else { 0 };
            let flags = if number == last { write } else { write | NEXT };
            let next = if number == last { 0 } else { index + 1 };
            Step::Descriptor {
                queue,
                index,
                at,
                len,
                flags,
                next,
            }
        })
        .collect()
}

/// Writes a chain from descriptor `head` on, publishes it and rings.
#[must_use]
pub fn request(queue: u16, head: u16, pieces: &[Piece]) -> Vec<Step> {
    let mut steps = chain(queue, head, pieces);
    steps.push(Step::Publish(queue, head));
    steps.push(Step::Kick(queue.into()));
    steps
}

/// One list of steps after the other.
#[must_use]
pub fn join(parts: impl IntoIterator<Item = Vec<Step>>) -> Vec<Step> {
    parts.into_iter().flatten().collect()
}
