//! `ip=` of the kernel's command line, in the kernel's own form:
//! `ip=ADDRESS:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:HOW:DNS:DNS`, or `ip=dhcp`, or `ip=off`.

use std::net::Ipv4Addr;

use super::dhcp::Lease;

/// How an interface gets its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// By asking.
    Dhcp,
    /// As it stands there.
    Static(Lease),
    /// Not at all.
    Off,
}

/// One `ip=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The interface that is meant; the first one without it.
    device: Option<String>,
    pub(super) how: How,
}

impl Setting {
    /// All that a command line says. Words after `--` are for init's program.
    pub(super) fn all(line: &str) -> Vec<Self> {
        let words = line.split_whitespace().take_while(|word| *word != "--");
        let values = words.filter_map(|word| word.strip_prefix("ip="));
        values.filter_map(Self::read).collect()
    }

    fn read(text: &str) -> Option<Self> {
        let of = |device: Option<&str>, how| {
            let device = device.filter(|name| !name.is_empty()).map(str::to_owned);
            Some(Self { device, how })
        };
        match text {
            "dhcp" | "on" | "any" => return of(None, How::Dhcp),
            "off" | "none" => return of(None, How::Off),
            _ => {}
        }
        let mut fields = text.split(':');
        let (address, _server) = (fields.next()?, fields.next());
        let gateway = fields.next().unwrap_or_default();
        let mask = fields.next().unwrap_or_default();
        let (_hostname, device) = (fields.next(), fields.next());
        let how = fields.next().unwrap_or_default();
        let Ok(lease) = read_address(address, mask) else {
            let by_dhcp = matches!(how, "dhcp" | "on" | "any" | "");
            return of(device, if by_dhcp { How::Dhcp } else { How::Off });
        };
        let dns = fields.filter_map(|field| field.parse().ok()).collect();
        let lease = Lease {
            router: gateway.parse().ok(),
            dns,
            ..lease
        };
        of(device, How::Static(lease))
    }
}

/// The last word about an interface, else about the first one.
pub(super) fn of<'a>(settings: &'a [Setting], name: &str) -> Option<&'a Setting> {
    let last = |device: Option<&str>| {
        let mut all = settings.iter().rev();
        all.find(|setting| setting.device.as_deref() == device)
    };
    last(Some(name)).or_else(|| (name == "eth0").then(|| last(None)).flatten())
}

/// `ADDRESS` with its mask, or `ADDRESS/BITS`.
fn read_address(text: &str, mask: &str) -> Result<Lease, std::net::AddrParseError> {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let address = address.parse()?;
    let mask: Option<Ipv4Addr> = mask.parse().ok();
    let of_mask = mask.map(|mask| mask.to_bits().leading_ones());
    let bits = bits.parse().ok().or(of_mask).unwrap_or(24).min(32);
    Ok(Lease::of(address, u8::try_from(bits).unwrap_or(32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn forms() {
        let fixed = |prefix, router, dns: &[Ipv4Addr]| {
            How::Static(Lease {
                router,
                dns: dns.to_vec(),
                ..Lease::of(at(2), prefix)
            })
        };
        for (text, device, how) in [
            ("dhcp", None, How::Dhcp),
            ("on", None, How::Dhcp),
            ("off", None, How::Off),
            (":::::eth1:dhcp", Some("eth1"), How::Dhcp),
            (":::::eth1:off", Some("eth1"), How::Off),
            ("10.0.0.2", None, fixed(24, None, &[])),
            ("10.0.0.2/16", None, fixed(16, None, &[])),
            (
                "10.0.0.2::10.0.0.1:255.255.255.252::eth0:off:10.0.0.3:10.0.0.4",
                Some("eth0"),
                fixed(30, Some(at(1)), &[at(3), at(4)]),
            ),
            (
                "10.0.0.2::10.0.0.1:255.0.0.0",
                None,
                fixed(8, Some(at(1)), &[]),
            ),
        ] {
            let device = device.map(str::to_owned);
            assert_eq!(Setting::read(text), Some(Setting { device, how }), "{text}");
        }
    }

    #[test]
    fn the_last_word_about_an_interface_counts() {
        let line = "quiet ip=dhcp ip=:::::eth1:off ip=10.0.0.2 zip=1 -- ip=off";
        let all = Setting::all(line);
        assert_eq!(all.len(), 3);
        assert!(matches!(of(&all, "eth0").unwrap().how, How::Static(_)));
        assert_eq!(of(&all, "eth1").unwrap().how, How::Off);
        assert_eq!(of(&all, "eth2"), None);
    }
}
