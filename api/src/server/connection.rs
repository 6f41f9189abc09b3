//! One client's connection.
//!
//! ```text
//! Receiving ──a whole request──▶ Asked ──answer──▶ Sending ──▶ Receiving, Lingering or Closed
//!     └──malformed, or too slow────┼─────────────────┤
//!                                  └──stream──▶ Streaming
//! ```

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::Limits;
use crate::error::{ApiError, Code};
use crate::events;
use crate::http::write::{CONTINUE, LAST_CHUNK, chunk, stream_head};
use crate::http::{Media, Method, Parser, Request, Response};

/// The most that is read from one client in a turn.
const READ_BYTES: usize = 16 << 10;

/// The most that is read from a client after its connection has been ended.
const LINGER_BYTES: usize = 256 << 10;

/// The most that waits for the client of a stream.
const STREAM_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Requests are read.
    Receiving,
    /// A request is being carried out.
    Asked { keep_alive: bool, with_body: bool },
    /// An answer is written; whether the connection goes on afterwards.
    Sending { keep_alive: bool },
    /// Lines are written as they come; how many were lost since the client last kept up.
    Streaming { lost: u64 },
    /// The server has ended it. What the client still sends is read and dropped, because to close
    /// a socket with unread bytes may take the answer from the client.
    Lingering { left: usize },
    /// At its end.
    Closed,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    number: u64,
    parser: Parser,
    /// What is to be written.
    out: Vec<u8>,
    state: State,
    /// When the state, or the request that is being read, began.
    since: Instant,
    /// The client sends no more.
    half_closed: bool,
    /// The client is gone altogether: poll would report it for ever.
    gone: bool,
    /// It has given a request in this turn.
    served: bool,
    /// What has been read may hold a request.
    unread: bool,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection {
    pub(super) fn new(stream: UnixStream, number: u64, body: usize, now: Instant) -> Self {
        Self {
            stream,
            number,
            parser: Parser::new(body),
            out: Vec::new(),
            state: State::Receiving,
            since: now,
            half_closed: false,
            gone: false,
            served: false,
            unread: false,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Since when it is without a request.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = self.state == State::Receiving && self.parser.is_idle() && self.out.is_empty();
        idle.then_some(self.since)
    }

    /// What it waits for; none while its client cannot matter.
    pub(super) fn interest(&self) -> Option<PollFlags> {
        let out = if self.out.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        match self.state {
            State::Receiving | State::Streaming { .. } if self.half_closed => Some(out),
            State::Receiving | State::Streaming { .. } => Some(out | PollFlags::IN),
            // Nothing is read meanwhile: a client that asks faster than it is answered waits.
            State::Asked { .. } if self.gone => None,
            State::Asked { .. } | State::Sending { .. } => Some(out),
            State::Lingering { .. } => Some(PollFlags::IN),
            State::Closed => None,
        }
    }

    pub(super) fn deadline(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        // One that ended after the turn's beginning is let go in the next.
        if self.is_closed() || (self.unread && self.state == State::Receiving) {
            return Some(now);
        }
        self.since.checked_add(self.patience(limits)?)
    }

    fn patience(&self, limits: &Limits) -> Option<Duration> {
        match self.state {
            State::Receiving if !self.out.is_empty() => Some(limits.answer),
            State::Receiving if self.parser.is_idle() => Some(limits.idle),
            State::Receiving => Some(limits.request),
            State::Sending { .. } => Some(limits.answer),
            State::Lingering { .. } => Some(limits.linger),
            // Whoever carries the request out sees to its end.
            State::Asked { .. } | State::Closed => None,
            // It may have nothing to tell for long, and holds nobody up.
            State::Streaming { .. } => None,
        }
    }

    /// Poll found it ready.
    pub(super) fn ready(&mut self, flags: PollFlags, now: Instant) {
        let ended = PollFlags::HUP | PollFlags::ERR;
        if flags.intersects(PollFlags::OUT | ended) && !self.out.is_empty() {
            self.write(now);
        }
        if flags.intersects(PollFlags::IN | ended) {
            match self.state {
                State::Receiving => self.read(now),
                State::Lingering { left } => self.drop_input(left),
                State::Asked { .. } => self.gone = true,
                State::Streaming { .. } if flags.intersects(ended) => self.state = State::Closed,
                State::Streaming { .. } => self.ignore_input(),
                State::Sending { .. } | State::Closed => {}
            }
        }
    }

    /// Starts a turn: ends what has taken too long.
    pub(super) fn begin_turn(&mut self, limits: &Limits, now: Instant) {
        self.served = false;
        let late = self.patience(limits).is_some_and(|patience| {
            let waited = now.saturating_duration_since(self.since);
            waited >= patience && !self.unread
        });
        if !late {
            return;
        }
        if self.state == State::Receiving && !self.parser.is_idle() && self.out.is_empty() {
            let slow = ApiError::new(
                Code::SlowRequest,
                "the request did not arrive in time",
                "send it in one piece",
            );
            self.end_with(&slow.plain(408), now);
        } else {
            self.state = State::Closed;
        }
    }

    /// The next request, if one is there and this turn has not had one yet.
    pub(super) fn request(&mut self, now: Instant) -> Option<Request> {
        if self.served || !self.unread || self.state != State::Receiving {
            return None;
        }
        match self.parser.request() {
            Ok(Some(request)) => {
                self.served = true;
                self.unread = false;
                self.state = State::Asked {
                    keep_alive: request.keep_alive,
                    with_body: request.method != Method::Head,
                };
                Some(request)
            }
            Ok(None) => {
                self.unread = false;
                if self.half_closed {
                    // The rest of it will never come.
                    self.state = State::Closed;
                } else if self.parser.wants_continue() {
                    self.out.extend_from_slice(CONTINUE);
                    self.write(now);
                }
                self.parser.shrink();
                None
            }
            Err(malformed) => {
                let response = ApiError::from(malformed).plain(malformed.status());
                self.end_with(&response, now);
                None
            }
        }
    }

    pub(super) fn answer(&mut self, response: &Response, now: Instant) {
        let State::Asked {
            keep_alive,
            with_body,
        } = self.state
        else {
            return;
        };
        // After a half-close only what has been read can follow.
        response.encode(keep_alive, with_body, &mut self.out);
        self.state = State::Sending { keep_alive };
        self.since = now;
        self.write(now);
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.out.len()
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// Answers with a stream.
    pub(super) fn stream(&mut self, line: &[u8], now: Instant) {
        if !matches!(self.state, State::Asked { .. }) {
            return;
        }
        self.out.extend_from_slice(&stream_head(Media::JsonLines));
        self.state = State::Streaming { lost: 0 };
        self.since = now;
        self.publish(line, now);
    }

    /// Gives a line to a stream; others are left alone.
    pub(super) fn publish(&mut self, line: &[u8], now: Instant) {
        let State::Streaming { lost } = &mut self.state else {
            return;
        };
        let full = self.out.len().saturating_add(line.len()) > STREAM_BYTES;
        if *lost > 0 || full {
            *lost = lost.saturating_add(1);
            return;
        }
        chunk(line, &mut self.out);
        self.write(now);
    }

    /// Ends a stream; others are left alone.
    pub(super) fn end_stream(&mut self, now: Instant) {
        if self.is_stream() {
            self.out.extend_from_slice(LAST_CHUNK);
            self.state = State::Sending { keep_alive: false };
            self.since = now;
            self.write(now);
        }
    }

    /// The client of a stream has nothing more to say, except that it goes.
    fn ignore_input(&mut self) {
        let mut bytes = [0; READ_BYTES];
        match rustix::net::recv(&self.stream, &mut bytes, RecvFlags::empty()) {
            Ok((_, 0)) => self.half_closed = true,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.state = State::Closed,
        }
    }

    /// Answers and ends the connection.
    pub(super) fn end_with(&mut self, response: &Response, now: Instant) {
        response.encode(false, true, &mut self.out);
        self.unread = false;
        self.state = State::Sending { keep_alive: false };
        self.since = now;
        self.write(now);
    }

    fn read(&mut self, now: Instant) {
        let mut bytes = [0; READ_BYTES];
        let most = self.parser.room().min(READ_BYTES);
        let room = bytes.get_mut(..most).unwrap_or_default();
        if room.is_empty() {
            return;
        }
        match rustix::net::recv(&self.stream, room, RecvFlags::empty()) {
            Ok((_, 0)) => {
                self.half_closed = true;
                // Once more: what is there may end in a request.
                self.unread = true;
            }
            Ok((_, len)) => {
                if self.parser.is_idle() {
                    self.since = now;
                }
                self.parser.push(bytes.get(..len).unwrap_or_default());
                self.unread = true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.state = State::Closed,
        }
    }

    fn write(&mut self, now: Instant) {
        // A client that has gone is told of by an error here, not by a signal.
        match rustix::net::send(&self.stream, &self.out, SendFlags::NOSIGNAL) {
            Ok(len) => drop(self.out.drain(..len.min(self.out.len()))),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                self.state = State::Closed;
                return;
            }
        }
        if !self.out.is_empty() {
            return;
        }
        self.out = Vec::new();
        match self.state {
            State::Streaming { lost: 1.. } => self.tell_of_loss(),
            State::Sending { keep_alive: true } => {
                self.state = State::Receiving;
                self.since = now;
                self.unread = !self.parser.is_idle() || self.half_closed;
                self.parser.shrink();
            }
            State::Sending { keep_alive: false } => {
                self.since = now;
                self.state = match rustix::net::shutdown(&self.stream, Shutdown::Write) {
                    Ok(()) if !self.half_closed => State::Lingering { left: LINGER_BYTES },
                    _ => State::Closed,
                };
            }
            _ => {}
        }
    }

    /// The client keeps up again. There is room: nothing waits for it.
    fn tell_of_loss(&mut self) {
        if let State::Streaming { lost } = &mut self.state {
            let line = events::lost(std::mem::take(lost));
            chunk(&line, &mut self.out);
        }
    }

    fn drop_input(&mut self, left: usize) {
        let mut bytes = [0; READ_BYTES];
        self.state = match rustix::net::recv(&self.stream, &mut bytes, RecvFlags::empty()) {
            Ok((_, len @ 1..)) if len < left => State::Lingering {
                left: left.saturating_sub(len),
            },
            Err(Errno::AGAIN | Errno::INTR) => State::Lingering { left },
            _ => State::Closed,
        };
    }
}
