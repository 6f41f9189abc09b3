//! The console device (virtio 1.2, 5.3) with one port, which knows the terminal's size.

use std::fmt;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::{
    Chain, ConfigSpace, DeviceCommand, Identity, Interrupt, Progress, StartContext, StartError,
    VirtioDevice, Virtqueue, Watches,
};
use crate::inspect::Report;
use crate::ram::GuestRam;
use crate::tty::{ConsoleInput, InputState};

const DEVICE_ID: u32 = 3;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUE_SIZES: [u16; 2] = [64, 64];

/// The configuration holds the size of the console (5.3.3).
pub const F_SIZE: u64 = 1 << 0;

/// Size in characters, number of ports, emergency write (5.3.4).
const CONFIG_BYTES: usize = 12;

/// How much input waits for the guest at most; beyond it the input is not read.
pub const INPUT_WAITING: usize = 4096;
/// How much output is written in one turn of the loop.
const OUTPUT_A_TURN: usize = 64 << 10;
/// A turn ends after this many buffers, however small.
const BUFFERS_A_TURN: usize = 64;
const CHUNK: usize = 4096;

/// The event of the input's file descriptor.
const INPUT: u32 = 0;

/// Where a console's input comes from. Its file descriptor is readable when [`read`](Self::read)
/// has something to do.
pub trait ConsoleSource: AsRawFd + Send {
    /// Reads once, at most about `room` bytes, and appends what is for the guest to `bytes`:
    /// whether more may come.
    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) -> bool;
}

impl ConsoleSource for ConsoleInput {
    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) -> bool {
        Self::read(self, room, bytes) == InputState::Open
    }
}

struct Source(Box<dyn ConsoleSource>);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[derive(Debug)]
struct Running {
    receive: Virtqueue,
    transmit: Virtqueue,
    ram: GuestRam,
    interrupt: Interrupt,
    size_accepted: bool,
    // A request that was written in part when the turn ended.
    sending: Option<Chain>,
}

/// A console: what the guest writes goes to an output, what a source gives goes to the guest.
pub struct Console {
    output: Box<dyn Write + Send>,
    input: Option<Source>,
    // Kept open all the same: the loop still knows its descriptor.
    input_ended: bool,
    pending: Vec<u8>,
    watches: Watches,
    config: Arc<ConfigSpace>,
    running: Option<Running>,
    sent: u64,
    received: u64,
    dropped: u64,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("pending", &self.pending.len())
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl Console {
    /// A console of `columns` by `rows` characters; zeroes when nobody knows. `output` should
    /// not wait long: the other devices of its loop wait with it.
    pub fn new(
        output: Box<dyn Write + Send>,
        input: Option<Box<dyn ConsoleSource>>,
        (columns, rows): (u16, u16),
    ) -> Self {
        let config = ConfigSpace::new(vec![0; CONFIG_BYTES]);
        config.update(0, &size_bytes(columns, rows));
        Self {
            output,
            input: input.map(Source),
            input_ended: false,
            pending: Vec::new(),
            watches: Watches::default(),
            config: Arc::new(config),
            running: None,
            sent: 0,
            received: 0,
            dropped: 0,
        }
    }

    /// Gives the guest what waits, as far as it has buffers.
    fn deliver(&mut self) {
        let Some(running) = &mut self.running else {
            self.want_input();
            return;
        };
        let mut delivered = 0;
        // A buffer takes at least a byte, or is empty, which no driver in its senses sends: one
        // that goes on sending them waits for its own next ring.
        for _ in 0..INPUT_WAITING.saturating_mul(2) {
            let rest = self.pending.get(delivered..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let Ok(Some(mut chain)) = running.receive.pop() else {
                break;
            };
            let len = chain.write(&running.ram, rest);
            running
                .receive
                .complete(chain, u32::try_from(len).unwrap_or_default());
            delivered = delivered.saturating_add(len);
        }
        running.receive.notify();
        self.pending.drain(..delivered);
        self.received = self.received.saturating_add(delivered as u64);
        self.want_input();
    }

    /// Input is read as long as there is room for it. Bytes that wait for a guest without
    /// buffers never grow beyond that.
    fn want_input(&self) {
        let room = self.pending.len() < INPUT_WAITING;
        self.watches.want(INPUT, room && !self.input_ended);
    }

    fn transmit(&mut self) -> Progress {
        let Some(running) = &mut self.running else {
            return Progress::Idle;
        };
        let mut turn = 0;
        let mut buffers = 0;
        let progress = loop {
            if turn >= OUTPUT_A_TURN || buffers == BUFFERS_A_TURN {
                break Progress::More;
            }
            let next = running.sending.take();
            let next = next.map_or_else(|| running.transmit.pop(), |chain| Ok(Some(chain)));
            let Ok(Some(mut chain)) = next else {
                break Progress::Idle;
            };
            let mut chunk = [0; CHUNK];
            let len = chain.read(&running.ram, &mut chunk);
            let chunk = chunk.get(..len).unwrap_or_default();
            match self.output.write_all(chunk) {
                Ok(()) => self.sent = self.sent.saturating_add(len as u64),
                // A console that nobody reads must not stop its guest.
                Err(_) => self.dropped = self.dropped.saturating_add(len as u64),
            }
            turn = turn.saturating_add(len);
            if chain.readable().is_empty() {
                buffers = buffers.saturating_add(1);
                running.transmit.complete(chain, 0);
            } else {
                running.sending = Some(chain);
            }
        };
        running.transmit.notify();
        // Errors as above.
        let _ = self.output.flush();
        progress
    }

    fn resize(&self, columns: u16, rows: u16) {
        let changed = self.config.update(0, &size_bytes(columns, rows));
        if let Some(running) = &self.running
            && changed
            && running.size_accepted
        {
            running.interrupt.config_changed();
        }
    }
}

impl VirtioDevice for Console {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: &QUEUE_SIZES,
            features: F_SIZE,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn attach(&mut self, watches: Watches) {
        if let Some(input) = &self.input {
            watches.readable(input, INPUT);
        }
        self.watches = watches;
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        let mut take = |queue: usize| {
            let taken = context.queues.get_mut(queue).and_then(Option::take);
            taken.ok_or(StartError::MissingQueue(queue))
        };
        self.running = Some(Running {
            receive: take(RECEIVE)?,
            transmit: take(TRANSMIT)?,
            ram: context.ram,
            interrupt: context.interrupt,
            size_accepted: context.features & F_SIZE != 0,
            sending: None,
        });
        // Linux reads the size when it is told of a change, and not when it starts.
        if let Some(running) = self
            .running
            .as_ref()
            .filter(|running| running.size_accepted)
        {
            running.interrupt.config_changed();
        }
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize) -> Progress {
        if queue == RECEIVE {
            self.deliver();
            Progress::Idle
        } else {
            self.transmit()
        }
    }

    fn event(&mut self, token: u32) {
        let room = INPUT_WAITING.saturating_sub(self.pending.len());
        let Some(input) = self.input.as_mut().filter(|_| token == INPUT && room > 0) else {
            return;
        };
        self.input_ended = !input.0.read(room, &mut self.pending);
        self.deliver();
    }

    fn command(&mut self, command: DeviceCommand) {
        let DeviceCommand::Resize { columns, rows } = command;
        self.resize(columns, rows);
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn inspect(&self) -> Report {
        Report::new()
            .with("kind", "console")
            .with("started", self.running.is_some())
            .with("output_bytes", self.sent)
            .with("output_bytes_dropped", self.dropped)
            .with("input_bytes", self.received)
            .with("input_bytes_waiting", self.pending.len() as u64)
    }
}

fn size_bytes(columns: u16, rows: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (columns.to_le_bytes(), rows.to_le_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
