//! One connection: a socket of a host program on the one side, packets of the guest on the other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};

use super::counters::{Counters, add, bump};
use super::credit::{Credit, Exhausted, Violation};
use super::inbox::{Inbox, Received};
use super::wire::{HOST_CID, Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, STREAM, op};
use crate::ram::GuestRam;
use crate::sys::stream::Pieces;
use crate::virtio::Span;

/// How much of one connection is moved to the guest before the others have their turn.
pub(super) const READ_A_TURN: usize = 256 << 10;
/// How soon the guest is asked again for credit that it need not tell of by itself.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// How far that time doubles.
const ASK_AGAIN_MOST: Duration = Duration::from_secs(1);

/// The ports of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key {
    /// The host's.
    pub(super) host: u32,
    /// The guest's.
    pub(super) guest: u32,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// A host program wants it and the guest has not answered.
    Asking,
    /// Data may flow.
    Open,
    /// Over for the guest; what it sent waits for a slow host program.
    Lingering,
}

/// Packets that are to be sent when the guest has a buffer, one bit each, first things first.
pub(super) mod due {
    pub(in super::super) const REQUEST: u8 = 1 << 0;
    pub(in super::super) const RESPONSE: u8 = 1 << 1;
    pub(in super::super) const CREDIT_REQUEST: u8 = 1 << 2;
    pub(in super::super) const CREDIT_UPDATE: u8 = 1 << 3;
    pub(in super::super) const SHUTDOWN: u8 = 1 << 4;
}

/// Which ways are closed, and by whom.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    /// The guest will send no more.
    pub(super) guest_sent_all: bool,
    /// The guest will receive no more.
    pub(super) guest_is_deaf: bool,
    /// The host program will send no more.
    pub(super) host_sent_all: bool,
    /// The host program will receive no more.
    pub(super) host_is_deaf: bool,
    /// The host program was told that the guest will send no more.
    write_closed: bool,
}

/// What is waited for with a time limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wait {
    /// The guest's answer to a request.
    Answer,
    /// The end of a connection over which nothing can flow any more.
    Close,
    /// A slow host program.
    Linger,
    /// The time to ask for credit again.
    Ask,
}

/// What came of reading from the host program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reading {
    /// All that could be done is done.
    Done,
    /// The host program's socket is broken.
    Broken,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) cid: u64,
    pub(super) socket: OwnedFd,
    pub(super) phase: Phase,
    pub(super) credit: Credit,
    pub(super) ends: Ends,
    pub(super) due: u8,
    /// Whether it stands in the list of those that have packets due.
    pub(super) listed: bool,
    /// Whether its socket is watched for data, and for room.
    pub(super) watched: (bool, bool),
    pub(super) wait: Option<(Instant, Wait)>,
    pub(super) room: u32,
    /// Why data of the host program has to wait.
    pub(super) blocked: Option<Exhausted>,
    ask_again: Duration,
    // From the guest, for a host program that takes no more now; at most `room` bytes.
    pending: VecDeque<u8>,
}

impl Connection {
    pub(super) fn new(
        key: Key,
        cid: u64,
        socket: OwnedFd,
        phase: Phase,
        (room, first_count): (u32, u32),
    ) -> Self {
        Self {
            key,
            cid,
            socket,
            phase,
            credit: Credit::new(room, first_count),
            ends: Ends::default(),
            due: 0,
            listed: false,
            watched: (false, false),
            wait: None,
            room,
            blocked: None,
            ask_again: ASK_AGAIN,
            pending: VecDeque::new(),
        }
    }

    /// A packet of this connection to the guest, without data.
    fn header(&mut self, op: u16) -> Header {
        let (buf_alloc, fwd_cnt) = self.credit.tell();
        self.due &= !due::CREDIT_UPDATE;
        Header {
            op: op.into(),
            buf_alloc: buf_alloc.into(),
            fwd_cnt: fwd_cnt.into(),
            ..address(self.key, self.cid)
        }
    }

    /// The packet that ends it.
    pub(super) fn reset(&mut self) -> Header {
        self.header(op::RST)
    }

    /// The next packet that is due.
    pub(super) fn next_due(&mut self) -> Option<Header> {
        let bit = 1_u8.checked_shl(self.due.trailing_zeros())?;
        self.due &= !bit;
        let op = match bit {
            due::REQUEST => op::REQUEST,
            due::RESPONSE => op::RESPONSE,
            due::CREDIT_REQUEST => op::CREDIT_REQUEST,
            due::CREDIT_UPDATE => op::CREDIT_UPDATE,
            due::SHUTDOWN => op::SHUTDOWN,
            _ => return None,
        };
        let mut header = self.header(op);
        if op == op::SHUTDOWN {
            let receive = if self.ends.host_is_deaf {
                SHUTDOWN_RECEIVE
            } else {
                0
            };
            let send = if self.ends.host_sent_all {
                SHUTDOWN_SEND
            } else {
                0
            };
            header.flags = (receive | send).into();
        }
        Some(header)
    }

    /// Takes the credit that a packet of the guest tells of.
    pub(super) fn told(&mut self, header: &Header) -> Result<(), Violation> {
        let (buf_alloc, fwd_cnt) = (header.buf_alloc.get(), header.fwd_cnt.get());
        if self.credit.told(buf_alloc, fwd_cnt)? {
            self.ask_again = ASK_AGAIN;
        }
        if self.blocked.is_some() {
            self.blocked = self.credit.exhausted();
        }
        Ok(())
    }

    /// Asks for credit once more, later and later.
    pub(super) fn ask(&mut self) {
        self.due |= due::CREDIT_REQUEST;
        self.ask_again = self.ask_again.saturating_mul(2).min(ASK_AGAIN_MOST);
    }

    /// What is waited for now, and for how long by its own account.
    pub(super) fn waits_for(&self) -> Option<(Wait, Option<Duration>)> {
        match self.phase {
            Phase::Asking => Some((Wait::Answer, None)),
            Phase::Lingering => Some((Wait::Linger, None)),
            Phase::Open if self.is_over() => Some((Wait::Close, None)),
            Phase::Open if self.blocked == Some(Exhausted::Packets) => {
                Some((Wait::Ask, Some(self.ask_again)))
            }
            Phase::Open => None,
        }
    }

    /// Whether nothing can flow any more, either way.
    fn is_over(&self) -> bool {
        let ends = &self.ends;
        let down = ends.host_sent_all || ends.guest_is_deaf;
        let up = ends.host_is_deaf || (ends.guest_sent_all && self.pending.is_empty());
        down && up
    }

    /// Whether data of the host program is wanted, and room for the guest's.
    pub(super) fn wants(&self) -> (bool, bool) {
        let ends = &self.ends;
        let down = self.phase == Phase::Open
            && !ends.host_sent_all
            && !ends.guest_is_deaf
            && self.blocked.is_none();
        (down, !self.pending.is_empty())
    }

    /// How much of the guest's data waits for the host program.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Moves data from the host program to the guest, for one turn; adds to `moved`.
    pub(super) fn read(
        &mut self,
        inbox: &mut Inbox,
        counters: &mut Counters,
        moved: &mut usize,
        hung_up: bool,
    ) -> Reading {
        let mut budget = READ_A_TURN;
        while budget > 0 && self.wants().0 {
            if let Some(why) = self.credit.exhausted() {
                self.blocked = Some(why);
                self.due |= due::CREDIT_REQUEST;
                break;
            }
            let bytes = usize::try_from(self.credit.bytes()).unwrap_or(usize::MAX);
            let limits = (bytes.min(budget), self.credit.packets());
            let Self {
                key, cid, credit, ..
            } = self;
            let mut data = |len| {
                credit.sent(len);
                let (buf_alloc, fwd_cnt) = credit.tell();
                Header {
                    len: len.into(),
                    op: op::RW.into(),
                    buf_alloc: buf_alloc.into(),
                    fwd_cnt: fwd_cnt.into(),
                    ..address(*key, *cid)
                }
            };
            match inbox.receive(&self.socket, limits, counters, &mut data) {
                Received::Data { bytes, all } => {
                    self.due &= !due::CREDIT_UPDATE;
                    *moved = moved.saturating_add(bytes);
                    budget = budget.saturating_sub(bytes);
                    if all {
                        break;
                    }
                }
                Received::Nothing | Received::Starved => break,
                Received::End => {
                    self.ends.host_sent_all = true;
                    self.ends.host_is_deaf |= hung_up;
                    self.due |= due::SHUTDOWN;
                }
                Received::Failed(error) => {
                    log::debug!("vsock: reading from a host program: {error}");
                    bump(&mut counters.rx_read_fails);
                    return Reading::Broken;
                }
            }
        }
        if self.ends.host_is_deaf {
            self.drop_pending();
        }
        Reading::Done
    }

    /// Moves `len` bytes from the guest's `spans` to the host program, or keeps them for it.
    pub(super) fn write(
        &mut self,
        ram: &GuestRam,
        spans: &[Span],
        len: u32,
        counters: &mut Counters,
    ) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        add(&mut counters.tx_bytes, len);
        let mut done = 0;
        while done < len && self.pending.is_empty() && !self.ends.host_is_deaf {
            let mut pieces = Pieces::new(ram);
            let wanted = pieces.add(spans, done as u64, len.saturating_sub(done));
            match pieces.send(&self.socket) {
                Ok(sent) => {
                    self.forwarded(sent);
                    done = done.saturating_add(sent);
                    if sent < wanted || sent == 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.host_is_gone(&error, counters),
            }
        }
        if self.ends.host_is_deaf {
            // The guest hears of it; until then what it sends is lost, as with TCP.
            self.forwarded(len.saturating_sub(done));
        } else if done < len {
            self.keep(ram, spans, done, len);
        }
    }

    /// Copies the bytes from `done` to `len` of `spans` out of guest memory.
    fn keep(&mut self, ram: &GuestRam, spans: &[Span], done: usize, len: usize) {
        if self.pending.capacity() == 0 {
            // Once and for all: credit keeps it from ever growing.
            let room = usize::try_from(self.room).unwrap_or_default();
            self.pending.reserve_exact(room);
        }
        let mut skip = done as u64;
        let mut left = len.saturating_sub(done) as u64;
        let mut chunk = [0; 4096];
        for span in spans {
            let mut at = skip.min(span.len.into());
            skip = skip.saturating_sub(at);
            while at < span.len.into() && left > 0 {
                let count = left
                    .min(u64::from(span.len).saturating_sub(at))
                    .min(chunk.len() as u64);
                let part = usize::try_from(count).unwrap_or_default();
                let part = chunk.get_mut(..part).unwrap_or_default();
                // A span was found to be memory when its chain was taken.
                let _ = ram.read_bytes(span.at.wrapping_add(at), part);
                self.pending.extend(&*part);
                at = at.saturating_add(count);
                left = left.saturating_sub(count);
            }
        }
    }

    /// Hands what waits to the host program: whether any of it went.
    pub(super) fn flush(&mut self, counters: &mut Counters) -> bool {
        let mut progress = false;
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match rustix::net::send(&self.socket, front, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    let sent = sent.min(self.pending.len());
                    self.pending.drain(..sent);
                    self.forwarded(sent);
                    progress = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => self.host_is_gone(&error.into(), counters),
            }
        }
        progress
    }

    /// Tells a host program that the guest accepted: whether it could be told.
    pub(super) fn greet(&mut self) -> bool {
        let line = super::greeting::accepted(self.key.host);
        // A fresh socket has room for a line; one that has none is closed.
        let sent = rustix::net::send(&self.socket, line.as_bytes(), SendFlags::NOSIGNAL);
        sent.is_ok_and(|sent| sent == line.len())
    }

    /// The guest will send no more, receive no more, or both.
    pub(super) fn shut_down(&mut self, flags: u32) {
        self.ends.guest_sent_all |= flags & SHUTDOWN_SEND != 0;
        if flags & SHUTDOWN_RECEIVE != 0 && !self.ends.guest_is_deaf {
            self.ends.guest_is_deaf = true;
            // It fails for a socket whose other end is gone, which is as good.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Read);
        }
    }

    /// Passes the end of the guest's data on, once all of it is.
    pub(super) fn pass_on_the_end(&mut self) {
        if self.ends.guest_sent_all && self.pending.is_empty() && !self.ends.write_closed {
            self.ends.write_closed = true;
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// The host program reads no more: what waits for it is lost and the guest has to know.
    fn host_is_gone(&mut self, error: &io::Error, counters: &mut Counters) {
        log::debug!("vsock: writing to a host program: {error}");
        bump(&mut counters.tx_write_fails);
        self.ends.host_is_deaf = true;
        self.due |= due::SHUTDOWN;
        self.drop_pending();
    }

    fn drop_pending(&mut self) {
        let lost = self.pending.len();
        self.pending.clear();
        self.forwarded(lost);
    }

    fn forwarded(&mut self, len: usize) {
        // At most the room, which is 32 bits.
        self.credit
            .forwarded(u32::try_from(len).unwrap_or_default());
    }
}

fn address(key: Key, cid: u64) -> Header {
    Header {
        src_cid: HOST_CID.into(),
        dst_cid: cid.into(),
        src_port: key.host.into(),
        dst_port: key.guest.into(),
        kind: STREAM.into(),
        ..Header::default()
    }
}
