//! Devices that are saved and restored in the middle of traffic.

use std::cell::RefCell;

use super::*;

/// Restores a device on another link in the place of the machine's: which frames go there.
fn moved(machine: &mut Machine, pairs: u16, settings: &Settings) {
    let far = RefCell::new(None);
    let make = || -> Box<dyn VirtioDevice> {
        let (link, end) = TestLink::new(pairs, 1500);
        far.replace(Some(end));
        Box::new(Net::new(Box::new(link), settings).unwrap())
    };
    let driver = &mut machine.guest.driver;
    let state = driver.save();
    driver.restore(&make, &state).unwrap();
    assert_eq!(driver.save(), state);
    let end = far.take().expect("a link");
    machine.far = end;
    machine.guest.driver.resume();
}

/// Buffers that the device held are the restored one's, those of no use between them too.
#[test]
fn every_buffer_comes_back_once() {
    for wanted in [u64::MAX, !wire::F_MRG_RXBUF] {
        let mut machine = Machine::agreeing(wanted);
        machine.guest.give(RX, 3, &[2048]);
        machine.guest.give(RX, 1, &[5]);
        machine.guest.give(RX, 60, &[2048]);
        for seed in 0..30 {
            machine.arrive(&[plain(seed, 46), plain(seed, 1486)]);
            moved(&mut machine, 1, &settings());
            for bytes in [46, 1486] {
                // One of no use in front.
                let mut got = std::iter::from_fn(|| machine.guest.take_buffer(RX));
                let got = got.find(|buffer| !buffer.is_empty()).map(without_count);
                same(got, &plain(seed, bytes));
            }
            machine.guest.give(RX, 2, &[2048]);
        }
    }
}

/// A frame that waits for room on the host goes out on the other link, once.
#[test]
fn frames_that_wait_are_sent_once() {
    let mut machine = Machine::new();
    machine.far.fill(0);
    for seed in 1..=3 {
        machine.guest.add_frame(TX, &plain(seed, 100), &[12]);
    }
    machine.guest.driver.kick(TX);
    moved(&mut machine, 1, &settings());
    for seed in 1..=3 {
        same(machine.sent(), &plain(seed, 100));
    }
    assert!(machine.sent().is_none());
    assert_eq!(machine.guest.sent(TX), 3);
}

/// What the driver asked for, the host's link and the limits outlive a restore.
#[test]
fn settings_are_kept() {
    let mut machine = Machine::with(4, u64::MAX, &settings());
    let control = 8;
    let pairs = [4, 0, 3, 0];
    assert_eq!(machine.guest.command(control, &pairs), Some(0));
    let checksum_only = [&[5, 0][..], &wire::F_GUEST_CSUM.to_le_bytes()].concat();
    assert_eq!(machine.guest.command(control, &checksum_only), Some(0));
    let (offloads, active) = {
        let state = machine.far.state();
        (state.offloads, state.active)
    };
    assert_eq!(active, Some(3));
    machine.tell(NetCommand::Limits {
        receive: Some(limits(5000)),
        transmit: None,
    });
    machine.tell(NetCommand::Carrier { up: false });
    moved(&mut machine, 4, &settings());
    assert_eq!(machine.far.state().active, active);
    assert_eq!(machine.far.state().offloads, offloads);
    assert_eq!(machine.status(), 0, "the link is down");
    machine.tell(NetCommand::Carrier { up: true });
    machine.guest.give(RX, 60, &WHOLE);
    machine.arrive(&[
        plain(1, 1486),
        plain(2, 1486),
        plain(3, 1486),
        plain(4, 1486),
    ]);
    let received = std::iter::from_fn(|| machine.receive()).count();
    assert!(
        (3..=4).contains(&received),
        "{received} frames under the limit"
    );
}

/// Fewer pairs here than the driver uses: the queues do not match.
#[test]
fn a_link_with_fewer_queues_is_refused() {
    let mut machine = Machine::with(4, u64::MAX, &settings());
    let driver = &mut machine.guest.driver;
    let state = driver.save();
    let refused = driver.restore(&|| device(1), &state).unwrap_err();
    assert_eq!(refused.to_string(), "the number of queues cannot be 9");
}

/// Offloads that the driver uses and the host's link here has not are named.
#[test]
fn a_link_without_the_offloads_is_refused() {
    let mut machine = Machine::new();
    let driver = &mut machine.guest.driver;
    let state = driver.save();
    let plain = || -> Box<dyn VirtioDevice> {
        let (link, _far) = TestLink::new(1, 1500);
        let link = link.with_offloads(Offloads::default());
        Box::new(Net::new(Box::new(link), &settings()).unwrap())
    };
    let refused = driver.restore(&plain, &state).unwrap_err().to_string();
    assert!(
        refused.starts_with("the guest uses features 0, 1, 2, 7, "),
        "{refused}"
    );
}
