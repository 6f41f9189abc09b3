//! The block device (virtio 1.2, 5.2) on any [`Disk`].
//!
//! Data goes straight between the disk and guest memory: within the loop's call, or beside it
//! where the disk has an engine. What a turn does is bounded, in requests and in bytes.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{
    Chain, CommandError, ConfigSpace, DeviceCommand, Identity, Interrupt, Progress, StartContext,
    StartError, VirtioDevice, Virtqueue, Watches,
};
use crate::disk::engine::Task;
use crate::disk::{Disk, Geometry, SECTOR_BYTES, Topology};
use crate::inspect::Report;
use crate::limit::{Limits, LimitsStateV1, Throttle};
use crate::ram::GuestRam;
use crate::state;
use crate::state::{BadState, Section};

mod flight;
mod patience;
mod request;
mod turn;
mod wake;
pub mod wire;

use flight::Flight;
use patience::Patience;
use request::{Failure, Taken, Terms};
use wake::Wake;
use wire::Config;

const DEVICE_ID: u32 = 2;
const QUEUE_SIZE: u16 = 256;
/// Most queues that a device can have.
pub const MOST_QUEUES: u16 = 16;

/// The largest sizes of the queues of a device with so many.
pub fn queue_sizes(queues: u16) -> Vec<u16> {
    vec![QUEUE_SIZE; queues.clamp(1, MOST_QUEUES).into()]
}

/// The length of an identifier, padded with zeroes (5.2.6).
pub const ID_BYTES: usize = 20;
/// Ranges in one discard or write-zeroes request.
pub const MOST_SEGMENTS: usize = 16;
/// Sectors in one such range: 4 GiB.
pub const MOST_RANGE_SECTORS: u32 = 0x80_0000;

/// The events of a block device: the disk's engine has finished something, and a wait is over.
const ENGINE: u32 = 0;
const GO_ON: u32 = 1;

/// A queue and what was taken from it. What cannot go on now stays there, for want of tokens, of
/// room in the engine, or because this turn has done enough.
#[derive(Debug)]
struct Line {
    queue: Virtqueue,
    taken: VecDeque<Taken>,
    /// Room for what is being taken.
    chains: Vec<Chain>,
}

impl Line {
    fn has_taken(&self) -> bool {
        !self.taken.is_empty()
    }
}

#[derive(Debug)]
struct Running {
    lines: Vec<Option<Line>>,
    ram: GuestRam,
    interrupt: Interrupt,
    features: u64,
}

#[derive(Debug, Default)]
struct Counters {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    written_bytes: u64,
    flushes: u64,
    discards: u64,
    zeroes: u64,
    /// Requests that the host failed to carry out.
    host_errors: u64,
    /// Requests against the rules.
    refused: u64,
    /// Requests without room for a status.
    malformed: u64,
    /// Requests that had to wait for the limits.
    throttled: u64,
}

impl Counters {
    fn count(&mut self, result: &Result<(), Failure>, tally: Option<(Task, u64)>) {
        let add = |counter: &mut u64, amount| *counter = counter.saturating_add(amount);
        match result {
            Err(Failure::Refused(_)) => return add(&mut self.refused, 1),
            Err(Failure::Host(..)) => return add(&mut self.host_errors, 1),
            Ok(()) => {}
        }
        match tally {
            Some((Task::Read, bytes)) => {
                add(&mut self.reads, 1);
                add(&mut self.read_bytes, bytes);
            }
            Some((Task::Write, bytes)) => {
                add(&mut self.writes, 1);
                add(&mut self.written_bytes, bytes);
            }
            Some((Task::Flush, _)) => add(&mut self.flushes, 1),
            Some((Task::Discard, ranges)) => add(&mut self.discards, ranges),
            Some((Task::Zero { .. }, ranges)) => add(&mut self.zeroes, ranges),
            None => {}
        }
    }
}

state! {
    /// A block device: at rest it has no request, and the configuration knows of its cache.
    pub struct BlockStateV1: "block", 1 {
        /// Its limits.
        pub limits: LimitsStateV1,
    }
}

/// A disk for the guest.
pub struct Block {
    disk: Box<dyn Disk>,
    geometry: Geometry,
    topology: Topology,
    id: [u8; ID_BYTES],
    queues: u16,
    /// Whether there is a write cache before a driver says so.
    write_back: bool,
    config: Arc<ConfigSpace>,
    throttle: Throttle,
    running: Option<Running>,
    flight: Flight,
    patience: Patience,
    wake: Option<Wake>,
    watches: Watches,
    /// The machine is paused: what was taken is brought to its end.
    paused: bool,
    counters: Counters,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("geometry", &self.geometry)
            .field("running", &self.running)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Block {
    /// A device with one queue that no driver has started yet. Of `id`, the guest sees the first
    /// 20 bytes.
    pub fn new(mut disk: Box<dyn Disk>, id: &str) -> Self {
        let (geometry, topology) = (disk.geometry(), disk.topology());
        let flight = Flight::new(disk.engine().map(|engine| engine.depth()));
        let mut id_bytes = [0; ID_BYTES];
        for (to, from) in id_bytes.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        let mut block = Self {
            disk,
            geometry,
            topology,
            id: id_bytes,
            queues: 1,
            write_back: true,
            config: Arc::new(ConfigSpace::new(Vec::new())),
            throttle: Throttle::default(),
            running: None,
            flight,
            patience: Patience::default(),
            wake: None,
            watches: Watches::default(),
            paused: false,
            counters: Counters::default(),
        };
        block.describe();
        block
    }

    /// The same with so many queues, 1 to [`MOST_QUEUES`].
    #[must_use]
    pub fn with_queues(mut self, queues: u16) -> Self {
        self.queues = queues.clamp(1, MOST_QUEUES);
        self.describe();
        self
    }

    /// The same, but every write lasts before it is reported, unless the driver turns the cache on.
    #[must_use]
    pub fn writing_through(mut self) -> Self {
        self.write_back = false;
        self.describe();
        self
    }

    /// The same with limits.
    ///
    /// # Errors
    /// When the process has no file descriptor left for a timer.
    pub fn limited(mut self, limits: Limits) -> io::Result<Self> {
        self.throttle.set(limits)?;
        Ok(self)
    }

    fn describe(&mut self) {
        let bytes = self.config_bytes();
        let config = if self.geometry.read_only {
            ConfigSpace::new(bytes)
        } else {
            let field = wire::WRITEBACK..wire::WRITEBACK.saturating_add(1);
            ConfigSpace::with_writable(bytes, vec![field])
        };
        self.config = Arc::new(config);
    }

    fn config_bytes(&self) -> Vec<u8> {
        let fields = config(self.geometry, self.topology, self.queues, self.write_back);
        fields.as_bytes().to_vec()
    }

    fn terms(&self, running: &Running) -> Terms {
        Terms {
            bytes: self.geometry.bytes,
            read_only: self.geometry.read_only,
            features: running.features,
        }
    }

    /// Whether writes last only after a flush. The field counts as it is when a request is taken,
    /// which its driver published after it had written the field.
    fn write_back(&self, features: u64) -> bool {
        let on = if features & wire::F_CONFIG_WCE == 0 {
            self.write_back
        } else {
            self.config.read(wire::WRITEBACK as u64, 1) != 0
        };
        on && features & wire::F_FLUSH != 0
    }

    /// The host's file may have another size, or be another file.
    fn measured(&mut self) {
        let geometry = self.disk.geometry();
        if geometry.bytes == self.geometry.bytes {
            return;
        }
        self.geometry = geometry;
        let sectors = geometry.bytes / SECTOR_BYTES;
        self.config.update(0, &sectors.to_le_bytes());
        if let Some(running) = &self.running {
            running.interrupt.config_changed();
        }
    }

    fn replace(&mut self, mut disk: Box<dyn Disk>) -> Result<(), CommandError> {
        let invalid = |text: &str| Err(CommandError::Invalid(text.to_owned()));
        if disk.geometry().read_only != self.geometry.read_only {
            return invalid(
                "the guest knows whether its disk is read-only, and that cannot change",
            );
        }
        if disk.topology().logical != self.topology.logical {
            return invalid("the image has sectors of another size than the guest knows");
        }
        self.land();
        // What the guest was told lasts, lasts in the old image.
        if !self.geometry.read_only
            && let Err(error) = self.disk.flush()
        {
            // What has landed and what waited for room go on with the image that stays.
            self.go_on();
            return Err(CommandError::Host(error));
        }
        if let Some(wake) = &self.wake {
            wake.unwatch(self.disk.engine());
        }
        let depth = disk.engine().map(|engine| engine.depth());
        // What was begun and has more to do goes on with the new image.
        self.flight.resize(depth);
        self.disk = disk;
        self.watch_engine();
        self.measured();
        self.go_on();
        Ok(())
    }

    /// Makes sure that the disk's engine is heard of.
    fn watch_engine(&mut self) {
        if self.disk.engine().is_none() {
            return;
        }
        if let Err(error) = self.wake_for_engine() {
            log::warn!("disk: its engine cannot be watched and is not used: {error}");
            self.flight.give_up_engine();
        }
    }

    /// What an engine wakes the loop through is made when it is needed first.
    fn wake_for_engine(&mut self) -> io::Result<()> {
        // A turn after an engine's event may leave something over.
        self.throttle.make_timer()?;
        let wake = match &self.wake {
            Some(wake) => wake,
            None => {
                let wake = Wake::new()?;
                self.watches.readable(&wake, ENGINE);
                self.wake.insert(wake)
            }
        };
        wake.watch(self.disk.engine())
    }
}

fn config(geometry: Geometry, topology: Topology, queues: u16, write_back: bool) -> Config {
    let (ranges, range_sectors) = if geometry.read_only {
        (0, 0)
    } else {
        (
            u32::try_from(MOST_SEGMENTS).unwrap_or(1),
            MOST_RANGE_SECTORS,
        )
    };
    let logical = topology.logical.max(512);
    let blocks = topology.physical.max(logical) / logical;
    let sectors = topology.physical / 512;
    Config {
        capacity: (geometry.bytes / SECTOR_BYTES).into(),
        // Beside the data, a chain has a header and a status.
        seg_max: u32::from(QUEUE_SIZE.saturating_sub(2)).into(),
        blk_size: logical.into(),
        physical_block_exp: u8::try_from(blocks.ilog2()).unwrap_or_default(),
        min_io_size: u16::try_from(blocks).unwrap_or(1).into(),
        opt_io_size: (topology.optimal / logical).into(),
        writeback: u8::from(write_back),
        num_queues: queues.into(),
        max_discard_sectors: range_sectors.into(),
        max_discard_seg: ranges.into(),
        discard_sector_alignment: sectors.max(1).into(),
        max_write_zeroes_sectors: range_sectors.into(),
        max_write_zeroes_seg: ranges.into(),
        write_zeroes_may_unmap: 1,
        ..Config::default()
    }
}

impl VirtioDevice for Block {
    fn identity(&self) -> Identity {
        let always = wire::F_SEG_MAX | wire::F_BLK_SIZE | wire::F_FLUSH | wire::F_TOPOLOGY;
        let features = if self.geometry.read_only {
            wire::F_RO
        } else {
            wire::F_DISCARD | wire::F_WRITE_ZEROES | wire::F_CONFIG_WCE
        };
        let several = if self.queues > 1 { wire::F_MQ } else { 0 };
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: queue_sizes(self.queues),
            features: always | features | several,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn attach(&mut self, watches: Watches) {
        self.throttle.attach(watches.clone(), GO_ON);
        self.watches = watches;
        self.watch_engine();
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        let line = |queue: Virtqueue| Line {
            queue,
            taken: VecDeque::new(),
            chains: Vec::new(),
        };
        // A driver without F_MQ has the first queue only, and one with it may leave others out.
        let first = context.take_queue(0)?;
        let others = context.queues.drain(..).skip(1);
        let lines = std::iter::once(Some(first)).chain(others);
        let lines = lines.map(|queue| queue.map(line)).collect();
        let accepted = |feature| context.features & feature != 0;
        if accepted(wire::F_CONFIG_WCE) && !accepted(wire::F_FLUSH) {
            // Without flushes there is no cache to turn on (5.2.5.2).
            self.config.update(wire::WRITEBACK, &[0]);
        }
        self.patience.reset();
        self.running = Some(Running {
            lines,
            ram: context.ram,
            interrupt: context.interrupt,
            features: context.features,
        });
        Ok(())
    }

    fn queue_ready(&mut self, _queue: usize) -> Progress {
        self.turn()
    }

    fn event(&mut self, token: u32) {
        if token == ENGINE
            && !self.flight.is_flying()
            && let Some(engine) = self.disk.engine()
        {
            // Ends that nobody waits for are not left to wake the loop again.
            engine.finished(&mut Vec::new());
        }
        if token == ENGINE || self.throttle.is_over() {
            self.go_on();
        }
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        match command {
            DeviceCommand::Limit(limits) => self.throttle.set(limits).map_err(CommandError::Host),
            DeviceCommand::ReplaceDisk(disk) => self.replace(disk),
            DeviceCommand::Rescan => {
                self.disk.rescan().map_err(CommandError::Host)?;
                self.measured();
                Ok(())
            }
            _ => Err(CommandError::NotSupported),
        }
    }

    fn settle(&mut self) {
        self.land();
        // What has landed, and what waited for room in the engine: its events are taken.
        self.go_on();
    }

    fn pause(&mut self) -> bool {
        self.paused = true;
        // It ends: nothing is added to what was taken.
        while self.turn() == Progress::More {}
        !self.has_taken()
    }

    fn resume(&mut self) {
        self.paused = false;
    }

    fn save(&self) -> Vec<u8> {
        let limits = self.throttle.save();
        BlockStateV1 { limits }.to_tagged()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let BlockStateV1 { limits } = BlockStateV1::from_tagged(state)?;
        self.throttle.restore(&limits)
    }

    fn stop(&mut self) {
        self.drop_all();
        self.running = None;
        self.patience.reset();
        self.config
            .update(wire::WRITEBACK, &[u8::from(self.write_back)]);
    }

    fn inspect(&self) -> Report {
        let counters = &self.counters;
        let running = self.running.as_ref();
        let write_back = running.map(|running| self.write_back(running.features));
        Report::new()
            .with("kind", "block")
            .with("started", self.running.is_some())
            .with("bytes", self.geometry.bytes)
            .with("read_only", self.geometry.read_only)
            .with("queues", u32::from(self.queues))
            .with("engine", self.flight.engine_name())
            .with("write_back", write_back.unwrap_or(self.write_back))
            .with("in_flight", self.flight.count())
            .with("reads", counters.reads)
            .with("read_bytes", counters.read_bytes)
            .with("writes", counters.writes)
            .with("written_bytes", counters.written_bytes)
            .with("flushes", counters.flushes)
            .with("discards", counters.discards)
            .with("zeroes", counters.zeroes)
            .with("host_errors", counters.host_errors)
            .with("refused", counters.refused)
            .with("malformed", counters.malformed)
            .with("throttled", counters.throttled)
    }
}

#[cfg(test)]
mod tests;
