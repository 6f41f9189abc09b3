//! Frames to the guest.

use super::*;

#[test]
fn a_large_frame_fills_several_buffers_of_any_shape() {
    for shape in [
        vec![1526],
        vec![12, 500, 1],
        vec![1, 11, 1500],
        vec![3, 3, 3, 3, 1500],
        vec![4096],
    ] {
        for bytes in [46, 1486, 9000, 20_000] {
            let mut machine = Machine::new();
            machine.guest.give(RX, 50, &shape);
            let sent = frame(tcp4(), OTHER, 5, bytes);
            machine.arrive(std::slice::from_ref(&sent));
            let got = machine.receive().unwrap();
            let room: u32 = shape.iter().sum();
            let buffers = sent.len().div_ceil(usize::try_from(room).unwrap());
            assert_eq!(got[10..12], u16::try_from(buffers).unwrap().to_le_bytes());
            same(Some(without_count(got)), &sent);
        }
    }
}

/// Nothing but the header passes through the host's memory, with buffers as Linux gives them.
#[test]
fn frames_are_not_copied() {
    let pages = [&[12, 4080][..], &[4096; 17]].concat();
    let segments = wire::F_GUEST_TSO4 | wire::F_GUEST_TSO6;
    for (without, count, shape) in [
        (0, 60, vec![1536]),
        (segments, 60, vec![1536]),
        (wire::F_MRG_RXBUF, 4, pages),
        (wire::F_MRG_RXBUF | segments, 60, vec![1530]),
    ] {
        let mut machine = Machine::agreeing(!without);
        machine.guest.give(RX, count, &shape);
        machine.arrive(&[plain(1, 46), plain(2, 1486), plain(3, 1500)]);
        same(machine.frame(), &plain(1, 46));
        same(machine.frame(), &plain(2, 1486));
        same(machine.frame(), &plain(3, 1500));
        assert_eq!(machine.far.state().most_head, HEADER_BYTES, "{shape:?}");
    }
}

#[test]
fn the_largest_frame_comes_whole() {
    let mut machine = Machine::new();
    machine.guest.give(RX, 60, &WHOLE);
    let sent = frame(tcp4(), OTHER, 5, MOST_FRAME_BYTES - 14);
    machine.arrive(&[sent.clone(), plain(1, 46)]);
    same(machine.frame(), &sent);
    same(machine.frame(), &plain(1, 46));
}

#[test]
fn without_mergeable_buffers_each_frame_has_one() {
    let wanted = !wire::F_MRG_RXBUF;
    let mut machine = Machine::agreeing(wanted);
    machine.guest.give(RX, 2, &[12, 65_550]);
    machine.guest.give(RX, 2, &[12, 100]);
    let large = frame(tcp4(), OTHER, 5, 40_000);
    machine.arrive(&[large.clone(), plain(1, 46), large, plain(2, 46)]);
    let got = machine.receive().unwrap();
    assert_eq!(got[10..12], [1, 0]);
    assert_eq!(got.len(), 12 + 14 + 40_000);
    same(machine.frame(), &plain(1, 46));
    // No room for it in the next buffer, which is kept for a smaller one.
    same(machine.frame(), &plain(2, 46));
    assert_eq!(machine.count("rx_dropped_too_large"), 1);
}

/// A queue without buffers neither looks at the host nor forgets it.
#[test]
fn a_starved_queue_is_silent_until_its_guest_rings() {
    let mut machine = Machine::new();
    machine.arrive(&[plain(1, 46), plain(2, 46)]);
    let looks = machine.far.state().receives;
    for _ in 0..10 {
        assert!(!machine.guest.driver.step(), "something woke the device");
    }
    assert_eq!((looks, machine.far.state().receives), (0, 0));
    machine.guest.give(RX, 1, &WHOLE);
    same(machine.frame(), &plain(1, 46));
    let looks = machine.far.state().receives;
    for _ in 0..10 {
        assert!(!machine.guest.driver.step(), "something woke the device");
    }
    assert_eq!(machine.far.state().receives, looks);
    machine.guest.give(RX, 1, &WHOLE);
    same(machine.frame(), &plain(2, 46));
    assert_eq!(machine.count("rx_starved"), 2);
}

/// A frame that has no room yet waits beside guest memory; when its guest has given all that it
/// has, it makes way for the next.
#[test]
fn a_frame_waits_for_room_that_may_come_and_no_longer() {
    let mut machine = Machine::new();
    machine.guest.give(RX, 4, &WHOLE);
    let large = frame(tcp4(), OTHER, 5, 5000);
    let larger = frame(tcp4(), OTHER, 5, 8000);
    machine.arrive(&[large.clone(), large.clone()]);
    same(machine.frame(), &large);
    assert!(machine.receive().is_none(), "no buffer is left");
    machine.guest.give(RX, 1, &WHOLE);
    assert!(machine.receive().is_none(), "one of four is not enough");
    machine.guest.give(RX, 3, &WHOLE);
    same(machine.frame(), &large);
    machine.guest.give(RX, 4, &WHOLE);
    machine.arrive(&[larger, plain(7, 46)]);
    same(machine.frame(), &plain(7, 46));
    assert_eq!(machine.count("rx_dropped_too_large"), 1);
}

#[test]
fn buffers_that_are_of_no_use_come_back_empty() {
    let mut machine = Machine::new();
    for lengths in [&[1][..], &[11], &[5, 6], &[0], &[0, 11]] {
        machine.guest.give(RX, 1, lengths);
    }
    let readable = machine.guest.driver.holding(&[0; 64]);
    let room = machine.guest.driver.room(2000);
    machine.guest.driver.ring(RX).add(&[readable]);
    machine.guest.driver.ring(RX).add(&[readable, room]);
    machine.guest.driver.kick(RX);
    machine.guest.give(RX, 1, &WHOLE);
    machine.arrive(&[plain(1, 46)]);
    let ring = machine.guest.driver.ring(RX);
    let back: Vec<u32> = std::iter::from_fn(|| ring.take_used().map(|(_, len)| len)).collect();
    assert_eq!(back, [0, 0, 0, 0, 0, 0, 0, 72]);
    assert_eq!(machine.count("rx_bad_buffers"), 7);
}

#[test]
fn what_was_not_agreed_on_does_not_come() {
    let without = |features: u64| !features;
    let large = frame(tcp4(), OTHER, 5, 3000);
    let sum = frame(
        Header {
            gso_type: 0,
            gso_size: 0.into(),
            ..tcp4()
        },
        OTHER,
        6,
        1000,
    );
    for (wanted, offloads, dropped) in [
        (without(0), Offloads::ALL, 0),
        (
            without(wire::F_GUEST_TSO4),
            Offloads {
                tso4: false,
                ..Offloads::ALL
            },
            1,
        ),
        (without(wire::F_GUEST_CSUM), Offloads::default(), 2),
        (0, Offloads::default(), 2),
    ] {
        let mut machine = Machine::agreeing(wanted);
        machine.guest.give(RX, 60, &WHOLE);
        assert_eq!(machine.far.state().offloads, offloads);
        // The largest frame has room, so that this is about the offloads.
        machine.guest.give(RX, 1, &[12, 65_550]);
        machine.arrive(&[large.clone(), sum.clone(), plain(1, 46)]);
        if dropped < 2 {
            let got = machine.receive().unwrap();
            assert!([&large, &sum].contains(&&without_count(got)));
        }
        let last = std::iter::from_fn(|| machine.receive()).last().unwrap();
        assert_eq!(without_count(last), plain(1, 46));
        let reasons = ["rx_dropped_offload", "rx_dropped_too_large"];
        let lost: u64 = reasons.iter().map(|name| machine.count(name)).sum();
        assert_eq!(lost, dropped, "{wanted:#x}");
    }
}

#[test]
fn what_is_no_frame_does_not_come() {
    let mut machine = Machine::new();
    machine.guest.give(RX, 4, &WHOLE);
    machine.arrive(&[
        vec![0; 1],
        vec![0; 12],
        vec![0; 25],
        plain(1, 0),
        plain(2, 46),
    ]);
    same(machine.frame(), &plain(1, 0));
    same(machine.frame(), &plain(2, 46));
    assert_eq!(machine.count("rx_dropped_malformed"), 3);
    // A failure that passes loses no more than its frame.
    machine.far.state().fail_receive = Some(ErrorKind::OutOfMemory);
    assert!(machine.far.send(0, &plain(3, 46)));
    machine.guest.driver.step();
    machine.far.state().fail_receive = None;
    machine.run();
    assert!(machine.status() == 0 || machine.receive().is_some());
}

/// All buffers of a frame are the guest's at once (5.1.6.4.1); an interrupt tells of them.
#[test]
fn the_guest_hears_of_frames_as_it_asked() {
    let mut machine = Machine::new();
    machine.guest.give(RX, 60, &WHOLE);
    machine.guest.driver.interrupted();
    machine.guest.driver.ring(RX).set_used_event(5);
    machine.arrive(&[plain(1, 46), plain(2, 46)]);
    assert!(!machine.guest.driver.interrupted());
    machine.arrive(&[frame(tcp4(), OTHER, 1, 9000)]);
    assert!(machine.guest.driver.interrupted());
    assert_eq!(machine.guest.driver.ring(RX).used_index(), 8);
    machine.arrive(&[plain(1, 46), plain(2, 46)]);
    assert!(!machine.guest.driver.interrupted());
    // A queue that the driver takes back is left alone.
    machine.guest.driver.set(register::QUEUE_SELECT, RX);
    machine.guest.driver.set(register::QUEUE_READY, 0);
    machine.arrive(&[plain(3, 46)]);
    assert_eq!(machine.guest.driver.ring(RX).used_index(), 10);
    assert!(!machine.guest.driver.needs_reset());
}

#[test]
fn many_small_pieces_and_a_frame_that_they_cannot_hold() {
    let mut machine = Machine::new();
    // 255 pieces of 13 bytes.
    machine.guest.give(RX, 255, &[13]);
    machine.arrive(&[plain(1, 3000), plain(2, 4000)]);
    same(machine.frame(), &plain(1, 3000));
    machine.guest.give(RX, 200, &[13]);
    machine.arrive(&[plain(3, 46)]);
    same(machine.frame(), &plain(3, 46));
    assert_eq!(machine.count("rx_dropped_too_large"), 1);
}
