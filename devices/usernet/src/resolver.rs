//! The host's name servers, as `/etc/resolv.conf` has them.

use crate::config::Dns;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const PORT: u16 = 53;
/// As many as the C library asks.
const MOST: usize = 3;

/// Servers and domains of the text of a `resolv.conf`; the host's own server where it names none
/// (resolv.conf(5)).
pub(crate) fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                // A zone ("%eth0") only means something for link-local servers, which are left out.
                let ip = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                dns.servers.extend(ip.map(|ip| SocketAddr::new(ip, PORT)));
            }
            Some("search" | "domain") => dns.search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns.servers.truncate(MOST);
    if dns.servers.is_empty() {
        dns.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domains_are_read() {
        let text = "# made by hand\nnameserver 10.0.0.1\nnameserver\t::1 # local\n\
            nameserver fe80::1%eth0\nnameserver x\noptions edns0\nsearch a.example b.example\n";
        let dns = parse(text);
        let servers: Vec<SocketAddr> =
            vec!["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(dns.servers, servers);
        assert_eq!(dns.search, ["a.example", "b.example"]);
        let own: SocketAddr = "127.0.0.1:53".parse().unwrap();
        assert_eq!(parse("search a.example").servers, [own]);
        assert_eq!(parse("").servers, [own]);
    }
}
