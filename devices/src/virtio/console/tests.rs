//! The console against its driver (virtio 1.2, 5.3).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::queues::OUTPUT_A_TURN;
use super::*;
use crate::inspect::Value;
use crate::line::report_line;
use crate::testing::driver::register;
use crate::testing::{Buffer, GuestDriver, conformance};
use crate::tty::{Offered, TYPED_WAITING, Terminal, UserRequest};

/// An output that tests can look at and make fail.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<(Vec<u8>, bool)>>);

impl Screen {
    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }
}

impl ConsoleSink for Screen {
    fn offer(&mut self, data: &[u8]) -> Offered {
        let mut screen = self.0.lock().unwrap();
        let (written, dropped) = if screen.1 {
            (0, data.len())
        } else {
            (data.len(), 0)
        };
        screen.0.extend_from_slice(&data[..written]);
        Offered { written, dropped }
    }

    fn room(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn wait_at_the_end(&mut self) -> bool {
        false
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

/// What was read of a buffer under way is not read again, nor is any of it lost.
#[test]
fn output_goes_on_where_it_was_saved() {
    let screens = RefCell::new(Vec::new());
    let make = || -> Box<dyn VirtioDevice> {
        let screen = Screen::default();
        screens.borrow_mut().push(screen.clone());
        Box::new(Console::new(Box::new(screen), None, (80, 25)))
    };
    let shown = || screens.borrow().last().unwrap().text();
    let mut driver = GuestDriver::started(make());
    let text: Vec<u8> = (0..0x4_0000_u32)
        .map(|n| (n ^ n >> 8).to_le_bytes()[0])
        .collect();
    driver.ram.write_bytes(0x8_0000, &text).unwrap();
    let whole = Buffer::readable(0x8_0000, 0x4_0000);
    let head = driver.ring(TX).add(&[whole]);
    driver.set(crate::virtio::transport::mmio::QUEUE_NOTIFY, TX);
    let mut all = Vec::new();
    for _ in 0..3 {
        driver.step();
        // A device that goes writes what it has, on its own screen.
        all.extend(shown());
        let state = driver.save();
        driver.restore(&make, &state).unwrap();
        assert_eq!(driver.save(), state);
        driver.restore(&make, &state).unwrap();
        driver.handle.resume().unwrap();
    }
    driver.run();
    all.extend(shown());
    assert_eq!(driver.ring(TX).take_used(), Some((head, 0)));
    assert!(all == text, "{} bytes", all.len());
}

/// A console in a window of another size tells its driver of that.
#[test]
fn another_window_is_told_of_after_a_restore() {
    let make = |size| -> Box<dyn VirtioDevice> {
        Box::new(Console::new(Box::new(Screen::default()), None, size))
    };
    let mut driver = GuestDriver::started(make((80, 25)));
    driver.set(register::INTERRUPT_ACKNOWLEDGE, 3);
    let generation = driver.get(register::CONFIG_GENERATION);
    let state = driver.save();
    driver.restore(&|| make((100, 40)), &state).unwrap();
    assert_ne!(driver.get(register::CONFIG_GENERATION), generation);
    assert!(!driver.interrupted(), "before it goes on");
    driver.resume();
    assert_eq!(driver.config(0), 40 << 16 | 100);
    assert_eq!(driver.get(register::INTERRUPT_STATUS) & 2, 2);
    assert!(driver.interrupted());
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

/// Input that a driver would drop is kept until the guest's first program has spoken.
#[test]
fn held_input_follows_the_first_output() {
    let keyboard = Keyboard::new();
    let input = Some(Box::new(keyboard.clone()) as Box<dyn ConsoleSource>);
    let console = Console::new(Box::new(Screen::default()), input, (0, 0)).held_until_output();
    let mut driver = GuestDriver::started(Box::new(console));
    let buffer = driver.room(16);
    driver.ring(RX).add(&[buffer]);
    driver.kick(RX);
    keyboard.type_in(b"early");
    driver.run();
    assert_eq!(driver.ring(RX).take_used(), None);
    let hello = driver.holding(b"\r");
    assert_eq!(driver.request(TX, &[hello]), Some(0));
    assert_eq!(driver.ring(RX).take_used(), Some((0, 5)));
    assert_eq!(&driver.bytes(buffer)[..5], b"early");
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

#[test]
fn escapes_are_heard_however_much_waits_for_the_guest() {
    for len in [0, 63, 64, 65, 4096, 4097, 65_536, 65_537, 200_000] {
        let (keys, mut typist) = io::pipe().unwrap();
        let mut terminal = Terminal::typing(OwnedFd::from(keys).into());
        let (requests, asked) = report_line().unwrap();
        let input = Box::new(terminal.take_input(requests).unwrap());
        let output = Box::new(terminal.output());
        let mut driver = GuestDriver::started(Box::new(Console::new(output, Some(input), (0, 0))));
        let mut left = len;
        while left > 0 {
            typist.write_all(&vec![b'x'; left.min(4096)]).unwrap();
            driver.run();
            left -= left.min(4096);
        }
        typist.write_all(b"\x1dq").unwrap();
        driver.run();
        assert_eq!(asked.take(), Some(UserRequest::Quit), "{len}");
        let mut got = 0;
        for _ in 0..(TYPED_WAITING / 4096) {
            let buffer = driver.room(4096);
            driver.ring(RX).add(&[buffer]);
            driver.kick(RX);
            got += driver.ring(RX).take_used().map_or(0, |(_, len)| len);
        }
        assert_eq!(usize::try_from(got).unwrap(), len.min(TYPED_WAITING));
        // Hung up: the end of the input, and nothing spins.
        drop(typist);
        driver.run();
        assert!(!driver.step());
    }
}

/// A console on a pipe, its driver, and the end where it is read.
fn slowly_read() -> (GuestDriver, crate::tty::ConsoleOutput, File) {
    let (reader, writer) = io::pipe().unwrap();
    let output = Terminal::piped_output(OwnedFd::from(writer).into());
    let console = Console::new(Box::new(output.clone()), None, (0, 0));
    let driver = GuestDriver::started(Box::new(console));
    (driver, output, OwnedFd::from(reader).into())
}

/// Sends `buffers` buffers of 64 KiB whose bytes count up, without end: the bytes of all.
fn send_much(driver: &mut GuestDriver, buffers: usize) -> Vec<u8> {
    let part: Vec<u8> = (0..1 << 16)
        .map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    driver.ram.write_bytes(0x8_0000, &part).unwrap();
    for _ in 0..buffers {
        driver.ring(TX).add(&[Buffer::readable(0x8_0000, 1 << 16)]);
    }
    driver.kick(TX);
    part.repeat(buffers)
}

#[test]
fn a_reader_that_stops_holds_up_nothing_and_loses_nothing() {
    let (mut driver, _output, mut reader) = slowly_read();
    let sent = send_much(&mut driver, 16);
    assert!(driver.ring(TX).used_index() < 16, "the guest waits");
    assert!(!driver.step(), "the device spins");
    // Nor does a guest that rings on make it spin, and the input goes on.
    driver.kick(TX);
    assert!(!driver.step());
    let mut got = vec![0; sent.len()];
    let mut at = 0;
    while at < got.len() {
        at += reader.read(&mut got[at..]).unwrap();
        driver.run();
    }
    assert!(got == sent, "in order");
    assert_eq!(driver.ring(TX).used_index(), 16);
    assert!(!driver.step());
}

#[test]
fn a_reset_while_the_reader_is_slow_forgets_guest_memory_only() {
    let (mut driver, output, mut reader) = slowly_read();
    send_much(&mut driver, 2);
    driver.start(u64::MAX);
    let buffer = driver.holding(b"end");
    driver.ring(TX).add(&[buffer]);
    driver.kick(TX);
    assert_eq!(driver.ring(TX).take_used(), None);
    let mut got = vec![0; 1 << 17];
    let len = reader.read(&mut got).unwrap();
    driver.run();
    assert_eq!(driver.ring(TX).take_used(), Some((0, 0)));
    drop((driver, output));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(len > 0 && rest.ends_with(b"end"));
    assert_eq!((len + rest.len() - 3) % CHUNK, 0, "whole chunks");
}

#[test]
fn a_reader_that_goes_lets_the_guest_go_on() {
    let (mut driver, _output, reader) = slowly_read();
    send_much(&mut driver, 16);
    drop(reader);
    driver.run();
    assert_eq!(driver.ring(TX).used_index(), 16);
    assert!(!driver.step(), "the device spins on a hang-up");
    let buffer = driver.holding(b"lost");
    driver.ring(TX).add(&[buffer]);
    driver.kick(TX);
    assert_eq!(driver.ring(TX).used_index(), 17);
}

#[test]
fn what_waits_at_the_end_is_written_within_the_grace() {
    // Nobody ends the machine: dropping it waits for nobody.
    let (mut driver, _output, _reader) = slowly_read();
    send_much(&mut driver, 16);
    let begun = Instant::now();
    drop(driver);
    assert!(begun.elapsed() < Duration::from_secs(5));
    // A reader that takes it in time gets all.
    let (mut driver, output, mut reader) = slowly_read();
    let sent = send_much(&mut driver, 16);
    output.finish_within(Duration::from_secs(60));
    let listener = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got
    });
    drop((driver, output));
    assert!(listener.join().unwrap() == sent);
    // One that does not, does not hold up the end.
    let (mut driver, output, _reader) = slowly_read();
    send_much(&mut driver, 16);
    let (begun, grace) = (Instant::now(), Duration::from_millis(50));
    output.finish_within(grace);
    drop(driver);
    assert!(begun.elapsed() >= grace && begun.elapsed() < Duration::from_secs(30));
}

/// 5.3.5: a character goes out through the configuration, in order, before any queue is there.
#[test]
fn emergency_characters_are_seen() {
    let screen = Screen::default();
    let console = Console::new(Box::new(screen.clone()), None, (80, 25));
    let mut driver = GuestDriver::new(Box::new(console));
    driver.set(0x108, u32::from(b'n'));
    assert_eq!(screen.text(), b"", "no driver yet");
    driver.set(register::STATUS, 1);
    driver.set(register::STATUS, 3);
    for byte in b"pan" {
        driver.set(0x108, 0x1234_5600 | u32::from(*byte));
        driver.run();
    }
    driver.write(0x108, crate::bus::Width::Byte, b'i'.into());
    driver.write(0x108, crate::bus::Width::Word, b'c'.into());
    // Elsewhere in the field, or not in it.
    driver.write(0x109, crate::bus::Width::Byte, b'x'.into());
    driver.write(0x104, crate::bus::Width::Qword, b'x'.into());
    driver.set(0x104, 1);
    driver.run();
    assert_eq!(screen.text(), b"panic");
    assert_eq!(driver.config(0), 25 << 16 | 80);
}

/// A reader that takes nothing bounds what waits for it.
#[test]
fn emergency_characters_do_not_grow() {
    let (mut driver, output, reader) = slowly_read();
    send_much(&mut driver, 16);
    for _ in 0..20_000 {
        driver.set(0x108, u32::from(b'!'));
        driver.run();
    }
    let handle = driver.handle.clone();
    let report = std::thread::spawn(move || handle.inspect());
    while !report.is_finished() {
        driver.run();
    }
    let report = report.join().unwrap().unwrap();
    let Some(Value::Number(waiting)) = report.find("output_bytes_waiting") else {
        panic!("{report}");
    };
    assert!(*waiting <= EMERGENCY_WAITING as u64, "{waiting}");
    drop((reader, output));
    driver.run();
}
