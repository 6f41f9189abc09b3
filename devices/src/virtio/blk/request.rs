//! A request on its way: what it asks for, checked, and what of it is still to be done.

use std::borrow::Cow;

use zerocopy::IntoBytes;

use super::wire::{self, Header, Segment, Status, kind};
use super::{ID_BYTES, MOST_RANGE_SECTORS, MOST_SEGMENTS};
use crate::disk::engine::Task;
use crate::disk::{SECTOR_BYTES, TransferError, spans};
use crate::ram::GuestRam;
use crate::virtio::chain::StatusByte;
use crate::virtio::{Chain, Span};

/// The most of a transfer that is done at once: a turn of the loop stays short.
pub(super) const PIECE_BYTES: u64 = 4 << 20;
/// The most of a range that is discarded or zeroed at once.
const RANGE_PIECE_BYTES: u64 = 256 << 20;

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// It breaks a rule or asks for what does not exist.
    Refused(Status),
    /// The host failed; what it was doing then.
    Host(Task, TransferError),
}

/// What the device is, as far as requests are judged by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The capacity in bytes.
    pub(super) bytes: u64,
    pub(super) read_only: bool,
    /// The features that the driver accepted.
    pub(super) features: u64,
}

/// What a request asks for.
#[derive(Debug)]
enum Work {
    Transfer { write: bool, offset: u64, len: u64 },
    Ranges { zero: bool, list: Vec<Segment> },
    Flush,
    Identify,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Step {
    pub(super) task: Task,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A request that was taken from its queue.
#[derive(Debug)]
pub(super) struct Request {
    /// The queue that it came from.
    pub(super) line: usize,
    chain: Chain,
    status: StatusByte,
    work: Work,
    /// Bytes of the transfer, or of the range at `range`, that are done.
    done: u64,
    range: usize,
    /// Whether a flush is still to come, after all else.
    flush: bool,
    /// Bytes of the transfer that the limits let through, and whether they did the operation.
    paid: u64,
    counted: bool,
    /// Whether it has been told of as one that waits for the limits.
    pub(super) waited: bool,
}

/// A chain that was taken.
#[derive(Debug)]
pub(super) enum Taken {
    Request(Request),
    Wrong(Wrong),
}

/// A chain that is no request.
#[derive(Debug)]
pub(super) struct Wrong {
    chain: Chain,
    /// What it is answered, if it has room for that.
    answer: Option<(StatusByte, Status)>,
}

impl Wrong {
    pub(super) fn is_malformed(&self) -> bool {
        self.answer.is_none()
    }

    /// Ends it: the chain, and how many bytes of its writable part are filled.
    pub(super) fn end(self, ram: &GuestRam) -> (Chain, u32) {
        let written = match self.answer {
            Some((status, code)) => {
                answer(status, ram, code);
                written(0, self.chain.writable_bytes())
            }
            None => 0,
        };
        (self.chain, written)
    }
}

impl Request {
    /// Reads a request and judges it by itself; nothing is done yet. `write_back` says whether
    /// writes last only after a flush.
    pub(super) fn parse(
        line: usize,
        mut chain: Chain,
        ram: &GuestRam,
        terms: Terms,
        write_back: impl FnOnce() -> bool,
    ) -> Taken {
        let Some(status) = chain.split_status() else {
            let answer = None;
            return Taken::Wrong(Wrong { chain, answer });
        };
        let work = match work(&mut chain, ram, terms) {
            Ok(work) => work,
            Err(code) => {
                let answer = Some((status, code));
                return Taken::Wrong(Wrong { chain, answer });
            }
        };
        let flush = match work {
            Work::Flush => !terms.read_only,
            // A driver that does not flush expects every write to last (5.2.6.2).
            Work::Transfer { write: true, .. } | Work::Ranges { .. } => !write_back(),
            Work::Transfer { write: false, .. } | Work::Identify => false,
        };
        Taken::Request(Self {
            line,
            chain,
            status,
            work,
            done: 0,
            range: 0,
            flush,
            paid: 0,
            counted: false,
            waited: false,
        })
    }

    /// What comes next, with at most so much of a transfer; nothing when all is done.
    pub(super) fn next(&self, most: u64) -> Option<Step> {
        let Work::Transfer { write, offset, len } = self.work else {
            return self.next_rare();
        };
        let left = len.saturating_sub(self.done).min(most);
        if left == 0 {
            return self.last_flush();
        }
        Some(Step {
            task: if write { Task::Write } else { Task::Read },
            offset: offset.saturating_add(self.done),
            len: left,
        })
    }

    fn last_flush(&self) -> Option<Step> {
        self.flush.then_some(Step {
            task: Task::Flush,
            offset: 0,
            len: 0,
        })
    }

    /// The next step of what is no transfer. A function of its own keeps the way of transfers
    /// free of a jump through a table, which no CPU foresees right after a system call.
    #[inline(never)]
    fn next_rare(&self) -> Option<Step> {
        match &self.work {
            Work::Ranges { zero, list } => {
                let Some(segment) = list.get(self.range) else {
                    return self.last_flush();
                };
                let task = if *zero {
                    let unmap = segment.flags.get() & wire::UNMAP != 0;
                    Task::Zero { unmap }
                } else {
                    Task::Discard
                };
                let start = segment.sector.get().saturating_mul(SECTOR_BYTES);
                let left = range_bytes(segment).saturating_sub(self.done);
                let offset = start.saturating_add(self.done);
                let len = left.min(RANGE_PIECE_BYTES);
                Some(Step { task, offset, len })
            }
            Work::Flush => self.last_flush(),
            Work::Transfer { .. } | Work::Identify => None,
        }
    }

    /// What the limits have to let through before a step: bytes and operations.
    pub(super) fn price(&self, step: Option<Step>) -> (u64, u64) {
        let bytes = match (&self.work, step) {
            (Work::Transfer { .. }, Some(step)) if step.task != Task::Flush => {
                let end = self.done.saturating_add(step.len);
                end.saturating_sub(self.paid.max(self.done))
            }
            _ => 0,
        };
        (bytes, u64::from(!self.counted))
    }

    /// The limits let through what a step costs.
    pub(super) fn pay(&mut self, bytes: u64) {
        self.paid = self.paid.max(self.done).saturating_add(bytes);
        self.counted = true;
    }

    /// The memory that a step moves.
    pub(super) fn spans(&self, step: Step) -> Cow<'_, [Span]> {
        let Work::Transfer { write, len, .. } = self.work else {
            return Cow::Borrowed(&[]);
        };
        let all = if write {
            self.chain.readable()
        } else {
            self.chain.writable()
        };
        match step.task {
            Task::Flush => Cow::Borrowed(&[]),
            _ if step.len == len => Cow::Borrowed(all),
            _ => Cow::Owned(spans::cut(all, self.done, step.len)),
        }
    }

    /// A step is done.
    pub(super) fn advance(&mut self, step: Step) {
        if step.task == Task::Flush {
            self.flush = false;
            return;
        }
        self.done = self.done.saturating_add(step.len);
        if let Work::Ranges { list, .. } = &self.work {
            let whole = list.get(self.range).map_or(0, range_bytes);
            if self.done >= whole {
                self.range = self.range.saturating_add(1);
                self.done = 0;
            }
        }
    }

    /// What it is, for the counters: the task and how many bytes or ranges.
    pub(super) fn tally(&self) -> Option<(Task, u64)> {
        match &self.work {
            Work::Transfer { write, len, .. } => {
                let task = if *write { Task::Write } else { Task::Read };
                Some((task, *len))
            }
            Work::Ranges { zero: true, list } => {
                let unmap = false;
                Some((Task::Zero { unmap }, list.len() as u64))
            }
            Work::Ranges { list, .. } => Some((Task::Discard, list.len() as u64)),
            Work::Flush => Some((Task::Flush, 1)),
            Work::Identify => None,
        }
    }

    /// Ends it: the chain, and how many bytes of its writable part are filled from the front.
    pub(super) fn end(
        mut self,
        ram: &GuestRam,
        id: &[u8; ID_BYTES],
        result: &Result<(), Failure>,
    ) -> (Chain, u32) {
        let room = self.chain.writable_bytes();
        let filled = match (&self.work, result) {
            (Work::Transfer { write: false, .. }, Ok(())) => self.done,
            // The last piece came this far.
            (Work::Transfer { write: false, .. }, Err(Failure::Host(_, error))) => {
                self.done.saturating_add(error.done)
            }
            (Work::Identify, Ok(())) => self.chain.write(ram, id) as u64,
            _ => 0,
        };
        let code = match result {
            Ok(()) => Status::Ok,
            Err(Failure::Refused(code)) => *code,
            Err(Failure::Host(..)) => Status::IoError,
        };
        answer(self.status, ram, code);
        (self.chain, written(filled, room))
    }

    /// Lets go of it without an answer: its driver has taken the queue back.
    pub(super) fn abandon(self) -> Chain {
        self.chain
    }
}

fn answer(status: StatusByte, ram: &GuestRam, code: Status) {
    status.set(ram, code as u8);
}

/// The status comes last, so it counts only when all before it is filled (2.7.8.2).
fn written(filled: u64, room: u64) -> u32 {
    let all = if filled == room {
        filled.saturating_add(1)
    } else {
        filled
    };
    u32::try_from(all).unwrap_or_default()
}

fn work(chain: &mut Chain, ram: &GuestRam, terms: Terms) -> Result<Work, Status> {
    let header: Header = chain.take_header(ram).map_err(|_| Status::IoError)?;
    let sector = header.sector.get();
    let accepted = |feature| terms.features & feature != 0;
    match header.kind.get() {
        kind::IN => {
            let len = chain.writable_bytes();
            let offset = place(terms, sector, len)?;
            let write = false;
            Ok(Work::Transfer { write, offset, len })
        }
        kind::OUT => {
            let len = chain.readable_bytes();
            check_writable(terms)?;
            let offset = place(terms, sector, len)?;
            let write = true;
            Ok(Work::Transfer { write, offset, len })
        }
        kind::FLUSH => Ok(Work::Flush),
        kind::GET_ID if chain.writable_bytes() < ID_BYTES as u64 => Err(Status::IoError),
        kind::GET_ID => Ok(Work::Identify),
        kind::DISCARD if accepted(wire::F_DISCARD) => ranges(chain, ram, terms, false),
        kind::WRITE_ZEROES if accepted(wire::F_WRITE_ZEROES) => ranges(chain, ram, terms, true),
        // A read-only device fails every attempt to change it (5.2.6.2).
        kind::DISCARD | kind::WRITE_ZEROES if terms.read_only => Err(Status::IoError),
        _ => Err(Status::Unsupported),
    }
}

/// The ranges that a request lists, all of them checked, without empty ones.
fn ranges(chain: &mut Chain, ram: &GuestRam, terms: Terms, zero: bool) -> Result<Work, Status> {
    check_writable(terms)?;
    let bytes = usize::try_from(chain.readable_bytes()).unwrap_or(usize::MAX);
    let mut segments = [Segment::default(); MOST_SEGMENTS];
    let list = segments.as_mut_bytes().get_mut(..bytes);
    let list = list.filter(|list| !list.is_empty() && list.len() % size_of::<Segment>() == 0);
    chain.read(ram, list.ok_or(Status::IoError)?);
    let segments = segments
        .get(..bytes / size_of::<Segment>())
        .unwrap_or_default();
    let known = if zero { wire::UNMAP } else { 0 };
    for segment in segments {
        if segment.flags.get() & !known != 0 {
            return Err(Status::Unsupported);
        }
        if segment.sectors.get() > MOST_RANGE_SECTORS {
            return Err(Status::IoError);
        }
        place(terms, segment.sector.get(), range_bytes(segment))?;
    }
    let used = segments.iter().filter(|segment| segment.sectors.get() != 0);
    let list = used.copied().collect();
    Ok(Work::Ranges { zero, list })
}

fn range_bytes(segment: &Segment) -> u64 {
    u64::from(segment.sectors.get()).saturating_mul(SECTOR_BYTES)
}

fn check_writable(terms: Terms) -> Result<(), Status> {
    if terms.read_only {
        return Err(Status::IoError);
    }
    Ok(())
}

/// Where `len` bytes from `sector` on lie, if they are whole sectors of the disk.
fn place(terms: Terms, sector: u64, len: u64) -> Result<u64, Status> {
    let offset = sector.checked_mul(SECTOR_BYTES).ok_or(Status::IoError)?;
    let end = offset.checked_add(len).ok_or(Status::IoError)?;
    if !len.is_multiple_of(SECTOR_BYTES) || end > terms.bytes {
        return Err(Status::IoError);
    }
    Ok(offset)
}
