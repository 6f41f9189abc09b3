//! One TCP connection: the engine's socket on the guest's side, the host's on the other.

use super::buffers::Machine;
use super::names::Inspector;
use crate::error::is_again;
use crate::host;
use crate::net::Net;
use crate::poller::EventFlags;
use crate::wire::Packet;
use crate::wire::tcp::Segment;
use rustix::fd::OwnedFd;
use rustix::net::Shutdown;
use smoltcp::socket::tcp;
use std::net::SocketAddr;
use std::time::Instant;

/// Largest segment of a guest that says nothing (RFC 9293, 3.7.1).
const DEFAULT_MSS: u16 = 536;

/// Both ends as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) guest: SocketAddr,
    pub(super) remote: SocketAddr,
}

#[derive(Debug)]
pub(super) enum State {
    /// The other host has not answered; the guest's SYN waits.
    Connecting { syn: Vec<u8> },
    /// The engine has it.
    Open,
}

/// How the host's side ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything has been passed on, or nothing ever was.
    Quiet,
    /// The other host is told that the connection broke.
    Reset,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) socket: OwnedFd,
    pub(super) machine: Machine,
    pub(super) state: State,
    /// Largest segment that the guest takes.
    pub(super) mss: u16,
    pub(super) inspector: Option<Inspector>,
    pub(super) active: Instant,
    pub(super) armed: Option<Instant>,
    pub(super) dirty: bool,
    /// The published port for which the guest owes an answer.
    pub(super) unanswered: Option<u32>,
    /// The socket may have bytes, or room for some.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The other host has sent its last, so that a short read is not the last one.
    hung_up: bool,
    host_ended: bool,
    guest_ended: bool,
    broken: bool,
    said_last: bool,
}

/// The segment of a packet that was taken once already.
pub(super) fn segment_of(packet: &[u8]) -> Option<Segment> {
    let packet = match packet.first()? >> 4 {
        4 => Packet::ipv4(packet),
        _ => Packet::ipv6(packet),
    };
    Segment::fields(packet.ok()?.payload)
}

impl Flow {
    pub(super) fn new(key: Key, socket: OwnedFd, machine: Machine, now: Instant) -> Self {
        Self {
            key,
            socket,
            machine,
            state: State::Open,
            mss: DEFAULT_MSS,
            inspector: None,
            active: now,
            armed: None,
            dirty: false,
            unanswered: None,
            readable: false,
            writable: true,
            hung_up: false,
            host_ended: false,
            guest_ended: false,
            broken: false,
            said_last: false,
        }
    }

    /// Notes what happened at the socket.
    pub(super) fn ready(&mut self, flags: EventFlags) {
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.hung_up |= flags.intersects(ends);
        self.readable |= flags.intersects(ends | EventFlags::IN);
        self.writable |= flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
    }

    /// Lifts the limit on the time in which a guest answers a connection, once it has: an open one
    /// may be idle for ever. Says once which published port it was for.
    pub(super) fn guest_answered(&mut self) -> Option<u32> {
        let socket = self.machine.socket();
        if socket.state() == tcp::State::SynSent {
            return None;
        }
        if socket.timeout().is_some() {
            socket.set_timeout(None);
        }
        self.unanswered.take()
    }

    /// Moves bytes in both directions, as far as both sides have room, and passes on their ends.
    pub(super) fn move_bytes(&mut self, net: &mut Net) {
        if matches!(self.state, State::Connecting { .. }) {
            return;
        }
        self.fill_host(net);
        self.fill_guest(net);
        if self.broken {
            self.machine.socket().abort();
        }
    }

    fn fill_host(&mut self, net: &mut Net) {
        if self.inspector.is_some() {
            self.questions_to_host(net);
        } else {
            while self.writable && self.machine.socket().can_recv() {
                let host = &self.socket;
                let sent = self
                    .machine
                    .socket()
                    .recv(|data| match host::send(host, data) {
                        Ok(bytes) => (bytes, Ok(bytes == data.len())),
                        Err(errno) => (0, Err(errno)),
                    });
                match sent {
                    Ok(Ok(_)) => {}
                    Ok(Err(errno)) if is_again(errno) => self.writable = false,
                    _ => {
                        self.broken = true;
                        return;
                    }
                }
            }
        }
        let waits = self.inspector.as_ref().is_some_and(Inspector::waits);
        if self.guest_has_ended() && !self.guest_ended && !waits {
            self.guest_ended = true;
            // A host that has gone is seen when it is read from.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// True when the guest's end came and every byte before it is with the host.
    fn guest_has_ended(&mut self) -> bool {
        self.guest_closed() && !self.machine.socket().can_recv()
    }

    /// True when the guest has sent its last.
    fn guest_closed(&mut self) -> bool {
        use tcp::State::{CloseWait, Closing, LastAck, TimeWait};
        matches!(
            self.machine.socket().state(),
            CloseWait | Closing | LastAck | TimeWait
        )
    }

    fn questions_to_host(&mut self, net: &mut Net) {
        let Some(inspector) = &mut self.inspector else {
            return;
        };
        let socket = self
            .machine
            .sockets
            .get_mut::<tcp::Socket<'_>>(self.machine.handle);
        if !inspector.take_questions(net, socket) {
            self.broken = true;
            return;
        }
        while self.writable && inspector.waits() {
            match host::send(&self.socket, inspector.questions()) {
                Ok(bytes) => inspector.sent(bytes),
                Err(errno) if is_again(errno) => self.writable = false,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    fn fill_guest(&mut self, net: &mut Net) {
        while self.readable && !self.host_ended && self.machine.socket().can_send() {
            let (host, inspector) = (&self.socket, &mut self.inspector);
            let socket = self
                .machine
                .sockets
                .get_mut::<tcp::Socket<'_>>(self.machine.handle);
            let received = socket.send(|room| match host::receive(host, room) {
                Ok(bytes) => {
                    if let (Some(inspector), Some(data)) = (inspector, room.get(..bytes)) {
                        inspector.take_answers(net, data);
                    }
                    (bytes, Ok((bytes, room.len())))
                }
                Err(errno) => (0, Err(errno)),
            });
            match received {
                Ok(Ok((0, _))) => {
                    self.host_ended = true;
                    self.machine.socket().close();
                }
                // The socket is empty: more comes with an event.
                Ok(Ok((bytes, room))) => self.readable = bytes == room || self.hung_up,
                Ok(Err(errno)) if is_again(errno) => self.readable = false,
                _ => self.broken = true,
            }
            if self.broken {
                return;
            }
        }
    }

    /// True when both sides have ended and the guest knows it. The engine would forget what a slow
    /// host has not taken yet after ten seconds (TIME-WAIT), so it is not asked any more.
    pub(super) fn is_over(&mut self) -> bool {
        self.said_last && self.machine.socket().state() == tcp::State::TimeWait
    }

    /// Notes that the engine has sent what it had, as far as the guest took it.
    pub(super) fn note_last(&mut self, sent: bool) {
        self.said_last |= sent && self.machine.socket().state() == tcp::State::TimeWait;
    }

    /// True when bytes can be moved at once.
    pub(super) fn has_more(&mut self) -> bool {
        let to_guest = self.readable && !self.host_ended && self.machine.socket().can_send();
        let to_host = self.writable && self.inspector.is_none() && self.machine.socket().can_recv();
        !matches!(self.state, State::Connecting { .. }) && (to_guest || to_host)
    }

    /// Whether the connection is over; `sent` says that the guest has everything that it gets.
    pub(super) fn end(&mut self, sent: bool) -> Option<End> {
        if matches!(self.state, State::Connecting { .. }) {
            return None;
        }
        let is_clean = self.guest_ended && self.host_ended;
        match self.machine.socket().state() {
            // The link loses nothing: a last acknowledgement that was sent has arrived.
            tcp::State::TimeWait if sent && self.guest_ended => Some(End::Quiet),
            tcp::State::Closed if self.broken || is_clean => {
                Some(if is_clean { End::Quiet } else { End::Reset })
            }
            // Both sides are through but for what a slow host has not taken yet.
            tcp::State::Closed if self.host_ended && self.machine.socket().can_recv() => None,
            tcp::State::Closed if self.host_ended => {
                let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
                Some(End::Quiet)
            }
            tcp::State::Closed => Some(End::Reset),
            _ => None,
        }
    }
}
