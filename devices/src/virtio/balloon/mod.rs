//! The memory balloon (virtio 1.2, 5.5): memory that the guest does without goes back to the host.
//!
//! Nothing that the driver names is touched unless it is guest memory, and the host's pages
//! behind it are only ever taken away: what the guest reads there afterwards is zeroes.

mod pages;
mod saved;
mod settings;
mod statistics;

use std::io;
use std::sync::Arc;

use super::{
    BalloonCommand, Chain, CommandError, ConfigSpace, DeviceCommand, Identity, Interrupt, Progress,
    StartContext, StartError, VirtioDevice, Virtqueue, Watches,
};
use crate::inspect::Report;
use crate::ram::GuestRam;
use crate::state::{BadState, Section};
use crate::timer::Timer;
use pages::{Given, PAGE_BYTES, Pages};
use settings::{Role, roles};
use statistics::{MOST_BYTES, Statistics};

pub use saved::{BalloonStateV1, HintingStateV1};
pub use settings::{
    F_DEFLATE_ON_OOM, F_FREE_PAGE_HINT, F_PAGE_POISON, F_PAGE_REPORTING, F_STATS_VQ, Settings,
};

const DEVICE_ID: u32 = 5;

/// Offsets in the configuration (5.5.4): pages wanted, pages given up, the hinting command, what
/// free pages are filled with.
const TARGET: usize = 0;
const ACTUAL: usize = 4;
const HINT_COMMAND: usize = 8;
const POISON: usize = 12;
const CONFIG_BYTES: usize = 16;

/// Hinting commands: a driver sends the first at its end, the device lets go with the second;
/// all others start hinting (5.5.6.5).
const HINTS_STOP: u32 = 0;
const HINTS_DONE: u32 = 1;
const FIRST_HINTS: u32 = 2;

/// Page numbers that are looked at in one turn of the loop.
const NUMBERS_A_TURN: usize = 16 << 10;
/// Page numbers that are read at once, bytes of them.
const NUMBERS_AT_ONCE: usize = 1024;
/// How much free memory is given back in one turn.
const BYTES_A_TURN: u64 = 256 << 20;
/// How much of it with one call.
const BYTES_AT_ONCE: u64 = 64 << 20;
/// A turn ends after this many chains, however small.
const CHAINS_A_TURN: usize = 64;

/// The event of the statistics timer.
const TICK: u32 = 0;

/// A queue with the request that the last turn did not get to the end of.
#[derive(Debug)]
struct Work {
    role: Role,
    queue: Virtqueue,
    current: Option<Chain>,
    // How far the writable part of it is dealt with: the span and the offset in that.
    span: usize,
    offset: u64,
    // How many more pages, or bytes of free memory, the request may name: in all no more than
    // the guest has. What is beyond that can only be named twice or not be there.
    allowed: u64,
}

impl Work {
    fn new(role: Role, queue: Virtqueue) -> Self {
        Self {
            role,
            queue,
            current: None,
            span: 0,
            offset: 0,
            allowed: 0,
        }
    }

    /// The request that is under way, or the next one, which may name so much.
    fn next(&mut self, allowed: u64) -> Option<Chain> {
        if let Some(chain) = self.current.take() {
            return Some(chain);
        }
        (self.span, self.offset, self.allowed) = (0, 0, allowed);
        self.queue.pop().ok().flatten()
    }

    /// The next piece of the writable part, `most` bytes of it.
    fn piece(&mut self, chain: &Chain, most: u64) -> Option<(u64, u64)> {
        loop {
            let span = chain.writable().get(self.span)?;
            let left = u64::from(span.len).saturating_sub(self.offset);
            if left == 0 {
                self.span = self.span.saturating_add(1);
                self.offset = 0;
                continue;
            }
            if self.allowed == 0 {
                return None;
            }
            let at = span.at.saturating_add(self.offset);
            let len = left.min(most).min(self.allowed);
            self.offset = self.offset.saturating_add(len);
            self.allowed = self.allowed.saturating_sub(len);
            return Some((at, len));
        }
    }
}

#[derive(Debug)]
struct Running {
    queues: Vec<Option<Work>>,
    ram: GuestRam,
    interrupt: Interrupt,
    features: u64,
    // What the guest fills free pages with: only zeroes may be taken away.
    poison: u32,
}

/// What a balloon has done so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    given: Given,
    unknown: u64,
    malformed: u64,
    reported: u64,
    hinted: u64,
    kept: u64,
    stale: u64,
}

impl Counts {
    fn add(&mut self, more: Given) {
        let Given {
            discarded,
            invalid,
            repeated,
            host_errors,
        } = more;
        let sum = &mut self.given;
        sum.discarded = sum.discarded.saturating_add(discarded);
        sum.invalid = sum.invalid.saturating_add(invalid);
        sum.repeated = sum.repeated.saturating_add(repeated);
        sum.host_errors = sum.host_errors.saturating_add(host_errors);
    }
}

/// How hinting stands.
#[derive(Clone, Copy, Debug, Default)]
struct Hinting {
    // The command in the configuration, and the one that the guest is at.
    host: u32,
    guest: Option<u32>,
    last: u32,
    acknowledge: bool,
}

impl Hinting {
    /// Whether what comes now is of the running command.
    fn is_on(&self) -> bool {
        self.host >= FIRST_HINTS && self.guest == Some(self.host)
    }

    /// Reads which command the guest is at; one that has done may be let go of its pages at once.
    /// Whether it said so in full.
    fn hear(&mut self, chain: &mut Chain, ram: &GuestRam) -> bool {
        let Ok(command) = chain.take_header::<[u8; 4]>(ram) else {
            return false;
        };
        let command = u32::from_le_bytes(command);
        if command == HINTS_STOP && self.is_on() && self.acknowledge {
            self.host = HINTS_DONE;
        }
        self.guest = Some(command);
        true
    }
}

/// A memory balloon.
#[derive(Debug)]
pub struct Balloon {
    settings: Settings,
    config: Arc<ConfigSpace>,
    timer: Timer,
    pages: Pages,
    hinting: Hinting,
    statistics: Statistics,
    counts: Counts,
    running: Option<Running>,
}

impl Balloon {
    /// A balloon that no driver has started yet.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let writable = vec![ACTUAL..ACTUAL + 4, POISON..POISON + 4];
        let config = ConfigSpace::with_writable(vec![0; CONFIG_BYTES], writable);
        config.update(TARGET, &page_count(settings.target_bytes).to_le_bytes());
        Ok(Self {
            settings,
            config: Arc::new(config),
            timer: Timer::new()?,
            pages: Pages::default(),
            hinting: Hinting::default(),
            statistics: Statistics::default(),
            counts: Counts::default(),
            running: None,
        })
    }

    /// Pages that the driver says it has given up, at most all that there are.
    fn actual(&self) -> u32 {
        let most = page_count(self.settings.memory_bytes);
        self.config_word(ACTUAL).min(most)
    }

    fn config_word(&self, offset: usize) -> u32 {
        let word = self.config.read(offset as u64, 4);
        u32::try_from(word).unwrap_or_default()
    }

    /// Changes a field of the configuration and tells the driver.
    fn tell(&self, offset: usize, value: u32) {
        let changed = self.config.update(offset, &value.to_le_bytes());
        if let Some(running) = self.running.as_ref().filter(|_| changed) {
            running.interrupt.config_changed();
        }
    }

    fn set_target(&mut self, bytes: u64) -> Result<(), CommandError> {
        let most = self.settings.memory_bytes;
        if bytes > most {
            let text = format!("{bytes} bytes are more than the guest's {most}");
            return Err(CommandError::Invalid(text));
        }
        if !bytes.is_multiple_of(PAGE_BYTES) {
            let text = format!("{bytes} bytes are no whole number of pages of {PAGE_BYTES}");
            return Err(CommandError::Invalid(text));
        }
        self.settings.target_bytes = bytes;
        self.tell(TARGET, page_count(bytes));
        Ok(())
    }

    fn start_hinting(&mut self, acknowledge: bool) -> Result<(), CommandError> {
        self.hinting_driver()?;
        let next = self.hinting.last.wrapping_add(1).max(FIRST_HINTS);
        self.hinting = Hinting {
            host: next,
            guest: None,
            last: next,
            acknowledge,
        };
        self.tell(HINT_COMMAND, next);
        Ok(())
    }

    fn stop_hinting(&mut self) -> Result<(), CommandError> {
        self.hinting_driver()?;
        self.hinting.host = HINTS_DONE;
        self.tell(HINT_COMMAND, HINTS_DONE);
        Ok(())
    }

    fn hinting_driver(&self) -> Result<(), CommandError> {
        if !self.settings.hinting {
            return Err(CommandError::NotSupported);
        }
        let knows = |running: &Running| running.features & F_FREE_PAGE_HINT != 0;
        let driver = self.running.as_ref().is_some_and(knows);
        driver.then_some(()).ok_or(CommandError::NoDriver)
    }

    /// Asks for statistics as often as is wanted, while there is a driver to ask.
    fn set_timer(&self) {
        let knows = |running: &Running| running.features & F_STATS_VQ != 0;
        if self.running.as_ref().is_some_and(knows) {
            self.timer.every(self.settings.statistics_every);
        } else {
            self.timer.stop();
        }
    }

    /// The guest's statistics come with the buffer that it gets back now (5.5.6.3).
    fn ask_for_statistics(&mut self) {
        let queues = self.running.iter_mut().flat_map(|r| &mut r.queues);
        for work in queues.flatten() {
            if work.role == Role::Statistics
                && let Some(chain) = work.current.take()
            {
                work.queue.complete(chain, 0);
                work.queue.notify();
            }
        }
    }

    /// Reads page numbers, in one direction or the other.
    fn move_pages(&mut self, queue: usize, ram: &GuestRam) -> Progress {
        let mut budget = NUMBERS_A_TURN;
        let allowed = page_count(self.settings.memory_bytes).into();
        for _ in 0..CHAINS_A_TURN {
            let Some(work) = work(&mut self.running, queue) else {
                return Progress::Idle;
            };
            let Some(mut chain) = work.next(allowed) else {
                return Progress::Idle;
            };
            let inflate = work.role == Role::Inflate;
            while !chain.readable().is_empty() && work.allowed > 0 && budget > 0 {
                let mut bytes = [0; NUMBERS_AT_ONCE * 4];
                let most = usize::try_from(work.allowed).unwrap_or(usize::MAX);
                let most = most.min(NUMBERS_AT_ONCE).saturating_mul(4);
                let len = chain.read(ram, bytes.get_mut(..most).unwrap_or_default());
                let read = bytes.get(..len).unwrap_or_default();
                let whole = read.chunks_exact(4);
                if !whole.remainder().is_empty() {
                    // Only the last piece can be cut short, since the others are whole chunks.
                    self.counts.malformed = self.counts.malformed.saturating_add(1);
                }
                let word = |bytes: &[u8]| bytes.first_chunk().copied().map(u32::from_le_bytes);
                let mut read: Vec<u32> = whole.filter_map(word).collect();
                budget = budget.saturating_sub(read.len());
                work.allowed = work.allowed.saturating_sub(read.len() as u64);
                if inflate {
                    self.counts.add(self.pages.give_up(ram, &mut read));
                } else {
                    let unknown = self.pages.take_back(&read);
                    self.counts.unknown = self.counts.unknown.saturating_add(unknown);
                }
            }
            let left = !chain.readable().is_empty();
            if left && work.allowed > 0 {
                work.current = Some(chain);
                break;
            }
            self.counts.malformed = self.counts.malformed.saturating_add(left.into());
            work.queue.complete(chain, 0);
        }
        Progress::More
    }

    /// Takes statistics; the buffer stays here until new ones are wanted.
    fn take_statistics(&mut self, queue: usize, ram: &GuestRam) -> Progress {
        for _ in 0..CHAINS_A_TURN {
            let Some(work) = work(&mut self.running, queue) else {
                return Progress::Idle;
            };
            let Ok(Some(mut chain)) = work.queue.pop() else {
                return Progress::Idle;
            };
            let mut report = [0; MOST_BYTES];
            let len = chain.read(ram, &mut report);
            self.statistics.take(report.get(..len).unwrap_or_default());
            // A driver has one such buffer; one that sends more gets the older ones back.
            if let Some(older) = work.current.replace(chain) {
                work.queue.complete(older, 0);
            }
        }
        Progress::More
    }

    /// Free pages, which the guest reports by itself or was asked for.
    fn take_free_pages(&mut self, queue: usize, ram: &GuestRam) -> Progress {
        let mut budget = BYTES_A_TURN;
        let allowed = self.settings.memory_bytes;
        for _ in 0..CHAINS_A_TURN {
            let Some(running) = &mut self.running else {
                return Progress::Idle;
            };
            let poisoned = running.poison != 0;
            let Some(Some(work)) = running.queues.get_mut(queue) else {
                return Progress::Idle;
            };
            let Some(mut chain) = work.next(allowed) else {
                return Progress::Idle;
            };
            let hints = work.role == Role::Hints;
            if hints && !chain.readable().is_empty() {
                let known = self.hinting.hear(&mut chain, ram);
                self.counts.malformed = self.counts.malformed.saturating_add((!known).into());
            }
            let stale = hints && !self.hinting.is_on();
            while let Some((at, len)) = work.piece(&chain, budget.min(BYTES_AT_ONCE)) {
                budget = budget.saturating_sub(len);
                let counted = match (stale, poisoned, hints) {
                    (true, ..) => &mut self.counts.stale,
                    (_, true, _) => &mut self.counts.kept,
                    (_, _, true) => &mut self.counts.hinted,
                    (..) => &mut self.counts.reported,
                };
                *counted = counted.saturating_add(len);
                if !stale && !poisoned {
                    self.counts.add(discard(ram, at, len));
                }
                if budget == 0 {
                    break;
                }
            }
            if budget == 0 {
                work.current = Some(chain);
                break;
            }
            let left = chain.writable().get(work.span).is_some();
            self.counts.malformed = self.counts.malformed.saturating_add(left.into());
            work.queue.complete(chain, 0);
        }
        Progress::More
    }
}

/// The number of pages in so many bytes.
fn page_count(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE_BYTES).unwrap_or(u32::MAX)
}

fn work(running: &mut Option<Running>, queue: usize) -> Option<&mut Work> {
    running.as_mut()?.queues.get_mut(queue)?.as_mut()
}

fn discard(ram: &GuestRam, at: u64, len: u64) -> Given {
    let mut given = Given::default();
    match ram.discard(at, len) {
        Ok(bytes) => given.discarded = bytes,
        Err(_) => given.host_errors = 1,
    }
    given
}

impl VirtioDevice for Balloon {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: self.settings.queue_sizes(),
            features: self.settings.features(),
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn attach(&mut self, watches: Watches) {
        watches.readable(&self.timer, TICK);
    }

    fn start(&mut self, context: StartContext) -> Result<(), StartError> {
        let set_up: Vec<bool> = context.queues.iter().map(Option::is_some).collect();
        for queue in [0, 1] {
            if set_up.get(queue) != Some(&true) {
                return Err(StartError::MissingQueue(queue));
            }
        }
        let roles = roles(context.features, &set_up);
        let queues = roles.into_iter().zip(context.queues);
        let queues = queues.map(|(role, queue)| Some(Work::new(role?, queue?)));
        let poison = context.features & F_PAGE_POISON != 0;
        self.running = Some(Running {
            queues: queues.collect(),
            ram: context.ram,
            interrupt: context.interrupt,
            features: context.features,
            poison: if poison { self.config_word(POISON) } else { 0 },
        });
        self.set_timer();
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize) -> Progress {
        let Some(running) = &self.running else {
            return Progress::Idle;
        };
        let ram = running.ram.clone();
        let role = running.queues.get(queue).and_then(Option::as_ref);
        let progress = match role.map(|work| work.role) {
            None => return Progress::Idle,
            Some(Role::Inflate | Role::Deflate) => self.move_pages(queue, &ram),
            Some(Role::Statistics) => self.take_statistics(queue, &ram),
            Some(Role::Hints | Role::Reports) => self.take_free_pages(queue, &ram),
        };
        if let Some(work) = work(&mut self.running, queue) {
            work.queue.notify();
        }
        self.tell(HINT_COMMAND, self.hinting.host);
        progress
    }

    fn event(&mut self, _token: u32) {
        if self.timer.take() {
            self.ask_for_statistics();
        }
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let DeviceCommand::Balloon(command) = command else {
            return Err(CommandError::NotSupported);
        };
        match command {
            BalloonCommand::NeedDriver => match self.running {
                Some(_) => Ok(()),
                None => Err(CommandError::NoDriver),
            },
            BalloonCommand::Target { bytes } => self.set_target(bytes),
            BalloonCommand::StatisticsEvery(interval) => {
                self.settings.statistics_every = interval;
                self.set_timer();
                Ok(())
            }
            BalloonCommand::StartHinting {
                acknowledge_on_stop,
            } => self.start_hinting(acknowledge_on_stop),
            BalloonCommand::StopHinting => self.stop_hinting(),
        }
    }

    fn save(&self) -> Vec<u8> {
        self.state().to_tagged()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        self.take_state(&BalloonStateV1::from_tagged(state)?)
    }

    fn stop(&mut self) {
        self.running = None;
        self.set_timer();
        // A driver that is reset has all its pages back (5.5.6.1).
        self.pages.clear();
        self.statistics.forget();
        let last = self.hinting.last;
        self.hinting = Hinting {
            last,
            ..Hinting::default()
        };
        for field in [ACTUAL, HINT_COMMAND, POISON] {
            self.config.update(field, &[0; 4]);
        }
    }

    fn inspect(&self) -> Report {
        let (counts, target) = (self.counts, self.settings.target_bytes);
        let actual = u64::from(self.actual()).saturating_mul(PAGE_BYTES);
        let guest = self.hinting.guest;
        let hinting = Report::new()
            .with("host_cmd", self.hinting.host)
            .with("guest_cmd", guest.map_or(0, u64::from))
            .with("guest_answered", guest.is_some());
        Report::new()
            .with("kind", "balloon")
            .with("started", self.running.is_some())
            .with("target_pages", target / PAGE_BYTES)
            .with("actual_pages", actual / PAGE_BYTES)
            .with("target_bytes", target)
            .with("actual_bytes", actual)
            .with("target_mib", target >> 20)
            .with("actual_mib", actual >> 20)
            .with("deflate_on_oom", self.settings.deflate_on_oom)
            .with(
                "stats_polling_interval_s",
                self.settings.statistics_every.as_secs(),
            )
            .with("free_page_reporting", self.settings.reporting)
            .with("free_page_hinting", self.settings.hinting)
            .with("ballooned_pages", self.pages.count())
            .with("discarded_bytes", counts.given.discarded)
            .with("reported_bytes", counts.reported)
            .with("hinted_bytes", counts.hinted)
            .with("kept_poisoned_bytes", counts.kept)
            .with("stale_hints_bytes", counts.stale)
            .with("invalid_pages", counts.given.invalid)
            .with("repeated_pages", counts.given.repeated)
            .with("unknown_pages", counts.unknown)
            .with("malformed_requests", counts.malformed)
            .with("host_errors", counts.given.host_errors)
            .with("hinting", hinting)
            .with("statistics", self.statistics.report())
    }
}

#[cfg(test)]
mod tests;
