//! The console against its driver (virtio 1.2, 5.3).

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::inspect::Value;
use crate::testing::driver::register;
use crate::testing::{Buffer, GuestDriver, conformance};

/// An output that tests can look at and make fail.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<(Vec<u8>, bool)>>);

impl Screen {
    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }
}

impl Write for Screen {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut screen = self.0.lock().unwrap();
        if screen.1 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        screen.0.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A source that tests type into.
#[derive(Clone)]
struct Keyboard {
    keys: Arc<Mutex<(VecDeque<u8>, bool)>>,
    ready: Arc<EventFd>,
}

impl Keyboard {
    fn new() -> Self {
        Self {
            keys: Arc::default(),
            ready: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
        }
    }

    fn type_in(&self, bytes: &[u8]) {
        self.keys.lock().unwrap().0.extend(bytes);
        self.ready.write(1).unwrap();
    }

    fn unplug(&self) {
        self.keys.lock().unwrap().1 = true;
        self.ready.write(1).unwrap();
    }

    fn left(&self) -> usize {
        self.keys.lock().unwrap().0.len()
    }
}

impl AsRawFd for Keyboard {
    fn as_raw_fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }
}

impl ConsoleSource for Keyboard {
    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) -> bool {
        let mut keys = self.keys.lock().unwrap();
        let len = room.min(keys.0.len()).min(1000);
        bytes.extend(keys.0.drain(..len));
        if keys.0.is_empty() && !keys.1 {
            let _ = self.ready.read();
        }
        !(keys.1 && len == 0)
    }
}

fn console() -> (GuestDriver, Screen, Keyboard) {
    let (screen, keyboard) = (Screen::default(), Keyboard::new());
    let console = Console::new(
        Box::new(screen.clone()),
        Some(Box::new(keyboard.clone())),
        (80, 25),
    );
    (GuestDriver::started(Box::new(console)), screen, keyboard)
}

const RX: u32 = 0;
const TX: u32 = 1;

#[test]
fn conforms() {
    let make = || -> Box<dyn VirtioDevice> {
        let screen = Box::new(Screen::default());
        Box::new(Console::new(screen, None, (0, 0)))
    };
    conformance::check(&make, TX);
}

/// 5.3.6: scattered output comes out in order.
#[test]
fn output_reaches_the_screen() {
    let (mut driver, screen, _) = console();
    let buffers = [
        driver.holding(b"hello"),
        driver.holding(b", "),
        driver.holding(b"world"),
    ];
    assert_eq!(driver.request(TX, &buffers), Some(0));
    assert_eq!(screen.text(), b"hello, world");
    assert!(driver.interrupted());
    // Neither empty nor writable buffers are output; they come back.
    let writable = driver.room(8);
    assert_eq!(driver.request(TX, &[writable]), Some(0));
    assert_eq!(driver.request(TX, &[Buffer::readable(0, 0)]), Some(0));
    assert_eq!(screen.text(), b"hello, world");
}

/// One huge buffer is written in bounded turns, and not before the end given back.
#[test]
fn huge_output_takes_turns() {
    let (mut driver, screen, _) = console();
    driver.ring(TX).add(&[Buffer::readable(0x8_0000, 0x4_0000)]);
    driver.set(crate::virtio::transport::mmio::QUEUE_NOTIFY, TX);
    for turn in 1..=4 {
        assert_eq!(driver.ring(TX).used_index(), 0);
        driver.step();
        assert_eq!(screen.text().len(), turn * OUTPUT_A_TURN);
    }
    driver.run();
    assert_eq!(driver.ring(TX).take_used(), Some((0, 0)));
    // A reset in the middle forgets the rest.
    driver.ring(TX).add(&[Buffer::readable(0x8_0000, 0x4_0000)]);
    driver.set(crate::virtio::transport::mmio::QUEUE_NOTIFY, TX);
    driver.step();
    driver.start(u64::MAX);
    let buffer = driver.holding(b"end");
    assert_eq!(driver.request(TX, &[buffer]), Some(0));
    assert!(screen.text().ends_with(b"\0end"));
}

/// A closed terminal does not stop the guest.
#[test]
fn output_that_fails_is_dropped() {
    let (mut driver, screen, _) = console();
    screen.0.lock().unwrap().1 = true;
    let buffer = driver.holding(b"lost");
    assert_eq!(driver.request(TX, &[buffer]), Some(0));
    assert!(!driver.needs_reset());
}

/// 5.3.6: input fills buffers as far as it goes, in order.
#[test]
fn input_reaches_the_guest() {
    let (mut driver, _, keyboard) = console();
    let buffers = [driver.room(4), driver.room(64)];
    for buffer in buffers {
        driver.ring(RX).add(&[buffer]);
    }
    driver.kick(RX);
    keyboard.type_in(b"abcdefg");
    driver.run();
    assert_eq!(driver.ring(RX).take_used(), Some((0, 4)));
    assert_eq!(driver.ring(RX).take_used(), Some((1, 3)));
    assert_eq!(driver.bytes(buffers[0]), b"abcd");
    assert_eq!(&driver.bytes(buffers[1])[..4], b"efg\0");
    assert!(driver.interrupted());
    // Typed before there is a buffer.
    keyboard.type_in(b"later");
    driver.run();
    assert_eq!(driver.ring(RX).take_used(), None);
    let buffer = driver.room(16);
    assert_eq!(driver.request(RX, &[buffer]), Some(5));
}

/// Without buffers of the guest, input is read only as far as the bound, and nothing spins.
#[test]
fn input_without_buffers_is_bounded() {
    let (mut driver, _, keyboard) = console();
    keyboard.type_in(&[b'x'; 100_000]);
    driver.run();
    assert_eq!(keyboard.left(), 100_000 - INPUT_WAITING);
    assert!(!driver.step(), "the device spins");
    let mut got = 0;
    while keyboard.left() > 0 {
        for _ in 0..64 {
            let buffer = driver.room(100);
            driver.ring(RX).add(&[buffer]);
        }
        driver.kick(RX);
        while let Some((_, len)) = driver.ring(RX).take_used() {
            got += len;
        }
    }
    assert!(got > 90_000);
    assert!(!driver.needs_reset());
}

/// Empty and readable receive buffers do not wedge the ring.
#[test]
fn odd_receive_buffers_come_back() {
    let (mut driver, _, keyboard) = console();
    let readable = driver.holding(&[0; 8]);
    let good = driver.room(8);
    for buffer in [readable, Buffer::writable(0, 0), good] {
        driver.ring(RX).add(&[buffer]);
    }
    keyboard.type_in(b"key");
    driver.kick(RX);
    let lens = [(); 3].map(|()| driver.ring(RX).take_used().unwrap().1);
    assert_eq!(lens, [0, 0, 3]);
}

#[test]
fn the_end_of_input_is_the_end() {
    let (mut driver, _, keyboard) = console();
    keyboard.unplug();
    driver.run();
    assert!(!driver.step(), "the device spins on an ended input");
}

/// 5.3.4 and 5.3.5: the size is in the configuration, a change is told with its interrupt.
#[test]
fn resizing_is_told() {
    let (mut driver, ..) = console();
    assert_eq!(driver.config(0), 25 << 16 | 80);
    assert_eq!(
        driver.get(register::INTERRUPT_STATUS),
        2,
        "of the first size too"
    );
    driver.set(register::INTERRUPT_ACKNOWLEDGE, 2);
    assert!(driver.interrupted());
    let generation = driver.get(register::CONFIG_GENERATION);
    let resize = |columns, rows| DeviceCommand::Resize { columns, rows };
    driver.handle.send(resize(132, 50)).unwrap();
    driver.run();
    assert_eq!(driver.config(0), 50 << 16 | 132);
    assert_ne!(driver.get(register::CONFIG_GENERATION), generation);
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 2);
    assert!(driver.interrupted());
    driver.handle.send(resize(132, 50)).unwrap();
    driver.run();
    assert!(!driver.interrupted(), "no change");
    // A driver that does not know sizes is not bothered; a stopped one reads it later.
    driver.start(!F_SIZE);
    driver.handle.send(resize(90, 30)).unwrap();
    driver.run();
    assert!(!driver.interrupted());
    driver.reset();
    driver.handle.send(resize(91, 31)).unwrap();
    driver.run();
    assert!(!driver.interrupted());
    assert_eq!(driver.config(0), 31 << 16 | 91);
}

#[test]
fn a_missing_queue_is_answered_with_a_need_of_reset() {
    let (mut driver, ..) = console();
    driver.reset();
    let offered = driver.offered();
    assert!(driver.agree(offered));
    driver.set_up_queues();
    driver.set(register::QUEUE_SELECT, TX);
    driver.set(register::QUEUE_READY, 0);
    driver.set(register::STATUS, crate::testing::driver::RUNNING);
    driver.run();
    assert!(driver.needs_reset());
    driver.start(u64::MAX);
}

#[test]
fn the_report_counts_bytes() {
    let console = Console::new(Box::new(Screen::default()), None, (0, 0));
    let report = console.inspect();
    assert_eq!(report.find("started"), Some(&Value::Flag(false)));
    assert_eq!(report.find("output_bytes"), Some(&Value::Number(0)));
}
