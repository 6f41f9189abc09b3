//! What every part of the network works with: the guest's end, the rules, the clock, the numbers.

use crate::config::Config;
use crate::counters::Counters;
use crate::error::ServeError;
use crate::link::Link;
use crate::policy::Rules;
use crate::poller::Poller;
use crate::wire::build::{self, Macs, Unreachable};
use crate::wire::{BROADCAST, Bad, Mac};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// Link-local address of the gateway, from which routers speak.
pub(crate) const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// The shared part of the network.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) config: Config,
    pub(crate) link: Link,
    pub(crate) poller: Poller,
    pub(crate) rules: Rules,
    pub(crate) counters: Counters,
    /// The time of this turn.
    pub(crate) now: Instant,
    pub(crate) guest_mac: Mac,
    /// Addresses that the guest was last seen with.
    pub(crate) guest4: Ipv4Addr,
    pub(crate) guest6: Option<Ipv6Addr>,
}

impl Net {
    pub(crate) fn new(config: Config, link: Link) -> Result<Self, ServeError> {
        Ok(Self {
            link,
            poller: Poller::new()?,
            rules: Rules::new(&config),
            counters: Counters::default(),
            now: Instant::now(),
            guest_mac: config.guest_mac.unwrap_or(BROADCAST),
            guest4: config.subnet4.guest,
            guest6: None,
            config,
        })
    }

    /// From the gateway to the guest.
    pub(crate) fn macs(&self) -> Macs {
        Macs {
            from: self.config.gateway_mac,
            to: self.guest_mac,
        }
    }

    /// Sends a message to the guest.
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.link.send(message, &mut self.counters);
    }

    /// Counts why a frame was dropped.
    pub(crate) fn drop(&mut self, bad: Bad) {
        let drops = &mut self.counters.drops;
        let counter = match bad {
            Bad::Malformed => &mut drops.malformed,
            Bad::Checksum => &mut drops.checksum,
            Bad::Fragment => &mut drops.fragment,
        };
        *counter += 1;
    }

    /// The gateway's address of the same kind.
    pub(crate) fn gateway(&self, like: IpAddr) -> IpAddr {
        match (like, self.config.subnet6) {
            (IpAddr::V6(_), Some(subnet)) => subnet.gateway().into(),
            (IpAddr::V6(_), None) => ROUTER.into(),
            (IpAddr::V4(_), _) => self.config.subnet4.gateway.into(),
        }
    }

    /// True for an address of the name server.
    pub(crate) fn is_name_server(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip == self.config.subnet4.dns,
            IpAddr::V6(ip) => self.config.subnet6.is_some_and(|subnet| subnet.dns() == ip),
        }
    }

    /// Tells the guest that its packet got nowhere.
    pub(crate) fn refuse(&mut self, to: IpAddr, why: Unreachable, about: &[u8]) {
        let gateway = self.gateway(to);
        let message = build::unreachable(self.macs(), (gateway, to), why, about);
        self.send(&message);
    }

    /// True when an IPv4 address can be the guest's, which is then remembered.
    pub(crate) fn is_guest4(&mut self, ip: Ipv4Addr) -> bool {
        let subnet = self.config.subnet4;
        let others = [
            subnet.network,
            subnet.broadcast(),
            subnet.gateway,
            subnet.dns,
        ];
        let is_guest = subnet.contains(ip) && !others.contains(&ip);
        if is_guest {
            self.guest4 = ip;
        }
        is_guest
    }

    /// True when an IPv6 address can be the guest's; one of the network's prefix is remembered.
    pub(crate) fn is_guest6(&mut self, ip: Ipv6Addr) -> bool {
        let Some(subnet) = self.config.subnet6 else {
            return false;
        };
        if subnet.contains(ip) {
            let is_guest = ![subnet.network, subnet.gateway(), subnet.dns()].contains(&ip);
            if is_guest {
                self.guest6 = Some(ip);
            }
            return is_guest;
        }
        ip.is_unicast_link_local() && ip != ROUTER
    }

    /// How a program of another host looks to the guest, and where in the guest it arrives: under
    /// its own address, or under the gateway's when that would mean somebody else there.
    pub(crate) fn face(&self, peer: SocketAddr) -> (IpAddr, SocketAddr) {
        let ip = peer.ip();
        let seen = if self.rules.is_foreign(ip) {
            ip
        } else {
            self.gateway(ip)
        };
        match (ip, self.guest6) {
            (IpAddr::V6(_), Some(guest)) => (guest.into(), SocketAddr::new(seen, peer.port())),
            (IpAddr::V4(_), _) => (self.guest4.into(), SocketAddr::new(seen, peer.port())),
            // A guest without IPv6 is reached all the same.
            (IpAddr::V6(_), None) => {
                let gateway = self.config.subnet4.gateway;
                (
                    self.guest4.into(),
                    SocketAddr::new(gateway.into(), peer.port()),
                )
            }
        }
    }
}
