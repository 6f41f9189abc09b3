//! What a user-mode network is told before it starts: plain data, which goes from the process that
//! parsed it to the one that runs the network as JSON.

mod text;

use crate::error::ServeError;
use crate::tcp::LEAST_FOR_FLOW;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use text::BadText;

/// The least MTU: what IPv6 needs of a link.
pub const MIN_MTU: u16 = 1280;
/// The greatest MTU: an IPv4 packet cannot be longer.
pub const MAX_MTU: u16 = 65_520;

/// A network for one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// IPv4 addresses of the network.
    pub subnet4: Subnet4,
    /// IPv6 prefix of the network; without one the guest has no IPv6.
    pub subnet6: Option<Subnet6>,
    /// The guest's MAC address, where frames go before it has sent any.
    pub guest_mac: Option<[u8; 6]>,
    /// MAC address of the gateway, which answers for every other host.
    pub gateway_mac: [u8; 6],
    /// Largest IP packet on the link, [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: u16,
    /// The name that DHCP gives the guest.
    pub hostname: Option<String>,
    /// Ports of the host that lead to ports of the guest.
    pub publish: Vec<Publish>,
    /// What the guest may reach.
    pub policy: Policy,
    /// Whom names are asked of.
    pub dns: Dns,
    /// What the guest takes before it has said so itself.
    pub offloads: Offloads,
    /// Most that the network may hold at a time.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            subnet4: Subnet4::default(),
            subnet6: Some(Subnet6::default()),
            guest_mac: None,
            gateway_mac: [0x52, 0x55, 0x0a, 0, 0x02, 0x02],
            mtu: 1500,
            hostname: None,
            publish: Vec::new(),
            policy: Policy::default(),
            dns: Dns::default(),
            offloads: Offloads::default(),
            limits: Limits::default(),
        }
    }
}

/// IPv4 addresses of the network. The defaults are those that QEMU's users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Subnet4 {
    /// The network's address.
    pub network: Ipv4Addr,
    /// Bits of it, 8 to 29.
    pub prefix: u8,
    /// The gateway, which is the DHCP server too.
    pub gateway: Ipv4Addr,
    /// The name server.
    pub dns: Ipv4Addr,
    /// The guest's address, which DHCP gives it.
    pub guest: Ipv4Addr,
}

impl Default for Subnet4 {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(10, 0, 2, 0),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            dns: Ipv4Addr::new(10, 0, 2, 3),
            guest: Ipv4Addr::new(10, 0, 2, 15),
        }
    }
}

impl Subnet4 {
    /// The usual places in a network: .2, .3 and .15.
    #[must_use]
    pub fn usual(network: Ipv4Addr, prefix: u8) -> Self {
        let at = |host: u32| Ipv4Addr::from(u32::from(network) | host);
        Self {
            network,
            prefix,
            gateway: at(2),
            dns: at(3),
            guest: at(15),
        }
    }
}

/// The IPv6 prefix of the network, 64 bits long: the guest makes its own address in it. The gateway
/// is `::2` there and the name server `::3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Subnet6 {
    /// The network's address; its last 64 bits are zero.
    pub network: Ipv6Addr,
}

impl Default for Subnet6 {
    fn default() -> Self {
        Self {
            network: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0),
        }
    }
}

/// Which packets: TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port of the host that leads to one of the guest. Text: `[HOST_IP:]HOST_PORT:GUEST_PORT[/udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the host listens. Port 0 is any that is free.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
}

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Deny,
}

/// Addresses that agree in their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cidr {
    /// An address among them.
    pub address: IpAddr,
    /// How many bits agree.
    pub prefix: u8,
}

/// Where a packet goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Anywhere.
    Any,
    /// Addresses.
    Net(Cidr),
    /// The addresses that the name server last gave for a name; `*.` in front means every name
    /// below it.
    Name(String),
}

/// One line of the policy. Text: `TARGET[:PORT[-PORT]][/tcp|/udp]`, where the target is `any`, an
/// address, a network such as `10.0.0.0/8` or `[fd00::/8]`, or a name such as `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens.
    pub action: Action,
    /// To packets for whom.
    pub target: Target,
    /// First and last port; all when there is none.
    pub ports: Option<(u16, u16)>,
    /// One protocol only; ICMP has none and only rules without ports mean it.
    pub protocol: Option<Protocol>,
}

/// What the guest may reach. The first rule that fits decides; without one what is closed by
/// itself (`host`, link-local addresses, metadata servers) is refused, and `default` says the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Read from first to last.
    pub rules: Vec<Rule>,
    /// When no rule fits.
    pub default: Action,
    /// The gateway's address is the host's loopback, and the host's own addresses are open.
    pub host: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            default: Action::Allow,
            host: false,
        }
    }
}

/// Whom names are asked of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Servers, tried in turn; the host's (`/etc/resolv.conf`) when there is none.
    pub servers: Vec<SocketAddr>,
    /// Domains for short names; the host's when there are no servers.
    pub search: Vec<String>,
}

/// What the guest's driver takes; the monitor tells when it is set up ([`crate::OFFLOADS_BYTES`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Offloads {
    /// Packets whose checksum is partial.
    pub checksum: bool,
    /// IPv4 TCP segments up to 64 KiB.
    pub tso4: bool,
    /// IPv6 TCP segments up to 64 KiB.
    pub tso6: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self {
            checksum: true,
            tso4: true,
            tso6: true,
        }
    }
}

/// Most that the network may hold at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// TCP connections.
    pub tcp_flows: u32,
    /// UDP flows.
    pub udp_flows: u32,
    /// Hosts that are being pinged.
    pub pings: u32,
    /// Questions to name servers.
    pub questions: u32,
    /// Bytes of buffers for TCP, all connections together.
    pub tcp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_flows: 4096,
            udp_flows: 1024,
            pings: 64,
            questions: 256,
            tcp_bytes: 256 << 20,
        }
    }
}

impl Config {
    /// Finds what contradicts itself.
    pub(crate) fn check(&self) -> Result<(), ServeError> {
        let wrong = |text: String| Err(ServeError::Config(text));
        if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            return wrong(format!(
                "an MTU of {}: it is {MIN_MTU} to {MAX_MTU}",
                self.mtu
            ));
        }
        let Subnet4 {
            network,
            prefix,
            gateway,
            dns,
            guest,
        } = self.subnet4;
        if !(8..=29).contains(&prefix) {
            return wrong(format!("a prefix of {prefix} bits: it is 8 to 29"));
        }
        let net = Cidr {
            address: network.into(),
            prefix,
        };
        let hosts = [gateway, dns, guest];
        for (index, host) in hosts.iter().enumerate() {
            let is_end = *host == network || *host == self.subnet4.broadcast();
            if !net.contains((*host).into()) || is_end {
                return wrong(format!("{host} is no host of {net}"));
            }
            if hosts.iter().skip(index + 1).any(|other| other == host) {
                return wrong(format!("{host} is given to two hosts"));
            }
        }
        let least = u64::from(self.limits.tcp_flows) * LEAST_FOR_FLOW;
        if self.limits.tcp_bytes < least {
            let flows = self.limits.tcp_flows;
            return wrong(format!(
                "{flows} TCP connections need {least} bytes of buffers"
            ));
        }
        if let Some(subnet) = self.subnet6
            && subnet.network.to_bits() & u128::from(u64::MAX) != 0
        {
            return wrong(format!(
                "{}: a prefix ends with 64 zero bits",
                subnet.network
            ));
        }
        let macs = [Some(self.gateway_mac), self.guest_mac];
        if macs.iter().flatten().any(|mac| mac[0] & 1 != 0) {
            return wrong("a MAC address for groups is no host's".to_owned());
        }
        Ok(())
    }
}

impl Subnet4 {
    /// The bits of the network.
    pub(crate) fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(!u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0))
    }

    /// True for an address of the network.
    pub(crate) fn contains(&self, ip: Ipv4Addr) -> bool {
        ip & self.mask() == self.network & self.mask()
    }

    /// The address that means all hosts of the network.
    pub(crate) fn broadcast(&self) -> Ipv4Addr {
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        Ipv4Addr::from_bits(self.network.to_bits() | hosts)
    }
}

impl Subnet6 {
    /// The gateway's address in the prefix.
    pub(crate) fn gateway(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network.to_bits() | 2)
    }

    /// The name server's.
    pub(crate) fn dns(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network.to_bits() | 3)
    }

    /// True for an address of the prefix.
    pub(crate) fn contains(&self, ip: Ipv6Addr) -> bool {
        ip.to_bits() >> 64 == self.network.to_bits() >> 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_found() {
        assert!(Config::default().check().is_ok());
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(with(|c| c.mtu = 100).contains("MTU"));
        assert!(with(|c| c.subnet4.prefix = 31).contains("prefix"));
        assert!(with(|c| c.subnet4.guest = c.subnet4.dns).contains("two hosts"));
        assert!(with(|c| c.subnet4.guest = Ipv4Addr::new(10, 0, 2, 255)).contains("no host"));
        assert!(with(|c| c.guest_mac = Some([1; 6])).contains("MAC"));
        let odd = |c: &mut Config| c.subnet6.as_mut().unwrap().network = Ipv6Addr::LOCALHOST;
        assert!(with(odd).contains("64 zero bits"));
    }

    #[test]
    fn a_configuration_travels_as_json() {
        let mut config = Config::default();
        config.publish.push("8080:80".parse().unwrap());
        config
            .policy
            .rules
            .push(Rule::parse(Action::Deny, "*.example.com:25").unwrap());
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }
}
