//! A disk with an engine that a test has in hand: operations end when, in which order and how the
//! test says.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::SharedDisk;
use crate::disk::engine::{Begun, Engine, Finished, Operation, Task};
use crate::disk::{Disk, Geometry, TransferError};
use crate::ram::GuestRam;
use crate::virtio::Span;

/// Where the fate of flushes is kept.
const FLUSHES: u64 = u64::MAX;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fate {
    /// It is carried out when the test says so.
    #[default]
    Late,
    /// The same, but it has to be submitted twice.
    Twice,
    /// It is over before [`Engine::begin`] returns.
    AtOnce,
    /// The engine does not take it.
    Refused,
    /// It moves so many bytes and fails then with this error of the system.
    Fails {
        /// The bytes, whole spans of them.
        done: u64,
        /// The error.
        errno: i32,
    },
}

/// An operation that was begun.
#[derive(Debug)]
struct Held {
    tag: u16,
    task: Task,
    offset: u64,
    len: u64,
    ram: GuestRam,
    spans: Vec<Span>,
    fate: Fate,
}

#[derive(Debug, Default)]
struct State {
    taken: VecDeque<Held>,
    again: VecDeque<Held>,
    running: VecDeque<Held>,
    ended: Vec<Finished>,
    fates: BTreeMap<u64, Fate>,
    newest_first: bool,
    promptly: bool,
    submit_fails: Option<i32>,
    lost: bool,
    log: Vec<Task>,
    most: usize,
}

impl State {
    fn uses(&self, tag: u16) -> bool {
        let lists = [&self.taken, &self.again, &self.running];
        let mut held = lists.into_iter().flatten().map(|held| held.tag);
        let mut ended = self.ended.iter().map(|ended| ended.tag);
        held.any(|busy| busy == tag) || ended.any(|busy| busy == tag)
    }
}

/// The test's side of a [`LateDisk`].
#[derive(Clone, Debug)]
pub struct Desk {
    state: Arc<Mutex<State>>,
    bell: Arc<OwnedFd>,
    disk: SharedDisk,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of flushes from now on.
    pub fn fate_of_flushes(&self, fate: Fate) {
        self.fate(FLUSHES, fate);
    }

    /// What becomes of operations that begin at `offset` from now on.
    pub fn fate(&self, offset: u64, fate: Fate) {
        self.state().fates.insert(offset, fate);
    }

    /// Whether the latest operation ends first.
    pub fn newest_first(&self, yes: bool) {
        self.state().newest_first = yes;
    }

    /// Whether operations end as soon as they are submitted.
    pub fn promptly(&self, yes: bool) {
        self.state().promptly = yes;
    }

    /// The next submission fails with this error of the system, and so the engine is lost.
    pub fn lose(&self, errno: i32) {
        self.state().submit_fails = Some(errno);
    }

    /// How many operations run, and how many did so at the same time at most.
    pub fn running(&self) -> (usize, usize) {
        let state = self.state();
        (state.running.len(), state.most)
    }

    /// What was carried out by the engine, in order, since the last call.
    pub fn log(&self) -> Vec<Task> {
        std::mem::take(&mut self.state().log)
    }

    /// Ends one of the operations that run: whether there was one.
    pub fn end_one(&self) -> bool {
        let mut state = self.state();
        let next = if state.newest_first {
            state.running.pop_back()
        } else {
            state.running.pop_front()
        };
        let Some(mut held) = next else {
            return false;
        };
        if held.fate == Fate::Twice {
            held.fate = Fate::Late;
            state.again.push_back(held);
        } else {
            state.log.push(held.task);
            let result = carry_out(&mut self.disk.clone(), &held);
            let tag = held.tag;
            state.ended.push(Finished { tag, result });
        }
        drop(state);
        self.ring();
        true
    }

    /// Wakes the loop as if something had ended.
    pub fn ring(&self) {
        // The counter cannot become full.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }

    /// Ends all operations that run.
    pub fn end_all(&self) {
        while self.end_one() {}
    }

    /// Ends all that runs, and from now on everything well and promptly.
    pub fn behave(&self) {
        let mut state = self.state();
        state.fates.clear();
        state.newest_first = false;
        state.promptly = true;
        state.submit_fails = None;
        drop(state);
        self.end_all();
    }
}

/// Does what an operation is about as far as it is to come.
fn carry_out(disk: &mut SharedDisk, held: &Held) -> Result<(), TransferError> {
    let whole = |error| TransferError { done: 0, error };
    let failure = match held.fate {
        Fate::Fails { done, errno } => Some((done, io::Error::from_raw_os_error(errno))),
        _ => None,
    };
    let mut left = failure.as_ref().map_or(u64::MAX, |failure| failure.0);
    let spans = held.spans.iter().take_while(|span| {
        let fits = u64::from(span.len) <= left;
        left = left.saturating_sub(span.len.into());
        fits
    });
    let spans: Vec<Span> = spans.copied().collect();
    let moved = match held.task {
        Task::Read => disk.read(held.offset, &held.ram, &spans),
        Task::Write => disk.write(held.offset, &held.ram, &spans),
        _ if failure.is_some() => Ok(()),
        Task::Flush => disk.flush().map_err(whole),
        Task::Discard => disk.discard(held.offset, held.len).map_err(whole),
        Task::Zero { unmap } => {
            let zeroed = disk.write_zeroes(held.offset, held.len, unmap);
            zeroed.map_err(whole)
        }
    };
    match failure {
        Some((done, error)) => Err(TransferError { done, error }),
        None => moved,
    }
}

/// A [`SharedDisk`] whose engine waits for the [`Desk`].
pub struct LateDisk {
    desk: Desk,
    depth: u16,
}

impl fmt::Debug for LateDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateDisk")
            .field("desk", &self.desk)
            .finish_non_exhaustive()
    }
}

impl LateDisk {
    /// A disk over `disk` with room for `depth` operations at once.
    ///
    /// # Panics
    /// When the process has no file descriptor left.
    pub fn new(disk: SharedDisk, depth: u16) -> (Self, Desk) {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let desk = Desk {
            state: Arc::default(),
            bell: Arc::new(bell.expect("an eventfd")),
            disk,
        };
        let own = desk.clone();
        (Self { desk: own, depth }, desk)
    }
}

impl Engine for LateDisk {
    fn depth(&self) -> u16 {
        self.depth
    }

    fn begin(&mut self, tag: u16, operation: &Operation<'_>) -> Begun {
        let mut state = self.desk.state();
        assert!(tag < self.depth, "tag {tag} of {}", self.depth);
        assert!(!state.uses(tag), "tag {tag} is in use");
        let moved: u64 = operation.spans.iter().map(|s| u64::from(s.len)).sum();
        let moves = matches!(operation.task, Task::Read | Task::Write);
        assert_eq!(moved, if moves { operation.len } else { 0 });
        let key = if operation.task == Task::Flush {
            FLUSHES
        } else {
            operation.offset
        };
        let fate = state.fates.get(&key).copied().unwrap_or_default();
        let held = Held {
            tag,
            task: operation.task,
            offset: operation.offset,
            len: operation.len,
            ram: operation.ram.clone(),
            spans: operation.spans.to_vec(),
            fate,
        };
        if state.lost || fate == Fate::Refused {
            return Begun::Refused;
        }
        if fate == Fate::AtOnce {
            state.log.push(held.task);
            return Begun::Over(carry_out(&mut self.desk.disk.clone(), &held));
        }
        state.taken.push_back(held);
        Begun::Running
    }

    fn submit(&mut self) -> io::Result<()> {
        let mut state = self.desk.state();
        if let Some(errno) = state.submit_fails.take() {
            state.lost = true;
            state.taken.clear();
            state.again.clear();
            return Err(io::Error::from_raw_os_error(errno));
        }
        let mut more = std::mem::take(&mut state.again);
        more.append(&mut state.taken);
        state.running.append(&mut more);
        state.most = state.most.max(state.running.len());
        let promptly = state.promptly;
        drop(state);
        if promptly {
            self.desk.end_all();
        }
        Ok(())
    }

    fn finished(&mut self, done: &mut Vec<Finished>) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.desk.bell, &mut count);
        done.append(&mut self.desk.state().ended);
    }

    fn has_more(&self) -> bool {
        !self.desk.state().again.is_empty()
    }

    fn running(&self) -> usize {
        let state = self.desk.state();
        let begun = [&state.taken, &state.again, &state.running];
        begun.map(VecDeque::len).iter().sum::<usize>() + state.ended.len()
    }

    fn wait(&mut self, _: Duration) {
        if self.desk.state().ended.is_empty() {
            self.desk.end_one();
        }
    }

    fn cancel(&mut self) {}

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.desk.bell.as_fd()
    }
}

impl Disk for LateDisk {
    fn geometry(&self) -> Geometry {
        self.desk.disk.geometry()
    }

    fn rescan(&mut self) -> io::Result<Geometry> {
        self.desk.disk.rescan()
    }

    fn engine(&mut self) -> Option<&mut dyn Engine> {
        Some(self)
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        self.grounded().read(offset, ram, into)
    }

    fn write(&mut self, offset: u64, ram: &GuestRam, from: &[Span]) -> Result<(), TransferError> {
        self.grounded().write(offset, ram, from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.grounded().flush()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.grounded().discard(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.grounded().write_zeroes(offset, len, unmap)
    }
}

impl LateDisk {
    /// The disk below, while nothing runs.
    fn grounded(&mut self) -> &mut SharedDisk {
        assert_eq!(self.running(), 0, "the engine has something in the air");
        &mut self.desk.disk
    }
}
