//! The DHCP server (RFC 2131): one guest, one address, which it always gets.

use crate::config::Config;
use crate::wire::{be32, put};
use std::net::{Ipv4Addr, SocketAddr};

pub(crate) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

const COOKIE: u32 = 0x6382_5363;
const OPTIONS: usize = 240;
/// What clients expect an answer to be at least.
const LEAST_BYTES: usize = 300;
/// A day: there is nobody else to give the address to.
const LEASE_SECONDS: u32 = 86_400;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOSTNAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const MESSAGE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const END: u8 = 255;
}

/// What a client sent, as far as it matters.
#[derive(Debug, Default)]
struct Request {
    kind: u8,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

/// An answer and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpAnswer {
    /// The message.
    pub data: Vec<u8>,
    /// The client, or everybody when it has no address yet.
    pub to: SocketAddr,
}

/// What the server makes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dhcp {
    /// It is answered.
    Answer(DhcpAnswer),
    /// It is right and needs no answer.
    Silent,
    /// It makes no sense.
    Malformed,
}

/// Answers a message to the DHCP server.
#[must_use]
pub fn dhcp_answer(config: &Config, message: &[u8]) -> Dhcp {
    let Some(request) = parse(message) else {
        return Dhcp::Malformed;
    };
    let subnet = config.subnet4;
    let ciaddr = be32(message, 12).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from_bits);
    let for_another = request
        .server
        .is_some_and(|server| server != subnet.gateway);
    let kind = match request.kind {
        DISCOVER => OFFER,
        // A client that renews names its address in the header.
        REQUEST if !for_another => {
            let wanted = request.requested.unwrap_or(ciaddr);
            if wanted == subnet.guest { ACK } else { NAK }
        }
        INFORM => ACK,
        REQUEST | DECLINE | RELEASE => return Dhcp::Silent,
        _ => return Dhcp::Malformed,
    };
    let informs = request.kind == INFORM;
    let data = answer(config, message, kind, informs);
    let to = match ciaddr {
        ciaddr if kind != NAK && subnet.contains(ciaddr) => ciaddr,
        _ => Ipv4Addr::BROADCAST,
    };
    let to = SocketAddr::new(to.into(), CLIENT_PORT);
    Dhcp::Answer(DhcpAnswer { data, to })
}

fn parse(message: &[u8]) -> Option<Request> {
    // A request, from an Ethernet client, not relayed.
    let is_request = message.get(..3)? == [1, 1, 6] && be32(message, 24)? == 0;
    if !is_request || be32(message, 236)? != COOKIE {
        return None;
    }
    let mut request = Request::default();
    let mut rest = message.get(OPTIONS..)?;
    while let Some((code, after)) = rest.split_first() {
        match *code {
            option::PAD => {
                rest = after;
                continue;
            }
            option::END => break,
            _ => {}
        }
        let (length, after) = after.split_first()?;
        let (value, after) = after.split_at_checked((*length).into())?;
        match *code {
            option::MESSAGE => request.kind = *value.first()?,
            option::REQUESTED => request.requested = Some(Ipv4Addr::from_bits(be32(value, 0)?)),
            option::SERVER => request.server = Some(Ipv4Addr::from_bits(be32(value, 0)?)),
            _ => {}
        }
        rest = after;
    }
    Some(request)
}

fn answer(config: &Config, request: &[u8], kind: u8, informs: bool) -> Vec<u8> {
    let subnet = config.subnet4;
    let mut data = vec![0; OPTIONS];
    put(&mut data, 0, &[2, 1, 6]);
    // Its number, flags, address and MAC address are the client's own.
    put(&mut data, 4, request.get(4..8).unwrap_or_default());
    put(&mut data, 10, request.get(10..12).unwrap_or_default());
    put(&mut data, 28, request.get(28..44).unwrap_or_default());
    put(&mut data, 236, &COOKIE.to_be_bytes());
    let mut add = |code: u8, value: &[u8]| {
        if let Ok(length) = u8::try_from(value.len()) {
            data.extend_from_slice(&[code, length]);
            data.extend_from_slice(value);
        }
    };
    add(option::MESSAGE, &[kind]);
    add(option::SERVER, &subnet.gateway.octets());
    if kind != NAK {
        if !informs {
            add(option::LEASE, &LEASE_SECONDS.to_be_bytes());
        }
        add(option::MASK, &subnet.mask().octets());
        add(option::ROUTER, &subnet.gateway.octets());
        add(option::DNS, &subnet.dns.octets());
        add(option::MTU, &config.mtu.to_be_bytes());
        if let Some(name) = &config.hostname {
            add(option::HOSTNAME, name.as_bytes());
        }
        if let Some(domain) = config.dns.search.first() {
            add(option::DOMAIN, domain.as_bytes());
        }
        if informs {
            put(&mut data, 12, request.get(12..16).unwrap_or_default());
        } else {
            put(&mut data, 16, &subnet.guest.octets());
        }
        put(&mut data, 20, &subnet.gateway.octets());
    }
    data.push(option::END);
    if data.len() < LEAST_BYTES {
        data.resize(LEAST_BYTES, 0);
    }
    data
}
