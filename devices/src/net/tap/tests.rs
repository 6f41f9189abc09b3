use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use harness::netns::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;
use crate::net::{Link, Offloads, Received, Sent};
use crate::ram::GuestRam;
use crate::virtio::Span;

/// Takes from this thread the right to make and to set up interfaces.
fn become_nobody() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).unwrap();
}

fn ip(arguments: &str) {
    let words = arguments.split_whitespace();
    let done = Command::new("ip").args(words).output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {arguments}: {text}");
}

fn request(name: &str, queues: u16) -> TapRequest {
    let name = Some(name.to_owned());
    TapRequest {
        name,
        queues,
        ..TapRequest::default()
    }
}

/// What is wrong, with the name.
fn refused(request: &TapRequest) -> String {
    let error = Tap::open(request).unwrap_err();
    format!("{error}; {}", error.remedy())
}

#[test]
fn made_where_there_is_none_and_gone_afterwards() {
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let entered = space.enter(|| {
        for (ask, queues) in [("vm0", 1), ("vm1", 4), ("", 1), ("123456789012345", 2)] {
            let tap = Tap::open(&request(ask, queues)).unwrap();
            let name = tap.name().to_owned();
            assert!(ask.is_empty() || name == ask, "{name}");
            assert_eq!(tap.queues.len(), usize::from(queues));
            assert_eq!(tap.mtu, 1500);
            let control = control().unwrap();
            let up = ioctl::flags(&control, &name).unwrap();
            assert_ne!(up & libc::IFF_UP, 0);
            drop(tap);
            // A program that another test starts just now has a copy until it runs.
            let left = || ioctl::flags(&control, &name).is_ok();
            let pause = Timespec {
                tv_sec: 0,
                tv_nsec: 10_000_000,
            };
            let waited = (0..500).take_while(|_| left() && poll(&mut [], Some(&pause)).is_ok());
            assert!(waited.count() < 500, "{name}");
        }
    });
    entered.unwrap();
}

#[test]
fn every_way_in_which_a_tap_cannot_be_had() {
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let entered = space.enter(|| {
        ip("tuntap add dev one mode tap");
        ip("tuntap add dev many mode tap multi_queue");
        ip("tuntap add dev routed mode tun");
        ip("link add name veth0 type veth peer name veth1");
        let keeps = Tap::open(&request("one", 1)).unwrap();
        for (name, queues, words) in [
            ("a-name-that-is-too-long", 1, "longer than 15 bytes"),
            ("a b", 1, "no interface can have that name"),
            ("a/b", 1, "no interface can have that name"),
            ("tap%d", 1, "no interface can have that name"),
            ("..", 1, "no interface can have that name"),
            ("veth0", 1, "an interface of another kind"),
            ("veth0", 2, "an interface of another kind"),
            ("routed", 1, "an interface of another kind"),
            ("one", 1, "another process uses it"),
            ("lo", 1, "an interface of another kind"),
        ] {
            let text = refused(&request(name, queues));
            assert!(text.starts_with(&format!("tap {name}: ")), "{text}");
            assert!(text.contains(words), "{text}");
        }
        drop(keeps);
        let text = refused(&request("one", 2));
        assert!(text.contains("made with one queue, and 2 are"), "{text}");
        let keeps = Tap::open(&request("many", 2)).unwrap();
        for queues in [1, 2] {
            let text = refused(&request("many", queues));
            assert!(text.contains("another process uses it"), "{text}");
        }
        drop(keeps);
        Tap::open(&request("many", 1)).unwrap();
        let text = refused(&request("many", 300));
        assert!(text.contains("no more queues"), "{text}");
    });
    entered.unwrap();
}

#[test]
fn what_a_user_without_rights_is_told() {
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let entered = space.enter(|| {
        ip("tuntap add dev root0 mode tap user 1");
        ip("tuntap add dev mine mode tap user 0");
        ip("link set dev mine mtu 1400");
        become_nobody();
        let text = refused(&request("none", 1));
        assert!(text.contains("no such tap, and this user may"), "{text}");
        assert!(text.contains("sudo ip tuntap add dev none"), "{text}");
        let text = refused(&request("root0", 1));
        assert!(text.contains("belongs to another user"), "{text}");
        let text = refused(&request("mine", 1));
        assert!(text.contains("it is down"), "{text}");
        assert!(text.contains("sudo ip link set dev mine up"), "{text}");
        let wide = TapRequest {
            mtu: Some(9000),
            ..request("mine", 1)
        };
        let text = refused(&wide);
        assert!(
            text.contains("packets of 1400 bytes, not of 9000"),
            "{text}"
        );
    });
    entered.unwrap();
}

#[test]
fn the_mtu_is_the_taps_or_what_was_asked_for() {
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let entered = space.enter(|| {
        ip("tuntap add dev jumbo mode tap");
        ip("link set dev jumbo mtu 9000 up");
        assert_eq!(Tap::open(&request("jumbo", 1)).unwrap().mtu, 9000);
        let with = |mtu| TapRequest {
            mtu: Some(mtu),
            ..request("jumbo", 1)
        };
        for mtu in [1500, 65_521, 68] {
            assert_eq!(Tap::open(&with(mtu)).unwrap().mtu, mtu);
        }
        let text = refused(&with(65_535));
        assert!(text.contains("not of 65535"), "{text}");
        ip("link set dev jumbo mtu 9000");
        become_nobody();
        // A guest may be told of less than what goes through.
        let settled = settle_mtu(&control().unwrap(), "jumbo", Some(1500));
        assert_eq!(settled.unwrap(), 1500);
    });
    entered.unwrap();
}

#[test]
fn descriptors_are_taken_over() {
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let entered = space.enter(|| {
        let of = |fds: &[RawFd]| TapRequest {
            fds: fds.to_vec(),
            ..TapRequest::default()
        };
        let file = open_tun(Path::new(TUN)).unwrap();
        let raw = file.as_raw_fd();
        let text = refused(&of(&[raw]));
        assert!(text.contains("is no queue of a tap"), "{text}");
        ioctl::attach(&file, "given", ATTACH).unwrap();
        let tap = Tap::open(&of(&[raw])).unwrap();
        assert_eq!(tap.name(), "given");
        let null = std::fs::File::open("/dev/null").unwrap();
        let text = refused(&of(&[raw, null.as_raw_fd()]));
        assert!(text.contains("is no queue of a tap"), "{text}");
        for closed in [-1, 99_999] {
            let text = refused(&of(&[closed]));
            assert!(text.contains("is not open"), "{text}");
        }
        let bare = open_tun(Path::new(TUN)).unwrap();
        ioctl::attach(&bare, "bare", libc::IFF_TAP).unwrap();
        let text = refused(&of(&[bare.as_raw_fd()]));
        assert!(text.contains("attached without IFF_TAP"), "{text}");
        let other = open_tun(Path::new(TUN)).unwrap();
        ioctl::attach(&other, "other", ATTACH).unwrap();
        let text = refused(&of(&[raw, other.as_raw_fd()]));
        assert!(text.contains("a queue of another tap"), "{text}");
    });
    entered.unwrap();
}

#[test]
fn a_host_without_taps_says_so() {
    for (path, words) in [
        ("/nonexistent/tun", "sudo modprobe tun"),
        ("/proc/sys/kernel/hostname/x", "net doctor"),
    ] {
        let problem = open_tun(Path::new(path)).unwrap_err();
        assert!(problem.remedy("x").contains(words), "{problem}");
    }
}

/// An Ethernet frame to everybody, with a type that no protocol of the host takes.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend((0_u8..=255).cycle().take(len - frame.len()));
    frame
}

/// Receives until the frame of our own type comes: the host asks for neighbours by itself.
fn receive(tap: &mut Tap, queue: u16, ram: &GuestRam, room: &[Span]) -> Option<usize> {
    for _ in 0..200 {
        let mut head = [0; 26];
        let fd = tap.fd(queue).unwrap();
        let mut wait = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let shortly = Timespec::try_from(Duration::from_millis(50)).unwrap();
        poll(&mut wait, Some(&shortly)).unwrap();
        match tap.receive(queue, &mut head, ram, room).unwrap() {
            Received::Frame(bytes) if head[24..] == [0x88, 0xb5] => return Some(bytes),
            Received::Frame(_) | Received::TooLarge => {}
            Received::Nothing => return None,
            Received::Closed => panic!("a tap has no other end"),
        }
    }
    None
}

#[test]
fn frames_come_out_of_the_host_and_go_in() {
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let entered = space.enter(|| {
        let ram = crate::testing::small_ram();
        // Two taps on a bridge: what is sent on one comes out of the other.
        let mut one = Tap::open(&request("one", 1)).unwrap();
        let mut two = Tap::open(&request("two", 4)).unwrap();
        ip("link add name br0 type bridge");
        ip("link set dev br0 up");
        ip("link set dev one master br0");
        ip("link set dev two master br0");
        two.set_active(1).unwrap();
        let text = frame(900);
        ram.write_bytes(0x1000, &text[14..]).unwrap();
        let mut head = vec![0; HEADER_BYTES.try_into().unwrap()];
        head.extend(&text[..14]);
        let body = Span {
            at: 0x1000,
            len: 886,
        };
        assert_eq!(one.send(0, &head, &ram, &[body]).unwrap(), Sent::Whole);
        let room = [(0x3000, 100), (0x5000, 2000)].map(|(at, len)| Span { at, len });
        assert_eq!(receive(&mut two, 0, &ram, &room), Some(912));
        let mut came = vec![0; 886];
        let (first, second) = came.split_at_mut(100);
        ram.read_bytes(0x3000, first).unwrap();
        ram.read_bytes(0x5000, second).unwrap();
        assert_eq!(came, text[14..]);
        // All queues again, and twice the same is no error.
        two.set_active(4).unwrap();
        two.set_active(4).unwrap();
        two.set_active(1).unwrap();
        assert!(two.fd(4).is_none());
        // A header that makes no sense costs its frame only.
        let mut wrong = head.clone();
        (wrong[0], wrong[7], wrong[9]) = (1, 0xff, 0xff);
        one.send(0, &wrong, &ram, &[body]).unwrap_err();
        assert_eq!(one.send(0, &head, &ram, &[body]).unwrap(), Sent::Whole);
        assert_eq!(receive(&mut two, 0, &ram, &room), Some(912));
    });
    entered.unwrap();
}

#[test]
fn offloads_are_set_and_taken_back() {
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let entered = space.enter(|| {
        let mut tap = Tap::open(&request("vm0", 2)).unwrap();
        for offloads in [
            Offloads::ALL,
            Offloads::default(),
            Offloads {
                checksum: true,
                ..Offloads::default()
            },
        ] {
            tap.set_offloads(offloads).unwrap();
        }
        assert_eq!(link::words(Offloads::ALL), 0xf);
    });
    entered.unwrap();
}
