//! ARP (RFC 826): the gateway answers for every address that is not the guest's.

use crate::net::Net;
use crate::wire::build;
use crate::wire::{ARP, Bad, Mac, be16, be32};
use std::net::Ipv4Addr;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Takes an ARP packet of the guest.
pub(crate) fn take(net: &mut Net, data: &[u8]) -> Result<(), Bad> {
    let operation = parse(data).ok_or(Bad::Malformed)?;
    let Some((mac, from, target)) = operation else {
        return Ok(());
    };
    // A guest that asks for its own address wants to know whether another has it.
    let is_probe = from.is_unspecified() && target == net.config.subnet4.guest;
    let subnet = net.config.subnet4;
    let ours = [subnet.gateway, subnet.dns].contains(&target);
    if is_probe || target == from || !subnet.contains(target) || !ours {
        return Ok(());
    }
    let mut message = build::start(net.macs(), ARP);
    if let Some(place) = message.get_mut(crate::link::HEADER_BYTES..) {
        crate::wire::put(place, 0, &mac);
    }
    message.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    message.extend_from_slice(&REPLY.to_be_bytes());
    message.extend_from_slice(&net.config.gateway_mac);
    message.extend_from_slice(&target.octets());
    message.extend_from_slice(&mac);
    message.extend_from_slice(&from.octets());
    net.send(&message);
    Ok(())
}

/// Who asks for whom; nothing for an answer.
fn parse(data: &[u8]) -> Option<Option<(Mac, Ipv4Addr, Ipv4Addr)>> {
    let kinds = (be16(data, 0)?, be16(data, 2)?, be16(data, 4)?);
    if kinds != (1, 0x0800, 0x0604) {
        return None;
    }
    let mac: Mac = *data.get(8..)?.first_chunk()?;
    let from = Ipv4Addr::from_bits(be32(data, 14)?);
    let target = Ipv4Addr::from_bits(be32(data, 24)?);
    match be16(data, 6)? {
        REQUEST if mac[0] & 1 == 0 => Some(Some((mac, from, target))),
        REPLY => Some(None),
        _ => None,
    }
}
