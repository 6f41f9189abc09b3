//! The queue of commands, and several pairs of queues.

use super::*;

/// The queue of commands of a device with four pairs.
const LAST: u32 = 8;

fn pairs(count: u16) -> Vec<u8> {
    let mut command = vec![4, 0];
    command.extend(count.to_le_bytes());
    command
}

fn offloads(bits: u64) -> Vec<u8> {
    let mut command = vec![5, 0];
    command.extend(bits.to_le_bytes());
    command
}

fn machine(wanted: u64) -> Machine {
    Machine::with(4, wanted, &settings())
}

#[test]
fn pairs_are_used_as_the_driver_says() {
    let mut machine = machine(u64::MAX);
    assert_eq!(machine.far.state().active, Some(1));
    for pair in 0..4 {
        machine.guest.give(pair * 2, 2, &WHOLE);
        assert!(
            machine
                .far
                .send(usize::try_from(pair).unwrap(), &plain(1, 46))
        );
    }
    machine.run();
    let mut came = || -> Vec<bool> {
        let mut came = |pair: u32| machine.guest.receive(pair * 2).is_some();
        (0..4_u32).map(&mut came).collect()
    };
    assert_eq!(came(), [true, false, false, false]);
    assert_eq!(machine.guest.command(LAST, &pairs(3)), Some(0));
    assert_eq!(machine.far.state().active, Some(3));
    let mut came = || -> Vec<bool> {
        let mut came = |pair: u32| machine.guest.receive(pair * 2).is_some();
        (0..4_u32).map(&mut came).collect()
    };
    assert_eq!(came(), [false, true, true, false]);
    // What is sent through a pair that is not used goes through one that is.
    for (pair, through) in [(0, 0), (2, 2), (3, 0)] {
        let sent = plain(pair, 46);
        assert!(machine.guest.send(u32::from(pair) * 2 + 1, &sent, &[]));
        assert_eq!(machine.far.receive(through), Some(sent));
    }
    assert_eq!(machine.guest.command(LAST, &pairs(1)), Some(0));
    assert!(machine.far.send(1, &plain(1, 46)));
    machine.run();
    assert!(machine.guest.receive(2).is_none());
    assert_eq!(machine.find("active_pairs"), Value::Number(1));
    // A reset leaves one pair.
    assert_eq!(machine.guest.command(LAST, &pairs(4)), Some(0));
    machine.guest.restart(u64::MAX);
    assert_eq!(machine.far.state().active, Some(1));
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut machine = machine(u64::MAX);
    let mut refused = 0;
    for bad in [
        vec![],
        vec![4],
        vec![4, 0],
        vec![4, 0, 1],
        vec![4, 0, 1, 0, 0],
        pairs(0),
        pairs(5),
        pairs(0x8000),
        pairs(u16::MAX),
        vec![4, 1, 1, 0],
        vec![4, 2],
        vec![0, 0, 1],
        vec![1, 1, 2, 0, 0, 0, 0, 1],
        vec![2, 0, 1, 0],
        vec![3, 0],
        vec![255, 255],
        vec![5, 0],
        vec![5, 0, 0, 0, 0, 0],
        vec![5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        offloads(1 << 10),
        offloads(u64::MAX),
        [offloads(0), vec![0]].concat(),
    ] {
        assert_eq!(machine.guest.command(LAST, &bad), Some(1), "{bad:?}");
        refused += 1;
    }
    assert_eq!(machine.count("commands_refused"), refused);
    assert_eq!(machine.far.state().active, Some(1));
    assert_eq!(machine.far.state().offloads, Offloads::ALL);
    // Without a place for the answer nothing is done.
    let command = machine.guest.driver.holding(&pairs(2));
    assert_eq!(machine.guest.driver.request(LAST, &[command]), Some(0));
    assert_eq!(machine.far.state().active, Some(1));
    // The host refuses.
    machine.far.state().fail_settings = Some(ErrorKind::PermissionDenied);
    assert_eq!(machine.guest.command(LAST, &pairs(2)), Some(1));
    assert_eq!(machine.guest.command(LAST, &offloads(0)), Some(1));
    machine.far.state().fail_settings = None;
    assert_eq!(machine.guest.command(LAST, &pairs(2)), Some(0));
}

#[test]
fn offloads_are_changed_within_what_was_agreed_on() {
    let wanted = !wire::F_GUEST_TSO6;
    let mut machine = Machine::agreeing(wanted);
    let agreed = wire::F_GUEST_CSUM | wire::F_GUEST_TSO4 | wire::F_GUEST_ECN;
    let command = offloads(agreed | wire::F_GUEST_TSO6);
    assert_eq!(machine.guest.command(CONTROL, &command), Some(1));
    let command = offloads(wire::F_GUEST_CSUM);
    assert_eq!(machine.guest.command(CONTROL, &command), Some(0));
    let sum = Offloads {
        checksum: true,
        ..Offloads::default()
    };
    assert_eq!(machine.far.state().offloads, sum);
    // A large frame that was on its way is not what the driver takes now.
    machine.guest.give(RX, 60, &WHOLE);
    machine.arrive(&[frame(tcp4(), OTHER, 1, 1400), plain(1, 46)]);
    same(machine.frame(), &plain(1, 46));
    assert_eq!(machine.count("rx_dropped_offload"), 1);
    assert_eq!(machine.guest.command(CONTROL, &offloads(agreed)), Some(0));
    let large = frame(tcp4(), OTHER, 1, 9000);
    machine.arrive(std::slice::from_ref(&large));
    same(machine.frame(), &large);
    // Without the feature there is no such command.
    let mut machine = Machine::agreeing(!wire::F_CTRL_GUEST_OFFLOADS);
    assert_eq!(machine.guest.command(CONTROL, &offloads(0)), Some(1));
}

/// A driver that does not know of more pairs has its queue of commands where it expects it.
#[test]
fn the_queue_of_commands_is_where_the_features_say() {
    let mut machine = machine(!wire::F_MQ);
    assert_eq!(machine.guest.command(CONTROL, &offloads(0)), Some(0));
    assert_eq!(machine.guest.command(CONTROL, &pairs(1)), Some(1));
    // No queue is there.
    let nothing = machine.guest.driver.holding(&offloads(0));
    machine.guest.driver.ring(LAST).add(&[nothing]);
    machine.guest.driver.kick(LAST);
    assert!(machine.guest.driver.ring(LAST).take_used().is_none());
    // Nor without the feature.
    machine.guest.restart(!wire::F_MQ & !wire::F_CTRL_VQ);
    assert_eq!(machine.guest.command(CONTROL, &offloads(0)), None);
}

#[test]
fn a_host_that_changes_nothing_gets_no_unfinished_frames_asked_for() {
    let (link, far) = TestLink::new(1, 1500);
    far.state().fail_settings = Some(ErrorKind::PermissionDenied);
    let net = Net::new(Box::new(link), &settings()).unwrap();
    let guest = NetGuest::new(Box::new(net), u64::MAX);
    let mut machine = Machine { guest, far };
    machine.guest.give(RX, 60, &WHOLE);
    machine.arrive(&[frame(tcp4(), OTHER, 1, 1400), plain(1, 46)]);
    same(machine.frame(), &plain(1, 46));
}

/// A driver may leave out all pairs but the first, and then cannot use them.
#[test]
fn pairs_that_were_left_out_cannot_be_used() {
    let mut machine = machine(u64::MAX);
    machine.guest.driver.reset();
    let offered = machine.guest.driver.offered();
    assert!(machine.guest.driver.agree(offered));
    machine.guest.driver.set_up_queues();
    for queue in [4, 7] {
        machine.guest.driver.set(register::QUEUE_SELECT, queue);
        machine.guest.driver.set(register::QUEUE_READY, 0);
    }
    machine.guest.driver.set(register::STATUS, 15);
    machine.run();
    assert_eq!(machine.guest.command(LAST, &pairs(3)), Some(1));
    assert_eq!(machine.guest.command(LAST, &pairs(2)), Some(0));
    machine.guest.driver.kick(4);
    machine.guest.driver.kick(7);
    assert!(!machine.guest.driver.needs_reset());
}
