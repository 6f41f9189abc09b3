//! Any frames and any requests as a guest's, through the whole metadata service: no panic, bounded
//! answers, no wait that never ends, and an ARP request is answered afterwards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mmds::{DEFAULT_ADDRESS, MAC, Metadata, Responder, Service, Settings, Version};
use std::time::{Duration, Instant};

/// What a guest may send before it is over.
const MOST_MESSAGES: usize = 64;
/// Frames that wait at most.
const MOST_WAITING: usize = 64;
const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// The end of the connections that are spoken on: what their next segment is to have.
#[derive(Clone, Copy, Default)]
struct End {
    seq: u32,
    ack: u32,
}

fn ethernet(kind: [u8; 2]) -> Vec<u8> {
    [&MAC[..], &GUEST, &kind].concat()
}

fn arp() -> Vec<u8> {
    let mut frame = ethernet([8, 6]);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&GUEST);
    frame.extend_from_slice(&[10, 0, 2, 15, 0, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&DEFAULT_ADDRESS.octets());
    frame
}

/// A packet with the right addresses and sum, without which nothing would get past the first looks.
fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut head = vec![0x45, 0];
    head.extend_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    head.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15]);
    head.extend_from_slice(&DEFAULT_ADDRESS.octets());
    let words = head.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = !((sum >> 16) + (sum & 0xffff));
    head[10..12].copy_from_slice(&sum.to_be_bytes()[2..]);
    [ethernet([8, 0]), head, payload.to_vec()].concat()
}

fn segment(port: u8, end: End, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x10, port, 0, 80];
    bytes.extend_from_slice(&end.seq.to_be_bytes());
    bytes.extend_from_slice(&end.ack.to_be_bytes());
    bytes.extend_from_slice(&[0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(data);
    packet(6, &bytes)
}

/// Takes what the responder has for the guest, and answers as far as the numbers go.
fn drain(responder: &mut Responder, ends: &mut [End; 4], now: Instant) {
    let mut count = 0;
    while let Some(frame) = responder.next(now) {
        assert!(frame.len() <= 1514, "{}", frame.len());
        assert_eq!(frame[6..12], MAC);
        // Windows are small and nobody acknowledges: connections soon have nothing to send.
        count += 1;
        assert!(count <= MOST_WAITING + 30 * 40, "frames without an end");
        if frame.len() >= 54 && frame[12..14] == [8, 0] && frame[36] == 0x10 {
            let seq = u32::from_be_bytes(frame[38..42].try_into().unwrap());
            let length = u32::try_from(frame.len() - 54).unwrap();
            let place = usize::from(frame[37] & 3);
            ends[place].ack = seq.wrapping_add(length.max(1));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::now();
    let metadata = Metadata::default();
    let long = "x".repeat(20_000);
    let document = serde_json::json!({"latest": {"name": "coracle", "long": long}});
    metadata.put(document).expect("it is short enough");
    let settings = Settings {
        version: if data.len() % 2 == 0 { Version::V1 } else { Version::V2 },
        imds_compat: false,
    };
    let service = Service::new(metadata, settings, now).expect("random bytes");
    let mut responder = Responder::new(service, DEFAULT_ADDRESS, 1500, 1, now);
    let mut ends = [End::default(); 4];
    let mut data = data;
    for _ in 0..MOST_MESSAGES {
        let Some((&[kind, length], rest)) = data.split_first_chunk::<2>() else {
            break;
        };
        let length = usize::from(length).min(rest.len());
        let (body, later) = rest.split_at(length);
        data = later;
        let place = usize::from(kind >> 3 & 3);
        let port = kind >> 3 & 3;
        let end = ends[place];
        let frame = match kind & 7 {
            0 => body.to_vec(),
            1 => packet(kind >> 3, body),
            2 => packet(6, body),
            // An opening, what follows it, and the end.
            3 => {
                ends[place].seq = 1;
                segment(port, End { seq: 0, ack: 0 }, 2, &[])
            }
            4 | 5 => {
                ends[place].seq = end.seq.wrapping_add(u32::try_from(length).unwrap());
                segment(port, end, 0x18, body)
            }
            6 => segment(port, end, *body.first().unwrap_or(&0x11), &[]),
            _ => {
                now += Duration::from_millis(u64::from(kind) * 64);
                drain(&mut responder, &mut ends, now);
                continue;
            }
        };
        responder.take(&frame, now);
        if kind & 0x80 == 0 {
            drain(&mut responder, &mut ends, now);
        }
    }
    drain(&mut responder, &mut ends, now);
    responder.take(&arp(), now);
    let answer = responder.next(now).expect("an answer");
    assert_eq!(answer[12..14], [8, 6]);
    // Whatever is left goes in time.
    for _ in 0..10_000 {
        let Some(due) = responder.due(now) else {
            return;
        };
        now = now.max(due);
        while responder.next(now).is_some() {}
    }
    panic!("a connection that never ends");
});
