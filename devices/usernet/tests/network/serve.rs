//! The network as its process runs it: set up, closed in, asked for its numbers, ended.

use crate::common::{open, pattern};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use usernet::testing::{Guest, Wire};
use usernet::{Config, ServeError};

/// Runs `serve` in a thread, to which its sandbox is bound.
fn run(
    config: Config,
) -> (
    Guest,
    UnixStream,
    thread::JoinHandle<Result<(), ServeError>>,
) {
    let (wire, theirs) = Wire::pair().unwrap();
    let (ours, control) = UnixStream::pair().unwrap();
    let guest = Guest::new(wire, config.gateway_mac);
    let thread =
        thread::spawn(move || usernet::serve(theirs, Some(OwnedFd::from(control)), &config));
    (guest, ours, thread)
}

type Ready = (
    Guest,
    UnixStream,
    BufReader<UnixStream>,
    thread::JoinHandle<Result<(), ServeError>>,
    SocketAddr,
);

/// A network that is ready, with a published port; none when another test has got that port.
fn ready(server: &UdpSocket) -> Option<Ready> {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut config = open();
    config.publish = vec![format!("{}:80", port.port()).parse().unwrap()];
    config.dns.servers = vec![server.local_addr().unwrap()];
    let (guest, control, thread) = run(config);
    let mut lines = BufReader::new(control.try_clone().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    (line == "ready\n").then_some((guest, control, lines, thread, port))
}

#[test]
fn everything_works_in_the_sandbox() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut guest, control, mut lines, thread, port) = std::iter::repeat_with(|| ready(&server))
        .find_map(|ready| ready)
        .unwrap();
    let mut line = String::new();

    // Out: a stream large enough for memory to be asked for.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let data = pattern(4 << 20);
    let sent = data.clone();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&sent).unwrap();
    });
    let gateway = |port: u16| SocketAddr::new([10, 0, 2, 2].into(), port);
    let id = guest.connect(gateway(at.port())).unwrap();
    let mut received = Vec::new();
    let read = |guest: &mut Guest| {
        received.extend(guest.read(id).unwrap());
        guest.stream(id).is_ended()
    };
    guest.until(read).unwrap();
    received.extend(guest.read(id).unwrap());
    assert!(received == data, "the bytes are others");
    host.join().unwrap();
    // An address of its own, where the network has to find out whose it is.
    guest
        .send_udp(4000, "203.0.113.7:9".parse().unwrap(), b"?")
        .unwrap();

    // In: a published port.
    guest.listen(80);
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(port).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    let mut accepted = None;
    let hello = |guest: &mut Guest| {
        accepted = accepted.or_else(|| guest.accept());
        accepted.is_some_and(|id| guest.stream(id).count() == 5)
    };
    guest.until(hello).unwrap();
    guest.send(accepted.unwrap(), b"ok").unwrap();
    assert_eq!(&client.join().unwrap(), b"ok");

    // A name.
    let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    guest
        .send_udp(4001, "10.0.2.3:53".parse().unwrap(), query)
        .unwrap();
    let mut room = [0; 100];
    let (bytes, _) = server.recv_from(&mut room).unwrap();
    assert_eq!(room[2..bytes], query[2..]);

    // Its numbers, and its end.
    (&control).write_all(b"?").unwrap();
    line.clear();
    lines.read_line(&mut line).unwrap();
    let counters: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(counters["tcp_opened"], 1);
    assert_eq!(counters["tcp_accepted"], 1);
    assert_eq!(counters["dns_questions"], 1);
    assert_eq!(counters["drops"]["host"], 0);
    drop((control, lines));
    thread.join().unwrap().unwrap();
}

#[test]
fn it_ends_with_the_guests_end() {
    let mut config = open();
    config.dns.servers = vec!["127.0.0.1:53".parse().unwrap()];
    let (guest, _control, thread) = run(config);
    drop(guest);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_port_that_is_taken_is_named_with_what_mends_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut config = open();
    config.dns.servers = vec!["127.0.0.1:53".parse().unwrap()];
    config.publish = vec![format!("{port}:80").parse().unwrap()];
    let (_guest, _control, thread) = run(config);
    let error = thread.join().unwrap().unwrap_err().to_string();
    let start = format!("cannot publish 127.0.0.1:{port}:80: ");
    assert!(
        error.starts_with(&start) && error.contains("choose another"),
        "{error}"
    );
}
