//! The first serial port, a 16550 (vm-superio's), and the subscriber that feeds it.
//!
//! Attach it at port 0x3f8, eight ports long. Output is written as the guest writes it, byte by
//! byte: a guest that prints and stops has been heard to its last byte. Input goes into the
//! port's FIFO of 64 bytes; what does not fit waits in front of it (see [`InputBuffer`]).

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;

use crate::bus::{BadAccess, BusDevice, Width};
use crate::line::{Doorbell, IrqLine};
use crate::tty::{ConsoleInput, InputBuffer};

mod saved;

pub use saved::SerialStateV1;

/// The number of ports.
const PORTS: u64 = 8;
/// The interrupt enable register, while the divisor is not in its place, and its bit for input.
const INTERRUPT_ENABLE: u64 = 1;
const INPUT_INTERRUPT: u64 = 1;
/// The line control register and its bit that puts the divisor in the first two places.
const LINE_CONTROL: u64 = 3;
const DIVISOR: u64 = 1 << 7;
/// The modem control register and its bit that connects the output to the input.
const MODEM_CONTROL: u64 = 4;
const LOOPBACK: u64 = 1 << 4;
/// The line status register, and how many reads of it in a row show a guest that polls for input.
const LINE_STATUS: u64 = 5;
const POLLS: u8 = 16;
/// How often a port that is busy is tried at once, and how long the next try then waits.
const TRIES: usize = 50;
const NEXT_TRY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};
/// Input goes on once so much of the FIFO is free, not for each byte that the guest reads.
const ROOM_TO_GO_ON: usize = 32;

impl Trigger for IrqLine {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.pulse();
        Ok(())
    }
}

/// A serial port.
pub struct Serial {
    uart: vm_superio::Serial<IrqLine, NoEvents, Box<dyn Write + Send>>,
    room: Doorbell,
    /// Whoever feeds the port waits for room.
    awaited: bool,
    listener: Listener,
}

/// What tells whether the guest hears input. A driver that opens the port reads it empty first,
/// so what came before would be lost: input waits until its interrupt is enabled, or until the
/// guest polls for it. While a driver tests the port on itself, it hears nothing from outside.
#[derive(Debug, Default)]
struct Listener {
    interrupt: bool,
    polls: u8,
    divisor: bool,
    loopback: bool,
}

impl Listener {
    fn hears(&self) -> bool {
        !self.loopback && (self.interrupt || self.polls >= POLLS)
    }

    fn note_read(&mut self, register: u64) {
        // Reading what was polled for is part of polling.
        match register {
            LINE_STATUS => self.polls = self.polls.saturating_add(1),
            0 if self.polls >= POLLS => {}
            _ => self.polls = 0,
        }
    }

    fn note_write(&mut self, register: u64, value: u64) {
        match register {
            INTERRUPT_ENABLE if !self.divisor => self.interrupt = value & INPUT_INTERRUPT != 0,
            LINE_CONTROL => self.divisor = value & DIVISOR != 0,
            MODEM_CONTROL => self.loopback = value & LOOPBACK != 0,
            // A guest that prints waits before each byte; one that answers polls on.
            0 if self.polls < POLLS => self.polls = 0,
            _ => {}
        }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial")
            .field("state", &self.uart.state())
            .finish_non_exhaustive()
    }
}

impl Serial {
    /// A port that interrupts on `line` and writes what the guest sends to `out`. An error of
    /// `out` loses the byte and is otherwise ignored.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(line: IrqLine, out: Box<dyn Write + Send>) -> io::Result<Self> {
        let room = Doorbell::new()?;
        let uart = vm_superio::Serial::new(line, out);
        Ok(Self {
            uart,
            room,
            awaited: false,
            listener: Listener::default(),
        })
    }

    /// How many bytes of input the port takes now. When it is none, [`Self::room`] rings once
    /// there is room again.
    pub fn input_room(&mut self) -> usize {
        let room = if self.listener.hears() {
            self.uart.fifo_capacity()
        } else {
            0
        };
        self.awaited |= room == 0;
        room
    }

    /// Puts input into the FIFO and returns how much of it was taken. When it is less than all,
    /// [`Self::room`] rings once there is room again.
    pub fn enqueue_input(&mut self, input: &[u8]) -> usize {
        let room = self.input_room();
        self.awaited |= room < input.len();
        let taken = input.get(..room.min(input.len())).unwrap_or(input);
        self.uart.enqueue_raw_bytes(taken).unwrap_or(0)
    }

    /// The bell that tells that there is room for input again.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn room(&self) -> io::Result<Doorbell> {
        self.room.try_clone()
    }

    fn tell_of_room(&mut self) {
        if self.awaited && self.listener.hears() && self.uart.fifo_capacity() >= ROOM_TO_GO_ON {
            self.awaited = false;
            self.room.ring();
        }
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BadAccess> {
        let (0..PORTS, Width::Byte) = (offset, width) else {
            return Err(BadAccess);
        };
        let [register, ..] = offset.to_le_bytes();
        let value = self.uart.read(register);
        self.listener.note_read(offset);
        self.tell_of_room();
        Ok(value.into())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        let (0..PORTS, Width::Byte) = (offset, width) else {
            return Err(BadAccess);
        };
        self.listener.note_write(offset, value);
        let ([register, ..], [value, ..]) = (offset.to_le_bytes(), value.to_le_bytes());
        // The only error is that of the output, which has lost the byte.
        let _ = self.uart.write(register, value);
        self.tell_of_room();
        Ok(())
    }
}

/// Feeds a serial port from a console's input, on the I/O loop. While the port is full, a pipe
/// or file is not looked at; a terminal is, for its escape keys. A vCPU may hold the port for as
/// long as the console's reader makes it wait, and the loop waits for nobody: then the input is
/// tried again a little later.
#[derive(Debug)]
pub struct SerialInput {
    input: InputBuffer,
    serial: Arc<Mutex<Serial>>,
    room: Doorbell,
    /// Runs out when a port that was busy is to be tried again.
    timer: OwnedFd,
    /// Whether the loop watches the input.
    watching: bool,
}

impl SerialInput {
    /// Connects `input` to `serial`.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(input: ConsoleInput, serial: Arc<Mutex<Serial>>) -> io::Result<Self> {
        let room = serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .room()?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            input: InputBuffer::new(Box::new(input)),
            serial,
            room,
            timer,
            watching: false,
        })
    }

    fn watch(&mut self, ops: &mut EventOps<'_>, on: bool) {
        if on == self.watching {
            return;
        }
        let events = Events::new(&self.input, EventSet::IN);
        // Removed and added again, not muted: a hang-up is told even to who asks for nothing.
        let done = if on {
            ops.add(events)
        } else {
            ops.remove(events)
        };
        match done {
            Ok(()) => self.watching = on,
            Err(error) => not_read(&error),
        }
    }

    /// Moves what it can: first what was read before, then new input if `readable`.
    fn feed(&mut self, ops: &mut EventOps<'_>, readable: bool) {
        let mut room = self.hand_over();
        if readable && self.input.wants(room) {
            self.input.read(room);
            room = self.hand_over();
        }
        self.watch(ops, self.input.wants(room));
    }

    /// Gives the port what was read before and returns the room that is left for more: none
    /// while some of it waits, or a vCPU has the port.
    fn hand_over(&mut self) -> usize {
        let Some(mut port) = try_lock(&self.serial) else {
            self.try_later();
            return 0;
        };
        let taken = port.enqueue_input(self.input.pending());
        self.input.taken(taken);
        let room = port.input_room();
        if self.input.pending().is_empty() {
            room
        } else {
            0
        }
    }

    fn try_later(&self) {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: NEXT_TRY,
        };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            not_read(&error);
        }
    }
}

impl MutEventSubscriber for SerialInput {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.room.as_raw_fd() {
            self.room.clear();
        } else if events.fd() == self.timer.as_raw_fd() {
            // Only to silence it.
            let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        }
        let readable = events.fd() == self.input.as_raw_fd();
        self.feed(ops, readable);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let own = [
            Events::new(&self.room, EventSet::IN),
            Events::new(&self.timer, EventSet::IN),
        ];
        if let Err(error) = own.into_iter().try_for_each(|events| ops.add(events)) {
            not_read(&error);
            return;
        }
        self.watch(ops, true);
    }
}

fn not_read(error: &dyn fmt::Display) {
    log::warn!("serial port: the console's input is not read: {error}");
}

/// The port, unless a vCPU has it for longer than a register access takes.
fn try_lock(serial: &Mutex<Serial>) -> Option<MutexGuard<'_, Serial>> {
    for _ in 0..TRIES {
        match serial.try_lock() {
            Ok(port) => return Some(port),
            Err(TryLockError::Poisoned(port)) => return Some(port.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

#[cfg(test)]
mod tests;
