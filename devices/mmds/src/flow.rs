//! One connection of the guest: requests come in, answers go out.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::IpListenEndpoint;

use crate::counters::Counters;
use crate::frame::Mac;
use crate::http::{HEAD_BYTES, Heard, hear};
use crate::service::Service;

const RECEIVE_BYTES: usize = 4 << 10;
const SEND_BYTES: usize = 16 << 10;
/// How long a connection may be quiet before it is ended, and then before it is broken off.
const QUIET: Duration = Duration::from_secs(60);
/// Packets with tokens and metadata get no further than to the guest itself: what forwards them,
/// as for a container behind a bridge of the guest, takes one hop away.
const HOPS: u8 = 1;

/// A connection.
#[derive(Debug)]
pub(crate) struct Flow {
    /// The guest's end.
    pub(crate) peer: (Ipv4Addr, u16),
    pub(crate) mac: Mac,
    /// A set of one, so that a packet costs the same however many connections there are.
    pub(crate) sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// What came of the next requests, [`HEAD_BYTES`] at most.
    request: Vec<u8>,
    /// The answer that is under way, and how much of it the engine has.
    reply: (Vec<u8>, usize),
    /// No request is answered any more.
    closing: bool,
    /// When it has been quiet for too long.
    pub(crate) tired_at: Instant,
    /// It may have something to do now.
    pub(crate) dirty: bool,
    /// When it has something to do at the latest.
    pub(crate) due: Option<Instant>,
}

impl Flow {
    /// One that waits for the packet that opens it.
    pub(crate) fn new(at: IpListenEndpoint, peer: (Ipv4Addr, u16), mac: Mac, now: Instant) -> Self {
        let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(RECEIVE_BYTES), buffer(SEND_BYTES));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_hop_limit(Some(HOPS));
        // The port is not zero, and the socket new.
        let _ = socket.listen(at);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            peer,
            mac,
            sockets,
            handle,
            request: Vec::new(),
            reply: (Vec::new(), 0),
            closing: false,
            tired_at: after(now, QUIET),
            dirty: false,
            due: None,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Answers what has come, as far as the answers have room.
    pub(crate) fn serve(&mut self, service: &Service, counters: &mut Counters, now: Instant) {
        while self.send_reply() {
            if self.closing {
                self.socket().close();
                return;
            }
            self.receive();
            if let Some((reply, used)) = self.next_reply(service, counters, now) {
                self.request.drain(..used);
                self.reply = (reply, 0);
            } else if self.socket().state() == State::CloseWait {
                // The guest has said its last, and nothing of it is left to be answered.
                self.closing = true;
            } else {
                return;
            }
        }
    }

    /// Hands the answer under way to the engine: whether it has all of it.
    fn send_reply(&mut self) -> bool {
        let (reply, sent) = &mut self.reply;
        let rest = reply.get(*sent..).unwrap_or_default();
        if rest.is_empty() {
            self.reply = (Vec::new(), 0);
            return true;
        }
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        match socket.send_slice(rest) {
            Ok(bytes) => {
                *sent = sent.saturating_add(bytes);
                *sent >= reply.len()
            }
            // Nobody is there to take it.
            Err(_) => {
                self.reply = (Vec::new(), 0);
                self.closing = true;
                true
            }
        }
    }

    /// Takes what has come, as far as a request may go.
    fn receive(&mut self) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while socket.can_recv() && self.request.len() < HEAD_BYTES {
            let room = HEAD_BYTES.saturating_sub(self.request.len());
            let request = &mut self.request;
            let took = socket.recv(|data| {
                let data = data.get(..room).unwrap_or(data);
                request.extend_from_slice(data);
                (data.len(), data.len())
            });
            if took.unwrap_or_default() == 0 {
                return;
            }
        }
    }

    /// The answer to the next request, if it is all there, and how long that is.
    fn next_reply(
        &mut self,
        service: &Service,
        counters: &mut Counters,
        now: Instant,
    ) -> Option<(Vec<u8>, usize)> {
        match hear(&self.request) {
            Heard::Partial => None,
            Heard::Bad(reply) => {
                self.closing = true;
                Some((reply.encode(false, true), self.request.len()))
            }
            Heard::Ask(ask, used) => {
                self.closing = !ask.keep_alive;
                let reply = service.answer(&ask, counters, now);
                let with_body = ask.method != "HEAD";
                Some((reply.encode(ask.keep_alive, with_body), used))
            }
        }
    }

    /// The guest has sent something.
    pub(crate) fn stir(&mut self, mac: Mac, now: Instant) {
        self.mac = mac;
        self.tired_at = after(now, QUIET);
        self.dirty = true;
    }

    /// Ends what has been quiet for too long, or breaks it off if that was tried, or cannot be
    /// because the guest takes nothing.
    pub(crate) fn tire(&mut self, now: Instant) {
        if self.tired_at > now {
            return;
        }
        if self.closing || self.socket().send_queue() > 0 {
            self.socket().abort();
        }
        self.closing = true;
        self.tired_at = after(now, QUIET);
    }

    /// Whether nothing of it is left, given that what it had to send has gone.
    pub(crate) fn is_over(&mut self) -> bool {
        let socket = self.socket();
        match socket.state() {
            State::Closed => socket.remote_endpoint().is_none(),
            // Its opening was taken back, or it is through but for a wait for what a link that
            // loses nothing does not bring.
            State::Listen | State::TimeWait => true,
            _ => false,
        }
    }
}

fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
