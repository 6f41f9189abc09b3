//! UDP, names and pings through the network.

use crate::common::{Network, open, pattern};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use usernet::testing::{Guest, Other};
use usernet::{Action, Failure, Question, Rule};

/// The next packet that is for no TCP stream and not about neighbours.
fn next(guest: &mut Guest) -> Other {
    let mut others = Vec::new();
    let any = |guest: &mut Guest| {
        others.extend(guest.others());
        !others.is_empty()
    };
    guest.until(any).unwrap();
    assert_eq!(others.len(), 1, "one packet, not more");
    others.remove(0)
}

fn host() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

#[test]
fn datagrams_go_out_and_come_back() {
    let (host, at) = host();
    let mut network = Network::start(open());
    let to = network.to(at);
    let mut room = vec![0; 65_536];
    for length in [0, 1, 512, 1472] {
        let data = pattern(length);
        network.guest.send_udp(5000, to, &data).unwrap();
        let (bytes, from) = host.recv_from(&mut room).unwrap();
        assert!(room[..bytes] == data);
        host.send_to(&data, from).unwrap();
        let other = next(&mut network.guest);
        assert_eq!(other.udp(), Some((to, 5000, &data[..])));
    }
    assert_eq!(network.end().udp_opened, 1);
}

#[test]
fn a_datagram_that_is_too_long_comes_in_parts() {
    let (host, at) = host();
    let mut network = Network::start(open());
    let to = network.to(at);
    network.guest.send_udp(5000, to, b"?").unwrap();
    let (_, from) = host.recv_from(&mut [0; 10]).unwrap();
    let data = pattern(5000);
    host.send_to(&data, from).unwrap();
    let mut parts = Vec::new();
    let all = |guest: &mut Guest| {
        parts.extend(guest.others());
        parts.len() == 4
    };
    network.guest.until(all).unwrap();
    let mut whole = Vec::new();
    for part in &parts {
        let packet = &part.message[12 + 14..];
        assert!(packet.len() <= 1500);
        let field = u16::from_be_bytes([packet[6], packet[7]]);
        assert_eq!(usize::from(field & 0x1fff) * 8, whole.len());
        whole.extend_from_slice(&packet[20..]);
        assert_eq!(field & 0x2000 != 0, whole.len() < 5008);
    }
    assert!(whole[8..] == data);
}

#[test]
fn a_port_that_nobody_has_is_unreachable() {
    let (host, at) = host();
    drop(host);
    let mut network = Network::start(open());
    let to = network.to(at);
    network.guest.send_udp(5000, to, b"?").unwrap();
    let other = next(&mut network.guest);
    let (_, protocol, payload) = other.ip().unwrap();
    assert_eq!((protocol, &payload[..2]), (1, &[3, 3][..]));
    // The packet that it is about: from port 5000.
    assert_eq!(payload[8 + 20..8 + 22], 5000_u16.to_be_bytes());
}

#[test]
fn the_oldest_flow_without_an_answer_gives_way() {
    let (host, at) = host();
    let mut config = open();
    config.limits.udp_flows = 4;
    let mut network = Network::start(config);
    let to = network.to(at);
    for port in 5000..5020 {
        network.guest.send_udp(port, to, b"?").unwrap();
        host.recv_from(&mut [0; 10]).unwrap();
    }
    let counters = network.end();
    assert_eq!((counters.udp_opened, counters.drops.full), (20, 0));
}

#[test]
fn published_datagrams_reach_the_guest_and_return() {
    let mut config = open();
    config.publish = vec!["0:53/udp".parse().unwrap()];
    let mut network = Network::start(config);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(network.published[0]).unwrap();
    for round in 0..3_u8 {
        client.send(&[round; 100]).unwrap();
        let other = next(&mut network.guest);
        let (from, port, data) = other.udp().unwrap();
        assert_eq!((port, data), (53, &[round; 100][..]));
        assert_eq!(from.port(), client.local_addr().unwrap().port());
        network.guest.send_udp(53, from, &[round + 1; 50]).unwrap();
        let mut room = [0; 100];
        assert_eq!(client.recv(&mut room).unwrap(), 50);
        assert_eq!(room[..50], [round + 1; 50]);
    }
}

#[test]
fn the_gateway_answers_pings() {
    let mut network = Network::start(open());
    for (to, protocol, request, reply) in [
        ("10.0.2.2", 1, 8, 0),
        ("10.0.2.3", 1, 8, 0),
        ("fd00::2", 58, 128, 129),
        ("fd00::3", 58, 128, 129),
    ] {
        let mut message = vec![request, 0, 0, 0, 1, 2, 3, 4];
        message.extend(pattern(56));
        network
            .guest
            .send_ip(to.parse().unwrap(), protocol, &message)
            .unwrap();
        let other = next(&mut network.guest);
        let (from, _, payload) = other.ip().unwrap();
        assert_eq!((from, payload[0]), (to.parse().unwrap(), reply));
        assert_eq!(payload[4..], message[4..]);
    }
    assert_eq!(network.end().pings, 4);
}

#[test]
fn a_ping_to_another_host_is_answered_or_refused_at_once() {
    let mut config = open();
    config.policy.rules = vec![Rule::parse(Action::Allow, "any").unwrap()];
    // The host's own address is the one that surely answers.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    if probe.connect("198.51.100.1:9").is_err() {
        println!("SKIPPED: this host has no way to other hosts, and so no address of its own");
        return;
    }
    let own = probe.local_addr().unwrap().ip();
    let mut network = Network::start(config);
    network
        .guest
        .send_ip(own, 1, &[8, 0, 0, 0, 9, 9, 0, 1, b'x'])
        .unwrap();
    let other = next(&mut network.guest);
    let (from, _, payload) = other.ip().unwrap();
    match payload[0] {
        0 => assert_eq!((from, &payload[4..]), (own, &[9, 9, 0, 1, b'x'][..])),
        // Where net.ipv4.ping_group_range keeps users from pinging.
        3 => assert_eq!(payload[1], 13),
        kind => panic!("ICMP type {kind}"),
    }
}

/// A query for the addresses of a name.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// The answer to a query with one address.
fn answer(query: &[u8], address: [u8; 4], seconds: u32) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message[7] = 1;
    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    message.extend_from_slice(&seconds.to_be_bytes());
    message.extend_from_slice(&[0, 4]);
    message.extend_from_slice(&address);
    message
}

const NAME_SERVER: &str = "10.0.2.3:53";

#[test]
fn names_are_asked_of_the_hosts_servers() {
    let (server, at) = host();
    let mut config = open();
    // The first does not exist, upon which the second is asked.
    let (gone, nowhere) = host();
    drop(gone);
    config.dns.servers = vec![nowhere, at];
    let mut network = Network::start(config);
    let asked = query(77, "www.example.com");
    network
        .guest
        .send_udp(4000, NAME_SERVER.parse().unwrap(), &asked)
        .unwrap();
    let mut room = [0; 512];
    let (bytes, from) = server.recv_from(&mut room).unwrap();
    // The number is another, the question the same.
    assert_eq!(room[2..bytes], asked[2..]);
    // An answer with a wrong number, one to another question, then the right one.
    let mut wrong = answer(&room[..bytes], [6, 6, 6, 6], 60);
    wrong[0] ^= 1;
    server.send_to(&wrong, from).unwrap();
    let mut other = query(0, "evil.example.com");
    other[..2].copy_from_slice(&room[..2]);
    server
        .send_to(&answer(&other, [6, 6, 6, 6], 60), from)
        .unwrap();
    server
        .send_to(&answer(&room[..bytes], [1, 2, 3, 4], 60), from)
        .unwrap();
    let packet = next(&mut network.guest);
    let (from, port, data) = packet.udp().unwrap();
    assert_eq!((from, port), (NAME_SERVER.parse().unwrap(), 4000));
    assert_eq!(data, answer(&asked, [1, 2, 3, 4], 60));
    let counters = network.end();
    assert_eq!((counters.dns_questions, counters.drops.unasked), (1, 2));
}

#[test]
fn a_long_answer_is_asked_again_through_tcp() {
    // A server has one port for both protocols.
    let (server, at, tcp) = std::iter::repeat_with(host)
        .find_map(|(server, at)| Some((server, at, TcpListener::bind(at).ok()?)))
        .unwrap();
    let mut config = open();
    config.dns.servers = vec![at];
    let mut network = Network::start(config);
    let asked = query(5, "long.example.com");
    network
        .guest
        .send_udp(4000, NAME_SERVER.parse().unwrap(), &asked)
        .unwrap();
    let mut room = [0; 512];
    let (bytes, from) = server.recv_from(&mut room).unwrap();
    let mut long = answer(&room[..bytes], [1, 2, 3, 4], 60);
    long.resize(1600, 0);
    server.send_to(&long, from).unwrap();
    let packet = next(&mut network.guest);
    let (_, _, data) = packet.udp().unwrap();
    assert_eq!((data[2] & 2, data.len()), (2, asked.len()), "truncated");
    let service = thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = tcp.accept().unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut message).unwrap();
        let mut answer = answer(&message, [1, 2, 3, 4], 60);
        answer.resize(1600, 0);
        stream.write_all(&1600_u16.to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
        message
    });
    let id = network.guest.connect(NAME_SERVER.parse().unwrap()).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_open())
        .unwrap();
    let length = u16::try_from(asked.len()).unwrap().to_be_bytes();
    network
        .guest
        .send(id, &[&length[..], &asked].concat())
        .unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).count() == 1602)
        .unwrap();
    assert_eq!(service.join().unwrap(), asked);
}

#[test]
fn a_name_opens_its_addresses_and_no_others() {
    let (server, at) = host();
    let mut config = open();
    config.policy.host = false;
    config.policy.default = Action::Deny;
    config.policy.rules = vec![Rule::parse(Action::Allow, "*.example.com").unwrap()];
    config.dns.servers = vec![at];
    let mut network = Network::start(config);
    let ask = |network: &mut Network, address: [u8; 4]| {
        let asked = query(1, "www.example.com");
        network
            .guest
            .send_udp(4000, NAME_SERVER.parse().unwrap(), &asked)
            .unwrap();
        let mut room = [0; 512];
        let (bytes, from) = server.recv_from(&mut room).unwrap();
        server
            .send_to(&answer(&room[..bytes], address, 60), from)
            .unwrap();
        // Packets that were let out before may come back as unreachable meanwhile.
        let answered = |guest: &mut Guest| guest.others().iter().any(|other| other.udp().is_some());
        network.guest.until(answered).unwrap();
    };
    let is_prohibited = |network: &mut Network, to: &str| {
        network
            .guest
            .send_udp(4001, to.parse().unwrap(), b"?")
            .unwrap();
        // Only the refusal is seen here: where the packet is let out to, nobody answers, and a
        // question to the name server that is refused tells when it is through.
        let asked = query(9, "secret.evil.org");
        network
            .guest
            .send_udp(4002, NAME_SERVER.parse().unwrap(), &asked)
            .unwrap();
        let mut others = Vec::new();
        let refused = |guest: &mut Guest| {
            others.extend(guest.others());
            others.iter().any(|other: &Other| other.udp().is_some())
        };
        network.guest.until(refused).unwrap();
        let (_, _, data) = others.iter().find_map(Other::udp).unwrap();
        let question = Question::of_query(&asked).unwrap();
        assert_eq!(data, question.failure(&asked, Failure::Refused));
        others
            .iter()
            .any(|other| matches!(other.ip(), Some((_, 1, [3, 13, ..]))))
    };
    assert!(is_prohibited(&mut network, "203.0.113.5:9999"));
    ask(&mut network, [203, 0, 113, 5]);
    assert!(!is_prohibited(&mut network, "203.0.113.5:9999"));
    assert!(is_prohibited(&mut network, "203.0.113.6:9999"));
    // The name moves.
    ask(&mut network, [203, 0, 113, 6]);
    assert!(!is_prohibited(&mut network, "203.0.113.6:9998"));
    // It never leads to what is closed by itself.
    ask(&mut network, [169, 254, 169, 254]);
    assert!(is_prohibited(&mut network, "169.254.169.254:80"));
}
