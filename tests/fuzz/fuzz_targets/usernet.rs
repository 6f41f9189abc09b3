//! Any frames as a guest's, through the whole user-mode network: no panic, bounded answers, and
//! the gateway answers a ping afterwards. A host on loopback can be connected to, so that the TCP
//! engine sees connections; everything else is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::TcpListener;
use std::time::Duration;
use usernet::testing::{Guest, Wire};
use usernet::{Action, Config, Engine, HEADER_BYTES, Rule, Turn};

/// What a guest may send before it is over.
const MOST_MESSAGES: usize = 64;
/// The port of the host that there is, whatever number the system gave it.
const PORT: u16 = 80;

/// Turns the next bytes into a message: what it is like, how long it is, then what it holds.
/// Without the right addresses and sums nothing would get past the first looks, so most frames get
/// them.
fn message<'d>(data: &mut &'d [u8], port: u16) -> Option<Vec<u8>> {
    let (&[kind, length], rest) = data.split_first_chunk::<2>()?;
    let length = usize::from(length).min(rest.len());
    let (body, rest): (&'d [u8], &'d [u8]) = rest.split_at(length);
    *data = rest;
    let mut message = vec![0; HEADER_BYTES];
    if kind & 0x80 != 0 {
        message.extend_from_slice(body);
        return Some(message);
    }
    // The sum need not be right where it is said to be partial.
    message[0] = 1;
    message[6] = 34;
    message[8] = 16;
    message.extend_from_slice(&[0x52, 0x55, 0x0a, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    if kind & 1 == 0 {
        let total = u16::try_from(20 + body.len()).ok()?;
        message.extend_from_slice(&[8, 0]);
        let mut head = [
            0x45,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            64,
            [6, 17, 1, 6][usize::from(kind >> 1 & 3)],
        ]
        .to_vec();
        head[2..4].copy_from_slice(&total.to_be_bytes());
        head.extend_from_slice(&[
            0,
            0,
            10,
            0,
            2,
            15,
            10,
            0,
            2,
            if kind & 8 == 0 { 2 } else { 3 },
        ]);
        let sum: u32 = head
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        let sum = !((sum >> 16) + (sum & 0xffff));
        head[10..12].copy_from_slice(&sum.to_be_bytes()[2..]);
        message.extend_from_slice(&head);
    } else {
        let total = u16::try_from(body.len()).ok()?;
        message.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        message.extend_from_slice(&total.to_be_bytes());
        message.extend_from_slice(&[[6, 17, 58, 0][usize::from(kind >> 1 & 3)], 255]);
        message.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x15]);
        message.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    }
    let at = message.len();
    message.extend_from_slice(body);
    // Segments to port 80 find the host, when they are long enough to have a port.
    if let Some(place) = message.get_mut(at + 2..at + 4)
        && *place == PORT.to_be_bytes()
    {
        place.copy_from_slice(&port.to_be_bytes());
    }
    Some(message)
}

fuzz_target!(|data: &[u8]| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    listener
        .set_nonblocking(true)
        .expect("a listener that waits for nobody");
    let port = listener.local_addr().expect("a bound listener").port();
    let (wire, theirs) = Wire::pair().expect("a socket pair");
    let mut config = Config::default();
    config.policy.default = Action::Deny;
    let open = Rule::parse(Action::Allow, &format!("10.0.2.2:{port}")).expect("a rule");
    config.policy.rules = vec![open];
    config.limits.tcp_flows = 8;
    let mut guest = Guest::new(wire, config.gateway_mac);
    let mut engine = Engine::new(theirs, None, config).expect("an engine");
    let mut data = data;
    let mut streams = Vec::new();
    for _ in 0..MOST_MESSAGES {
        let Some(message) = message(&mut data, port) else {
            break;
        };
        // An empty message would be the guest's end, and four bytes say what its driver takes.
        guest.send_raw(&message).expect("a link with room");
        for _ in 0..3 {
            let turn = engine.turn(Some(Duration::ZERO)).expect("a turn");
            assert_eq!(turn, Turn::More);
            streams.extend(listener.accept().ok());
        }
        // The test guest has no streams: whatever comes is for others.
        while guest.work(Duration::ZERO).unwrap_or(0) > 0 {}
        assert!(guest.others().len() < 1000, "bounded answers");
    }
    guest
        .send_ip([10, 0, 2, 2].into(), 1, &[8, 0, 0, 0, 0xab, 0xcd, 0, 1])
        .expect("a ping");
    for _ in 0..3 {
        engine.turn(Some(Duration::ZERO)).expect("a turn");
    }
    while guest.work(Duration::ZERO).unwrap_or(0) > 0 {}
    let answered = guest.others().iter().any(|other| {
        matches!(other.ip(), Some((_, 1, payload)) if payload.get(4..6) == Some(&[0xab, 0xcd]))
    });
    assert!(answered, "the gateway does not answer any more");
});
