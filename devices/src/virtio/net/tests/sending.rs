//! Frames from the guest.

use super::*;

#[test]
fn frames_in_pieces_arrive_whole() {
    let mut machine = Machine::new();
    for (seed, cuts) in [
        (1, vec![]),
        (2, vec![12]),
        (3, vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (4, vec![12, 14, 20]),
        (5, vec![26]),
        (6, vec![0, 5, 0, 30, 0]),
        (7, vec![13, 12, 400, 1000]),
    ] {
        let sent = frame(tcp4(), MAC, seed, 9000);
        assert!(machine.guest.send(TX, &sent, &cuts));
        same(machine.sent(), &sent);
    }
    let smallest = plain(1, 0);
    machine.send(&smallest);
    same(machine.sent(), &smallest);
    let largest = frame(tcp4(), MAC, 1, MOST_FRAME_BYTES - 14);
    machine.send(&largest);
    same(machine.sent(), &largest);
}

#[test]
fn what_is_no_frame_is_dropped_and_counted() {
    let mut machine = Machine::new();
    let long = frame(tcp4(), MAC, 1, MOST_FRAME_BYTES - 13);
    for bad in [&[][..], &[0; 1], &[0; 11], &[0; 12], &[0; 25], &long] {
        assert!(machine.guest.send(TX, bad, &[]));
        assert_eq!(machine.sent(), None);
    }
    // Something to write has no place there.
    let pieces = [machine.guest.driver.holding(&plain(1, 46))];
    let room = machine.guest.driver.room(10);
    let written = machine.guest.driver.request(TX, &[pieces[0], room]);
    assert_eq!((written, machine.sent()), (Some(0), None));
    assert_eq!(machine.count("tx_dropped_malformed"), 7);
    machine.send(&plain(1, 46));
    assert!(machine.sent().is_some());
}

#[test]
fn offloads_that_were_not_agreed_on_or_cannot_be_are_dropped() {
    let mut machine = Machine::agreeing(!wire::F_HOST_TSO6 & !wire::F_HOST_ECN);
    let v6 = Header {
        gso_type: gso::TCPV6,
        ..tcp4()
    };
    let ecn = Header {
        gso_type: gso::TCPV4 | gso::ECN,
        ..tcp4()
    };
    let outside = Header {
        csum_start: 3000.into(),
        ..tcp4()
    };
    for header in [v6, ecn, outside] {
        machine.send(&frame(header, MAC, 1, 2000));
        assert_eq!(machine.sent(), None, "{header:?}");
    }
    assert_eq!(machine.count("tx_dropped_offload"), 3);
    let odd = Header {
        flags: 0xfe,
        hdr_len: u16::MAX.into(),
        num_buffers: 77.into(),
        ..Header::default()
    };
    machine.send(&frame(odd, MAC, 1, 46));
    let passed = Header {
        hdr_len: 60.into(),
        ..Header::default()
    };
    same(machine.sent(), &frame(passed, MAC, 1, 46));
}

#[test]
fn another_address_is_counted_and_let_through_only_if_allowed() {
    let foreign = frame(Header::default(), OTHER, 1, 46);
    let mut machine = Machine::new();
    machine.send(&foreign);
    assert_eq!(machine.sent(), None);
    assert_eq!(machine.count("tx_spoofed_mac_count"), 1);
    assert_eq!(machine.count("tx_packets_count"), 0);
    let open = Settings {
        source: SourceMac::Any,
        ..settings()
    };
    let mut machine = Machine::with(1, u64::MAX, &open);
    machine.send(&foreign);
    same(machine.sent(), &foreign);
    assert_eq!(machine.count("tx_spoofed_mac_count"), 1);
    assert_eq!(machine.count("tx_packets_count"), 1);
}

#[test]
fn a_frame_that_the_host_refuses_is_lost_and_no_other() {
    let mut machine = Machine::new();
    machine.far.state().fail_send = Some(ErrorKind::InvalidInput);
    machine.send(&plain(1, 46));
    machine.far.state().fail_send = None;
    machine.send(&plain(2, 46));
    same(machine.sent(), &plain(2, 46));
    assert_eq!(machine.count("tx_host_errors"), 1);
}

#[test]
fn a_link_without_room_is_waited_for() {
    let mut machine = Machine::new();
    let large = |seed| frame(tcp4(), MAC, seed, 60_000);
    for seed in 0..20 {
        machine.guest.add_frame(TX, &large(seed), &[]);
    }
    machine.guest.driver.kick(TX);
    let taken = machine.guest.sent(TX);
    assert!((1..20).contains(&taken), "{taken}");
    assert!(!machine.guest.driver.step(), "the device spins");
    // Rings change nothing.
    machine.guest.driver.kick(TX);
    assert_eq!(machine.guest.sent(TX), 0);
    for seed in 0..20 {
        same(machine.sent(), &large(seed));
        machine.run();
    }
    assert!(machine.sent().is_none());
    assert_eq!(taken + machine.guest.sent(TX), 20);
    assert!(machine.count("tx_full") > 0);
    // A reset forgets what waited.
    for seed in 0..20 {
        machine.guest.add_frame(TX, &large(seed), &[]);
    }
    machine.guest.driver.kick(TX);
    let before = std::iter::from_fn(|| {
        machine.guest.driver.reset();
        machine.sent()
    });
    assert!(before.count() < 20);
    machine.guest.restart(u64::MAX);
    machine.send(&plain(1, 46));
    same(machine.sent(), &plain(1, 46));
}
