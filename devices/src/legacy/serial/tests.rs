//! Registers, output, bounded input, and input that waits for the guest.

use std::fs::File;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::event::Loop;
use crate::line::{Reports, report_line};
use crate::state::Persist as _;
use crate::tty::{Terminal, UserRequest};

const DATA: u64 = 0;
const SOON: Duration = Duration::from_secs(10);

/// Hands each byte to the test.
struct Wire(Sender<u8>);

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        data.iter().for_each(|byte| self.0.send(*byte).unwrap());
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has no room for anything.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

fn serial() -> (Serial, IrqLine, Receiver<u8>) {
    let line = IrqLine::new().unwrap();
    let (out, wire) = channel();
    let port = Serial::new(line.try_clone().unwrap(), Box::new(Wire(out))).unwrap();
    (port, line, wire)
}

fn write(serial: &mut Serial, register: u64, value: u64) {
    serial.write(register, Width::Byte, value).unwrap();
}

fn read(serial: &mut Serial, register: u64) -> u64 {
    serial.read(register, Width::Byte).unwrap()
}

#[test]
fn output_is_written_at_once_and_interrupts_when_asked_to() {
    let (mut serial, line, wire) = serial();
    write(&mut serial, DATA, 0x41);
    assert_eq!(wire.try_recv(), Ok(0x41));
    assert!(!line.take());
    write(&mut serial, INTERRUPT_ENABLE, 2);
    assert!(line.take());
    assert_eq!(
        read(&mut serial, LINE_STATUS) & 0x60,
        0x60,
        "always ready to send"
    );
}

/// An interrupt for each time that the driver enables it, but never more than one to be taken: a
/// driver that does nothing else costs its own exits only.
#[test]
fn a_storm_of_interrupts_is_one() {
    let (mut serial, line, wire) = serial();
    for _ in 0..100_000 {
        write(&mut serial, INTERRUPT_ENABLE, 0);
        write(&mut serial, INTERRUPT_ENABLE, 2);
    }
    assert!(line.take());
    assert!(!line.take());
    assert!(wire.try_recv().is_err());
    // What identifies the interrupt takes it away, once.
    assert_eq!(read(&mut serial, 2) & 0xf, 2);
    assert_eq!(read(&mut serial, 2) & 0xf, 1);
}

#[test]
fn input_beyond_the_fifo_is_refused_until_the_guest_has_read() {
    let (mut serial, line, _wire) = serial();
    write(&mut serial, INTERRUPT_ENABLE, 1);
    let input: Vec<u8> = (0..100).collect();
    let room = serial.room().unwrap();
    assert_eq!(serial.enqueue_input(&input), 64);
    assert!(line.take());
    assert_eq!(serial.enqueue_input(&input[64..]), 0);
    for byte in 0..31 {
        assert_eq!(read(&mut serial, DATA), byte);
    }
    assert!(!room.clear(), "not for each byte");
    assert_eq!(read(&mut serial, DATA), 31);
    assert!(room.clear());
    assert_eq!(serial.enqueue_input(&input[64..70]), 6);
    while read(&mut serial, LINE_STATUS) & 1 != 0 {
        read(&mut serial, DATA);
    }
    assert!(!room.clear(), "nobody waits");
}

#[test]
fn while_a_driver_tests_the_port_input_waits() {
    let (mut serial, _line, wire) = serial();
    let room = serial.room().unwrap();
    write(&mut serial, INTERRUPT_ENABLE, 1);
    write(&mut serial, MODEM_CONTROL, LOOPBACK);
    assert_eq!(serial.enqueue_input(b"x"), 0);
    write(&mut serial, DATA, 0x55);
    assert_eq!(read(&mut serial, DATA), 0x55);
    assert!(!room.clear());
    write(&mut serial, MODEM_CONTROL, 8);
    assert!(room.clear());
    assert_eq!(serial.enqueue_input(b"x"), 1);
    assert!(wire.try_recv().is_err());
}

#[test]
fn input_waits_until_the_driver_has_emptied_the_port() {
    let (mut serial, line, _wire) = serial();
    let room = serial.room().unwrap();
    assert_eq!(serial.enqueue_input(b"early"), 0);
    // As Linux opens the port.
    write(&mut serial, LINE_CONTROL, 0x80);
    write(&mut serial, INTERRUPT_ENABLE, 1);
    write(&mut serial, LINE_CONTROL, 3);
    for register in [LINE_STATUS, DATA, 2, 6].repeat(2) {
        read(&mut serial, register);
    }
    for byte in b"a console message of the kernel" {
        read(&mut serial, LINE_STATUS);
        write(&mut serial, DATA, (*byte).into());
    }
    assert_eq!((serial.enqueue_input(b"early"), room.clear()), (0, false));
    write(&mut serial, INTERRUPT_ENABLE, 5);
    assert!(room.clear());
    assert_eq!(serial.enqueue_input(b"early"), 5);
    assert!(line.take());
    assert_eq!(guest_reads(&Mutex::new(serial)), b"early");
}

#[test]
fn a_guest_that_polls_is_given_its_input() {
    let (mut serial, _line, _wire) = serial();
    let room = serial.room().unwrap();
    assert_eq!(serial.enqueue_input(b"key"), 0);
    for _ in 0..POLLS {
        assert!(!room.clear());
        read(&mut serial, LINE_STATUS);
    }
    assert!(room.clear());
    assert_eq!(serial.enqueue_input(b"k"), 1);
    assert_eq!(read(&mut serial, LINE_STATUS) & 1, 1);
    assert_eq!(read(&mut serial, DATA), u64::from(b'k'));
    write(&mut serial, DATA, b'k'.into());
    assert_eq!(
        serial.enqueue_input(b"ey"),
        2,
        "it still polls after it echoed the key"
    );
}

#[test]
fn a_broken_output_and_odd_accesses_harm_nothing() {
    let line = IrqLine::new().unwrap();
    let mut serial = Serial::new(line.try_clone().unwrap(), Box::new(Broken)).unwrap();
    write(&mut serial, INTERRUPT_ENABLE, 2);
    assert!(line.take());
    read(&mut serial, 2);
    write(&mut serial, DATA, 1);
    assert!(line.take(), "the driver goes on although the byte is lost");
    assert_eq!(serial.read(0, Width::Word), Err(BadAccess));
    assert_eq!(serial.write(8, Width::Byte, 0), Err(BadAccess));
}

/// A guest that reads what its port has, when its line was pulsed.
fn guest_reads(serial: &Mutex<Serial>) -> Vec<u8> {
    let mut serial = serial.lock().unwrap();
    let mut bytes = Vec::new();
    while read(&mut serial, LINE_STATUS) & 1 != 0 {
        bytes.push(u8::try_from(read(&mut serial, DATA)).unwrap());
    }
    bytes
}

/// Feeds `file` through a loop into a port, with a guest that reads until it has `len` bytes.
fn feed_through(file: File, len: usize) -> Vec<u8> {
    let (mut serial, line, _wire) = serial();
    write(&mut serial, INTERRUPT_ENABLE, 1);
    let serial = Arc::new(Mutex::new(serial));
    let (requests, _) = report_line().unwrap();
    let input = Terminal::reading(file).take_input(requests).unwrap();
    let mut events = Loop::new().unwrap();
    events.add(Box::new(
        SerialInput::new(input, Arc::clone(&serial)).unwrap(),
    ));
    let (remote, thread) = events.spawn("io-test").unwrap();
    let mut received = Vec::new();
    let begun = std::time::Instant::now();
    while received.len() < len && begun.elapsed() < SOON {
        if line.take() {
            received.extend(guest_reads(&serial));
        }
        std::thread::yield_now();
    }
    remote.stop();
    thread.join().unwrap().unwrap();
    received
}

#[test]
fn a_pipe_reaches_the_guest_whole_and_in_order() {
    let sent: Vec<u8> = (0..40_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (reader, writer) = io::pipe().unwrap();
    let feeder = std::thread::spawn({
        let sent = sent.clone();
        move || {
            File::from(OwnedFd::from(writer)).write_all(&sent).unwrap();
        }
    });
    let reader = File::from(OwnedFd::from(reader));
    assert_eq!(feed_through(reader, sent.len()), sent);
    feeder.join().unwrap();
}

#[test]
fn a_file_reaches_the_guest_although_epoll_refuses_it() {
    let sent: Vec<u8> = (0..5000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&sent).unwrap();
    assert_eq!(feed_through(file.reopen().unwrap(), sent.len()), sent);
    assert_eq!(feed_through(File::open("/dev/null").unwrap(), 0), []);
}

#[test]
fn a_port_that_a_vcpu_holds_is_tried_again_later() {
    let (serial, line, _wire) = serial();
    let serial = Arc::new(Mutex::new(serial));
    let (reader, writer) = io::pipe().unwrap();
    let reader = File::from(OwnedFd::from(reader));
    let (requests, _) = report_line().unwrap();
    let input = Terminal::reading(reader).take_input(requests).unwrap();
    let mut events = Loop::new().unwrap();
    events.add(Box::new(
        SerialInput::new(input, Arc::clone(&serial)).unwrap(),
    ));
    let held = serial.lock().unwrap();
    let (remote, thread) = events.spawn("io-test").unwrap();
    File::from(OwnedFd::from(writer))
        .write_all(b"late")
        .unwrap();
    // The loop serves others meanwhile: this one is told of it by the loop itself.
    let (done, served) = channel();
    remote.add(Box::new(Neighbour(done))).unwrap();
    served.recv_timeout(SOON).unwrap();
    drop(held);
    write(&mut serial.lock().unwrap(), INTERRUPT_ENABLE, 1);
    let begun = std::time::Instant::now();
    while !line.take() && begun.elapsed() < SOON {
        std::thread::yield_now();
    }
    assert_eq!(guest_reads(&serial), b"late");
    remote.stop();
    thread.join().unwrap().unwrap();
}

/// Says that the loop came round to it.
struct Neighbour(Sender<()>);

impl MutEventSubscriber for Neighbour {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {}

    fn init(&mut self, _: &mut EventOps<'_>) {
        self.0.send(()).unwrap();
    }
}

/// A loop with a port whose guest never reads: the port, and what ends the loop.
fn deaf_guest(terminal: &mut Terminal) -> (Arc<Mutex<Serial>>, Reports<UserRequest>, Ender) {
    let (mut serial, _line, _wire) = serial();
    write(&mut serial, INTERRUPT_ENABLE, 1);
    let serial = Arc::new(Mutex::new(serial));
    let (requests, asked) = report_line().unwrap();
    let input = terminal.take_input(requests).unwrap();
    let mut events = Loop::new().unwrap();
    let input = SerialInput::new(input, Arc::clone(&serial)).unwrap();
    events.add(Box::new(input));
    let (remote, thread) = events.spawn("io-test").unwrap();
    let end = move || {
        remote.stop();
        thread.join().unwrap().unwrap();
    };
    (serial, asked, Box::new(end))
}

type Ender = Box<dyn FnOnce()>;

fn within_time<T>(mut result: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(result) = result() {
            return result;
        }
        assert!(begun.elapsed() < SOON, "in time");
        std::thread::yield_now();
    }
}

#[test]
fn escapes_are_heard_however_much_waits_for_the_guest() {
    for len in [0, 1, 63, 64, 65, 4096, 65_536, 65_537, 200_000] {
        let (keys, mut typist) = io::pipe().unwrap();
        let mut terminal = Terminal::typing(OwnedFd::from(keys).into());
        let (serial, asked, end) = deaf_guest(&mut terminal);
        // Even while a vCPU has the port.
        let held = (len == 4096).then(|| serial.lock().unwrap());
        typist.write_all(&vec![b'x'; len]).unwrap();
        typist.write_all(b"\x1dq").unwrap();
        assert_eq!(within_time(|| asked.take()), UserRequest::Quit, "{len}");
        drop(held);
        // The guest comes back and gets what was kept.
        let kept = len.min(crate::tty::TYPED_WAITING + 64);
        let least = len.min(crate::tty::TYPED_WAITING);
        let mut got = 0;
        within_time(|| {
            got += guest_reads(&serial).len();
            (got >= least).then_some(())
        });
        assert!(got <= kept, "{got} of {len}");
        end();
    }
}

#[test]
fn a_pipe_is_left_alone_while_the_port_is_full() {
    for len in [63, 64, 65, 4096, 60_000] {
        let (reader, mut writer) = io::pipe().unwrap();
        let other = File::from(OwnedFd::from(reader.try_clone().unwrap()));
        let mut terminal = Terminal::reading(OwnedFd::from(reader).into());
        let (serial, asked, end) = deaf_guest(&mut terminal);
        writer.write_all(&vec![b'\x1d'; len]).unwrap();
        let left = || usize::try_from(rustix::io::ioctl_fionread(&other).unwrap()).unwrap();
        let expected = len.saturating_sub(64);
        within_time(|| (left() == expected).then_some(()));
        let mut got = 0;
        within_time(|| {
            got += guest_reads(&serial).len();
            (got == len).then_some(())
        });
        assert_eq!(asked.take(), None);
        end();
    }
}

/// Faults.md 92: a driver that waits for the interrupt of an empty transmitter gets it.
#[test]
fn an_interrupt_on_its_way_outlives_a_restore() {
    let (mut before, _line, _wire) = serial();
    write(&mut before, INTERRUPT_ENABLE, 2);
    write(&mut before, DATA, 0x41);
    let state = before.save().unwrap();
    let (mut after, line, _wire) = serial();
    after.restore(&state).unwrap();
    line.take();
    after.tell_again();
    assert!(line.take());
    assert_eq!(read(&mut after, 2) & 0xf, 2);
    let (mut idle, line, _wire) = serial();
    idle.tell_again();
    assert!(!line.take());
}

proptest! {
    /// Whatever was done to a port, the restored one goes on as the first would.
    #[test]
    fn it_is_saved_and_restored(
        before in prop::collection::vec((0_u64..8, any::<u8>(), any::<bool>()), 0..60),
        input in prop::collection::vec(any::<u8>(), 0..80),
        after in prop::collection::vec((0_u64..8, any::<u8>(), any::<bool>()), 0..60),
    ) {
        let (mut one, _line, wire) = serial();
        let touch = |port: &mut Serial, (register, value, reads): (u64, u8, bool)| match reads {
            true => read(port, register),
            false => {
                write(port, register, value.into());
                0
            }
        };
        for access in before {
            touch(&mut one, access);
        }
        one.enqueue_input(&input);
        let state = one.save().unwrap();
        let (mut other, _line, other_wire) = serial();
        other.restore(&state).unwrap();
        prop_assert_eq!(other.save().unwrap(), state.clone());
        wire.try_iter().for_each(drop);
        for access in after {
            prop_assert_eq!(touch(&mut one, access), touch(&mut other, access));
        }
        prop_assert_eq!(one.save().unwrap(), other.save().unwrap());
        prop_assert!(wire.try_iter().eq(other_wire.try_iter()));
        crate::testing::persistence::cuts_are_refused(&mut other, &state);
    }
}
