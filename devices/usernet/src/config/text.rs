//! How published ports, networks and rules are written on a command line.

use super::{Action, Cidr, Protocol, Publish, Rule, Target};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// A text that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {why}")]
pub struct BadText {
    /// What was written.
    pub text: String,
    /// Why it means nothing, and what would.
    pub why: &'static str,
}

impl BadText {
    fn new(text: &str, why: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            why,
        }
    }
}

/// Splits `/tcp` or `/udp` off the end.
fn protocol(text: &str) -> (&str, Option<Protocol>) {
    if let Some(rest) = text.strip_suffix("/tcp") {
        return (rest, Some(Protocol::Tcp));
    }
    match text.strip_suffix("/udp") {
        Some(rest) => (rest, Some(Protocol::Udp)),
        None => (text, None),
    }
}

impl FromStr for Publish {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        const FORM: &str = "expected [HOST_IP:]HOST_PORT:GUEST_PORT[/tcp|/udp], such as 8080:80 \
            or [::1]:5353:53/udp";
        let bad = || BadText::new(text, FORM);
        let (rest, protocol) = protocol(text);
        let (rest, guest) = rest.rsplit_once(':').ok_or_else(bad)?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, port)) => (unbracketed(address).parse().map_err(|_| bad())?, port),
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), rest),
        };
        let host = SocketAddr::new(address, host.parse().map_err(|_| bad())?);
        let guest_port = guest.parse().map_err(|_| bad())?;
        if guest_port == 0 {
            return Err(BadText::new(text, "the guest's port is 1 to 65535"));
        }
        Ok(Self {
            protocol: protocol.unwrap_or(Protocol::Tcp),
            host,
            guest_port,
        })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest_port)?;
        match self.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => f.write_str("/udp"),
        }
    }
}

fn unbracketed(text: &str) -> &str {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text)
}

impl Cidr {
    /// True when the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, a, b) = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (32, u128::from(a.to_bits()), b.to_bits().into()),
            (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits(), b.to_bits()),
            _ => return false,
        };
        let free = bits - u32::from(self.prefix).min(bits);
        (a ^ b).checked_shr(free).unwrap_or(0) == 0
    }
}

impl FromStr for Cidr {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::new(text, "expected ADDRESS or ADDRESS/BITS, such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = bits.map_or(Ok(most), str::parse).map_err(|_| bad())?;
        if prefix > most {
            return Err(bad());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Target {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let plain = unbracketed(text);
        if plain.contains([':', '/']) || plain.parse::<IpAddr>().is_ok() {
            return plain.parse().map(Self::Net);
        }
        let name = plain.to_ascii_lowercase();
        let labels = name.strip_prefix("*.").unwrap_or(&name);
        let is_label = |label: &str| {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=63).contains(&label.len()) && label.bytes().all(is_letter)
        };
        if name.len() > 253 || !labels.split('.').all(is_label) {
            let why = "expected any, an address, a network or a name such as *.example.com";
            return Err(BadText::new(text, why));
        }
        Ok(Self::Name(name))
    }
}

impl Rule {
    /// Reads `TARGET[:PORT[-PORT]][/tcp|/udp]`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(action: Action, text: &str) -> Result<Self, BadText> {
        let (rest, protocol) = protocol(text);
        // An IPv6 address with a port is in brackets, as in a URL.
        let whole =
            rest.ends_with(']') || (!rest.starts_with('[') && rest.matches(':').count() > 1);
        let (target, ports) = match rest.rsplit_once(':') {
            Some((target, ports)) if !whole => (target, Some(range(text, ports)?)),
            _ => (rest, None),
        };
        Ok(Self {
            action,
            target: target.parse()?,
            ports,
            protocol,
        })
    }
}

fn range(text: &str, ports: &str) -> Result<(u16, u16), BadText> {
    let bad = || {
        BadText::new(
            text,
            "expected ports such as 443 or 8000-8010 after the colon",
        )
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first = first.parse().map_err(|_| bad())?;
    let last = last.parse().map_err(|_| bad())?;
    if first > last {
        return Err(bad());
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_are_read() {
        for (text, written) in [
            ("8080:80", "127.0.0.1:8080:80"),
            ("0.0.0.0:8080:80/tcp", "0.0.0.0:8080:80"),
            ("[::1]:5353:53/udp", "[::1]:5353:53/udp"),
            ("0:22", "127.0.0.1:0:22"),
        ] {
            let publish: Publish = text.parse().unwrap();
            assert_eq!(publish.to_string(), written, "{text}");
        }
        for text in [
            "",
            "80",
            "80:",
            ":80",
            "a:80",
            "80:0",
            "80:65536",
            "1.2.3:80:80",
            "80:80/sctp",
        ] {
            assert!(text.parse::<Publish>().is_err(), "{text}");
        }
    }

    #[test]
    fn rules_are_read() {
        let net = |text: &str| Target::Net(text.parse().unwrap());
        let name = |text: &str| Target::Name(text.to_owned());
        let tcp = Some(Protocol::Tcp);
        for (text, target, ports, protocol) in [
            ("any", Target::Any, None, None),
            ("any:25", Target::Any, Some((25, 25)), None),
            ("10.0.0.0/8", net("10.0.0.0/8"), None, None),
            (
                "10.0.0.1:443/tcp",
                net("10.0.0.1/32"),
                Some((443, 443)),
                tcp,
            ),
            ("fd00::/8", net("fd00::/8"), None, None),
            ("[fd00::/8]", net("fd00::/8"), None, None),
            ("[fd00::1]:80-90", net("fd00::1/128"), Some((80, 90)), None),
            (
                "*.Example.com:443",
                name("*.example.com"),
                Some((443, 443)),
                None,
            ),
        ] {
            let rule = Rule::parse(Action::Deny, text).unwrap();
            assert_eq!(
                (rule.target, rule.ports, rule.protocol),
                (target, ports, protocol),
                "{text}"
            );
        }
        for text in [
            "",
            "10.0.0.0/33",
            "a b",
            "x:1-0",
            "x:65536",
            "*.",
            "10.0.0.0/",
            "[::1]:",
        ] {
            assert!(Rule::parse(Action::Allow, text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_contain_their_addresses() {
        for (cidr, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fd00::1", true),
            ("fd00::/64", "fd00:0:0:1::", false),
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4/31", "1.2.3.6", false),
        ] {
            let cidr: Cidr = cidr.parse().unwrap();
            assert_eq!(
                cidr.contains(address.parse().unwrap()),
                inside,
                "{cidr} {address}"
            );
        }
    }
}
