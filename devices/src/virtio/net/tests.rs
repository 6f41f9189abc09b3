//! The network device against its driver (virtio 1.2, 5.1.6) and a link that fails on request.

use std::io::ErrorKind;
use std::time::Duration;

use super::wire::{Header, flags, gso};
use super::*;
use crate::inspect::Value;
use crate::limit::BucketSpec;
use crate::testing::driver::register;
use crate::testing::{FarEnd, NetGuest, TestLink, conformance};

mod commands;
mod interleavings;
mod receiving;
mod saved;
mod sending;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const RX: u32 = 0;
const TX: u32 = 1;
const CONTROL: u32 = 2;
/// A buffer as Linux gives it for a whole frame.
const WHOLE: [u32; 1] = [1526];

/// A device with its guest and the other end of its link.
struct Machine {
    guest: NetGuest,
    far: FarEnd,
}

impl Machine {
    fn new() -> Self {
        Self::with(1, u64::MAX, &settings())
    }

    fn agreeing(wanted: u64) -> Self {
        Self::with(1, wanted, &settings())
    }

    fn with(pairs: u16, wanted: u64, settings: &Settings) -> Self {
        let (link, far) = TestLink::new(pairs, 1500);
        let device = Net::new(Box::new(link), settings).unwrap();
        let guest = NetGuest::new(Box::new(device), wanted);
        Self { guest, far }
    }

    fn run(&mut self) {
        self.guest.driver.run();
    }

    /// Frames come from the host.
    fn arrive(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            assert!(self.far.send(0, frame), "the link is full");
        }
        self.run();
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        self.guest.receive(RX)
    }

    /// The next frame that came, but for its count of buffers.
    fn frame(&mut self) -> Option<Vec<u8>> {
        self.receive().map(without_count)
    }

    /// The guest sends a frame, which the device has to take.
    fn send(&mut self, frame: &[u8]) {
        assert!(self.guest.send(TX, frame, &[12]), "not taken");
    }

    fn sent(&self) -> Option<Vec<u8>> {
        self.far.receive(0)
    }

    fn count(&self, name: &str) -> u64 {
        match self.find(name) {
            Value::Number(number) => number,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn find(&self, name: &str) -> Value {
        let report = self.guest.driver.handle.inspect().unwrap();
        report.find(name).cloned().expect("a value")
    }

    fn tell(&mut self, command: NetCommand) {
        let handle = self.guest.driver.handle.clone();
        handle.ask(DeviceCommand::Net(command)).unwrap();
        self.run();
    }

    /// The status in the configuration.
    fn status(&mut self) -> u32 {
        self.guest.driver.config(4) >> 16
    }
}

fn settings() -> Settings {
    Settings {
        mac: MAC,
        ..Settings::default()
    }
}

/// Frames of so many bytes and no way to get more.
fn limits(bytes: u64) -> Limits {
    let refill = Duration::from_secs(1_000_000);
    let spec = |size| BucketSpec {
        size,
        burst: 0,
        refill,
    };
    Limits {
        bytes: Some(spec(bytes)),
        operations: None,
    }
}

/// A frame with so many bytes behind its header of Ethernet, all different for different seeds.
fn frame(header: Header, source: [u8; 6], seed: u8, bytes: usize) -> Vec<u8> {
    let mut frame = header.as_bytes().to_vec();
    frame.extend([0xff; 6]);
    frame.extend(source);
    frame.extend([8, 0]);
    frame.extend((0..bytes).map(|at| u8::try_from(at % 251).unwrap().wrapping_add(seed)));
    frame
}

/// A frame that was received or sent with nothing unfinished, in one buffer.
fn plain(seed: u8, bytes: usize) -> Vec<u8> {
    frame(Header::default(), MAC, seed, bytes)
}

/// The header of a large segment.
fn tcp4() -> Header {
    Header {
        flags: flags::NEEDS_CSUM,
        gso_type: gso::TCPV4,
        hdr_len: 54.into(),
        gso_size: 1448.into(),
        csum_start: 34.into(),
        csum_offset: 16.into(),
        num_buffers: 0.into(),
    }
}

/// The frame as it came, but for the count of buffers.
fn without_count(mut frame: Vec<u8>) -> Vec<u8> {
    frame[10..12].fill(0);
    frame
}

/// The frame that came is the one that was expected, without thousands of numbers if not.
#[track_caller]
fn same(got: Option<Vec<u8>>, expected: &[u8]) {
    let got = got.expect("a frame");
    let first = |frame: &[u8]| frame.iter().take(32).copied().collect::<Vec<_>>();
    assert_eq!((got.len(), first(&got)), (expected.len(), first(expected)));
    assert!(got == expected, "another frame");
}

fn device(pairs: u16) -> Box<dyn VirtioDevice> {
    let (link, _far) = TestLink::new(pairs, 1500);
    Box::new(Net::new(Box::new(link), &settings()).unwrap())
}

#[test]
fn it_conforms() {
    conformance::check(&|| device(1), TX);
    conformance::check(&|| device(4), TX);
}

#[test]
fn it_tells_what_it_is() {
    let (link, _far) = TestLink::new(3, 9000);
    let net = Net::new(Box::new(link), &settings()).unwrap();
    let identity = net.identity();
    assert_eq!((identity.device_id, identity.queue_sizes.len()), (1, 7));
    let all = wire::TO_GUEST.all() | wire::FROM_GUEST.all();
    let known = wire::F_MAC | wire::F_STATUS | wire::F_CTRL_VQ | wire::F_MRG_RXBUF;
    let known = known | wire::F_MTU | wire::F_MQ | wire::F_CTRL_GUEST_OFFLOADS;
    assert_eq!(identity.features, all | known);
    let config = net.config_space();
    assert_eq!(config.read(0, 8), 0x0001_0100_0000_0002);
    assert_eq!(config.read(8, 4), 9000 << 16 | 3);
    // A link that can do nothing, with one queue and a size that the device may not name.
    let (link, _far) = TestLink::new(1, 60);
    let link = link.with_offloads(Offloads::default());
    let net = Net::new(Box::new(link), &settings()).unwrap();
    let known = wire::F_MAC | wire::F_STATUS | wire::F_CTRL_VQ | wire::F_MRG_RXBUF;
    assert_eq!(net.identity().features, known);
    assert_eq!(queue_sizes(99).len(), 33);
}

#[test]
fn frames_go_both_ways_and_are_counted() {
    let mut machine = Machine::new();
    machine.guest.give(RX, 4, &WHOLE);
    machine.arrive(&[plain(1, 46), plain(2, 1486)]);
    let first = machine.receive().unwrap();
    assert_eq!(first[10..12], [1, 0], "one buffer");
    same(Some(without_count(first)), &plain(1, 46));
    same(machine.frame(), &plain(2, 1486));
    assert!(machine.receive().is_none());
    machine.send(&plain(3, 46));
    same(machine.sent(), &plain(3, 46));
    assert!(machine.guest.driver.interrupted());
    for (name, count) in [
        ("rx_packets_count", 2),
        ("rx_bytes_count", 60 + 1500),
        ("tx_packets_count", 1),
        ("tx_bytes_count", 60),
    ] {
        assert_eq!(machine.count(name), count, "{name}");
    }
    assert_eq!(machine.find("mac"), Value::Text("02:00:00:00:00:01".into()));
    // A reset takes the buffers away; what comes meanwhile waits on the host.
    machine.guest.driver.reset();
    machine.arrive(&[plain(4, 46)]);
    machine.guest.restart(u64::MAX);
    machine.guest.give(RX, 1, &WHOLE);
    same(machine.frame(), &plain(4, 46));
}

#[test]
fn the_link_goes_down_and_up() {
    let mut machine = Machine::new();
    machine.guest.give(RX, 4, &WHOLE);
    assert_eq!(machine.status(), 1);
    machine.guest.driver.set(register::INTERRUPT_ACKNOWLEDGE, 3);
    machine.tell(NetCommand::Carrier { up: false });
    assert_eq!(machine.status(), 0);
    assert_eq!(machine.guest.driver.get(register::INTERRUPT_STATUS), 2);
    machine.arrive(&[plain(1, 46)]);
    assert!(machine.receive().is_none());
    machine.send(&plain(2, 46));
    assert_eq!(machine.sent(), None);
    assert_eq!(machine.count("tx_dropped_link_down"), 1);
    machine.tell(NetCommand::Carrier { up: true });
    assert_eq!(machine.status(), 1);
    same(machine.frame(), &plain(1, 46));
    machine.send(&plain(3, 46));
    same(machine.sent(), &plain(3, 46));
    // Also while no driver runs the device.
    machine.guest.driver.reset();
    machine.tell(NetCommand::Carrier { up: false });
    machine.guest.restart(u64::MAX);
    assert_eq!(machine.status(), 0);
    machine.guest.give(RX, 4, &WHOLE);
    machine.arrive(&[plain(4, 46)]);
    assert!(machine.receive().is_none());
}

#[test]
fn a_link_that_ends_or_fails_for_good_is_down() {
    let mut machine = Machine::new();
    machine.guest.give(RX, 4, &WHOLE);
    let (_, far) = TestLink::new(1, 1500);
    drop(std::mem::replace(&mut machine.far, far));
    machine.run();
    assert_eq!(machine.status(), 0);
    machine.send(&plain(2, 46));
    assert_eq!(machine.count("tx_dropped_link_down"), 1);
    // One that is gone does not come back.
    machine.tell(NetCommand::Carrier { up: true });
    assert_eq!(machine.status(), 0);

    let mut machine = Machine::new();
    machine.far.state().fail_receive = Some(ErrorKind::NotConnected);
    machine.guest.give(RX, 4, &WHOLE);
    machine.arrive(&[plain(1, 46)]);
    assert_eq!((machine.status(), machine.count("rx_host_errors")), (0, 8));
    let command = DeviceCommand::Rescan;
    let refused = machine.guest.driver.handle.ask(command);
    assert!(matches!(refused, Err(CommandError::NotSupported)));
}

#[test]
fn each_direction_has_its_limits() {
    let limited = Settings {
        receive: limits(3100),
        transmit: limits(3100),
        ..settings()
    };
    let mut machine = Machine::with(1, u64::MAX, &limited);
    machine.guest.give(RX, 8, &WHOLE);
    let frames: Vec<_> = (0..4).map(|seed| plain(seed, 1486)).collect();
    machine.arrive(&frames);
    let received = std::iter::from_fn(|| machine.receive()).count();
    assert_eq!((received, machine.count("rx_throttled")), (2, 1));
    for frame in &frames {
        machine.guest.add_frame(TX, frame, &[]);
    }
    machine.guest.driver.kick(TX);
    assert_eq!(machine.guest.sent(TX), 2);
    assert_eq!(machine.count("tx_throttled"), 1);
    // New limits for one direction leave the other as it is.
    machine.tell(NetCommand::Limits {
        receive: Some(Limits::default()),
        transmit: None,
    });
    let received = std::iter::from_fn(|| machine.receive()).count();
    assert_eq!((received, machine.guest.sent(TX)), (2, 0));
    machine.tell(NetCommand::Limits {
        receive: None,
        transmit: Some(Limits::default()),
    });
    assert_eq!(machine.guest.sent(TX), 2);
    assert_eq!(std::iter::from_fn(|| machine.sent()).count(), 4);
}

/// More than a turn's worth goes on by itself once the wait is over.
#[test]
fn a_limit_that_is_lifted_leaves_nothing_behind() {
    let limited = Settings {
        transmit: limits(10),
        ..settings()
    };
    let mut machine = Machine::with(1, u64::MAX, &limited);
    let stop = plain(0, 46);
    machine.send(&stop);
    same(machine.sent(), &stop);
    for seed in 0..200 {
        machine.guest.add_frame(TX, &plain(seed, 46), &[]);
    }
    machine.guest.driver.kick(TX);
    assert_eq!(machine.guest.sent(TX), 0);
    machine.tell(NetCommand::Limits {
        receive: None,
        transmit: Some(Limits::default()),
    });
    // What the link has no room for goes on as it is taken out.
    for seed in 0..200 {
        same(machine.sent(), &plain(seed, 46));
        machine.run();
    }
    assert_eq!(machine.guest.sent(TX), 200);
}
