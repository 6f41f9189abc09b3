//! The console device (virtio 1.2, 5.3): [`Console`] has one port and knows the terminal's size,
//! [`Ports`] has several with names.

mod backend;
mod ports;
mod queues;
mod socket;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{
    CommandError, ConfigSpace, ConfigWrite, DeviceCommand, Identity, Interrupt, Progress,
    StartContext, StartError, VirtioDevice, Watches,
};
use crate::inspect::Report;
use crate::state;
use crate::state::{BadState, Section};
use crate::tty::{ConsoleSink, InputBuffer};
use queues::{CHUNK, Queues, Turn, pump};

pub use backend::{PortBackend, TerminalPort};
pub use ports::{
    F_MULTIPORT, MOST_PORTS, PortSetup, PortStateV1, Ports, PortsStateV1, UntoldStateV1,
};
pub use queues::{INPUT_WAITING, StreamStateV1};
pub use socket::{SocketError, SocketPort};

pub use crate::tty::ConsoleSource;

const DEVICE_ID: u32 = 3;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Largest sizes of its queues: receive, transmit.
pub const QUEUE_SIZES: [u16; 2] = [64, 64];

/// The configuration holds the size of the console (5.3.3).
pub const F_SIZE: u64 = 1 << 0;

/// The configuration has a field for single characters in an emergency.
pub const F_EMERG_WRITE: u64 = 1 << 2;

/// Size in characters, number of ports, emergency write (5.3.4).
const CONFIG_BYTES: usize = 12;
/// Where a driver writes a character that has to be seen whatever else works.
const EMERGENCY: usize = 8;
/// Such characters that wait for the output at most.
const EMERGENCY_WAITING: usize = 2 * CHUNK;

/// The events of the input's file descriptor and of the output's.
const INPUT: u32 = 0;
const ROOM: u32 = 1;

#[derive(Debug)]
struct Running {
    interrupt: Interrupt,
    size_accepted: bool,
}

state! {
    /// A console. What was typed and not read by the guest is not of it.
    pub struct ConsoleStateV1: "console", 1 {
        /// Taken from the guest and not yet by the output.
        pub unsent: Vec<u8>,
        /// Whether input waits for the guest's first output.
        pub held: bool,
        /// Its queues, if it was started.
        pub stream: Option<StreamStateV1>,
    }
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
    queues: Option<Queues>,
    sent: u64,
    received: u64,
    dropped: u64,
    emergencies: u64,
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
        let emergency = EMERGENCY..CONFIG_BYTES;
        let config = ConfigSpace::with_writable(vec![0; CONFIG_BYTES], Vec::from([emergency]));
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
            queues: None,
            sent: 0,
            received: 0,
            dropped: 0,
            emergencies: 0,
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
        if let Some(queues) = self.queues.as_mut().filter(|_| !self.held) {
            let delivered = queues.deliver(input.pending());
            input.taken(delivered);
            self.received = self.received.saturating_add(delivered as u64);
        }
        self.watches.want(INPUT, input.wants(room_for(input)));
    }

    /// Writes what the output takes, within the bounds of one turn.
    fn transmit(&mut self) -> Turn {
        let mut unsent = std::mem::take(&mut self.unsent);
        let mut queues = self.queues.take();
        let turn = pump(&mut queues, &mut unsent, &mut |unsent| self.send(unsent));
        (self.unsent, self.queues) = (unsent, queues);
        if self.held && self.queues.as_ref().is_some_and(Queues::spoke) {
            self.held = false;
            self.deliver();
        }
        turn
    }

    /// Offers what waits to the output: how much of it is gone.
    fn send(&mut self, unsent: &mut Vec<u8>) -> usize {
        if unsent.is_empty() {
            return 0;
        }
        let mut offered = self.output.offer(unsent);
        let waits = unsent.len().saturating_sub(offered.written);
        if self.room.is_none() {
            // Nothing would tell when to go on.
            offered.dropped = waits;
        }
        self.sent = self.sent.saturating_add(offered.written as u64);
        self.dropped = self.dropped.saturating_add(offered.dropped as u64);
        let gone = offered.written.saturating_add(offered.dropped);
        let gone = gone.min(unsent.len());
        unsent.drain(..gone);
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
            features: F_SIZE | F_EMERG_WRITE,
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
        let receive = context.take_queue(RECEIVE)?;
        let transmit = context.take_queue(TRANSMIT)?;
        self.queues = Some(Queues::new(receive, transmit, context.ram));
        self.running = Some(Running {
            interrupt: context.interrupt,
            size_accepted: context.features & F_SIZE != 0,
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

    /// A character in an emergency (5.3.5): it goes where all output goes, with or without queues.
    fn config_written(&mut self, written: ConfigWrite) {
        if written.offset != EMERGENCY {
            return;
        }
        self.emergencies = self.emergencies.saturating_add(1);
        let [character, ..] = written.value.to_le_bytes();
        if self.unsent.len() < EMERGENCY_WAITING {
            self.unsent.push(character);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        self.send(&mut unsent);
        self.unsent = unsent;
        if !self.unsent.is_empty() {
            self.watches.want(ROOM, true);
        }
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let DeviceCommand::Resize { columns, rows } = command else {
            return Err(CommandError::NotSupported);
        };
        self.resize(columns, rows);
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        let state = ConsoleStateV1 {
            unsent: self.unsent.clone(),
            held: self.held,
            stream: self.queues.as_ref().map(Queues::save),
        };
        state.to_tagged()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let state = ConsoleStateV1::from_tagged(state)?;
        queues::restore(&mut self.queues, state.stream.as_ref())?;
        let waiting = state.unsent.len();
        let possible = waiting <= EMERGENCY_WAITING.saturating_add(CHUNK);
        BadState::unless(possible, "the length of a console's output", waiting as u64)?;
        (self.unsent, self.held) = (state.unsent, state.held);
        Ok(())
    }

    fn stop(&mut self) {
        self.running = None;
        self.queues = None;
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
            .with("emergency_characters", self.emergencies)
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
