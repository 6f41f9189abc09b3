use super::*;
use crate::responder::DEFAULT_ADDRESS;
use crate::service::{Settings, Version};
use crate::testing::raw::{SYN, Tcp, arp, name};
use crate::testing::{GUEST, GUEST_MAC, metadata};
use devices::testing::net::{FarEnd, NetGuest, TestLink};
use devices::testing::small_ram;
use devices::virtio::net::{self, Net};
use rustix::event::{PollFd, PollFlags, poll};

fn link() -> (MetadataLink, FarEnd, GuestRam) {
    let (inner, far) = TestLink::new(2, 1500);
    let settings = Settings {
        version: Version::V1,
        imds_compat: false,
    };
    let service = Service::new(metadata(), settings, Instant::now()).unwrap();
    let link = MetadataLink::new(Box::new(inner), service, DEFAULT_ADDRESS).unwrap();
    (link, far, small_ram())
}

/// Sends a frame of which so many bytes, with the header of virtio-net, lie in the head, and the
/// rest in guest memory, in spans of `piece` bytes.
fn send(link: &mut MetadataLink, ram: &GuestRam, frame: &[u8], front: usize, piece: usize) -> Sent {
    let whole = [&PLAIN[..], frame].concat();
    let (head, rest) = whole.split_at(front.min(whole.len()));
    let mut spans = Vec::new();
    for (index, bytes) in rest.chunks(piece).enumerate() {
        let at = 0x1000 + 0x100 * index as u64;
        ram.write_bytes(at, bytes).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        spans.push(Span { at, len });
    }
    link.send(1, head, ram, &spans).unwrap()
}

fn readable(link: &MetadataLink) -> bool {
    let fd = link.beside().unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    // A timer that is to run out at once has not always yet.
    let moment = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: if link.armed.is_some() { 900_000_000 } else { 0 },
    };
    poll(&mut fds, Some(&moment)).unwrap() == 1
}

#[test]
fn frames_to_the_address_end_here_and_others_pass() {
    let (mut link, far, ram) = link();
    let mut room = [0; 2000];
    let other = Tcp::new(SYN, 1, 0);
    let mut elsewhere = other.frame();
    elsewhere[33] ^= 1;
    let mut announcement = arp(1, GUEST_MAC, GUEST);
    announcement[41] ^= 1;
    let six = [&other.frame()[..12], &[0x86, 0xdd], &[0; 60]].concat();
    for frame in [
        &elsewhere,
        &announcement,
        &six,
        &vec![0; 14],
        &six[..20].to_vec(),
    ] {
        send(&mut link, &ram, frame, 26, 1000);
        let got = far.receive(1).expect("it passes");
        assert_eq!(got[HEADER_BYTES..], frame[..]);
        assert!(!readable(&link) && link.armed.is_none());
    }
    for (front, piece) in [(26, 1000), (26, 1), (26, 7), (12, 3), (40, 9), (99, 1)] {
        let answers = [(arp(1, GUEST_MAC, GUEST), "arp"), (other.frame(), "SA")];
        for (frame, answer) in answers {
            assert_eq!(send(&mut link, &ram, &frame, front, piece), Sent::Whole);
            assert_eq!(far.receive(1), None);
            assert!(readable(&link));
            // The answer comes through the first queue alone.
            let got = link.receive(1, &mut room, &ram, &[]).unwrap();
            assert_eq!(got, Received::Nothing);
            let Received::Frame(bytes) = link.receive(0, &mut room, &ram, &[]).unwrap() else {
                panic!("no answer");
            };
            assert_eq!(room[..HEADER_BYTES], PLAIN);
            assert_eq!(name(&room[HEADER_BYTES..bytes]), answer);
            let got = link.receive(0, &mut room, &ram, &[]).unwrap();
            assert_eq!(got, Received::Nothing);
            // The connection of the last is gone, so that the next is new.
            link.responder = fresh();
            link.armed = None;
        }
    }
}

fn fresh() -> Responder {
    crate::testing::responder(Version::V1).0
}

#[test]
fn answers_go_into_guest_memory_as_they_fit() {
    let frame = arp(1, GUEST_MAC, GUEST);
    for (front, lens) in [
        (12, vec![42]),
        (12, vec![10, 1, 31]),
        (54, vec![]),
        (20, vec![100]),
    ] {
        let (mut link, _far, ram) = link();
        send(&mut link, &ram, &frame, 26, 99);
        let mut head = vec![0; front];
        let spans: Vec<_> = lens
            .iter()
            .enumerate()
            .map(|(index, len)| Span {
                at: 0x4000 + 0x100 * index as u64,
                len: *len,
            })
            .collect();
        let got = link.receive(0, &mut head, &ram, &spans).unwrap();
        assert_eq!(got, Received::Frame(54), "{lens:?}");
        let mut whole = head;
        for span in &spans {
            let mut bytes = vec![0; span.len as usize];
            ram.read_bytes(span.at, &mut bytes).unwrap();
            whole.extend(bytes);
        }
        assert_eq!(whole[HEADER_BYTES..HEADER_BYTES + 6], GUEST_MAC);
        assert_eq!(whole[44..50], GUEST_MAC, "{lens:?}");
    }
    let (mut link, _far, ram) = link();
    send(&mut link, &ram, &frame, 26, 99);
    let small = Span {
        at: 0x4000,
        len: 41,
    };
    let got = link.receive(0, &mut [0; 12], &ram, &[small]).unwrap();
    assert_eq!(got, Received::TooLarge);
}

#[test]
fn frames_that_are_too_long_or_no_memory_are_dropped() {
    let (mut link, far, ram) = link();
    let frame = Tcp::new(SYN, 1, 0).frame();
    let whole = [&PLAIN[..], &frame].concat();
    let long = [Span {
        at: 0x1000,
        len: 20_000,
    }];
    link.send(0, &whole, &ram, &long).unwrap();
    assert_eq!(link.responder.counters().malformed, 1);
    assert_eq!(far.receive(0), None);
    let text = link.report().unwrap().1;
    assert_eq!(text.find("rx_malformed"), Some(&1_u64.into()));
}

/// The next frame that the device gives its guest, which comes in its own time.
fn come(guest: &mut NetGuest) -> Option<Vec<u8>> {
    let moment = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000,
    };
    for _ in 0..5000 {
        guest.driver.run();
        if let Some(frame) = guest.receive(0) {
            return Some(frame[HEADER_BYTES..].to_vec());
        }
        poll(&mut [], Some(&moment)).unwrap();
    }
    None
}

#[test]
fn a_device_hands_answers_on_as_its_guest_has_room() {
    let (link, far, _) = link();
    let settings = net::Settings {
        mac: GUEST_MAC,
        ..net::Settings::default()
    };
    let device = Net::new(Box::new(link), &settings).unwrap();
    let mut guest = NetGuest::new(Box::new(device), u64::MAX);
    let ask = [&PLAIN[..], &arp(1, GUEST_MAC, GUEST)].concat();
    // Without a buffer the answer waits, and the device is not woken for it again and again.
    assert!(guest.send(1, &ask, &[12]));
    guest.driver.run();
    assert!(!guest.driver.step(), "it spins");
    assert_eq!(guest.receive(0), None);
    guest.give(0, 3, &[1526]);
    assert_eq!(name(&come(&mut guest).unwrap()), "arp");
    // With one it comes by itself, the host's frames too.
    let open = [&PLAIN[..], &Tcp::new(SYN, 1, 0).frame()].concat();
    assert!(guest.send(1, &open, &[12]));
    assert_eq!(name(&come(&mut guest).unwrap()), "SA");
    assert!(far.send(0, &ask));
    assert_eq!(come(&mut guest).unwrap(), ask[HEADER_BYTES..]);
    assert_eq!(far.receive(0), None, "nothing went to the host");
}
