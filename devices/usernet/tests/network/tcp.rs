//! TCP through the network: a guest of frames on one side, sockets of this host on the other.

use crate::common::{Network, open, pattern};
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use usernet::testing::StreamId;
use usernet::{Action, Offloads, Rule};

const LARGE: usize = 32 << 20;

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// Sends everything to the other side while it takes it.
fn send_all(network: &mut Network, id: StreamId, data: &[u8]) {
    let mut sent = 0;
    let send = |guest: &mut usernet::testing::Guest| {
        sent += guest.send(id, &data[sent..]).unwrap();
        sent == data.len()
    };
    network.guest.until(send).unwrap();
}

/// Reads to the end of a stream.
fn read_all(network: &mut Network, id: StreamId) -> Vec<u8> {
    let mut received = Vec::new();
    let read = |guest: &mut usernet::testing::Guest| {
        received.extend(guest.read(id).unwrap());
        guest.stream(id).is_ended()
    };
    network.guest.until(read).unwrap();
    received.extend(network.guest.read(id).unwrap());
    received
}

/// Opens a connection to a host on loopback.
fn connect(network: &mut Network, host: SocketAddr) -> StreamId {
    let to = network.to(host);
    let id = network.guest.connect(to).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_open())
        .unwrap();
    id
}

#[test]
fn a_guest_sends_byte_for_byte() {
    let (listener, at) = listener();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(b"thanks").unwrap();
        received
    });
    let mut network = Network::start(open());
    let id = connect(&mut network, at);
    let data = pattern(LARGE);
    send_all(&mut network, id, &data);
    network.guest.close(id).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_ended())
        .unwrap();
    // The other direction went on after the guest's end.
    assert_eq!(network.guest.read(id).unwrap(), b"thanks");
    assert!(host.join().unwrap() == data, "the bytes are others");
    assert_eq!(network.end().drops, usernet::Drops::default());
}

#[test]
fn a_host_sends_byte_for_byte() {
    for (mtu, offloads) in [
        (1500, Offloads::default()),
        (65_520, Offloads::default()),
        (
            1500,
            Offloads {
                checksum: false,
                tso4: false,
                tso6: false,
            },
        ),
    ] {
        let (listener, at) = listener();
        let data = pattern(LARGE);
        let sent = data.clone();
        let host = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut last = Vec::new();
            stream.read_to_end(&mut last).unwrap();
            last
        });
        let mut config = open();
        config.mtu = mtu;
        config.offloads = offloads;
        let mut network = Network::start(config);
        network.guest.set_mtu(mtu, true);
        let id = connect(&mut network, at);
        assert_eq!(network.guest.stream(id).mss(), mtu - 40);
        assert!(read_all(&mut network, id) == data, "the bytes are others");
        // The guest's direction went on after the host's end.
        send_all(&mut network, id, b"bye");
        network.guest.close(id).unwrap();
        assert_eq!(host.join().unwrap(), b"bye");
        network.end();
    }
}

#[test]
fn both_directions_flow_at_once() {
    let (listener, at) = listener();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut writer = stream.try_clone().unwrap();
        let mut room = vec![0; 100_000];
        while let Ok(bytes @ 1..) = stream.read(&mut room) {
            writer.write_all(&room[..bytes]).unwrap();
        }
    });
    let mut network = Network::start(open());
    let id = connect(&mut network, at);
    let data = pattern(LARGE / 2);
    let (mut sent, mut closed, mut back) = (0, false, Vec::new());
    let turn = |guest: &mut usernet::testing::Guest| {
        sent += guest.send(id, &data[sent..]).unwrap();
        back.extend(guest.read(id).unwrap());
        if sent == data.len() && !closed {
            closed = true;
            guest.close(id).unwrap();
        }
        guest.stream(id).is_ended()
    };
    network.guest.until(turn).unwrap();
    back.extend(network.guest.read(id).unwrap());
    assert!(back == data, "the bytes are others");
}

#[test]
fn a_slow_host_makes_the_guest_wait() {
    let (listener, at) = listener();
    let mut network = Network::start(open());
    let id = connect(&mut network, at);
    let (mut stream, _) = listener.accept().unwrap();
    let data = pattern(LARGE);
    let mut sent = 0;
    // Until nothing has moved for a while: every buffer on the way is full.
    let mut quiet = 0;
    while quiet < 5 {
        let more = network.guest.send(id, &data[sent..]).unwrap();
        sent += more;
        let taken = network.guest.work(Duration::from_millis(20)).unwrap();
        quiet = if more == 0 && taken == 0 {
            quiet + 1
        } else {
            0
        };
    }
    assert!(sent < LARGE, "{sent} bytes went to a host that reads none");
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    send_all(&mut network, id, &data[sent..]);
    network.guest.close(id).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_acknowledged())
        .unwrap();
    assert!(reader.join().unwrap() == data, "the bytes are others");
}

#[test]
fn a_slow_guest_makes_the_host_wait() {
    let (listener, at) = listener();
    let data = pattern(LARGE);
    let sent = data.clone();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&sent).unwrap();
    });
    let mut network = Network::start(open());
    network.guest.set_window(100_000);
    let id = connect(&mut network, at);
    // The guest's program reads nothing until its window is closed.
    let is_full = |guest: &mut usernet::testing::Guest| guest.stream(id).count() > 90_000;
    network.guest.until(is_full).unwrap();
    assert!(!host.is_finished());
    let received = read_all(&mut network, id);
    host.join().unwrap();
    assert!(received == data, "the bytes are others");
}

#[test]
fn a_refused_connection_is_refused() {
    let (listener, at) = listener();
    drop(listener);
    let mut network = Network::start(open());
    let to = network.to(at);
    let id = network.guest.connect(to).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_reset())
        .unwrap();
    assert!(!network.guest.stream(id).is_open());
    assert_eq!(network.end().tcp_failed, 1);
}

#[test]
fn a_broken_connection_breaks_on_the_other_side() {
    let (listener, at) = listener();
    let mut network = Network::start(open());
    // The guest breaks it.
    let id = connect(&mut network, at);
    let (mut stream, _) = listener.accept().unwrap();
    network.guest.abort(id).unwrap();
    let error = stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The host breaks it: it closes with bytes unread.
    let id = connect(&mut network, at);
    let (stream, _) = listener.accept().unwrap();
    send_all(&mut network, id, b"unread");
    let mut peeked = [0; 6];
    while stream.peek(&mut peeked).unwrap() < peeked.len() {}
    drop(stream);
    network
        .guest
        .until(|guest| guest.stream(id).is_reset())
        .unwrap();
}

#[test]
fn a_closed_destination_is_prohibited() {
    let (_listener, at) = listener();
    let mut config = open();
    config.policy.rules = vec![Rule::parse(Action::Deny, &format!("any:{}", at.port())).unwrap()];
    let mut network = Network::start(config);
    let to = network.to(at);
    network.guest.connect(to).unwrap();
    let mut others = Vec::new();
    let any = |guest: &mut usernet::testing::Guest| {
        others.extend(guest.others());
        !others.is_empty()
    };
    network.guest.until(any).unwrap();
    let (from, protocol, payload) = others[0].ip().unwrap();
    assert_eq!((from, protocol), (to.ip(), 1));
    // ICMP: destination unreachable, administratively prohibited.
    assert_eq!(payload[..2], [3, 13]);
    assert_eq!(network.end().drops.policy, 1);
}

#[test]
fn ipv6_works_as_ipv4() {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let at = listener.local_addr().unwrap();
    let data = pattern(4 << 20);
    let sent = data.clone();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&sent).unwrap();
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).unwrap();
        received
    });
    let mut network = Network::start(open());
    let id = connect(&mut network, at);
    let mut received = Vec::new();
    let read = |guest: &mut usernet::testing::Guest| {
        received.extend(guest.read(id).unwrap());
        received.len() == data.len()
    };
    network.guest.until(read).unwrap();
    assert!(received == data);
    send_all(&mut network, id, &data);
    network.guest.close(id).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_ended())
        .unwrap();
    assert!(host.join().unwrap() == data);
}

#[test]
fn a_thousand_connections_run_side_by_side() {
    const MANY: usize = 1000;
    let (listener, at) = listener();
    let host = thread::spawn(move || {
        let mut streams = Vec::new();
        for _ in 0..MANY {
            streams.push(listener.accept().unwrap().0);
        }
        // All are open at once; each hears its own number back.
        for stream in &mut streams {
            let mut number = [0; 8];
            stream.read_exact(&mut number).unwrap();
            stream.write_all(&number.repeat(500)).unwrap();
        }
        for stream in &mut streams {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    });
    let mut network = Network::start(open());
    let ids: Vec<_> = (0..MANY).map(|_| connect(&mut network, at)).collect();
    for (number, id) in ids.iter().enumerate() {
        send_all(&mut network, *id, &number.to_le_bytes());
    }
    let all = |guest: &mut usernet::testing::Guest| {
        ids.iter().all(|id| guest.stream(*id).count() == 4000)
    };
    network.guest.until(all).unwrap();
    // The order of accepting is that of connecting.
    for (number, id) in ids.iter().enumerate() {
        assert!(
            network.guest.read(*id).unwrap() == number.to_le_bytes().repeat(500),
            "{number}"
        );
        network.guest.close(*id).unwrap();
    }
    let ended =
        |guest: &mut usernet::testing::Guest| ids.iter().all(|id| guest.stream(*id).is_ended());
    network.guest.until(ended).unwrap();
    host.join().unwrap();
    let counters = network.end();
    assert_eq!((counters.tcp_opened, counters.drops.full), (1000, 0));
}

#[test]
fn published_ports_lead_to_the_guest() {
    let mut config = open();
    config.publish = ["0:80", "[::1]:0:80"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    let mut network = Network::start(config);
    network.guest.listen(80);
    let data = pattern(LARGE / 4);
    for (at, remote) in network
        .published
        .clone()
        .into_iter()
        .zip(["10.0.2.2", "10.0.2.2"])
    {
        let sent = data.clone();
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        });
        let mut accepted = None;
        let accept = |guest: &mut usernet::testing::Guest| {
            accepted = accepted.or_else(|| guest.accept());
            accepted.is_some()
        };
        network.guest.until(accept).unwrap();
        let id = accepted.unwrap();
        // A guest that has not spoken IPv6 yet is reached through IPv4.
        assert_eq!(network.guest.stream(id).remote().ip().to_string(), remote);
        assert!(read_all(&mut network, id) == data, "the bytes are others");
        send_all(&mut network, id, b"done");
        network.guest.close(id).unwrap();
        assert_eq!(client.join().unwrap(), b"done");
    }
    assert_eq!(network.end().tcp_accepted, 2);
}

#[test]
fn a_published_port_that_nobody_listens_on_in_the_guest_is_broken() {
    let mut config = open();
    config.publish = vec!["0:81".parse().unwrap()];
    let mut network = Network::start(config);
    let mut stream = TcpStream::connect(network.published[0]).unwrap();
    // The guest gets the SYN and refuses it.
    let mut others = Vec::new();
    let any = |guest: &mut usernet::testing::Guest| {
        others.extend(guest.others());
        !others.is_empty()
    };
    network.guest.until(any).unwrap();
    let (from, _, syn) = others[0].ip().unwrap();
    let seq = u32::from_be_bytes(syn[4..8].try_into().unwrap());
    let mut reset = [&syn[2..4], &syn[..2], &[0; 4], &(seq + 1).to_be_bytes()].concat();
    reset.extend_from_slice(&[0x50, 0x14, 0, 0, 0, 0, 0, 0]);
    network.guest.send_ip(from, 6, &reset).unwrap();
    let error = stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A guest's kernel forgets some of what it is asked for all at once.
#[test]
fn a_guest_is_asked_for_few_connections_at_a_time() {
    const CLIENTS: usize = 300;
    const AT_A_TIME: usize = 64;
    let mut config = open();
    config.publish = vec!["0:82".parse().unwrap()];
    let mut network = Network::start(config);
    let connect_to = network.published[0];
    let clients = (0..CLIENTS).map(|_| TcpStream::connect(connect_to).unwrap());
    let clients: Vec<TcpStream> = clients.collect();
    let mut asked = HashSet::new();
    let mut hear = |guest: &mut usernet::testing::Guest| {
        let ports = guest.others().into_iter().filter_map(|other| {
            let (_, protocol, segment) = other.ip()?;
            (protocol == 6).then(|| [segment[0], segment[1]])
        });
        asked.extend(ports);
        asked.len()
    };
    network
        .guest
        .until(|guest| hear(guest) >= AT_A_TIME)
        .unwrap();
    // When another connection is open, whatever the network had to ask for before has been said.
    let (_listening, host) = listener();
    connect(&mut network, host);
    assert_eq!(hear(&mut network.guest), AT_A_TIME);
    // Once the guest answers, all are served.
    network.guest.listen(82);
    for _ in 0..CLIENTS {
        let mut accepted = None;
        let accept = |guest: &mut usernet::testing::Guest| {
            accepted = guest.accept();
            accepted.is_some()
        };
        network.guest.until(accept).unwrap();
        let id = accepted.unwrap();
        network
            .guest
            .until(|guest| guest.stream(id).is_open())
            .unwrap();
        send_all(&mut network, id, b"served");
        network.guest.close(id).unwrap();
    }
    let mut clients = clients;
    let readers = thread::spawn(move || {
        for client in &mut clients {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"served");
        }
    });
    while !readers.is_finished() {
        network.guest.work(Duration::from_millis(10)).unwrap();
    }
    readers.join().unwrap();
    assert_eq!(network.end().tcp_accepted, 300);
}

#[test]
fn more_connections_than_the_limit_are_reset() {
    let (listener, at) = listener();
    let mut config = open();
    config.limits.tcp_flows = 10;
    let mut network = Network::start(config);
    let ids: Vec<_> = (0..10).map(|_| connect(&mut network, at)).collect();
    let (mut first, _) = listener.accept().unwrap();
    let to = network.to(at);
    let id = network.guest.connect(to).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_reset())
        .unwrap();
    // One that ends makes room.
    network.guest.abort(ids[0]).unwrap();
    assert!(first.read(&mut [0]).is_err());
    connect(&mut network, at);
    assert_eq!(network.end().drops.full, 1);
}

#[test]
fn what_a_slow_host_has_not_taken_outlives_the_connection() {
    let (listener, at) = listener();
    let mut network = Network::start(open());
    let id = connect(&mut network, at);
    let (mut stream, _) = listener.accept().unwrap();
    // The host ends first, then the guest sends more than the host's socket holds, and ends.
    stream.shutdown(Shutdown::Write).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_ended())
        .unwrap();
    let data = pattern(LARGE / 4);
    let mut sent = 0;
    let mut received = Vec::new();
    let mut room = vec![0; 1 << 20];
    while sent < data.len() {
        let more = network.guest.send(id, &data[sent..]).unwrap();
        sent += more;
        let taken = network.guest.work(Duration::from_millis(20)).unwrap();
        if more == 0 && taken == 0 {
            let bytes = stream.read(&mut room).unwrap();
            received.extend_from_slice(&room[..bytes]);
        }
    }
    network.guest.close(id).unwrap();
    network
        .guest
        .until(|guest| guest.stream(id).is_acknowledged())
        .unwrap();
    // Longer than the engine remembers a connection that has ended.
    let wait = std::time::Instant::now();
    while wait.elapsed() < Duration::from_secs(11) {
        network.guest.work(Duration::from_millis(500)).unwrap();
    }
    stream.read_to_end(&mut received).unwrap();
    assert!(received == data, "the bytes are others");
}
