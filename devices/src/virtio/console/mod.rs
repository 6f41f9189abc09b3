//! The console device (virtio 1.2, 5.3) with one port, which knows the terminal's size.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{
    Chain, CommandError, ConfigSpace, DeviceCommand, Identity, Interrupt, Progress, StartContext,
    StartError, VirtioDevice, Virtqueue, Watches,
};
use crate::inspect::Report;
use crate::ram::GuestRam;
use crate::tty::{ConsoleSink, InputBuffer};

pub use crate::tty::ConsoleSource;

const DEVICE_ID: u32 = 3;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Largest sizes of its queues: receive, transmit.
pub const QUEUE_SIZES: [u16; 2] = [64, 64];

/// The configuration holds the size of the console (5.3.3).
pub const F_SIZE: u64 = 1 << 0;

/// Size in characters, number of ports, emergency write (5.3.4).
const CONFIG_BYTES: usize = 12;

/// How much input of a pipe or file waits for the guest at most; beyond it, it is not read.
pub const INPUT_WAITING: usize = 4096;
/// How much output is written in one turn of the loop.
const OUTPUT_A_TURN: usize = 64 << 10;
/// A turn ends after this many buffers, however small.
const BUFFERS_A_TURN: usize = 64;
const CHUNK: usize = 4096;

/// The events of the input's file descriptor and of the output's.
const INPUT: u32 = 0;
const ROOM: u32 = 1;

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

/// What a turn of output came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// All is written.
    Done,
    /// The share of the turn is used up.
    More,
    /// The output takes no more now.
    Full,
}

/// A console: what the guest writes goes to an output, what a source gives goes to the guest.
pub struct Console {
    output: Box<dyn ConsoleSink>,
    // Writable when the output takes more; none if it always does.
    room: Option<OwnedFd>,
    // Taken from the guest and not yet by the output, a chunk at most. Outlives a reset.
    unsent: Vec<u8>,
    /// Whether input waits for the guest's first output.
    held: bool,
    input: Option<InputBuffer>,
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
            .field("input", &self.input)
            .field("unsent", &self.unsent.len())
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl Console {
    /// A console of `columns` by `rows` characters; zeroes when nobody knows.
    pub fn new(
        output: Box<dyn ConsoleSink>,
        input: Option<Box<dyn ConsoleSource>>,
        (columns, rows): (u16, u16),
    ) -> Self {
        let config = ConfigSpace::new(vec![0; CONFIG_BYTES]);
        config.update(0, &size_bytes(columns, rows));
        let room = output.room().unwrap_or_else(|error| {
            log::warn!("console: what its reader is too slow for is dropped: {error}");
            None
        });
        Self {
            output,
            room,
            unsent: Vec::new(),
            held: false,
            input: input.map(InputBuffer::new),
            watches: Watches::default(),
            config: Arc::new(config),
            running: None,
            sent: 0,
            received: 0,
            dropped: 0,
        }
    }

    /// Holds input back until the guest has sent something. A driver takes input from its start
    /// on and drops it while no program has the console open; this is for a guest whose first
    /// program is known to say something then.
    #[must_use]
    pub fn held_until_output(mut self) -> Self {
        self.held = true;
        self
    }

    /// Gives the guest what waits, as far as it has buffers.
    fn deliver(&mut self) {
        let Some(input) = &mut self.input else {
            return;
        };
        if let Some(running) = self.running.as_mut().filter(|_| !self.held) {
            let delivered = running.deliver(input.pending());
            input.taken(delivered);
            self.received = self.received.saturating_add(delivered as u64);
        }
        self.watches.want(INPUT, input.wants(room_for(input)));
    }

    /// Writes what the output takes, within the bounds of one turn.
    fn transmit(&mut self) -> Turn {
        let mut turn = 0;
        let mut buffers = 0;
        let result = loop {
            turn = self.send().saturating_add(turn);
            if !self.unsent.is_empty() {
                break Turn::Full;
            }
            let Some(running) = &mut self.running else {
                break Turn::Done;
            };
            if let Some(chain) = running.sending.take_if(|chain| chain.readable().is_empty()) {
                running.transmit.complete(chain, 0);
                buffers += 1;
            }
            if turn >= OUTPUT_A_TURN || buffers == BUFFERS_A_TURN {
                break Turn::More;
            }
            if !running.take_chunk(&mut self.unsent) {
                break Turn::Done;
            }
            if self.held && !self.unsent.is_empty() {
                self.held = false;
                self.deliver();
            }
        };
        if let Some(running) = &mut self.running {
            running.transmit.notify();
        }
        result
    }

    /// Offers what waits to the output: how much of it is gone.
    fn send(&mut self) -> usize {
        if self.unsent.is_empty() {
            return 0;
        }
        let mut offered = self.output.offer(&self.unsent);
        let waits = self.unsent.len().saturating_sub(offered.written);
        if self.room.is_none() {
            // Nothing would tell when to go on.
            offered.dropped = waits;
        }
        self.sent = self.sent.saturating_add(offered.written as u64);
        self.dropped = self.dropped.saturating_add(offered.dropped as u64);
        let gone = offered.written.saturating_add(offered.dropped);
        let gone = gone.min(self.unsent.len());
        self.unsent.drain(..gone);
        gone
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

impl Running {
    /// Fills the guest's buffers from `input`: how much of it went.
    fn deliver(&mut self, input: &[u8]) -> usize {
        let mut delivered = 0;
        // A buffer takes at least a byte, or is empty, which no driver in its senses sends: one
        // that goes on sending them waits for its own next ring.
        for _ in 0..INPUT_WAITING.saturating_mul(2) {
            let rest = input.get(delivered..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let Ok(Some(mut chain)) = self.receive.pop() else {
                break;
            };
            let len = chain.write(&self.ram, rest);
            self.receive
                .complete(chain, u32::try_from(len).unwrap_or_default());
            delivered = delivered.saturating_add(len);
        }
        self.receive.notify();
        delivered
    }

    /// Takes the next chunk of output, which may be empty: false when there is none.
    fn take_chunk(&mut self, chunk: &mut Vec<u8>) -> bool {
        let next = self.sending.take();
        let next = next.map_or_else(|| self.transmit.pop(), |chain| Ok(Some(chain)));
        let Ok(Some(mut chain)) = next else {
            return false;
        };
        chunk.resize(CHUNK, 0);
        let len = chain.read(&self.ram, chunk);
        chunk.truncate(len);
        self.sending = Some(chain);
        true
    }
}

/// How much more is read from a pipe or file.
fn room_for(input: &InputBuffer) -> usize {
    INPUT_WAITING.saturating_sub(input.pending().len())
}

/// The machine ends: what the guest has sent is written as far as there is time for it.
impl Drop for Console {
    fn drop(&mut self) {
        while self.transmit() != Turn::Done && self.output.wait_at_the_end() {}
    }
}

impl VirtioDevice for Console {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: QUEUE_SIZES.to_vec(),
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
        if let Some(room) = &self.room {
            watches.writable(room, ROOM);
        }
        self.watches = watches;
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        self.running = Some(Running {
            receive: context.take_queue(RECEIVE)?,
            transmit: context.take_queue(TRANSMIT)?,
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
            return Progress::Idle;
        }
        let turn = self.transmit();
        self.watches.want(ROOM, turn == Turn::Full);
        if turn == Turn::More {
            Progress::More
        } else {
            Progress::Idle
        }
    }

    fn event(&mut self, token: u32) {
        if token == ROOM {
            let turn = self.transmit();
            self.watches.want(ROOM, turn != Turn::Done);
        } else if let Some(input) = &mut self.input {
            input.read(room_for(input));
            self.deliver();
        }
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let DeviceCommand::Resize { columns, rows } = command else {
            return Err(CommandError::NotSupported);
        };
        self.resize(columns, rows);
        Ok(())
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn inspect(&self) -> Report {
        let input = self.input.as_ref();
        let waiting = input.map_or(0, |input| input.pending().len());
        Report::new()
            .with("kind", "console")
            .with("started", self.running.is_some())
            .with("output_bytes", self.sent)
            .with("output_bytes_dropped", self.dropped)
            .with("output_bytes_waiting", self.unsent.len() as u64)
            .with("input_bytes", self.received)
            .with("input_bytes_waiting", waiting as u64)
            .with("input_bytes_dropped", input.map_or(0, InputBuffer::dropped))
    }
}

fn size_bytes(columns: u16, rows: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (columns.to_le_bytes(), rows.to_le_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
