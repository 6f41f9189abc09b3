//! The name server: questions of the guest go on to the host's servers, if the policy lets them.
//! Their answers come back, and tell the policy which addresses a name has.

mod message;

pub use message::{Addresses, Failure, Question};

use crate::error::is_again;
use crate::host;
use crate::net::Net;
use crate::poller::{EventFlags, Token};
use crate::slab::{Id, Slab};
use crate::wire::build;
use crate::wire::put;
use rustix::fd::OwnedFd;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const PORT: u16 = 53;

/// Longest question that is passed on.
const MOST_QUESTION: usize = 4096;
/// How long a server has before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// IPv6 and UDP headers, of which IPv4's are shorter.
const HEADS: usize = 48;

/// A question that waits for its answer.
#[derive(Debug)]
struct Pending {
    /// To one server, from a port of its own: hard to hit for whoever makes answers up.
    socket: Option<OwnedFd>,
    guest: SocketAddr,
    /// The name server's address that the guest asked.
    asked: SocketAddr,
    query: Vec<u8>,
    question: Question,
    /// Number under which the server is asked.
    id: u16,
    /// How many servers have been asked.
    tried: usize,
    armed: Option<Instant>,
}

/// All questions.
#[derive(Debug)]
pub(crate) struct Dns {
    pending: Slab<Pending>,
    answer: Vec<u8>,
}

impl Dns {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            pending: Slab::new(most),
            answer: vec![0; 65_536],
        }
    }

    /// Takes a datagram to the name server.
    pub(crate) fn take(
        &mut self,
        net: &mut Net,
        guest: SocketAddr,
        asked: SocketAddr,
        data: &[u8],
    ) {
        let question = Question::of_query(data).filter(|_| data.len() <= MOST_QUESTION);
        let Some(question) = question else {
            net.counters.drops.malformed += 1;
            return;
        };
        net.counters.dns_questions += 1;
        if !net.rules.resolves(&question.name) {
            net.counters.drops.names += 1;
            let answer = question.failure(data, Failure::Refused);
            net.send(&build::udp(net.macs(), asked, guest, &answer));
            return;
        }
        let is_again = |pending: &Pending| {
            pending.guest == guest && pending.asked == asked && pending.question == question
        };
        if self.pending.iter().any(|(_, pending)| is_again(pending)) {
            // The guest has lost patience; the servers are being asked already.
            return;
        }
        let pending = Pending {
            socket: None,
            guest,
            asked,
            query: data.to_vec(),
            question,
            id: random(),
            tried: 0,
            armed: None,
        };
        if self.pending.is_full() {
            net.counters.drops.full += 1;
            fail(net, &pending);
        } else if let Some(id) = self.pending.insert(pending) {
            self.ask_next(net, id);
        }
    }

    /// Asks the next server that can be asked, or gives up.
    fn ask_next(&mut self, net: &mut Net, id: Id) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        while let Some(server) = net.config.dns.servers.get(pending.tried).copied() {
            pending.tried += 1;
            put(&mut pending.query, 0, &pending.id.to_be_bytes());
            let socket = host::connect_udp(server).ok().filter(|socket| {
                let is_watched = net.poller.add(socket, Token::Question(id), EventFlags::IN);
                is_watched.is_ok() && host::send(socket, &pending.query).is_ok()
            });
            if socket.is_some() {
                pending.socket = socket;
                net.poller.disarm(&mut pending.armed, Token::Question(id));
                let due = net.now + PATIENCE;
                net.poller.arm(&mut pending.armed, Token::Question(id), due);
                return;
            }
        }
        if let Some(mut pending) = self.pending.remove(id) {
            net.poller.disarm(&mut pending.armed, Token::Question(id));
            fail(net, &pending);
        }
    }

    /// A server has no more time.
    pub(crate) fn due(&mut self, net: &mut Net, id: Id) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.armed = None;
            self.ask_next(net, id);
        }
    }

    /// A server has answered.
    pub(crate) fn ready(&mut self, net: &mut Net, id: Id) {
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        let Some(socket) = &pending.socket else {
            return;
        };
        let bytes = match host::receive(socket, &mut self.answer) {
            Ok(bytes) => bytes,
            Err(errno) if is_again(errno) => return,
            Err(_) => {
                // Nobody listens there.
                pending.socket = None;
                self.ask_next(net, id);
                return;
            }
        };
        let answer = self.answer.get_mut(..bytes).unwrap_or_default();
        let question = Question::of_answer(answer);
        let fits = |found: &Question| found.id == pending.id && found.is_same(&pending.question);
        let Some(question) = question.filter(fits) else {
            net.counters.drops.unasked += 1;
            return;
        };
        let found = Addresses::of(answer, &question);
        net.rules
            .names
            .learn(&question.name, &found.aliases, &found.addresses, net.now);
        put(answer, 0, &pending.question.id.to_be_bytes());
        let macs = net.macs();
        let (from, to) = (pending.asked, pending.guest);
        let message = if bytes + HEADS > usize::from(net.config.mtu) {
            build::udp(macs, from, to, &question.truncated(answer))
        } else {
            build::udp(macs, from, to, answer)
        };
        net.send(&message);
        if let Some(mut pending) = self.pending.remove(id) {
            net.poller.disarm(&mut pending.armed, Token::Question(id));
        }
    }
}

fn fail(net: &mut Net, pending: &Pending) {
    net.counters.dns_failed += 1;
    let mut answer = pending.question.failure(&pending.query, Failure::Server);
    put(&mut answer, 0, &pending.question.id.to_be_bytes());
    net.send(&build::udp(
        net.macs(),
        pending.asked,
        pending.guest,
        &answer,
    ));
}

/// A number that nobody can guess. Where the host has none a server is asked under zero, from a
/// port that has to be guessed too.
fn random() -> u16 {
    let mut bytes = [0; 2];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}
