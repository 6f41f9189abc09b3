//! The first serial port, a 16550 (vm-superio's), and the subscriber that feeds it.
//!
//! Attach it at port 0x3f8, eight ports long. Output is written as the guest writes it, byte by
//! byte: a guest that prints and stops has been heard to its last byte. Input goes into the
//! port's FIFO of 64 bytes; what does not fit stays where it comes from until the guest has read.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;

use crate::bus::{BadAccess, BusDevice, Width};
use crate::line::{Doorbell, IrqLine};
use crate::tty::{ConsoleInput, InputState};

/// The number of ports.
const PORTS: u64 = 8;
/// The modem control register and its bit that connects the output to the input.
const MODEM_CONTROL: u64 = 4;
const LOOPBACK: u64 = 1 << 4;
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
    /// While a driver tests the port on itself, it hears nothing from outside.
    loopback: bool,
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
            loopback: false,
        })
    }

    /// How many bytes of input the port takes now. When it is none, [`Self::room`] rings once
    /// there is room again.
    pub fn input_room(&mut self) -> usize {
        let room = if self.loopback {
            0
        } else {
            self.uart.fifo_capacity()
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
        if self.awaited && !self.loopback && self.uart.fifo_capacity() >= ROOM_TO_GO_ON {
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
        self.tell_of_room();
        Ok(value.into())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        let (0..PORTS, Width::Byte) = (offset, width) else {
            return Err(BadAccess);
        };
        if offset == MODEM_CONTROL {
            self.loopback = value & LOOPBACK != 0;
        }
        let ([register, ..], [value, ..]) = (offset.to_le_bytes(), value.to_le_bytes());
        // The only error is that of the output, which has lost the byte.
        let _ = self.uart.write(register, value);
        self.tell_of_room();
        Ok(())
    }
}

/// Feeds a serial port from a console's input, on the I/O loop. While the port is full, the
/// input is not looked at.
#[derive(Debug)]
pub struct SerialInput {
    input: ConsoleInput,
    serial: Arc<Mutex<Serial>>,
    room: Doorbell,
    /// Read from the input and not yet taken by the port.
    pending: Vec<u8>,
    /// Whether the loop watches the input.
    watching: bool,
    /// Nothing more will come.
    ended: bool,
}

impl SerialInput {
    /// Connects `input` to `serial`.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(input: ConsoleInput, serial: Arc<Mutex<Serial>>) -> io::Result<Self> {
        let room = lock(&serial).room()?;
        Ok(Self {
            input,
            serial,
            room,
            pending: Vec::new(),
            watching: false,
            ended: false,
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
            Err(error) => log::warn!("serial port: the console's input is not read: {error}"),
        }
    }

    /// Gives the port what was read before: whether all of it was taken.
    fn hand_over(&mut self) -> bool {
        let taken = lock(&self.serial).enqueue_input(&self.pending);
        self.pending.drain(..taken.min(self.pending.len()));
        self.pending.is_empty()
    }

    fn feed(&mut self, ops: &mut EventOps<'_>) {
        let room = lock(&self.serial).input_room();
        if room == 0 {
            self.watch(ops, false);
            return;
        }
        // Not under the port's lock: a help text may have to wait for the terminal.
        let state = self.input.read(room, &mut self.pending);
        let all = self.hand_over();
        self.ended = state == InputState::Ended;
        if self.ended || !all {
            self.watch(ops, false);
        }
    }
}

impl MutEventSubscriber for SerialInput {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.fd() == self.room.as_raw_fd() {
            self.room.clear();
            let all = self.hand_over();
            self.watch(ops, all && !self.ended);
        } else {
            self.feed(ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.room, EventSet::IN)) {
            log::warn!("serial port: the console's input is not read: {error}");
            return;
        }
        self.watch(ops, true);
    }
}

fn lock(serial: &Mutex<Serial>) -> std::sync::MutexGuard<'_, Serial> {
    serial.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
