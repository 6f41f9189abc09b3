//! A device on a real loop with threads, as in a machine.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::*;
use crate::bus::{BusDevice, Width};
use crate::event::Loop;
use crate::line::IrqLine;
use crate::testing::driver::{AGREED, RUNNING, register};
use crate::testing::{Buffer, Ring, small_ram};
use crate::tty::Terminal;
use crate::virtio::console::{Console, ConsoleSource};
use crate::virtio::transport::mmio::QUEUE_NOTIFY;
use crate::virtio::{Connected, MmioTransport, connect, features};

const PATIENCE: Duration = Duration::from_secs(10);

struct Pipe(io::PipeReader);

impl AsRawFd for Pipe {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl ConsoleSource for Pipe {
    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) -> bool {
        let mut chunk = vec![0; room];
        let len = self.0.read(&mut chunk).unwrap();
        bytes.extend_from_slice(&chunk[..len]);
        len > 0
    }
}

fn set(transport: &mut MmioTransport, offset: u64, value: u32) {
    transport.write(offset, Width::Dword, value.into()).unwrap();
}

fn set_up(transport: &mut MmioTransport, rings: &[Ring]) {
    for status in [0, 1, 3] {
        set(transport, register::STATUS, status);
    }
    set(transport, register::DRIVER_FEATURES_SELECT, 1);
    let high = u32::try_from(features::VERSION_1 >> 32).unwrap();
    set(transport, register::DRIVER_FEATURES, high);
    set(transport, register::STATUS, AGREED);
    for (queue, ring) in (0..).zip(rings) {
        set(transport, register::QUEUE_SELECT, queue);
        set(transport, register::QUEUE_SIZE, ring.setup.size);
        let areas = [
            (register::DESCRIPTORS, ring.setup.descriptors),
            (register::AVAILABLE, ring.setup.available),
            (register::USED, ring.setup.used),
        ];
        for (offset, at) in areas {
            set(transport, offset, u32::try_from(at).unwrap());
        }
        set(transport, register::QUEUE_READY, 1);
    }
    set(transport, register::STATUS, RUNNING);
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_device_runs_resets_and_ends_with_its_loop() {
    let (input, mut keys) = io::pipe().unwrap();
    let (mut screen, output) = io::pipe().unwrap();
    let output = Box::new(Terminal::piped_output(OwnedFd::from(output).into()));
    let console = Console::new(output, Some(Box::new(Pipe(input))), (80, 25));
    let (ram, line) = (small_ram(), IrqLine::new().unwrap());
    let other_end = line.try_clone().unwrap();
    let connected = connect("console".into(), Box::new(console), ram.clone(), other_end);
    let Connected {
        mut transport,
        slot,
        handle,
        doorbells,
    } = connected.unwrap();
    let mut io_loop = Loop::new().unwrap();
    io_loop.add(Box::new(slot));
    let (remote, thread) = io_loop.spawn("io").unwrap();

    for round in 0..50 {
        let mut rings = [0x1_0000, 0x1_4000].map(|at| Ring::new(ram.clone(), at, 8));
        set_up(&mut transport, &rings);
        ram.write_bytes(0x8_0000, b"ping").unwrap();
        rings[1].add(&[Buffer::readable(0x8_0000, 4)]);
        // Bound doorbells and register writes do the same.
        if round % 2 == 0 {
            doorbells[1].ring();
        } else {
            set(&mut transport, QUEUE_NOTIFY, 1);
        }
        let mut text = [0; 4];
        screen.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"ping");
        wait_for("used buffer", || rings[1].used_index() == 1);
        wait_for("interrupt", || line.take());

        keys.write_all(b"pong").unwrap();
        rings[0].add(&[Buffer::writable(0x8_1000, 16)]);
        set(&mut transport, QUEUE_NOTIFY, 0);
        wait_for("input", || rings[0].used_index() == 1);
        assert_eq!(
            handle.inspect().unwrap().find("started"),
            Some(&true.into())
        );

        set(&mut transport, register::STATUS, 0);
        rings[1].add(&[Buffer::readable(0x8_0000, 4)]);
        doorbells[1].ring();
        assert_eq!(
            handle.inspect().unwrap().find("started"),
            Some(&false.into())
        );
        assert_eq!(rings[1].used_index(), 1, "used after reset");
        line.take();
    }

    // The source ends; the loop must not spin on it, nor mind.
    drop(keys);
    handle.inspect().unwrap();
    let rings = [0x1_0000, 0x1_4000].map(|at| Ring::new(ram.clone(), at, 8));
    set_up(&mut transport, &rings);
    remote.stop();
    thread.join().unwrap().unwrap();
    // A register write that would wait for the device does not wait for one that is gone.
    set(&mut transport, register::STATUS, 0);
    assert_eq!(handle.inspect(), Err(SlotGone));
    let resize = DeviceCommand::Resize {
        columns: 1,
        rows: 1,
    };
    assert_eq!(handle.send(resize), Err(SlotGone));
}

/// A terminal that nobody reads, on the same loop as another device.
#[test]
fn a_console_that_nobody_reads_does_not_stall_its_neighbours() {
    let mut io_loop = Loop::new().unwrap();
    let mut connect_console = |reader: &mut Vec<io::PipeReader>| {
        let (screen, output) = io::pipe().unwrap();
        reader.push(screen);
        let output = Terminal::piped_output(OwnedFd::from(output).into());
        let console = Box::new(Console::new(Box::new(output), None, (0, 0)));
        let (ram, line) = (small_ram(), IrqLine::new().unwrap());
        let connected = connect("console".into(), console, ram.clone(), line).unwrap();
        let mut transport = connected.transport;
        io_loop.add(Box::new(connected.slot));
        let rings = [0x1_0000, 0x1_4000].map(|at| Ring::new(ram.clone(), at, 16));
        set_up(&mut transport, &rings);
        (transport, rings, ram)
    };
    let mut screens = Vec::new();
    let (mut stuck, mut stuck_rings, stuck_ram) = connect_console(&mut screens);
    let (mut free, mut free_rings, free_ram) = connect_console(&mut screens);
    let (remote, thread) = io_loop.spawn("io").unwrap();
    let [mut slow, mut fast] = <[_; 2]>::try_from(screens).unwrap();

    let text: Vec<u8> = (0..1_u32 << 16).map(|n| n.to_le_bytes()[0]).collect();
    stuck_ram.write_bytes(0x8_0000, &text).unwrap();
    for _ in 0..10 {
        stuck_rings[1].add(&[Buffer::readable(0x8_0000, 1 << 16)]);
    }
    set(&mut stuck, QUEUE_NOTIFY, 1);
    free_ram.write_bytes(0x8_0000, b"ping").unwrap();
    for round in 1..=10 {
        free_rings[1].add(&[Buffer::readable(0x8_0000, 4)]);
        set(&mut free, QUEUE_NOTIFY, 1);
        let mut ping = [0; 4];
        fast.read_exact(&mut ping).unwrap();
        assert_eq!(&ping, b"ping");
        wait_for("used buffer", || free_rings[1].used_index() == round);
    }
    assert!(stuck_rings[1].used_index() < 10);
    let mut got = vec![0; text.len() * 10];
    slow.read_exact(&mut got).unwrap();
    assert!(got == text.repeat(10), "in order");
    wait_for("used buffers", || stuck_rings[1].used_index() == 10);
    remote.stop();
    thread.join().unwrap().unwrap();
}
