//! The block device (virtio 1.2, 5.2) on any [`Disk`].
//!
//! Requests are carried out one after the other within the loop's call; data goes straight
//! between the disk and guest memory.

use std::fmt;
use std::io;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{
    Chain, CommandError, ConfigSpace, DeviceCommand, Identity, Interrupt, Progress, StartContext,
    StartError, VirtioDevice, Virtqueue, Watches,
};
use crate::disk::{Disk, Geometry, SECTOR_BYTES, TransferError};
use crate::inspect::Report;
use crate::limit::Throttle;
use crate::ram::GuestRam;

mod patience;
pub mod wire;

use patience::Patience;
use wire::{Config, Header, Segment, Status, kind};

const DEVICE_ID: u32 = 2;
const REQUESTS: usize = 0;
const QUEUE_SIZE: u16 = 256;
/// Largest size of its queue.
pub const QUEUE_SIZES: [u16; 1] = [QUEUE_SIZE];

/// The length of an identifier, padded with zeroes (5.2.6).
pub const ID_BYTES: usize = 20;
/// Ranges in one discard or write-zeroes request.
pub const MOST_SEGMENTS: usize = 16;
/// Sectors in one such range: 4 GiB.
pub const MOST_RANGE_SECTORS: u32 = 0x80_0000;

/// The event of the timer that ends a wait for the limit.
const GO_ON: u32 = 0;

/// A turn of the loop ends after this many requests or bytes.
const REQUESTS_A_TURN: usize = 64;
const BYTES_A_TURN: u64 = 8 << 20;

#[derive(Debug)]
struct Running {
    queue: Virtqueue,
    ram: GuestRam,
    interrupt: Interrupt,
    features: u64,
    /// A request that waits for the limit.
    held: Option<Chain>,
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
    /// Requests that waited for the limit.
    throttled: u64,
}

/// A disk for the guest.
pub struct Block {
    disk: Box<dyn Disk>,
    geometry: Geometry,
    id: [u8; ID_BYTES],
    config: Arc<ConfigSpace>,
    running: Option<Running>,
    counters: Counters,
    throttle: Throttle,
    patience: Patience,
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
    /// A device that no driver has started yet. Of `id`, the guest sees the first 20 bytes.
    pub fn new(disk: Box<dyn Disk>, id: &str) -> Self {
        let geometry = disk.geometry();
        let mut id_bytes = [0; ID_BYTES];
        for (to, from) in id_bytes.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        Self {
            disk,
            geometry,
            id: id_bytes,
            config: Arc::new(ConfigSpace::new(config(geometry).as_bytes().to_vec())),
            running: None,
            counters: Counters::default(),
            throttle: Throttle::default(),
            patience: Patience::default(),
        }
    }

    /// The driver sees another capacity from now on.
    fn take_geometry(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        let sectors = geometry.bytes / SECTOR_BYTES;
        let changed = self.config.update(0, &sectors.to_le_bytes());
        if let Some(running) = self.running.as_ref().filter(|_| changed) {
            running.interrupt.config_changed();
        }
    }

    /// The next request that the limits let through.
    fn next(&mut self, running: &mut Running) -> Option<Chain> {
        let held = running.held.take();
        let waited = held.is_some();
        let chain = held.or_else(|| running.queue.pop().ok().flatten())?;
        // The longer part is the data, but for a header and a status.
        let bytes = chain.readable_bytes().max(chain.writable_bytes());
        if self.throttle.grant(bytes).is_some() {
            self.throttle.spend(bytes);
            return Some(chain);
        }
        if !waited {
            self.counters.throttled = self.counters.throttled.saturating_add(1);
        }
        running.held = Some(chain);
        None
    }

    /// Works off what there is, within the bounds of one turn.
    fn serve(&mut self, running: &mut Running) -> Progress {
        let moved = |counters: &Counters| counters.read_bytes.wrapping_add(counters.written_bytes);
        let before = moved(&self.counters);
        let mut left = REQUESTS_A_TURN;
        loop {
            if left == 0 || moved(&self.counters).wrapping_sub(before) >= BYTES_A_TURN {
                return Progress::More;
            }
            left = left.saturating_sub(1);
            if running.held.is_none() && !running.queue.has_more() {
                // The driver hears of what is done before it is waited for.
                running.queue.notify();
                self.patience.wait(&running.queue);
            }
            let Some(mut chain) = self.next(running) else {
                self.patience.idle();
                return Progress::Idle;
            };
            let filled = self.carry_out(running, &mut chain);
            running.queue.complete(chain, filled);
        }
    }

    /// Carries out one request: how many bytes of its writable part are filled, from the front.
    fn carry_out(&mut self, running: &Running, chain: &mut Chain) -> u32 {
        let Some(status) = chain.split_status() else {
            self.counters.malformed = self.counters.malformed.saturating_add(1);
            return 0;
        };
        let room = chain.writable_bytes();
        let mut filled = 0;
        let result = self.execute(running, chain, &mut filled);
        let code = match result {
            Ok(()) => Status::Ok,
            Err(Failure::Refused(code)) => {
                self.counters.refused = self.counters.refused.saturating_add(1);
                code
            }
            Err(Failure::Host(doing, error)) => {
                self.counters.host_errors = self.counters.host_errors.saturating_add(1);
                let cause = &error.error;
                running
                    .interrupt
                    .warn(format_args!("the host cannot {doing} the disk: {cause}"));
                filled = if doing == READ { error.done } else { 0 };
                Status::IoError
            }
        };
        status.set(&running.ram, code as u8);
        // The status comes last, so it counts only when all before it is filled (2.7.8.2).
        let filled = if filled == room {
            filled.saturating_add(1)
        } else {
            filled
        };
        u32::try_from(filled).unwrap_or_default()
    }

    fn execute(
        &mut self,
        running: &Running,
        chain: &mut Chain,
        filled: &mut u64,
    ) -> Result<(), Failure> {
        let ram = &running.ram;
        let header: Header = chain.take_header(ram).map_err(|_| IO_ERROR)?;
        let sector = header.sector.get();
        let accepted = |feature| running.features & feature != 0;
        match header.kind.get() {
            kind::IN => {
                let len = chain.writable_bytes();
                let offset = self.place(sector, len)?;
                let done = self.disk.read(offset, ram, chain.writable());
                done.map_err(|error| Failure::Host(READ, error))?;
                *filled = len;
                count(&mut self.counters.reads, &mut self.counters.read_bytes, len);
            }
            kind::OUT => {
                let len = chain.readable_bytes();
                self.check_writable()?;
                let offset = self.place(sector, len)?;
                let done = self.disk.write(offset, ram, chain.readable());
                done.map_err(|error| Failure::Host("write", error))?;
                count(
                    &mut self.counters.writes,
                    &mut self.counters.written_bytes,
                    len,
                );
                self.write_through(running)?;
            }
            kind::FLUSH => {
                self.counters.flushes = self.counters.flushes.saturating_add(1);
                self.flush()?;
            }
            kind::GET_ID => {
                if chain.writable_bytes() < ID_BYTES as u64 {
                    return Err(IO_ERROR);
                }
                *filled = chain.write(ram, &self.id) as u64;
            }
            kind::DISCARD if accepted(wire::F_DISCARD) => self.ranges(running, chain, false)?,
            kind::WRITE_ZEROES if accepted(wire::F_WRITE_ZEROES) => {
                self.ranges(running, chain, true)?;
            }
            // A read-only device fails every attempt to change it (5.2.6.2).
            kind::DISCARD | kind::WRITE_ZEROES if self.geometry.read_only => return Err(IO_ERROR),
            _ => return Err(Failure::Refused(Status::Unsupported)),
        }
        Ok(())
    }

    /// Discards or zeroes the ranges that a request lists, after all of them were checked.
    fn ranges(&mut self, running: &Running, chain: &mut Chain, zero: bool) -> Result<(), Failure> {
        self.check_writable()?;
        let bytes = usize::try_from(chain.readable_bytes()).unwrap_or(usize::MAX);
        let mut segments = [Segment::default(); MOST_SEGMENTS];
        let list = segments.as_mut_bytes().get_mut(..bytes);
        let list = list.filter(|list| !list.is_empty() && list.len() % size_of::<Segment>() == 0);
        chain.read(&running.ram, list.ok_or(IO_ERROR)?);
        let segments = segments
            .get(..bytes / size_of::<Segment>())
            .unwrap_or_default();
        let known = if zero { wire::UNMAP } else { 0 };
        for segment in segments {
            if segment.flags.get() & !known != 0 {
                return Err(Failure::Refused(Status::Unsupported));
            }
            if segment.sectors.get() > MOST_RANGE_SECTORS {
                return Err(IO_ERROR);
            }
            self.place(segment.sector.get(), range_bytes(segment))?;
        }
        for segment in segments {
            let len = range_bytes(segment);
            let offset = self.place(segment.sector.get(), len)?;
            if len == 0 {
                continue;
            }
            let (doing, done) = if zero {
                self.counters.zeroes = self.counters.zeroes.saturating_add(1);
                let unmap = segment.flags.get() & wire::UNMAP != 0;
                ("zero", self.disk.write_zeroes(offset, len, unmap))
            } else {
                self.counters.discards = self.counters.discards.saturating_add(1);
                ("discard", self.disk.discard(offset, len))
            };
            done.map_err(|error| host_failure(doing, error))?;
        }
        self.write_through(running)
    }

    /// A driver that does not flush expects every write to last (5.2.6.2).
    fn write_through(&mut self, running: &Running) -> Result<(), Failure> {
        if running.features & wire::F_FLUSH != 0 {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.geometry.read_only {
            return Ok(());
        }
        let done = self.disk.flush();
        done.map_err(|error| host_failure("flush", error))
    }

    fn check_writable(&self) -> Result<(), Failure> {
        if self.geometry.read_only {
            return Err(IO_ERROR);
        }
        Ok(())
    }

    /// Where `len` bytes from `sector` on lie, if they are whole sectors of the disk.
    fn place(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        let offset = sector.checked_mul(SECTOR_BYTES).ok_or(IO_ERROR)?;
        let end = offset.checked_add(len).ok_or(IO_ERROR)?;
        if !len.is_multiple_of(SECTOR_BYTES) || end > self.geometry.bytes {
            return Err(IO_ERROR);
        }
        Ok(offset)
    }
}

const READ: &str = "read";

/// Why a request is not done.
#[derive(Debug)]
enum Failure {
    /// It breaks a rule or asks for what does not exist.
    Refused(Status),
    /// The host failed; what it was doing then.
    Host(&'static str, TransferError),
}

const IO_ERROR: Failure = Failure::Refused(Status::IoError);

fn host_failure(doing: &'static str, error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::Unsupported {
        return Failure::Refused(Status::Unsupported);
    }
    Failure::Host(doing, TransferError { done: 0, error })
}

fn range_bytes(segment: &Segment) -> u64 {
    u64::from(segment.sectors.get()) * SECTOR_BYTES
}

fn count(requests: &mut u64, bytes: &mut u64, len: u64) {
    *requests = requests.saturating_add(1);
    *bytes = bytes.saturating_add(len);
}

fn config(geometry: Geometry) -> Config {
    let (ranges, range_sectors) = if geometry.read_only {
        (0, 0)
    } else {
        (
            u32::try_from(MOST_SEGMENTS).unwrap_or(1),
            MOST_RANGE_SECTORS,
        )
    };
    Config {
        capacity: (geometry.bytes / SECTOR_BYTES).into(),
        // Beside the data, a chain has a header and a status.
        seg_max: u32::from(QUEUE_SIZE - 2).into(),
        blk_size: 512.into(),
        // Blocks of 4 KiB, which is what host file systems work with.
        physical_block_exp: 3,
        min_io_size: 8.into(),
        num_queues: 1.into(),
        max_discard_sectors: range_sectors.into(),
        max_discard_seg: ranges.into(),
        discard_sector_alignment: 8.into(),
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
            wire::F_DISCARD | wire::F_WRITE_ZEROES
        };
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: QUEUE_SIZES.to_vec(),
            features: always | features,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        self.running = Some(Running {
            queue: context.take_queue(REQUESTS)?,
            ram: context.ram,
            interrupt: context.interrupt,
            features: context.features,
            held: None,
        });
        Ok(())
    }

    fn attach(&mut self, watches: Watches) {
        self.throttle.attach(watches, GO_ON);
    }

    fn queue_ready(&mut self, _queue: usize) -> Progress {
        let Some(mut running) = self.running.take() else {
            return Progress::Idle;
        };
        self.patience.rung();
        let progress = self.serve(&mut running);
        running.queue.notify();
        self.running = Some(running);
        progress
    }

    fn event(&mut self, _token: u32) {
        // A turn of the loop is bounded here as well: what is left waits for the timer again.
        if self.throttle.is_over() && self.queue_ready(REQUESTS) == Progress::More {
            self.throttle.look_again();
        }
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        match command {
            DeviceCommand::Limit(limits) => self.throttle.set(limits).map_err(CommandError::Host),
            DeviceCommand::Rescan => {
                let geometry = self.disk.rescan().map_err(CommandError::Host)?;
                self.take_geometry(geometry);
                Ok(())
            }
            DeviceCommand::ReplaceDisk(disk) => {
                let geometry = disk.geometry();
                if geometry.read_only != self.geometry.read_only {
                    let message = "the new image must be read-only exactly if the old one is";
                    return Err(CommandError::Invalid(message.into()));
                }
                // What the guest was told lasts, lasts in the old image.
                if !geometry.read_only {
                    self.disk.flush().map_err(CommandError::Host)?;
                }
                self.disk = disk;
                self.take_geometry(geometry);
                Ok(())
            }
            _ => Err(CommandError::NotSupported),
        }
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn inspect(&self) -> Report {
        let counters = &self.counters;
        Report::new()
            .with("kind", "block")
            .with("started", self.running.is_some())
            .with("bytes", self.geometry.bytes)
            .with("read_only", self.geometry.read_only)
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
