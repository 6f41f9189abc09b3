//! What guests do wrong, and what they may do.

use super::*;

/// A machine with a connection from the guest's port 1 to the host's port 2.
fn connected() -> (Machine, Link, UnixStream) {
    let mut machine = Machine::new();
    machine.guest.give(64, &LINUX);
    let (link, stream) = machine.connect(1, 2);
    (machine, link, stream)
}

#[test]
fn packets_of_others_go_nowhere() {
    let (mut machine, link, mut stream) = connected();
    let good = Header {
        len: 4.into(),
        ..link.header(&machine, op::RW)
    };
    for cid in [
        0,
        1,
        2,
        CID + 1,
        u64::from(u32::MAX),
        CID + (1 << 32),
        u64::MAX,
    ] {
        let header = Header {
            src_cid: cid.into(),
            ..good
        };
        assert!(machine.guest.send(&header, b"evil"));
        machine.nothing_more();
    }
    for cid in [0, 1, CID, 3, u64::from(u32::MAX), 2 + (1 << 32), u64::MAX] {
        let header = Header {
            dst_cid: cid.into(),
            ..good
        };
        machine.guest.add_packet(&header, b"evil", &[]);
        machine.guest.ring();
        // Raw, since it comes from where the guest sent it to and not from the host.
        let (_, written) = machine.guest.driver.ring(0).take_used().unwrap();
        assert_eq!(written, 44);
    }
    assert_eq!(available(&mut stream), b"");
    assert_eq!(machine.count("connections"), 1);
}

#[test]
fn unknown_types_and_strangers_are_answered_with_a_reset() {
    let (mut machine, link, _stream) = connected();
    for kind in [0, 2, 3, u16::MAX] {
        let header = Header {
            kind: kind.into(),
            ..link.header(&machine, op::RW)
        };
        machine.guest.add_packet(&header, &[], &[]);
        machine.guest.ring();
        assert_eq!(machine.guest.driver.ring(0).take_used().unwrap().1, 44);
    }
    let (mut machine, _, _stream) = connected();
    let stranger = Link { guest: 77, host: 2 };
    for op in [0, 2, 4, 5, 6, 7, 8, u16::MAX] {
        stranger.send(&mut machine, op, 3);
        let reset = machine.expect(op::RST);
        assert_eq!((reset.src_port.get(), reset.dst_port.get()), (2, 77));
    }
    stranger.send(&mut machine, op::RST, 0);
    machine.nothing_more();
}

#[test]
fn broken_rules_end_the_connection() {
    type Break = fn(&mut Machine, Link);
    let cases: [(&str, Break); 11] = [
        ("an unknown operation", |machine, link| {
            link.send(machine, 8, 0);
        }),
        ("operation zero", |machine, link| link.send(machine, 0, 0)),
        ("a second request", |machine, link| {
            link.send(machine, op::REQUEST, 0);
        }),
        ("an answer to nothing", |machine, link| {
            link.send(machine, op::RESPONSE, 0);
        }),
        ("credit for what was never sent", |machine, link| {
            link.credit(machine, ROOM, 1);
        }),
        ("the same, far ahead", |machine, link| {
            link.credit(machine, ROOM, 0x7fff_fff0);
        }),
        ("more than fits", |machine, link| {
            for _ in 0..4 {
                link.data(machine, &[7; 65_536]);
            }
        }),
        ("less data than the length says", |machine, link| {
            let header = Header {
                len: 100.into(),
                ..link.header(machine, op::RW)
            };
            assert!(machine.guest.send(&header, &[7; 99]));
        }),
        ("a length beyond everything", |machine, link| {
            let header = Header {
                len: u32::MAX.into(),
                ..link.header(machine, op::RW)
            };
            assert!(machine.guest.send(&header, &[7; 99]));
        }),
        ("data after its end", |machine, link| {
            link.send(machine, op::SHUTDOWN, SHUTDOWN_SEND);
            link.data(machine, b"more");
        }),
        ("no data after its end", |machine, link| {
            link.send(machine, op::SHUTDOWN, SHUTDOWN_SEND);
            link.data(machine, b"");
        }),
    ];
    for (what, case) in cases {
        let (mut machine, link, mut stream) = connected();
        // Nobody reads, so that the device has to hold what comes.
        stream.set_nonblocking(true).unwrap();
        fill(&mut machine, link);
        case(&mut machine, link);
        let answers = std::iter::from_fn(|| machine.guest.receive());
        let answers: Vec<u16> = answers.map(|(header, _)| header.op.get()).collect();
        let news = answers.iter().filter(|one| **one == op::CREDIT_UPDATE);
        assert_eq!(news.count() + 1, answers.len(), "{what}: {answers:?}");
        assert_eq!(answers.last(), Some(&op::RST), "{what}");
        machine.nothing_more();
        assert_eq!(machine.count("connections"), 0, "{what}");
        assert_eq!(machine.count("violations"), 1, "{what}");
        let _ = available(&mut stream);
        link.data(&mut machine, b"x");
        machine.expect(op::RST);
    }
}

/// Sends until the socket of the host program is full and the device begins to hold data, then
/// takes the device's news of it.
fn fill(machine: &mut Machine, link: Link) {
    loop {
        link.data(machine, &[7; 4096]);
        let held = machine.count("tx_bytes_waiting");
        while let Some((header, _)) = machine.guest.receive() {
            assert_eq!(header.op.get(), op::CREDIT_UPDATE);
        }
        machine
            .guest
            .give(8_usize.saturating_sub(machine.guest.given()), &LINUX);
        if held > 0 {
            break;
        }
    }
}

#[test]
fn short_packets_are_dropped() {
    let (mut machine, _, _stream) = connected();
    for len in [0, 1, 43] {
        let buffer = machine.guest.driver.holding(&vec![1; len]);
        let head = machine.guest.driver.ring(1).add(&[buffer]);
        machine.guest.driver.kick(1);
        assert_eq!(machine.guest.driver.ring(1).take_used(), Some((head, 0)));
    }
    machine.nothing_more();
    assert_eq!(machine.count("tx_malformed"), 3);
}

#[test]
fn a_packet_may_be_cut_anywhere() {
    let (mut machine, link, mut stream) = connected();
    let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let header = Header {
        len: 1000.into(),
        ..link.header(&machine, op::RW)
    };
    for cuts in [
        vec![],
        vec![44],
        vec![1; 50],
        vec![43, 2, 500],
        vec![44, 1, 1, 900],
        vec![10; 100],
    ] {
        machine.guest.add_packet(&header, &data, &cuts);
        assert_eq!(machine.guest.ring(), 1);
        assert_eq!(available(&mut stream), data, "{cuts:?}");
    }
    // Bytes beyond the length are nobody's.
    let header = Header {
        len: 10.into(),
        ..header
    };
    assert!(machine.guest.send(&header, &data));
    assert_eq!(available(&mut stream), data[..10]);
}

#[test]
fn buffers_of_any_shape_are_filled() {
    for shape in [
        &[45][..],
        &[44, 1],
        &[1; 60],
        &[10, 10, 10, 13, 2, 4000],
        &[70_000],
    ] {
        let mut machine = Machine::new();
        machine.guest.give(4, shape);
        let (_, mut stream) = machine.connect(1, 2);
        stream.write_all(b"ab").unwrap();
        machine.run();
        let mut all = Vec::new();
        while let Some((_, data)) = machine.guest.receive() {
            all.extend(data);
        }
        assert_eq!(all, b"ab", "{shape:?}");
    }
}

#[test]
fn useless_buffers_go_back() {
    let mut machine = Machine::new();
    for len in [0, 1, 43, 44] {
        machine.guest.add_buffer(&[len]);
    }
    let readable = machine.guest.driver.holding(&[0; 100]);
    machine.guest.driver.ring(0).add(&[readable]);
    machine.guest.driver.kick(0);
    let link = Link { guest: 1, host: 2 };
    link.send(&mut machine, op::REQUEST, 0);
    for _ in 0..5 {
        assert_eq!(machine.guest.driver.ring(0).take_used().unwrap().1, 0);
    }
    assert_eq!(machine.count("rx_buffers_too_small"), 5);
    assert!(machine.guest.driver.ring(0).take_used().is_none());
}

#[test]
fn a_guest_without_buffers_costs_nothing() {
    let mut machine = Machine::new();
    machine.guest.give(2, &LINUX);
    let (_, mut stream) = machine.connect(1, 2);
    stream.write_all(&[1; 10_000]).unwrap();
    machine.run();
    assert_eq!(machine.packet().1.len(), 4096);
    // `run` ends: the device does not look at the socket again before there is a buffer.
    for _ in 0..3 {
        assert!(!machine.guest.driver.step());
        stream.write_all(&[1; 100]).unwrap();
    }
    machine.guest.give(1, &LINUX);
    assert_eq!(machine.packet().1.len(), 4096);
    machine.guest.give(1, &LINUX);
    assert_eq!(machine.packet().1.len(), 10_300 - 2 * 4096);
    machine.nothing_more();
}

#[test]
fn small_writes_become_few_packets() {
    let mut machine = Machine::new();
    machine.guest.give(1, &LINUX);
    let (_, mut stream) = machine.connect(1, 2);
    for _ in 0..150 {
        stream.write_all(&[5; 400]).unwrap();
    }
    machine.run();
    machine.guest.give(1, &[44, 65_536 + 100]);
    assert_eq!(machine.packet().1.len(), 60_000);
    machine.nothing_more();
}

#[test]
fn many_small_packets_wait_for_the_guest() {
    let mut machine = Machine::new();
    machine.guest.give(128, &[100]);
    let (link, mut stream) = machine.connect(1, 2);
    let mut packets = 0;
    let mut asked = 0;
    for _ in 0..450 {
        stream.write_all(b"x").unwrap();
        machine.run();
        while let Some((header, data)) = machine.guest.receive() {
            packets += data.len();
            asked += usize::from(header.op.get() == op::CREDIT_REQUEST);
        }
        machine
            .guest
            .give(64 - machine.guest.given().min(64), &[100]);
    }
    assert_eq!(packets, usize::try_from(ROOM).unwrap() / 768);
    assert!(asked >= 1);
    link.credit(&mut machine, ROOM, u32::try_from(packets).unwrap());
    machine.run();
    let rest: usize = std::iter::from_fn(|| machine.guest.receive())
        .map(|(_, data)| data.len())
        .sum();
    assert_eq!(packets + rest, 450);
}

#[test]
fn answers_that_nobody_takes_stop_the_questions() {
    let settings = Settings {
        resets: 10,
        ..Settings::default()
    };
    let mut machine = Machine::with(settings);
    let stranger = Link { guest: 5, host: 6 };
    let header = stranger.header(&machine, op::RW);
    for _ in 0..50 {
        machine.guest.add_packet(&header, &[], &[]);
    }
    assert_eq!(machine.guest.ring(), 10);
    assert_eq!(machine.guest.ring(), 0);
    for _ in 0..4 {
        machine.guest.give(10, &LINUX);
        let mut resets = 0;
        while machine.guest.receive().is_some() {
            resets += 1;
        }
        assert_eq!(resets, 10);
        assert_eq!(machine.guest.taken(), 10);
    }
    machine.guest.give(11, &LINUX);
    assert!(stranger_is_answered(&mut machine, stranger));
}

fn stranger_is_answered(machine: &mut Machine, stranger: Link) -> bool {
    while machine.guest.receive().is_some() {}
    stranger.send(machine, op::CREDIT_UPDATE, 0);
    machine.expect(op::RST);
    true
}

#[test]
fn a_broken_queue_stops_all_until_reset() {
    let (mut machine, _, mut stream) = connected();
    machine.guest.driver.ring(1).set_available_index(0x8000);
    machine.guest.driver.kick(1);
    assert!(machine.guest.driver.needs_reset());
    stream.write_all(b"x").unwrap();
    machine.run();
    assert!(!machine.guest.driver.step());
    machine.guest.driver.reset();
    assert!(ended(&mut stream));
}

/// 5.10.6.7: connections do not outlive a restore, and the guest is told before anything else.
#[test]
fn a_restored_guest_hears_that_its_connections_are_gone() {
    let mut machine = Machine::new();
    machine.guest.give(3, &LINUX);
    machine.guest.give(1, &[7]);
    machine.guest.give(30, &LINUX);
    let (link, mut stream) = machine.connect(1000, 52);
    link.data(&mut machine, b"before");
    assert_eq!(available(&mut stream), b"before");
    let event = machine.guest.driver.room(4);
    machine.guest.driver.ring(2).add(&[event]);
    machine.guest.driver.kick(2);
    assert_eq!(machine.guest.driver.ring(2).take_used(), None);
    let folder = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    let path = || folder.path().join(format!("v{}", number.get()));
    let make = || -> Box<dyn VirtioDevice> {
        number.set(number.get() + 1);
        Box::new(Vsock::new(CID, SocketFile::listen(&path()).unwrap()).unwrap())
    };
    let state = machine.guest.driver.save();
    machine.guest.driver.restore(&make, &state).unwrap();
    assert_eq!(machine.guest.driver.save(), state);
    assert!(ended(&mut stream));
    machine.guest.driver.resume();
    let told = machine.guest.driver.ring(2).take_used();
    assert_eq!(told, Some((0, 4)));
    assert_eq!(
        machine.guest.driver.bytes(event),
        [0; 4],
        "a transport reset"
    );
    // What the guest sends on the old connection is answered as on none; a new one works.
    link.data(&mut machine, b"after");
    machine.expect(op::RST);
    let mut host = UnixStream::connect(path()).unwrap();
    host.write_all(b"CONNECT 7\n").unwrap();
    machine.run();
    assert_eq!(machine.expect(op::REQUEST).dst_port.get(), 7);
}
