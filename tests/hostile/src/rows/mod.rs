//! The table.

use crate::access::Transport;
use crate::step::{At, BUFFERS, Row, Step, Subject};

pub mod balloon;
pub mod block;
pub mod config;
pub mod console;
pub mod engine;
pub mod held;
pub mod net;
pub mod registers;
pub mod ring;
pub mod rng;
pub mod subjects;
pub mod transport;
pub mod vsock;

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
    [
        ring::rows(),
        held::rows(),
        transport::rows(),
        registers::rows(),
        config::rows(),
        block::rows(),
        engine::rows(),
        vsock::rows(),
        net::rows(),
        balloon::rows(),
        console::rows(),
        rng::rows(),
    ]
    .concat()
}

/// All devices, for what is done with each of them.
#[must_use]
pub fn subjects() -> Vec<&'static Subject> {
    vec![
        &subjects::RNG,
        &subjects::BLOCK,
        &subjects::BLOCK_WRITTEN,
        &subjects::BLOCK_READ_ONLY,
        &engine::URING,
        &engine::LATE,
        &held::HOLDER,
        &config::CHANGER,
        &vsock::VSOCK,
        &net::NET,
        &net::NET_MQ,
        &console::CONSOLE,
        &console::PORTS,
        &balloon::BALLOON,
    ]
}

/// A list of rows that is being written. Rows are numbered as they come: new ones go to the end.
#[derive(Debug)]
pub struct List {
    prefix: &'static str,
    only: Option<Transport>,
    rows: Vec<Row>,
}

impl List {
    /// An empty list; ids are the prefix and a number.
    #[must_use]
    pub fn new(prefix: &'static str) -> List {
        List {
            prefix,
            only: None,
            rows: Vec::new(),
        }
    }

    /// What follows is for this transport only, or for all.
    pub fn only(&mut self, transport: impl Into<Option<Transport>>) {
        self.only = transport.into();
    }

    /// Adds a row.
    pub fn add(
        &mut self,
        subject: &'static Subject,
        spec: &'static str,
        about: impl Into<String>,
        steps: impl IntoIterator<Item = Vec<Step>>,
    ) {
        let id = format!("{}-{:03}", self.prefix, self.rows.len() + 1);
        let steps = steps.into_iter().flatten().collect();
        let mut row = Row::new(id, subject, spec, about, steps);
        row.only = self.only;
        self.rows.push(row);
    }

    /// The rows.
    #[must_use]
    pub fn rows(self) -> Vec<Row> {
        self.rows
    }
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

/// A good start with these features beside the one that every driver accepts.
#[must_use]
pub fn start(features: u64) -> Vec<Step> {
    vec![Step::Start(F_VERSION_1 | features)]
}

/// A descriptor of queue 0.
#[must_use]
pub fn d(index: u16, at: At, len: u32, flags: u16, next: u16) -> Step {
    Step::Descriptor {
        queue: 0,
        index,
        at,
        len,
        flags,
        next,
    }
}

/// A descriptor of a table anywhere.
#[must_use]
pub fn t(table: At, index: u16, at: At, len: u32, flags: u16, next: u16) -> Step {
    Step::Indirect {
        table,
        index,
        at,
        len,
        flags,
        next,
    }
}

/// Hands a chain of queue 0 over and rings.
#[must_use]
pub fn go(head: u16) -> Vec<Step> {
    vec![Step::Publish(0, head), Step::Kick(0)]
}

/// These came back on queue 0.
#[must_use]
pub fn used(entries: &[(u16, u32)]) -> Vec<Step> {
    vec![Step::ExpectUsed(0, entries.to_vec())]
}

/// The device is out of service: it says so once, gives nothing back, and stays so until it is
/// reset, which mends it.
#[must_use]
pub fn latched() -> Vec<Step> {
    vec![
        Step::ExpectNeedsReset,
        Step::ExpectReasons(2),
        Step::ExpectInterrupt(true),
        Step::ExpectUsed(0, vec![]),
        Step::Kick(0),
        Step::ExpectUsed(0, vec![]),
        Step::ExpectReasons(0),
        Step::ExpectInterrupt(false),
        Step::Revive,
    ]
}

/// The device works on as if nothing had been.
#[must_use]
pub fn revive() -> Vec<Step> {
    vec![Step::Revive]
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
