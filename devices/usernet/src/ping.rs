//! Echo requests: answered here for the gateway and the name server, and passed on for others where
//! the host allows its users to ping.

use crate::error::is_again;
use crate::host;
use crate::net::Net;
use crate::poller::{EventFlags, Token};
use crate::slab::{Id, Slab};
use crate::wire::build::{self, Unreachable};
use crate::wire::{Bad, ICMP, ICMPV6, Packet, be16, put};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const BATCH: usize = 16;

/// Types of the two messages.
#[derive(Clone, Copy, Debug)]
struct Echo {
    protocol: u8,
    request: u8,
    reply: u8,
}

const ECHO: Echo = Echo {
    protocol: ICMP,
    request: 8,
    reply: 0,
};
const ECHO6: Echo = Echo {
    protocol: ICMPV6,
    request: 128,
    reply: 129,
};

fn echo(ip: IpAddr) -> Echo {
    match ip {
        IpAddr::V4(_) => ECHO,
        IpAddr::V6(_) => ECHO6,
    }
}

/// A program of the guest that pings a host.
#[derive(Debug)]
struct Flow {
    guest: IpAddr,
    remote: IpAddr,
    /// The guest's number of the program; the host's socket has its own.
    ident: u16,
    socket: OwnedFd,
    active: Instant,
    armed: Option<Instant>,
}

/// All pings.
#[derive(Debug)]
pub(crate) struct Ping {
    flows: Slab<Flow>,
    data: Vec<u8>,
}

impl Ping {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            flows: Slab::new(most),
            data: vec![0; 65_536],
        }
    }

    /// Takes an ICMP message of the guest.
    pub(crate) fn take(&mut self, net: &mut Net, packet: &Packet<'_>) -> Result<(), Bad> {
        let echo = echo(packet.to);
        let kind = (
            packet.payload.first().copied(),
            packet.payload.get(1).copied(),
        );
        let (Some(kind), Some(code)) = kind else {
            return Err(Bad::Malformed);
        };
        let Some(ident) = be16(packet.payload, 4) else {
            return Err(Bad::Malformed);
        };
        if kind != echo.request || code != 0 {
            net.counters.drops.unknown += 1;
            return Ok(());
        }
        if packet.payload.len() < 8 {
            return Err(Bad::Malformed);
        }
        net.counters.pings += 1;
        let is_gateway = packet.to == net.gateway(packet.to) || packet.to == crate::net::ROUTER;
        if is_gateway || net.is_name_server(packet.to) {
            reply(net, (packet.to, packet.from), echo, packet.payload);
            return Ok(());
        }
        self.pass_on(net, packet, ident);
        Ok(())
    }

    fn pass_on(&mut self, net: &mut Net, packet: &Packet<'_>, ident: u16) {
        let (guest, remote) = (packet.from, packet.to);
        let is_this = |flow: &Flow| (flow.guest, flow.remote, flow.ident) == (guest, remote, ident);
        let known = self
            .flows
            .iter()
            .find(|(_, flow)| is_this(flow))
            .map(|(id, _)| id);
        let Some(id) = known.or_else(|| self.open(net, packet, ident)) else {
            return;
        };
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.active = net.now;
        match host::send(&flow.socket, packet.payload) {
            Ok(_) => {}
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH) => {
                net.refuse(guest, Unreachable::Host, packet.whole);
            }
            Err(_) => net.counters.drops.host += 1,
        }
    }

    fn open(&mut self, net: &mut Net, packet: &Packet<'_>, ident: u16) -> Option<Id> {
        let (guest, remote) = (packet.from, packet.to);
        let Some(way) = net.rules.way(None, SocketAddr::new(remote, 0), net.now) else {
            net.counters.drops.policy += 1;
            if net.rules.is_foreign(remote) {
                net.refuse(guest, Unreachable::Prohibited, packet.whole);
            }
            return None;
        };
        if self.flows.is_full() {
            net.counters.drops.full += 1;
            return None;
        }
        let socket = match host::connect_ping(way.ip()) {
            Ok(socket) => socket,
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH) => {
                net.refuse(guest, Unreachable::Host, packet.whole);
                return None;
            }
            // The host's users may not ping: the guest hears that at once.
            Err(_) => {
                net.counters.drops.host += 1;
                net.refuse(guest, Unreachable::Prohibited, packet.whole);
                return None;
            }
        };
        let id = self.flows.insert(Flow {
            guest,
            remote,
            ident,
            socket,
            active: net.now,
            armed: None,
        })?;
        let flow = self.flows.get_mut(id)?;
        if net
            .poller
            .add(&flow.socket, Token::Ping(id), EventFlags::IN)
            .is_err()
        {
            net.counters.drops.host += 1;
            self.flows.remove(id);
            return None;
        }
        net.poller
            .arm(&mut flow.armed, Token::Ping(id), net.now + PATIENCE);
        Some(id)
    }

    /// Answers came.
    pub(crate) fn ready(&mut self, net: &mut Net, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        for _ in 0..BATCH {
            let bytes = match host::receive(&flow.socket, &mut self.data) {
                Ok(bytes) => bytes,
                Err(errno) if is_again(errno) => return,
                Err(_) => continue,
            };
            let message = self.data.get_mut(..bytes).unwrap_or_default();
            let echo = echo(flow.remote);
            if bytes < 8 || message.first() != Some(&echo.reply) {
                net.counters.drops.unasked += 1;
                continue;
            }
            flow.active = net.now;
            put(message, 4, &flow.ident.to_be_bytes());
            reply(net, (flow.remote, flow.guest), echo, message);
        }
    }

    /// A ping's time has come, if nothing has passed meanwhile.
    pub(crate) fn due(&mut self, net: &mut Net, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.armed = None;
        let until = flow.active + PATIENCE;
        if until <= net.now {
            self.flows.remove(id);
        } else {
            net.poller.arm(&mut flow.armed, Token::Ping(id), until);
        }
    }
}

/// Sends the guest a reply with what the message holds, if it fits the link.
fn reply(net: &mut Net, (from, to): (IpAddr, IpAddr), echo: Echo, message: &[u8]) {
    if message.len() + 40 > usize::from(net.config.mtu) {
        net.counters.drops.fragment += 1;
        return;
    }
    let mut message = message.to_vec();
    put(&mut message, 0, &[echo.reply]);
    let message = build::ip(net.macs(), from, to, echo.protocol, &message);
    net.send(&message);
}
