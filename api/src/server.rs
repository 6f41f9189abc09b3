//! The API's server: connections as state machines that never wait, turned by whoever polls their
//! descriptors. It carries requests and answers and knows nothing of what they mean.
//!
//! A loop around it is: [`watch`](Server::watch), poll until [`deadline`](Server::deadline),
//! [`turn`](Server::turn), then [`take`](Server::take) and [`answer`](Server::answer), at once or
//! later.
//! In a turn each connection gives one request at most, so that no client waits for what another
//! one has still to ask.

mod connection;

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::error::{ApiError, Code, Dialect};
use crate::http::parse::BODY_BYTES;
use crate::http::{Request, Response};
use crate::socket::Listener;
use connection::Connection;

/// How much a client may have of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Connections at a time.
    pub connections: usize,
    /// How long a connection may be without a request, while there is room for others.
    pub idle: Duration,
    /// How long it keeps its place without a request when others want it.
    pub grace: Duration,
    /// How long a request may take to arrive, from its first byte to its last.
    pub request: Duration,
    /// How long a client may take to read an answer.
    pub answer: Duration,
    /// How long a connection that the server has ended waits for the client to see it.
    pub linger: Duration,
    /// Connections that are streams, so that there is room for others.
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: BODY_BYTES,
            connections: 10,
            idle: Duration::from_secs(300),
            grace: Duration::from_secs(1),
            request: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            streams: 5,
        }
    }
}

/// How long nobody is accepted after the host had no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Most connections that are accepted in a turn.
const ACCEPTS_A_TURN: usize = 16;

/// Says which request an answer is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The server.
#[derive(Debug)]
pub struct Server {
    listener: Option<Listener>,
    limits: Limits,
    connections: Vec<Connection>,
    /// The number of the next connection.
    number: u64,
    /// Until when nobody is accepted.
    paused: Option<Instant>,
    now: Instant,
}

impl Server {
    /// A server of those who connect to `listener`; without one, of those it is
    /// [given](Self::adopt).
    #[must_use]
    pub fn new(listener: Option<Listener>, limits: Limits) -> Self {
        Self {
            listener,
            limits,
            connections: Vec::new(),
            number: 0,
            paused: None,
            now: Instant::now(),
        }
    }

    /// Serves `stream` too.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn adopt(&mut self, stream: UnixStream, now: Instant) -> std::io::Result<()> {
        stream.set_nonblocking(true)?;
        self.admit(stream, now);
        Ok(())
    }

    /// Adds the descriptors to be polled, and for what.
    pub fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        fds.extend(self.listening().map(|one| PollFd::new(one, PollFlags::IN)));
        let watched = self.connections.iter().filter_map(|one| {
            let interest = one.interest()?;
            Some(PollFd::from_borrowed_fd(one.as_fd(), interest))
        });
        fds.extend(watched);
    }

    /// When the next turn is due whatever the descriptors do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let connections = self.connections.iter();
        let deadlines = connections.filter_map(|one| one.deadline(&self.limits, self.now));
        deadlines.chain(self.paused).min()
    }

    /// Reads and writes what can be. `ready` is what poll said of the descriptors of
    /// [`watch`](Self::watch), in their order.
    pub fn turn(&mut self, ready: &[PollFlags], now: Instant) {
        self.now = now;
        let mut ready = ready.iter().copied();
        let listening = self.listening().is_some();
        let waiting = listening && ready.next().is_some_and(|flags| !flags.is_empty());
        let watched = self.connections.iter_mut();
        let watched = watched.filter(|one| one.interest().is_some());
        for (connection, flags) in watched.zip(ready) {
            connection.ready(flags, now);
        }
        for connection in &mut self.connections {
            connection.begin_turn(&self.limits, now);
        }
        self.connections.retain(|one| !one.is_closed());
        if self.paused.is_some_and(|until| now >= until) {
            self.paused = None;
        }
        if waiting {
            self.accept(now);
        }
    }

    /// The next request of this turn.
    pub fn take(&mut self) -> Option<(Ticket, Request)> {
        let now = self.now;
        self.connections.iter_mut().find_map(|connection| {
            let request = connection.request(now)?;
            Some((Ticket(connection.number()), request))
        })
    }

    /// Answers a request. A client that has gone gets nothing.
    #[expect(clippy::needless_pass_by_value, reason = "a request is answered once")]
    pub fn answer(&mut self, ticket: Ticket, response: &Response) {
        let now = self.now;
        let mut connections = self.connections.iter_mut();
        if let Some(connection) = connections.find(|one| one.number() == ticket.0) {
            connection.answer(response, now);
        }
    }

    /// Answers a request with a stream that begins with `line`, and goes on with every line that is
    /// [published](Self::publish).
    pub fn stream(&mut self, ticket: Ticket, line: &[u8]) {
        let streams = self.connections.iter().filter(|one| one.is_stream());
        if streams.count() >= self.limits.streams {
            let full = ApiError::new(
                Code::TooManyConnections,
                "as many clients as there can be follow the events",
                "close one of their connections and try again",
            );
            return self.answer(ticket, &full.response(Dialect::Coracle));
        }
        let now = self.now;
        let mut connections = self.connections.iter_mut();
        if let Some(connection) = connections.find(|one| one.number() == ticket.0) {
            connection.stream(line, now);
        }
    }

    /// Gives a line to all streams. One whose client does not keep up loses it, and is told so.
    pub fn publish(&mut self, line: &[u8]) {
        let now = self.now;
        for connection in &mut self.connections {
            connection.publish(line, now);
        }
    }

    /// Ends all streams, as far as their clients take it now.
    pub fn end_streams(&mut self) {
        let now = self.now;
        for connection in &mut self.connections {
            connection.end_stream(now);
        }
    }

    fn listening(&self) -> Option<&Listener> {
        self.listener.as_ref().filter(|_| self.paused.is_none())
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(listener) = &self.listener else {
                return;
            };
            match listener.accept() {
                Ok(Some(stream)) => self.admit(stream.into(), now),
                Ok(None) => return,
                // That client has gone already, or a signal came.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(_) => {
                    // No descriptor or memory left. The client waits; poll would not.
                    self.paused = Some(now.checked_add(PAUSE).unwrap_or(now));
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, now: Instant) {
        if self.connections.len() >= self.limits.connections && !self.make_room(now) {
            refuse(stream, now);
            return;
        }
        self.connections
            .push(Connection::new(stream, self.number, self.limits.body, now));
        self.number = self.number.wrapping_add(1);
    }

    /// Ends the connection that has been without a request for longest, if one has been for long
    /// enough.
    fn make_room(&mut self, now: Instant) -> bool {
        let places = self.connections.iter().enumerate();
        let idle = places.filter_map(|(place, one)| Some((one.idle_since()?, place)));
        match idle.min() {
            Some((since, place)) if now.saturating_duration_since(since) >= self.limits.grace => {
                self.connections.remove(place);
                true
            }
            _ => false,
        }
    }
}

/// Tells a client that there is no place, if it can be told at once.
fn refuse(stream: UnixStream, now: Instant) {
    let full = ApiError::new(
        Code::TooManyConnections,
        "as many clients as there can be are connected",
        "close connections that are not needed and try again",
    );
    let response = full.plain(503).with("Retry-After", "1");
    Connection::new(stream, 0, 0, now).end_with(&response, now);
}

#[cfg(test)]
mod tests;
