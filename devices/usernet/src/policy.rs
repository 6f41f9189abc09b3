//! What the guest may reach: the user's rules, and what is closed by itself.

mod names;

pub(crate) use names::Names;

use crate::config::{Action, Cidr, Config, Policy, Protocol, Rule, Target};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// Never reached through the network: no host has these addresses, or it is the host itself.
const NOWHERE: [&str; 8] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
    "::/96",
];

/// Closed unless a rule names them: link-local addresses, and where clouds keep the host's
/// credentials.
const METADATA: [&str; 5] = [
    "169.254.0.0/16",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
];

/// An address that is nobody's: a host that lets it be bound lets every address be bound.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

/// The rules, ready to be asked.
#[derive(Debug)]
pub(crate) struct Rules {
    policy: Policy,
    gateways: [Option<IpAddr>; 2],
    inside: Vec<Cidr>,
    nowhere: Vec<Cidr>,
    metadata: Vec<Cidr>,
    /// Binding tells which addresses are the host's.
    binding_tells: bool,
    pub(crate) names: Names,
}

fn nets(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

impl Rules {
    pub(crate) fn new(config: &Config) -> Self {
        let mut inside = vec![Cidr {
            address: config.subnet4.network.into(),
            prefix: config.subnet4.prefix,
        }];
        inside.extend(config.subnet6.map(|subnet| Cidr {
            address: subnet.network.into(),
            prefix: 64,
        }));
        Self {
            policy: config.policy.clone(),
            gateways: [
                Some(config.subnet4.gateway.into()),
                config.subnet6.map(|subnet| subnet.gateway().into()),
            ],
            inside,
            nowhere: nets(&NOWHERE),
            metadata: nets(&METADATA),
            binding_tells: !can_bind(NOBODY.into()),
            names: Names::new(&config.policy),
        }
    }

    /// Where a packet for `to` goes on the host; none when the policy refuses it. ICMP has neither
    /// protocol nor port.
    pub(crate) fn way(
        &self,
        protocol: Option<Protocol>,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let ip = to.ip();
        let is_gateway = self.gateways.contains(&Some(ip));
        let is_in = |nets: &[Cidr]| nets.iter().any(|net| net.contains(ip));
        if is_in(&self.nowhere) || (is_in(&self.inside) && !is_gateway) {
            return None;
        }
        let rule = self.rule(protocol, to, now);
        if rule.is_some_and(|rule| rule.action == Action::Deny) {
            return None;
        }
        let is_named = rule.is_some_and(|rule| names_it(rule, &self.metadata, ip));
        if !is_named && (is_in(&self.metadata) || self.embeds_closed(ip)) {
            return None;
        }
        let is_host = is_gateway || (!self.policy.host && self.is_of_host(ip));
        if is_host && !self.policy.host && !rule.is_some_and(|rule| is_exact(rule, ip)) {
            return None;
        }
        if rule.is_none() && self.policy.default == Action::Deny {
            // The flag for the host is a rule of its own.
            if !(is_gateway && self.policy.host) {
                return None;
            }
        }
        let loopback = || match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let ip = if is_gateway { loopback() } else { ip };
        Some(SocketAddr::new(ip, to.port()))
    }

    /// The first rule that fits.
    fn rule(&self, protocol: Option<Protocol>, to: SocketAddr, now: Instant) -> Option<&Rule> {
        let mut rules = self.policy.rules.iter().enumerate();
        let fits = |(index, rule): &(usize, &Rule)| {
            let is_protocol = rule.protocol.is_none_or(|wanted| protocol == Some(wanted));
            let is_port = rule.ports.is_none_or(|(first, last)| {
                protocol.is_some() && (first..=last).contains(&to.port())
            });
            is_protocol
                && is_port
                && match &rule.target {
                    Target::Any => true,
                    Target::Net(net) => net.contains(to.ip()),
                    Target::Name(_) => self.names.has(*index, to.ip(), now),
                }
        };
        rules.find(fits).map(|(_, rule)| rule)
    }

    /// True for an address that another host can have, as the guest sees it.
    pub(crate) fn is_foreign(&self, ip: IpAddr) -> bool {
        let mut closed = self.nowhere.iter().chain(&self.inside);
        !closed.any(|net| net.contains(ip))
    }

    /// True for an IPv6 address that a translator on the way would turn into a closed IPv4 one.
    fn embeds_closed(&self, ip: IpAddr) -> bool {
        let IpAddr::V6(ip) = ip else { return false };
        let last = |bits: u128| Ipv4Addr::from_bits(u32::try_from(bits & 0xffff_ffff).unwrap_or(0));
        let inner = match ip.segments() {
            [0x64, 0xff9b, ..] => last(ip.to_bits()),
            [0x2002, ..] => last(ip.to_bits() >> 80),
            _ => return false,
        };
        let inner = IpAddr::V4(inner);
        let closed = self.metadata.iter().chain(&self.nowhere);
        closed.into_iter().any(|net| net.contains(inner)) || self.is_of_host(inner)
    }

    /// True when the host itself has the address.
    fn is_of_host(&self, ip: IpAddr) -> bool {
        if self.binding_tells {
            return can_bind(ip);
        }
        // Linux sends to its own address from that address.
        source_for(ip) == Some(ip)
    }

    /// Whether the policy lets a name be asked for.
    pub(crate) fn resolves(&self, name: &str) -> bool {
        for rule in &self.policy.rules {
            let fits = match &rule.target {
                Target::Any => true,
                Target::Net(_) => false,
                Target::Name(pattern) => names::fits(pattern, name),
            };
            match rule.action {
                Action::Allow if fits => return true,
                // A rule for some ports leaves the others.
                Action::Deny if fits && rule.ports.is_none() && rule.protocol.is_none() => {
                    return false;
                }
                _ => {}
            }
        }
        self.policy.default == Action::Allow
    }
}

/// True when a rule is about a closed network, and not one that happens to lie around it.
fn names_it(rule: &Rule, closed: &[Cidr], ip: IpAddr) -> bool {
    let Target::Net(net) = rule.target else {
        return false;
    };
    let around = closed.iter().filter(|closed| closed.contains(ip));
    around.into_iter().any(|closed| closed.prefix <= net.prefix)
}

fn is_exact(rule: &Rule, ip: IpAddr) -> bool {
    matches!(rule.target, Target::Net(net) if net.address == ip
        && net.prefix == if ip.is_ipv4() { 32 } else { 128 })
}

fn datagram_socket(ip: IpAddr) -> Option<rustix::fd::OwnedFd> {
    let family = match ip {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}

/// Only a host's own addresses can be bound.
fn can_bind(ip: IpAddr) -> bool {
    let socket = datagram_socket(ip);
    socket.is_some_and(|socket| rustix::net::bind(&socket, &SocketAddr::new(ip, 0)).is_ok())
}

fn source_for(ip: IpAddr) -> Option<IpAddr> {
    let socket = datagram_socket(ip)?;
    // Connecting a UDP socket sends nothing.
    rustix::net::connect(&socket, &SocketAddr::new(ip, 9)).ok()?;
    let local = rustix::net::getsockname(&socket).ok()?;
    SocketAddr::try_from(local).ok().map(|local| local.ip())
}

#[cfg(test)]
mod tests;
