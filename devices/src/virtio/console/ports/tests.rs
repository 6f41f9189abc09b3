//! Several ports against their driver (virtio 1.2, 5.3.6).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::super::{SocketPort, TerminalPort};
use super::*;
use crate::inspect::Value;
use crate::testing::driver::register;
use crate::testing::{Buffer, GuestDriver, conformance};
use crate::tty::Terminal;
use crate::virtio::transport::mmio::QUEUE_NOTIFY;

const TO_DRIVER: u32 = 2;
const FROM_DRIVER: u32 = 3;
const RX1: u32 = 4;
const TX1: u32 = 5;
const TX2: u32 = 7;

/// Two ports: a socket, and a console in a file.
struct Two {
    driver: GuestDriver,
    socket: PathBuf,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

fn device(dir: &tempfile::TempDir) -> Box<Ports> {
    let socket = SocketPort::listen(&dir.path().join("socket")).unwrap();
    let file = Terminal::file(&dir.path().join("file")).unwrap();
    let ports = vec![
        PortSetup {
            name: "org.example.one".into(),
            console: false,
            backend: Box::new(socket),
        },
        PortSetup {
            name: "two".into(),
            console: true,
            backend: Box::new(TerminalPort::new(file).unwrap()),
        },
    ];
    Box::new(Ports::new(ports).unwrap())
}

fn two() -> Two {
    let dir = tempfile::tempdir().unwrap();
    Two {
        driver: GuestDriver::started(device(&dir)),
        socket: dir.path().join("socket"),
        file: dir.path().join("file"),
        _dir: dir,
    }
}

impl Two {
    fn say(&mut self, id: u32, event: u16, value: u16) {
        let message = [
            &id.to_le_bytes()[..],
            &event.to_le_bytes(),
            &value.to_le_bytes(),
        ];
        let buffer = self.driver.holding(&message.concat());
        assert_eq!(self.driver.request(FROM_DRIVER, &[buffer]), Some(0));
    }

    /// The next message of the device, if it has one.
    fn hear(&mut self) -> Option<(u32, u16, u16, Vec<u8>)> {
        let room = self.driver.room(128);
        self.driver.ring(TO_DRIVER).add(&[room]);
        self.driver.kick(TO_DRIVER);
        let (_, len) = self.driver.ring(TO_DRIVER).take_used()?;
        let bytes = self.driver.bytes(room);
        Some((
            u32::from_le_bytes(bytes[..4].try_into().unwrap()),
            u16::from_le_bytes(bytes[4..6].try_into().unwrap()),
            u16::from_le_bytes(bytes[6..8].try_into().unwrap()),
            bytes[8..len as usize].to_vec(),
        ))
    }

    /// Goes through the hand-shake; the first port is opened by a program of the guest.
    fn introduced() -> Self {
        let mut two = two();
        two.say(u32::MAX, event::DEVICE_READY, 1);
        assert_eq!(two.hear(), Some((1, event::PORT_ADD, 1, vec![])));
        assert_eq!(two.hear(), Some((2, event::PORT_ADD, 1, vec![])));
        two.say(1, event::PORT_READY, 1);
        let name = b"org.example.one".to_vec();
        assert_eq!(two.hear(), Some((1, event::PORT_NAME, 1, name)));
        two.say(2, event::PORT_READY, 1);
        two
    }

    /// A message that came in a buffer of the last [`Self::hear`], which got none then.
    fn heard(&mut self) -> (u32, u16, u16) {
        self.driver.run();
        let (head, _) = self.driver.ring(TO_DRIVER).take_used().expect("a message");
        let table = self.driver.ring(TO_DRIVER).setup.descriptors;
        let at = self
            .driver
            .ram
            .read::<u64>(table + u64::from(head) * 16)
            .unwrap();
        let read = |offset| self.driver.ram.read::<u16>(at + offset).unwrap();
        (read(0).into(), read(4), read(6))
    }

    fn number(&mut self, name: &str) -> Value {
        let handle = self.driver.handle.clone();
        let report = std::thread::spawn(move || handle.inspect());
        while !report.is_finished() {
            self.driver.run();
        }
        let report = report.join().unwrap().unwrap();
        report
            .find(name)
            .unwrap_or_else(|| panic!("{name}"))
            .clone()
    }
}

#[test]
fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    let make = || -> Box<dyn VirtioDevice> {
        let file = Terminal::file(&dir.path().join("file")).unwrap();
        let port = PortSetup {
            name: "one".into(),
            console: false,
            backend: Box::new(TerminalPort::new(file).unwrap()),
        };
        Box::new(Ports::new(vec![port]).unwrap())
    };
    conformance::check(&make, 1);
}

/// 5.3.6: the driver learns which ports there are, their names, and which is a console.
#[test]
fn ports_are_introduced() {
    let mut two = Two::introduced();
    assert_eq!(
        two.driver.config(4),
        3,
        "ports, and the one that nobody has"
    );
    assert_eq!(two.hear(), Some((2, event::CONSOLE_PORT, 1, vec![])));
    assert_eq!(two.hear(), Some((2, event::PORT_NAME, 1, b"two".to_vec())));
    assert_eq!(two.hear(), Some((2, event::PORT_OPEN, 1, vec![])));
    assert_eq!(two.hear(), None);
    // Told again to a driver that starts again.
    two.driver.start(u64::MAX);
    two.say(u32::MAX, event::DEVICE_READY, 1);
    assert_eq!(two.hear(), Some((1, event::PORT_ADD, 1, vec![])));
}

/// 5.3.6.1: a program of the host comes, talks with one of the guest, and goes.
#[test]
fn bytes_go_both_ways() {
    let mut two = Two::introduced();
    while two.hear().is_some() {}
    let mut host = UnixStream::connect(&two.socket).unwrap();
    assert_eq!(two.heard(), (1, event::PORT_OPEN, 1));
    // Before a program of the guest opens the port, nothing is read.
    host.write_all(b"hello").unwrap();
    let room = two.driver.room(64);
    two.driver.ring(RX1).add(&[room]);
    two.driver.kick(RX1);
    assert_eq!(two.driver.ring(RX1).take_used(), None);
    assert!(!two.driver.step(), "the device spins");
    two.say(1, event::PORT_OPEN, 1);
    assert_eq!(two.driver.ring(RX1).take_used(), Some((0, 5)));
    assert_eq!(&two.driver.bytes(room)[..5], b"hello");
    let buffer = two.driver.holding(b"and back");
    assert_eq!(two.driver.request(TX1, &[buffer]), Some(0));
    let mut back = [0; 8];
    host.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"and back");
    // Gone: the guest hears of it, and what it sends is dropped.
    drop(host);
    while two.hear().is_some() {}
    two.driver.run();
    assert_eq!(two.number("port1/host_open"), Value::Flag(false));
    let buffer = two.driver.holding(b"lost");
    assert_eq!(two.driver.request(TX1, &[buffer]), Some(0));
    assert_eq!(two.number("port1/output_bytes_dropped"), Value::Number(4));
    // Another comes.
    let _host = UnixStream::connect(&two.socket).unwrap();
    two.driver.run();
    assert_eq!(two.number("port1/host_open"), Value::Flag(true));
    // The other port writes its file.
    let buffer = two.driver.holding(b"a line\n");
    assert_eq!(two.driver.request(TX2, &[buffer]), Some(0));
    assert_eq!(std::fs::read(&two.file).unwrap(), b"a line\n");
}

/// The program of the host is gone after a restore, and another can come; names have to match.
#[test]
fn the_guest_hears_of_a_program_that_is_gone_with_a_restore() {
    let mut two = Two::introduced();
    while two.hear().is_some() {}
    let _host = UnixStream::connect(&two.socket).unwrap();
    assert_eq!(two.heard(), (1, event::PORT_OPEN, 1));
    two.say(1, event::PORT_OPEN, 1);
    assert_eq!(two.hear(), None);
    let folder = tempfile::tempdir().unwrap();
    let make = || -> Box<dyn VirtioDevice> {
        // A listener may still be there, as with the clone of a machine that runs on.
        let folder = tempfile::tempdir_in(folder.path()).unwrap();
        device(&folder)
    };
    let state = two.driver.save();
    two.driver.restore(&make, &state).unwrap();
    assert_eq!(two.driver.save(), state);
    two.driver.resume();
    assert_eq!(two.heard(), (1, event::PORT_OPEN, 0));
    assert_eq!(two.number("port1/guest_open"), Value::Flag(true));
    let mut other = state;
    let place = other
        .windows(15)
        .position(|part| part == b"org.example.one");
    other[place.unwrap()] = b'X';
    let refused = two.driver.restore(&make, &other).unwrap_err().to_string();
    assert!(refused.contains("Xrg.example.one"), "{refused}");
}

/// A megabyte each way, with small buffers and a slow program on the other side.
#[test]
fn nothing_is_lost_or_doubled() {
    let mut two = Two::introduced();
    while two.hear().is_some() {}
    two.say(1, event::PORT_OPEN, 1);
    let mut host = UnixStream::connect(&two.socket).unwrap();
    host.set_nonblocking(true).unwrap();
    two.driver.run();
    let sent: Vec<u8> = (0..1 << 20)
        .map(|n: u32| (n ^ n >> 8).to_le_bytes()[0])
        .collect();
    let (mut at, mut got) = (0, Vec::new());
    while got.len() < sent.len() {
        if let Ok(len) = host.write(&sent[at..]) {
            at += len;
        }
        let room = two.driver.room(1000);
        two.driver.ring(RX1).add(&[room]);
        two.driver.kick(RX1);
        if let Some((_, len)) = two.driver.ring(RX1).take_used() {
            got.extend_from_slice(&two.driver.bytes(room)[..len as usize]);
        }
    }
    assert!(got == sent);
    two.driver
        .ram
        .write_bytes(0x8_0000, &sent[..0x4_0000])
        .unwrap();
    for _ in 0..16 {
        two.driver
            .ring(TX1)
            .add(&[Buffer::readable(0x8_0000, 0x4_0000)]);
    }
    two.driver.set(QUEUE_NOTIFY, TX1);
    let mut got = 0;
    let mut chunk = vec![0; 10_000];
    while got < 16 * 0x4_0000 {
        two.driver.run();
        let Ok(len) = host.read(&mut chunk) else {
            continue;
        };
        let at = got % 0x4_0000;
        let whole = sent[..0x4_0000].repeat(2);
        assert!(chunk[..len] == whole[at..at + len], "at {got}");
        got += len;
    }
    two.driver.run();
    assert_eq!(two.driver.ring(TX1).used_index(), 16);
    assert!(!two.driver.step());
}

/// A program that goes while much of the guest's output waits lets the guest go on.
#[test]
fn a_reader_that_goes_frees_the_guest() {
    let mut two = Two::introduced();
    let host = UnixStream::connect(&two.socket).unwrap();
    for _ in 0..64 {
        two.driver
            .ring(TX1)
            .add(&[Buffer::readable(0x8_0000, 0x4_0000)]);
    }
    two.driver.kick(TX1);
    assert!(two.driver.ring(TX1).used_index() < 64);
    drop(host);
    two.driver.run();
    assert_eq!(two.driver.ring(TX1).used_index(), 64);
}

/// A driver that never opens a port, or never reads what it is told, makes nothing grow or spin.
#[test]
fn a_deaf_driver_costs_nothing() {
    let mut two = two();
    let mut host = UnixStream::connect(&two.socket).unwrap();
    host.write_all(&[7; 10_000]).unwrap();
    for _ in 0..3 {
        two.say(0, event::DEVICE_READY, 1);
        for id in 0..4 {
            two.say(id, event::PORT_READY, 1);
        }
    }
    drop(host);
    let _again = UnixStream::connect(&two.socket).unwrap();
    two.driver.run();
    assert!(!two.driver.step());
    assert_eq!(two.number("port1/input_bytes_waiting"), Value::Number(0));
    // All that there is to know, once: a driver that has a port needs no ADD.
    let mut events = Vec::new();
    while let Some((id, event, ..)) = two.hear() {
        events.push((id, event));
    }
    assert_eq!(events.len(), 5, "{events:?}");
}

/// 5.3.6.2: messages that make no sense are ignored and counted.
#[test]
fn odd_messages_are_ignored() {
    let mut two = two();
    let odd: [(u32, u16, u16); 8] = [
        (1, event::PORT_READY, 1),
        (1, event::PORT_OPEN, 1),
        (0, event::DEVICE_READY, 0),
        (0, event::DEVICE_READY, 2),
        (1, event::PORT_ADD, 1),
        (1, event::PORT_NAME, 1),
        (1, 8, 0),
        (u32::MAX, u16::MAX, u16::MAX),
    ];
    for (id, event, value) in odd {
        two.say(id, event, value);
    }
    assert_eq!(two.number("control_messages_ignored"), Value::Number(8));
    two.say(0, event::DEVICE_READY, 1);
    for (id, event, value) in [
        (0, event::PORT_READY, 1),
        (3, event::PORT_OPEN, 1),
        (1, 99, 1),
    ] {
        two.say(id, event, value);
    }
    for len in [0, 1, 7] {
        let buffer = Buffer::readable(0x8_0000, len);
        assert_eq!(two.driver.request(FROM_DRIVER, &[buffer]), Some(0));
    }
    assert_eq!(two.number("control_messages_ignored"), Value::Number(14));
    // A buffer too short for a message: the driver will not know, and the next one comes.
    let short = two.driver.room(7);
    two.driver.ring(TO_DRIVER).add(&[short]);
    two.driver.kick(TO_DRIVER);
    assert_eq!(two.driver.ring(TO_DRIVER).take_used(), Some((0, 0)));
    assert_eq!(two.hear(), Some((2, event::PORT_ADD, 1, vec![])));
    assert_eq!(two.number("control_messages_lost"), Value::Number(1));
    assert!(!two.driver.needs_reset());
}

/// 5.3.6.2, RESIZE: columns, then rows, to consoles only.
#[test]
fn consoles_learn_their_size() {
    let mut two = Two::introduced();
    while two.hear().is_some() {}
    let size = DeviceCommand::Resize {
        columns: 132,
        rows: 50,
    };
    two.driver.handle.send(size).unwrap();
    assert_eq!(two.heard(), (2, event::RESIZE, 1));
    let same = DeviceCommand::Resize {
        columns: 132,
        rows: 50,
    };
    two.driver.handle.send(same).unwrap();
    two.driver.run();
    assert_eq!(two.hear(), None);
    two.say(2, event::PORT_READY, 1);
    let mut sizes = Vec::new();
    sizes.push(two.heard());
    while let Some((_, event, _, bytes)) = two.hear() {
        if event == event::RESIZE {
            assert_eq!(bytes, [132, 0, 50, 0]);
        }
        sizes.push((2, event, 1));
    }
    assert!(sizes.contains(&(2, event::RESIZE, 1)));
}

/// A driver without F_MULTIPORT has one port, which is nobody's.
#[test]
fn the_port_of_simple_drivers_is_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = GuestDriver::started_with(device(&dir), !F_MULTIPORT);
    let buffer = driver.holding(b"lost");
    assert_eq!(driver.request(1, &[buffer]), Some(0));
    let buffer = driver.holding(&[0; 8]);
    assert_eq!(driver.request(FROM_DRIVER, &[buffer]), None);
    assert_eq!(driver.request(TX2, &[buffer]), None);
    // With it, the control queues have to be there; a port may have none.
    for (missing, wrong) in [(2, true), (3, true), (0, false), (RX1, false), (TX2, false)] {
        driver.reset();
        let offered = driver.offered();
        assert!(driver.agree(offered));
        driver.set_up_queues();
        driver.set(register::QUEUE_SELECT, missing);
        driver.set(register::QUEUE_READY, 0);
        driver.set(register::STATUS, crate::testing::driver::RUNNING);
        driver.run();
        assert_eq!(driver.needs_reset(), wrong, "queue {missing}");
        driver.set(QUEUE_NOTIFY, missing);
        driver.run();
    }
    driver.start(u64::MAX);
}
