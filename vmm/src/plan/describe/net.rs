//! A network interface for the reader, in the words of the command line.

use api::spec::{EgressSpec, SourceMac, UserNetSpec};
use devices::net::tap::TapRequest;

use super::named_rates;
use crate::config::{LinkConfig, NetConfig};

/// Where the host hands out taps.
pub(super) const TUN: &str = "/dev/net/tun";

/// Whether the host's tap is opened, and not taken over.
pub(super) fn opens_tun(net: &NetConfig) -> bool {
    matches!(&net.link, LinkConfig::Tap(tap) if tap.fds.is_empty())
}

/// What is behind it, where that has a name.
pub(super) fn file(net: &NetConfig) -> Option<String> {
    match &net.link {
        LinkConfig::Tap(tap) => tap.name.clone(),
        LinkConfig::User { .. } => None,
        LinkConfig::Passt { path, .. } => Some(path.display().to_string()),
    }
}

/// What was chosen for it.
pub(super) fn options(net: &NetConfig) -> Vec<String> {
    let mut options = vec![
        net.link.kind().to_string(),
        format!("mac={}", net.mac),
        format!("queues={}", net.pairs),
    ];
    if net.source != SourceMac::Own {
        options.push(format!("source={}", net.source));
    }
    options.extend(net.link.mtu().map(|mtu| format!("mtu={mtu}")));
    options.extend(named_rates(["rx", "rx-packets"], net.rx));
    options.extend(named_rates(["tx", "tx-packets"], net.tx));
    options.extend(net.mmds.map(|mmds| format!("mmds={}", mmds.address)));
    match &net.link {
        LinkConfig::Tap(TapRequest { fds, .. }) => {
            options.extend(fds.iter().map(|fd| format!("fd={fd}")));
        }
        LinkConfig::User { spec, .. } => options.extend(user(spec)),
        LinkConfig::Passt { .. } => {}
    }
    options
}

fn user(spec: &UserNetSpec) -> Vec<String> {
    let named = |name: &str, text: &str| format!("{name}={text}");
    let mut options: Vec<String> = Vec::new();
    options.extend(spec.publish.iter().map(|text| named("publish", text)));
    options.extend(spec.egress.iter().map(|rule| match rule {
        EgressSpec::Allow(text) => named("allow", text),
        EgressSpec::Deny(text) => named("deny", text),
    }));
    let switches = [("host", spec.host, "on"), ("ipv6", !spec.ipv6, "off")];
    let switches = switches.iter().filter(|(_, set, _)| *set);
    options.extend(switches.map(|(name, _, text)| named(name, text)));
    options.extend(spec.subnet.iter().map(|text| named("subnet", text)));
    options.extend(spec.dns.iter().map(|text| named("dns", text)));
    options
}
