//! Messages of DHCP (RFC 2131, 2132): what a client says and what it makes of the answers. Pure.

use std::net::Ipv4Addr;

/// Bytes before the options, without the cookie.
const FIXED_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The least that servers of old take.
const LEAST_BYTES: usize = 300;

mod option {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const ADDRESS: u8 = 50;
    pub(super) const SECONDS: u8 = 51;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const PAD: u8 = 0;
    pub(super) const END: u8 = 255;
}

/// What a server grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    /// Bits of the network.
    pub(super) prefix: u8,
    pub(super) router: Option<Ipv4Addr>,
    pub(super) dns: Vec<Ipv4Addr>,
    pub(super) domain: Option<String>,
    pub(super) mtu: Option<u16>,
    /// For how long; for ever without it.
    pub(super) seconds: Option<u32>,
    /// Who grants it.
    pub(super) server: Option<Ipv4Addr>,
}

impl Lease {
    /// An address and no more.
    pub(super) fn of(address: Ipv4Addr, prefix: u8) -> Self {
        Self {
            address,
            prefix,
            router: None,
            dns: Vec::new(),
            domain: None,
            mtu: None,
            seconds: None,
            server: None,
        }
    }
}

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say<'a> {
    /// Who has an address for me?
    Discover,
    /// I take the one offered.
    Take(&'a Lease),
    /// I had this one; may I keep it?
    Keep(&'a Lease),
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An address that may be taken.
    Offer(Lease),
    /// It is ours.
    Granted(Lease),
    /// It is not.
    Refused,
}

/// A client's message.
pub(super) fn message(say: Say<'_>, id: u32, mac: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0]; // a request, Ethernet, addresses of 6 bytes
    bytes.extend(id.to_be_bytes());
    bytes.extend([0, 0, 0x80, 0]); // answers to everybody: there is no address of ours yet
    bytes.resize(28, 0);
    bytes.extend(mac);
    bytes.resize(FIXED_BYTES, 0);
    bytes.extend(COOKIE);
    let kind = match say {
        Say::Discover => 1,
        Say::Take(_) | Say::Keep(_) => 3,
    };
    bytes.extend([option::KIND, 1, kind]);
    if let Say::Take(lease) | Say::Keep(lease) = say {
        bytes.extend([option::ADDRESS, 4]);
        bytes.extend(lease.address.octets());
    }
    if let Say::Take(Lease {
        server: Some(server),
        ..
    }) = say
    {
        bytes.extend([option::SERVER, 4]);
        bytes.extend(server.octets());
    }
    let wanted = [
        option::MASK,
        option::ROUTER,
        option::DNS,
        option::DOMAIN,
        option::MTU,
        option::SECONDS,
    ];
    bytes.extend([option::WANTED, 6]);
    bytes.extend(wanted);
    bytes.push(option::END);
    bytes.resize(bytes.len().max(LEAST_BYTES), 0);
    bytes
}

/// A server's answer to the message `id`; none for what is no such thing.
pub(super) fn answer(bytes: &[u8], id: u32, mac: [u8; 6]) -> Option<Answer> {
    let at = |start: usize, len: usize| bytes.get(start..start.checked_add(len)?);
    let ours = at(0, 3)? == [2, 1, 6] && at(4, 4)? == id.to_be_bytes() && at(28, 6)? == mac;
    if !ours || at(FIXED_BYTES, 4)? != COOKIE {
        return None;
    }
    let address = Ipv4Addr::from(*at(16, 4)?.first_chunk::<4>()?);
    let options = bytes.get(FIXED_BYTES + COOKIE.len()..)?;
    let find = |wanted: u8| find(options, wanted);
    let kind = *find(option::KIND)?.first()?;
    if kind == 6 {
        return Some(Answer::Refused);
    }
    let number = |wanted: u8| Some(u32::from_be_bytes(*find(wanted)?.first_chunk()?));
    let addresses = |wanted: u8| {
        let (all, _) = find(wanted).unwrap_or_default().as_chunks::<4>();
        all.iter().copied().map(Ipv4Addr::from)
    };
    let usable = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    if !usable {
        return None;
    }
    let prefix = number(option::MASK).map_or(24, u32::leading_ones);
    let domain = find(option::DOMAIN).map(domain).unwrap_or_default();
    let mtu = find(option::MTU).and_then(|bytes| bytes.first_chunk());
    let mtu = mtu.map(|bytes| u16::from_be_bytes(*bytes));
    let lease = Lease {
        router: addresses(option::ROUTER).next(),
        dns: addresses(option::DNS).take(3).collect(),
        domain: Some(domain).filter(|domain| !domain.is_empty()),
        // The least that IPv4 does with.
        mtu: mtu.filter(|mtu| *mtu >= 576),
        seconds: number(option::SECONDS).filter(|seconds| *seconds != u32::MAX),
        server: addresses(option::SERVER).next(),
        ..Lease::of(address, u8::try_from(prefix).unwrap_or(32))
    };
    match kind {
        2 => Some(Answer::Offer(lease)),
        5 => Some(Answer::Granted(lease)),
        _ => None,
    }
}

/// What a server sent to a client, out of an IPv4 packet to whomever; none for anything else.
pub(super) fn from_server(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0xf).checked_mul(4)?;
    let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff;
    let udp = packet.first()? >> 4 == 4 && *packet.get(9)? == 17 && fragment == 0;
    let total = u16::from_be_bytes(*packet.get(2..)?.first_chunk()?);
    // A short packet has padding of Ethernet behind it.
    let datagram = packet.get(header..usize::from(total))?;
    let to_client = *datagram.first_chunk::<4>()? == [0, 67, 0, 68];
    datagram.get(8..).filter(|_| udp && to_client)
}

/// The first option of a number.
fn find(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options {
            [option::PAD, rest @ ..] => options = rest,
            [option::END, ..] | [] | [_] => return None,
            [name, len, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                if *name == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

/// The characters that a domain can have; what else a server writes stays out of files.
fn domain(bytes: &[u8]) -> String {
    let good = |byte: &&u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
    let good = bytes.iter().take_while(good);
    good.map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, last)
    }

    /// A server's message with options after the cookie.
    fn reply(options: &[u8]) -> Vec<u8> {
        let mut bytes = message(Say::Discover, 7, MAC);
        bytes.truncate(FIXED_BYTES + COOKIE.len());
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&at(15).octets());
        bytes.extend(options);
        bytes
    }

    const FULL: &[u8] = &[
        0, 53, 1, 5, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6, 8, 10, 0, 2, 3, 9, 9, 9, 9, 15,
        5, b'a', b'.', b'b', b'\n', b'x', 26, 2, 5, 220, 51, 4, 0, 0, 14, 16, 54, 4, 10, 0, 2, 2,
        255,
    ];

    #[test]
    fn what_a_client_says() {
        let discover = message(Say::Discover, 0x0102_0304, MAC);
        assert_eq!(discover.len(), 300);
        assert_eq!(discover[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0]);
        assert_eq!(discover[28..34], MAC);
        assert_eq!(discover[236..243], [99, 130, 83, 99, 53, 1, 1]);
        let lease = Lease {
            server: Some(at(2)),
            ..Lease::of(at(15), 24)
        };
        let take = message(Say::Take(&lease), 7, MAC);
        assert_eq!(take[243..255], [50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2]);
        let keep = message(Say::Keep(&lease), 7, MAC);
        assert_eq!(keep[240..250], [53, 1, 3, 50, 4, 10, 0, 2, 15, 55]);
    }

    #[test]
    fn what_is_made_of_an_answer() {
        let lease = Lease {
            address: at(15),
            prefix: 24,
            router: Some(at(2)),
            dns: vec![at(3), Ipv4Addr::new(9, 9, 9, 9)],
            domain: Some("a.b".into()),
            mtu: Some(1500),
            seconds: Some(3600),
            server: Some(at(2)),
        };
        assert_eq!(answer(&reply(FULL), 7, MAC), Some(Answer::Granted(lease)));
        let least = answer(&reply(&[53, 1, 2, 255]), 7, MAC);
        assert_eq!(least, Some(Answer::Offer(Lease::of(at(15), 24))));
        let refused = answer(&reply(&[53, 1, 6]), 7, MAC);
        assert_eq!(refused, Some(Answer::Refused));
    }

    #[test]
    fn answers_are_found_in_packets() {
        let mut packet = vec![
            0x45, 0, 0, 31, 0, 0, 0, 0, 255, 17, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15,
        ];
        packet.extend([0, 67, 0, 68, 0, 11, 0, 0, 1, 2, 3, 0, 0, 0]);
        assert_eq!(from_server(&packet), Some(&[1, 2, 3][..]));
        for len in 0..31 {
            assert_eq!(from_server(&packet[..len]), None);
        }
        // Another version, length, fragment, protocol, port.
        for (at, value) in [
            (0, 0x65),
            (0, 0x4f),
            (3, 60),
            (7, 1),
            (6, 0x20),
            (9, 6),
            (23, 67),
        ] {
            let mut other = packet.clone();
            other[at] = value;
            assert_eq!(from_server(&other), None, "{at}");
        }
    }

    #[test]
    fn what_is_no_answer() {
        assert_eq!(answer(&reply(FULL), 8, MAC), None);
        assert_eq!(answer(&reply(FULL), 7, [3; 6]), None);
        assert_eq!(answer(&message(Say::Discover, 7, MAC), 7, MAC), None);
        for odd in [
            &[][..],
            &[53],
            &[53, 1],
            &[53, 0, 255],
            &[53, 1, 9],
            &[53, 200, 5],
        ] {
            assert_eq!(answer(&reply(odd), 7, MAC), None, "{odd:?}");
        }
        let mut nowhere = reply(FULL);
        nowhere[16..20].fill(0);
        assert_eq!(answer(&nowhere, 7, MAC), None);
        // However it is cut, nothing worse comes of it than less.
        let whole = reply(FULL);
        for len in 0..whole.len() {
            let _ = answer(&whole[..len], 7, MAC);
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            let _ = answer(&changed, 7, MAC);
        }
    }
}
