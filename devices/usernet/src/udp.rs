//! UDP: a socket of the host for each pair of ends, for as long as something passes.

use crate::config::{Protocol, Publish};
use crate::error::is_again;
use crate::host;
use crate::net::Net;
use crate::poller::{EventFlags, Token};
use crate::slab::{Id, Slab};
use crate::wire::Packet;
use crate::wire::build::{self, Unreachable};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a flow stays without a packet, once both sides have spoken.
const TALKING: Duration = Duration::from_secs(180);
/// The same while only one has.
const ALONE: Duration = Duration::from_secs(30);
/// Datagrams taken from a socket in a turn.
const BATCH: usize = 64;

/// Both ends as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    guest: SocketAddr,
    remote: SocketAddr,
}

/// How datagrams of the guest leave.
#[derive(Debug)]
enum Way {
    /// Through a socket of their own.
    Own(OwnedFd),
    /// Through the published port that the other has written to.
    Published { place: usize, peer: SocketAddr },
}

#[derive(Debug)]
struct Flow {
    key: Key,
    way: Way,
    active: Instant,
    armed: Option<Instant>,
    guest_spoke: bool,
    remote_spoke: bool,
}

impl Flow {
    fn until(&self) -> Instant {
        let is_talk = self.guest_spoke && self.remote_spoke;
        self.active + if is_talk { TALKING } else { ALONE }
    }
}

/// A published port.
#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    guest_port: u16,
}

/// All flows.
#[derive(Debug)]
pub(crate) struct Udp {
    flows: Slab<Flow>,
    keys: HashMap<Key, Id>,
    ports: Vec<Port>,
    data: Vec<u8>,
    /// Names the parts of datagrams that are too long for the link.
    fragment_id: u16,
}

impl Udp {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            flows: Slab::new(most),
            keys: HashMap::new(),
            ports: Vec::new(),
            data: vec![0; 65_536],
            fragment_id: 0,
        }
    }

    /// Publishes a port and returns where it really is.
    pub(crate) fn publish(
        &mut self,
        net: &Net,
        publish: &Publish,
    ) -> rustix::io::Result<SocketAddr> {
        let socket = host::listen(publish.host, rustix::net::SocketType::DGRAM)?;
        let place = u32::try_from(self.ports.len()).map_err(|_| Errno::MFILE)?;
        net.poller
            .add(&socket, Token::Port(place), EventFlags::IN)?;
        let at = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        let guest_port = publish.guest_port;
        self.ports.push(Port { socket, guest_port });
        Ok(at)
    }

    /// Takes a datagram of the guest.
    pub(crate) fn take(
        &mut self,
        net: &mut Net,
        (guest, remote): (SocketAddr, SocketAddr),
        data: &[u8],
        packet: &Packet<'_>,
    ) {
        let key = Key { guest, remote };
        let id = match self.keys.get(&key) {
            Some(id) => *id,
            None => match self.open(net, key, packet) {
                Some(id) => id,
                None => return,
            },
        };
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.active = net.now;
        flow.guest_spoke = true;
        let send = || match &flow.way {
            Way::Own(socket) => host::send(socket, data),
            Way::Published { place, peer } => match self.ports.get(*place) {
                Some(port) => host::send_to(&port.socket, data, *peer),
                None => Err(Errno::BADF),
            },
        };
        // An error may be that of a datagram before, which is told once.
        let sent = send().or_else(|errno| match errno {
            Errno::CONNREFUSED => send(),
            _ => Err(errno),
        });
        match sent {
            Ok(_) => {}
            Err(Errno::CONNREFUSED) => net.refuse(guest.ip(), Unreachable::Port, packet.whole),
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH) => {
                net.refuse(guest.ip(), Unreachable::Host, packet.whole);
            }
            Err(_) => net.counters.drops.host += 1,
        }
    }

    fn open(&mut self, net: &mut Net, key: Key, packet: &Packet<'_>) -> Option<Id> {
        let Some(way) = net.rules.way(Some(Protocol::Udp), key.remote, net.now) else {
            net.counters.drops.policy += 1;
            // Nobody is told about packets to many.
            if net.rules.is_foreign(key.remote.ip()) {
                net.refuse(key.guest.ip(), Unreachable::Prohibited, packet.whole);
            }
            return None;
        };
        self.make_room(net)?;
        match host::connect_udp(way) {
            Ok(socket) => self.insert(net, key, Way::Own(socket)),
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH) => {
                net.refuse(key.guest.ip(), Unreachable::Host, packet.whole);
                None
            }
            Err(_) => {
                net.counters.drops.host += 1;
                None
            }
        }
    }

    fn insert(&mut self, net: &mut Net, key: Key, way: Way) -> Option<Id> {
        let id = self.flows.insert(Flow {
            key,
            way,
            active: net.now,
            armed: None,
            guest_spoke: false,
            remote_spoke: false,
        })?;
        self.keys.insert(key, id);
        let flow = self.flows.get_mut(id)?;
        if let Way::Own(socket) = &flow.way
            && net
                .poller
                .add(socket, Token::Udp(id), EventFlags::IN)
                .is_err()
        {
            net.counters.drops.host += 1;
            self.remove(net, id);
            return None;
        }
        let due = flow.until();
        net.poller.arm(&mut flow.armed, Token::Udp(id), due);
        net.counters.udp_opened += 1;
        Some(id)
    }

    /// Makes sure that there is a place: the flow that is over first gives way, if only one side
    /// has spoken in it.
    fn make_room(&mut self, net: &mut Net) -> Option<()> {
        if !self.flows.is_full() {
            return Some(());
        }
        let first = self.flows.iter().min_by_key(|(_, flow)| flow.until());
        match first {
            Some((id, flow)) if !(flow.guest_spoke && flow.remote_spoke) => {
                self.remove(net, id);
                Some(())
            }
            _ => {
                net.counters.drops.full += 1;
                None
            }
        }
    }

    fn remove(&mut self, net: &mut Net, id: Id) {
        if let Some(mut flow) = self.flows.remove(id) {
            self.keys.remove(&flow.key);
            net.poller.disarm(&mut flow.armed, Token::Udp(id));
        }
    }

    /// A flow's time has come, if nothing has passed meanwhile.
    pub(crate) fn due(&mut self, net: &mut Net, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.armed = None;
        let until = flow.until();
        if until <= net.now {
            self.remove(net, id);
        } else {
            net.poller.arm(&mut flow.armed, Token::Udp(id), until);
        }
    }

    /// Datagrams came for a flow.
    pub(crate) fn ready(&mut self, net: &mut Net, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let Way::Own(socket) = &flow.way else { return };
        for _ in 0..BATCH {
            let Key { guest, remote } = flow.key;
            match host::receive(socket, &mut self.data) {
                Ok(bytes) => {
                    flow.active = net.now;
                    flow.remote_spoke = true;
                    let data = self.data.get(..bytes).unwrap_or_default();
                    deliver(net, (remote, guest), &mut self.fragment_id, data);
                }
                Err(errno) if is_again(errno) => return,
                Err(Errno::CONNREFUSED) => {
                    let head = build::udp_head(guest, remote);
                    net.refuse(guest.ip(), Unreachable::Port, &head);
                }
                Err(_) => {
                    let head = build::udp_head(guest, remote);
                    net.refuse(guest.ip(), Unreachable::Host, &head);
                }
            }
        }
    }

    /// Datagrams came for a published port.
    pub(crate) fn port_ready(&mut self, net: &mut Net, place: u32) {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        for _ in 0..BATCH {
            let Some(port) = self.ports.get(place) else {
                return;
            };
            let (bytes, peer) = match host::receive_from(&port.socket, &mut self.data) {
                Ok(received) => received,
                Err(errno) if is_again(errno) => return,
                // It tells of a datagram before, that went to somebody else.
                Err(_) => continue,
            };
            let (guest, remote) = net.face(peer);
            let guest = SocketAddr::new(guest, port.guest_port);
            let key = Key { guest, remote };
            let way = Way::Published { place, peer };
            let id = match self.keys.get(&key).copied() {
                Some(id) => Some(id),
                None => self
                    .make_room(net)
                    .and_then(|()| self.insert(net, key, way)),
            };
            let Some(flow) = id.and_then(|id| self.flows.get_mut(id)) else {
                continue;
            };
            let is_same = matches!(&flow.way, Way::Published { place: at, peer: known }
                if *at == place && *known == peer);
            if !is_same {
                // Two programs of the host with one port cannot be told apart by the guest.
                net.counters.drops.full += 1;
                continue;
            }
            flow.active = net.now;
            flow.remote_spoke = true;
            let data = self.data.get(..bytes).unwrap_or_default();
            deliver(net, (remote, guest), &mut self.fragment_id, data);
        }
    }
}

/// Gives the guest a datagram, in parts if it is too long for the link.
fn deliver(net: &mut Net, (from, to): (SocketAddr, SocketAddr), id: &mut u16, data: &[u8]) {
    let heads = if from.is_ipv4() { 28 } else { 48 };
    let mtu = net.config.mtu;
    if heads + data.len() <= usize::from(mtu) {
        net.send(&build::udp(net.macs(), from, to, data));
        return;
    }
    if from.is_ipv6() {
        net.counters.drops.fragment += 1;
        return;
    }
    *id = id.wrapping_add(1);
    for message in build::udp_fragments(net.macs(), (from, to), *id, mtu, data) {
        net.send(&message);
    }
}
