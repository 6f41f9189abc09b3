//! TCP: each connection of the guest is ended here by the TCP engine, and its bytes go on through a
//! socket of the host. The guest's SYN is answered only once the other host has answered ours.

mod buffers;
mod device;
mod flow;
mod listener;
mod names;

use crate::config::{Config, Protocol, Publish};
use crate::error::ServeError;
use crate::host;
use crate::net::Net;
use crate::poller::{EventFlags, Token};
use crate::slab::{Id, Slab};
use crate::wire::build::{self, Unreachable};
use crate::wire::tcp::{ACK, FIN, RST, SYN, Segment, replace_mss};
use crate::wire::{Bad, Packet};
use buffers::Buffers;
use device::{ENGINE_MSS, Nothing, Port};
use flow::{End, Flow, Key, State};
use listener::Listener;
use names::Inspector;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use smoltcp::iface::Interface;
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub(crate) use buffers::LEAST_FOR_FLOW;

/// Connections that are accepted in a turn.
const ACCEPTED: usize = 64;
/// Where ports for the guest's eyes begin when the real one is taken.
const EPHEMERAL: u16 = 49_152;
/// How long a guest has to answer a connection to a published port.
const GUEST_PATIENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
/// A connection as quiet as this makes room for a new one when there is no other.
const QUIET: Duration = Duration::from_secs(60);
const DNS_PORT: u16 = 53;

const WATCHED: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// All connections.
pub(crate) struct Tcp {
    engine: Interface,
    started: Instant,
    flows: Slab<Flow>,
    keys: HashMap<Key, Id>,
    /// Connections with something to do.
    dirty: VecDeque<Id>,
    buffers: Buffers,
    listeners: Vec<Listener>,
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tcp")
            .field("flows", &self.flows.len())
            .finish_non_exhaustive()
    }
}

impl Tcp {
    pub(crate) fn new(config: &Config, now: Instant) -> Result<Self, ServeError> {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .map_err(ServeError::host("asking for random bytes"))?;
        let mut settings = smoltcp::iface::Config::new(HardwareAddress::Ip);
        settings.random_seed = u64::from_ne_bytes(seed);
        let zero = smoltcp::time::Instant::ZERO;
        let mut engine = Interface::new(settings, &mut Nothing, zero);
        engine.update_ip_addrs(|addresses| {
            let subnet = config.subnet4;
            // Two addresses always fit.
            let _ = addresses.push(IpCidr::new(subnet.gateway.into(), subnet.prefix));
            if let Some(subnet) = config.subnet6 {
                let _ = addresses.push(IpCidr::new(subnet.gateway().into(), 64));
            }
        });
        // The guest speaks to every host of the world as if it were here.
        engine.set_any_ip(true);
        Ok(Self {
            engine,
            started: now,
            flows: Slab::new(config.limits.tcp_flows),
            keys: HashMap::new(),
            dirty: VecDeque::new(),
            buffers: Buffers::new(&config.limits),
            listeners: Vec::new(),
        })
    }

    /// Publishes a port and returns where it really is.
    pub(crate) fn publish(
        &mut self,
        net: &Net,
        publish: &Publish,
    ) -> rustix::io::Result<SocketAddr> {
        let socket = host::listen(publish.host, rustix::net::SocketType::STREAM)?;
        let place = u32::try_from(self.listeners.len()).map_err(|_| Errno::MFILE)?;
        let at = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        let listener = Listener::new(net, socket, publish.guest_port, place)?;
        self.listeners.push(listener);
        Ok(at)
    }

    /// True when a connection has something to do.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes a segment of the guest.
    pub(crate) fn take(
        &mut self,
        net: &mut Net,
        packet: &Packet<'_>,
        partial: bool,
    ) -> Result<(), Bad> {
        let segment = Segment::parse(packet, partial)?;
        if has_extensions(packet) {
            net.counters.drops.unknown += 1;
            return Ok(());
        }
        let key = Key {
            guest: SocketAddr::new(packet.from, segment.from),
            remote: SocketAddr::new(packet.to, segment.to),
        };
        let Some(id) = self.keys.get(&key).copied() else {
            self.take_unknown(net, key, segment, packet);
            return Ok(());
        };
        let Some(flow) = self.flows.get_mut(id) else {
            return Ok(());
        };
        flow.active = net.now;
        if matches!(flow.state, State::Connecting { .. }) {
            // Nothing but a SYN again, or the guest has lost patience.
            if segment.is(RST) {
                self.remove(net, id, End::Reset);
            }
            return Ok(());
        }
        self.feed(net, id, segment, packet.whole);
        Ok(())
    }

    fn take_unknown(&mut self, net: &mut Net, key: Key, segment: Segment, packet: &Packet<'_>) {
        if segment.is(RST) {
            net.counters.drops.stray += 1;
        } else if segment.flags & (SYN | ACK | FIN) == SYN {
            self.open(net, key, segment, packet);
        } else {
            net.counters.drops.stray += 1;
            reset(net, key, segment);
        }
    }

    /// Lets the engine see a packet of a connection.
    fn feed(&mut self, net: &mut Net, id: Id, segment: Segment, packet: &[u8]) {
        let time = self.time(net.now);
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        // The engine is told that the guest takes segments as large as a packet can be.
        let inflated = segment
            .is(SYN)
            .then(|| inflate(packet, segment, flow))
            .flatten();
        let packet = inflated.as_deref().unwrap_or(packet);
        let mut port = Port::new(net, flow.mss, Some(packet));
        self.engine
            .poll_ingress_single(time, &mut port, &mut flow.machine.sockets);
        mark(&mut self.dirty, flow, id);
    }

    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.started).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// The guest wants a connection.
    fn open(&mut self, net: &mut Net, key: Key, segment: Segment, packet: &Packet<'_>) {
        let is_question = key.remote.port() == DNS_PORT && net.is_name_server(key.remote.ip());
        let way = if is_question {
            net.config.dns.servers.first().copied()
        } else {
            net.rules.way(Some(Protocol::Tcp), key.remote, net.now)
        };
        let Some(way) = way else {
            net.counters.drops.policy += 1;
            net.refuse(key.guest.ip(), Unreachable::Prohibited, packet.whole);
            return;
        };
        if self.flows.is_full() && !self.make_room(net) {
            net.counters.drops.full += 1;
            reset(net, key, segment);
            return;
        }
        match host::connect_tcp(way) {
            Ok((socket, is_connected)) => {
                let syn = packet.whole.to_vec();
                let mut flow = Flow::new(key, socket, self.buffers.take(), net.now);
                flow.state = State::Connecting { syn };
                flow.inspector = is_question.then(Inspector::default);
                if let Some(id) = self.insert(net, key, flow)
                    && is_connected
                {
                    self.connected(net, id);
                }
            }
            Err(errno) => fail(net, key, segment, packet.whole, errno),
        }
    }

    fn insert(&mut self, net: &mut Net, key: Key, flow: Flow) -> Option<Id> {
        // The table has room: it was looked at before.
        let id = self.flows.insert(flow)?;
        self.keys.insert(key, id);
        let flow = self.flows.get_mut(id)?;
        if net
            .poller
            .add(&flow.socket, Token::Tcp(id), WATCHED)
            .is_err()
        {
            net.counters.drops.host += 1;
            self.remove(net, id, End::Reset);
            return None;
        }
        Some(id)
    }

    /// The other host has answered: now the guest's SYN is.
    fn connected(&mut self, net: &mut Net, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let State::Connecting { syn } = std::mem::replace(&mut flow.state, State::Open) else {
            return;
        };
        let at = IpListenEndpoint {
            addr: Some(flow.key.remote.ip().into()),
            port: flow.key.remote.port(),
        };
        flow.writable = true;
        // A port is never zero here, and the engine is new.
        let _ = flow.machine.socket().listen(at);
        net.counters.tcp_opened += 1;
        if let Some(segment) = flow::segment_of(&syn) {
            self.feed(net, id, segment, &syn);
        }
    }

    /// Something happened at a socket.
    pub(crate) fn ready(&mut self, net: &mut Net, id: Id, flags: EventFlags) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.active = net.now;
        let State::Connecting { syn } = &flow.state else {
            flow.ready(flags);
            mark(&mut self.dirty, flow, id);
            return;
        };
        let done = flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP);
        match rustix::net::sockopt::socket_error(&flow.socket) {
            _ if !done => {}
            Ok(Ok(())) => {
                flow.ready(flags);
                self.connected(net, id);
            }
            Ok(Err(errno)) | Err(errno) => {
                let (syn, key) = (syn.clone(), flow.key);
                if let Some(segment) = flow::segment_of(&syn) {
                    fail(net, key, segment, &syn, errno);
                }
                self.remove(net, id, End::Quiet);
            }
        }
    }

    /// Connections wait at a published port.
    pub(crate) fn accept(&mut self, net: &mut Net, place: u32) {
        for _ in 0..ACCEPTED {
            let Some(listener) = listener_at(&mut self.listeners, place) else {
                return;
            };
            if !listener.may_ask(net) {
                return;
            }
            let guest_port = listener.guest_port;
            match host::accept(&listener.socket) {
                Ok((socket, peer)) => self.accepted(net, socket, peer, (place, guest_port)),
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    net.counters.drops.host += 1;
                    return;
                }
                // That one has gone already.
                Err(_) => {}
            }
        }
    }

    fn accepted(
        &mut self,
        net: &mut Net,
        socket: OwnedFd,
        peer: SocketAddr,
        (place, guest_port): (u32, u16),
    ) {
        if self.flows.is_full() && !self.make_room(net) {
            net.counters.drops.full += 1;
            host::reset(&socket);
            return;
        }
        let (guest, seen) = net.face(peer);
        let guest = SocketAddr::new(guest, guest_port);
        let Some(remote) = self.free_port(guest, seen) else {
            net.counters.drops.full += 1;
            host::reset(&socket);
            return;
        };
        let key = Key { guest, remote };
        let mut flow = Flow::new(key, socket, self.buffers.take(), net.now);
        if let Some(listener) = listener_at(&mut self.listeners, place) {
            listener.asked();
            flow.unanswered = Some(place);
        }
        let Some(id) = self.insert(net, key, flow) else {
            return;
        };
        net.counters.tcp_accepted += 1;
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let context = self.engine.context();
        let (guest, remote) = ((guest.ip(), guest.port()), (remote.ip(), remote.port()));
        flow.machine.socket().set_timeout(Some(GUEST_PATIENCE));
        if flow
            .machine
            .socket()
            .connect(context, guest, remote)
            .is_err()
        {
            self.remove(net, id, End::Reset);
            return;
        }
        mark(&mut self.dirty, flow, id);
    }

    /// The peer's port, or another that the guest has no connection with.
    fn free_port(&self, guest: SocketAddr, seen: SocketAddr) -> Option<SocketAddr> {
        let at = |port| Key {
            guest,
            remote: SocketAddr::new(seen.ip(), port),
        };
        let ports = std::iter::once(seen.port()).chain(EPHEMERAL..=u16::MAX);
        let mut keys = ports.map(at);
        keys.find(|key| !self.keys.contains_key(key))
            .map(|key| key.remote)
    }

    /// Does what connections have to do, as far as the guest takes it.
    pub(crate) fn work(&mut self, net: &mut Net) {
        for _ in 0..self.dirty.len() {
            if !net.link.has_room() {
                return;
            }
            let Some(id) = self.dirty.pop_front() else {
                return;
            };
            self.work_on(net, id);
        }
    }

    fn work_on(&mut self, net: &mut Net, id: Id) {
        let time = self.time(net.now);
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.dirty = false;
        if let Some(place) = flow.guest_answered()
            && let Some(listener) = listener_at(&mut self.listeners, place)
        {
            listener.answered(net);
        }
        flow.move_bytes(net);
        while !flow.is_over() {
            let mut port = Port::new(net, flow.mss, None);
            let sockets = &mut flow.machine.sockets;
            match self.engine.poll_egress(time, &mut port, sockets) {
                smoltcp::iface::PollResult::None => break,
                smoltcp::iface::PollResult::SocketStateChanged => {}
            }
        }
        flow.note_last(net.link.has_room());
        if !net.link.has_room() || flow.has_more() {
            mark(&mut self.dirty, flow, id);
        }
        if let Some(end) = flow.end(net.link.has_room()) {
            self.remove(net, id, end);
            return;
        }
        if !flow.is_over()
            && let Some(due) = self.engine.poll_at(time, &flow.machine.sockets)
        {
            // What is due now but could not be done waits a moment, not for ever and not in a spin.
            let micros = (due - time).total_micros();
            let wait = if due <= time { 1000 } else { micros };
            let due = net.now + Duration::from_micros(wait);
            net.poller.arm(&mut flow.armed, Token::Tcp(id), due);
        }
    }

    /// The time of a connection has come.
    pub(crate) fn due(&mut self, id: Id) {
        if let Some(flow) = self.flows.get_mut(id) {
            flow.armed = None;
            mark(&mut self.dirty, flow, id);
        }
    }

    /// Ends the connection that has been quiet for longest.
    fn make_room(&mut self, net: &mut Net) -> bool {
        let quiet = self.flows.iter().min_by_key(|(_, flow)| flow.active);
        let Some((id, flow)) = quiet else {
            return false;
        };
        if net.now.saturating_duration_since(flow.active) < QUIET {
            return false;
        }
        self.remove(net, id, End::Reset);
        true
    }

    fn remove(&mut self, net: &mut Net, id: Id, end: End) {
        let Some(mut flow) = self.flows.remove(id) else {
            return;
        };
        self.keys.remove(&flow.key);
        net.poller.disarm(&mut flow.armed, Token::Tcp(id));
        net.counters.tcp_closed += 1;
        if let Some(place) = flow.unanswered.take()
            && let Some(listener) = listener_at(&mut self.listeners, place)
        {
            listener.answered(net);
        }
        if end == End::Reset {
            host::reset(&flow.socket);
        }
        self.buffers.give(flow.machine);
    }
}

fn listener_at(listeners: &mut [Listener], place: u32) -> Option<&mut Listener> {
    listeners.get_mut(usize::try_from(place).ok()?)
}

/// True for IPv6 with headers between its own and TCP's, which no TCP has and the engine would have
/// to answer for.
fn has_extensions(packet: &Packet<'_>) -> bool {
    packet.to.is_ipv6() && packet.whole.len() != 40 + packet.payload.len()
}

fn mark(dirty: &mut VecDeque<Id>, flow: &mut Flow, id: Id) {
    if !std::mem::replace(&mut flow.dirty, true) {
        dirty.push_back(id);
    }
}

/// Replaces the guest's largest segment by the engine's, and keeps it for the link.
fn inflate(packet: &[u8], segment: Segment, flow: &mut Flow) -> Option<Vec<u8>> {
    /// As Linux: less would be a way to make work.
    const LEAST_MSS: u16 = 88;
    let head = packet.len().checked_sub(segment.header + segment.data)?;
    let mut packet = packet.to_vec();
    let mss = replace_mss(packet.get_mut(head..)?, ENGINE_MSS)?;
    flow.mss = mss.max(LEAST_MSS);
    Some(packet)
}

/// Answers a segment with a reset.
fn reset(net: &mut Net, key: Key, segment: Segment) {
    let data = u32::try_from(segment.data).unwrap_or(0);
    let flags = u32::from(segment.is(SYN)) + u32::from(segment.is(FIN));
    let (numbers, flags) = if segment.is(ACK) {
        ((segment.ack, 0), RST)
    } else {
        ((0, segment.seq.wrapping_add(data + flags)), RST | ACK)
    };
    let message = build::tcp(net.macs(), (key.remote, key.guest), numbers, flags);
    net.send(&message);
}

/// Tells the guest why there is no connection.
fn fail(net: &mut Net, key: Key, segment: Segment, syn: &[u8], errno: Errno) {
    net.counters.tcp_failed += 1;
    let guest: IpAddr = key.guest.ip();
    match errno {
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::TIMEDOUT | Errno::ACCESS | Errno::PERM => {
            net.refuse(guest, Unreachable::Host, syn);
        }
        Errno::CONNREFUSED | Errno::CONNRESET => reset(net, key, segment),
        _ => {
            net.counters.drops.host += 1;
            reset(net, key, segment);
        }
    }
}
