//! Neighbour discovery (RFC 4861): router and neighbour solicitations are answered, with the prefix
//! from which the guest makes its address and the name server (RFC 8106).

use crate::net::{Net, ROUTER};
use crate::wire::build::{self, Macs};
use crate::wire::{Bad, ICMPV6, Packet, ipv6_at};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// How long the gateway stays a router, seconds: the most that there is. It is told anew with the
/// guest's own traffic long before, so that an idle network wakes nobody.
const LIFETIME: u16 = 65_535;
/// When it is told anew.
pub(crate) const AGAIN: Duration = Duration::from_secs(3600);
const FOR_EVER: [u8; 4] = [0xff; 4];

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What was asked.
pub(crate) enum Asked {
    /// Where the router is.
    Router,
    /// Something else.
    Other,
}

/// Takes a message of neighbour discovery; none when it is another ICMPv6 message.
pub(crate) fn take(net: &mut Net, packet: &Packet<'_>) -> Option<Result<Asked, Bad>> {
    let kind = *packet.payload.first()?;
    if !(ROUTER_SOLICITATION..=NEIGHBOUR_ADVERTISEMENT).contains(&kind) {
        return None;
    }
    // Only a neighbour can send with this hop limit.
    if packet.hop_limit != 255 || packet.payload.get(1) != Some(&0) {
        return Some(Err(Bad::Malformed));
    }
    Some(match kind {
        ROUTER_SOLICITATION if packet.payload.len() >= 8 => {
            advertise(net);
            Ok(Asked::Router)
        }
        NEIGHBOUR_SOLICITATION => neighbour(net, packet).ok_or(Bad::Malformed),
        NEIGHBOUR_ADVERTISEMENT if packet.payload.len() >= 24 => Ok(Asked::Other),
        _ => Err(Bad::Malformed),
    })
}

/// Sends a router advertisement to all nodes, of which there is one.
pub(crate) fn advertise(net: &mut Net) {
    let Some(subnet) = net.config.subnet6 else {
        return;
    };
    let mut payload = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0];
    payload.extend_from_slice(&LIFETIME.to_be_bytes());
    payload.extend_from_slice(&[0; 8]);
    // Source link-layer address.
    payload.extend_from_slice(&[1, 1]);
    payload.extend_from_slice(&net.config.gateway_mac);
    payload.extend_from_slice(&[5, 1, 0, 0]);
    payload.extend_from_slice(&u32::from(net.config.mtu).to_be_bytes());
    // Prefix: on the link, and good to make an address from.
    payload.extend_from_slice(&[3, 4, 64, 0xc0]);
    payload.extend_from_slice(&FOR_EVER);
    payload.extend_from_slice(&FOR_EVER);
    payload.extend_from_slice(&[0; 4]);
    payload.extend_from_slice(&subnet.network.octets());
    // Recursive name server.
    payload.extend_from_slice(&[25, 3, 0, 0]);
    payload.extend_from_slice(&FOR_EVER);
    payload.extend_from_slice(&subnet.dns().octets());
    let macs = Macs {
        to: [0x33, 0x33, 0, 0, 0, 1],
        ..net.macs()
    };
    let (from, to) = (ROUTER.into(), ALL_NODES.into());
    let message = build::ip_with_hops(macs, from, to, (ICMPV6, 255), &payload);
    net.send(&message);
}

/// Answers for the gateway and the name server.
fn neighbour(net: &mut Net, packet: &Packet<'_>) -> Option<Asked> {
    let target = ipv6_at(packet.payload, 8)?;
    let subnet = net.config.subnet6?;
    let is_probe = packet.from.is_unspecified();
    if is_probe {
        // The guest makes sure that an address is free before it takes it.
        net.is_guest6(target);
    }
    if ![ROUTER, subnet.gateway(), subnet.dns()].contains(&target) {
        return Some(Asked::Other);
    }
    const IS_ROUTER: u8 = 0x80;
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let flags = IS_ROUTER | OVERRIDE | if is_probe { 0 } else { SOLICITED };
    let mut payload = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    payload.extend_from_slice(&target.octets());
    payload.extend_from_slice(&[2, 1]);
    payload.extend_from_slice(&net.config.gateway_mac);
    let to: IpAddr = if is_probe {
        ALL_NODES.into()
    } else {
        packet.from
    };
    let message = build::ip_with_hops(net.macs(), target.into(), to, (ICMPV6, 255), &payload);
    net.send(&message);
    Some(Asked::Other)
}
