//! All connections of a device: who is connected to whom, what is watched, what is due when.

mod packets;
mod sockets;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::connection::{Connection, Key, Phase, Wait, due};
use super::counters::{Counters, bump};
use super::greeting::Line;
use super::inbox::Inbox;
use super::socket::SocketFile;
use super::wire::Header;
use crate::log::RateLimit;

/// The events of the listening socket; all others are those of a connection's number.
const LISTENER: u64 = 0;
/// How long nobody is accepted after file descriptors ran out.
const PAUSE: Duration = Duration::from_secs(1);

/// What the device allows, and how patient it is.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Most connections, those included that are only asked for.
    pub(super) connections: usize,
    /// Most host programs that have not sent their line.
    pub(super) greetings: usize,
    /// What each connection can hold of the guest's data.
    pub(super) room: u32,
    /// The same where many connections share what there is.
    pub(super) small_room: u32,
    /// What all of them can hold.
    pub(super) total_room: u32,
    /// Most packets that end nobody's connection and wait for a buffer of the guest. Beyond
    /// them, what the guest sends is left in its queue.
    pub(super) resets: usize,
    /// How long a host program may take for its line.
    pub(super) greeting_time: Duration,
    /// How long the guest may take for its answer.
    pub(super) answer_time: Duration,
    /// How long the end of a connection, or of a slow host program, is waited for.
    pub(super) close_time: Duration,
    /// Where the counters of credit begin. Zero, but for tests of their going round.
    pub(super) first_count: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 1024,
            greetings: 256,
            room: 256 << 10,
            small_room: 32 << 10,
            total_room: 64 << 20,
            resets: 1024,
            greeting_time: Duration::from_secs(10),
            answer_time: Duration::from_secs(10),
            close_time: Duration::from_secs(10),
            first_count: 0,
        }
    }
}

/// A host program that connected and has not said what it wants.
#[derive(Debug)]
struct Greeting {
    socket: OwnedFd,
    line: Line,
    until: Instant,
}

/// All connections of a device.
pub(super) struct Hub {
    settings: Settings,
    cid: u64,
    file: SocketFile,
    // Sockets whose data is wanted. Not watched itself while the guest has no buffer.
    readers: Epoll,
    // Everything else.
    others: Epoll,
    timer: OwnedFd,
    timer_at: Option<Instant>,
    accepting: bool,
    next: u64,
    next_port: u32,
    connections: HashMap<u64, Connection>,
    keys: HashMap<Key, u64>,
    greetings: HashMap<u64, Greeting>,
    times: BTreeSet<(Instant, u64)>,
    // Connections with packets due, in the order of their turns.
    listed: VecDeque<u64>,
    resets: VecDeque<Header>,
    room_taken: u32,
    limit: RateLimit,
    pub(super) counters: Counters,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("cid", &self.cid)
            .field("file", &self.file)
            .field("connections", &self.connections.len())
            .field("greetings", &self.greetings.len())
            .finish_non_exhaustive()
    }
}

impl Hub {
    pub(super) fn new(cid: u64, file: SocketFile, settings: Settings) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let mut hub = Self {
            settings,
            cid,
            file,
            readers: Epoll::new()?,
            others: Epoll::new()?,
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            timer_at: None,
            accepting: false,
            next: LISTENER,
            next_port: sockets::FIRST_PORT,
            connections: HashMap::new(),
            keys: HashMap::new(),
            greetings: HashMap::new(),
            times: BTreeSet::new(),
            listed: VecDeque::new(),
            resets: VecDeque::new(),
            room_taken: 0,
            limit: RateLimit::new(),
            counters: Counters::default(),
        };
        hub.accept_again()?;
        Ok(hub)
    }

    /// Readable when data for the guest is there.
    pub(super) fn readers(&self) -> &impl AsRawFd {
        &self.readers
    }

    /// Readable when anything else of a socket is to be done.
    pub(super) fn others(&self) -> &impl AsRawFd {
        &self.others
    }

    /// Readable when a time is up.
    pub(super) fn timer(&self) -> &impl AsRawFd {
        &self.timer
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// How many host programs have not sent their line.
    pub(super) fn waiting(&self) -> usize {
        self.greetings.len()
    }

    /// How much of the guest's data waits for host programs.
    pub(super) fn pending(&self) -> usize {
        self.connections.values().map(Connection::pending).sum()
    }

    /// The path of the socket for host programs.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether so many answers wait that the guest's packets have to.
    pub(super) fn is_congested(&self) -> bool {
        self.resets.len() >= self.settings.resets
    }

    /// Ends all connections without a word to the guest.
    pub(super) fn clear(&mut self) {
        let gone = self.connections.len() as u64;
        self.counters.conns_removed = self.counters.conns_removed.saturating_add(gone);
        self.connections.clear();
        self.keys.clear();
        self.greetings.clear();
        self.times.clear();
        self.listed.clear();
        self.resets.clear();
        self.room_taken = 0;
        self.resume_accepting();
        self.arm();
    }

    /// Sends what is due, as far as the guest has buffers.
    pub(super) fn send_due(&mut self, inbox: &mut Inbox) {
        while !self.resets.is_empty() || !self.listed.is_empty() {
            if !inbox.has_room(&mut self.counters) {
                break;
            }
            if let Some(header) = self.resets.pop_front() {
                bump(&mut self.counters.resets);
                inbox.send(&header, &mut self.counters);
                continue;
            }
            let Some(id) = self.listed.pop_front() else {
                break;
            };
            // Those that are gone leave their numbers behind.
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            if let Some(header) = connection.next_due() {
                inbox.send(&header, &mut self.counters);
            }
            connection.listed = connection.due != 0;
            if connection.listed {
                self.listed.push_back(id);
            }
        }
    }

    /// A number that no connection had before.
    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// Whether there may be one more connection, and how much it can hold: each can hold a
    /// little, and the first ones more.
    fn room(&self) -> Option<u32> {
        let left = self
            .settings
            .connections
            .checked_sub(self.connections.len())?;
        let others = u32::try_from(left.checked_sub(1)?).unwrap_or(u32::MAX);
        let kept = self.settings.small_room.saturating_mul(others);
        let free = self.settings.total_room.saturating_sub(self.room_taken);
        if free >= self.settings.room.saturating_add(kept) {
            return Some(self.settings.room);
        }
        (free >= self.settings.small_room).then_some(self.settings.small_room)
    }

    /// Takes a new connection in.
    fn insert(&mut self, connection: Connection) {
        let id = self.number();
        bump(&mut self.counters.conns_added);
        self.room_taken = self.room_taken.saturating_add(connection.room);
        self.keys.insert(connection.key, id);
        self.connections.insert(id, connection);
        self.settle(id);
    }

    /// Ends a connection; `reset` is the packet by which the guest hears of it.
    fn remove(&mut self, id: u64, reset: bool) {
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        bump(&mut self.counters.conns_removed);
        self.room_taken = self.room_taken.saturating_sub(connection.room);
        if let Some((at, _)) = connection.wait {
            self.times.remove(&(at, id));
        }
        if connection.phase != Phase::Lingering {
            self.keys.remove(&connection.key);
            if reset {
                self.resets.push_back(connection.reset());
            }
        }
        self.resume_accepting();
    }

    /// Ends a connection whose guest broke a rule, or that took too long.
    fn kill(&mut self, id: u64) {
        bump(&mut self.counters.conns_killed);
        self.remove(id, true);
    }

    /// After anything happened to a connection: makes what is watched, listed and waited for
    /// agree with what it has become.
    fn settle(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.pass_on_the_end();
        if connection.phase == Phase::Lingering && connection.pending() == 0 {
            self.remove(id, false);
            return;
        }
        if connection.phase == Phase::Open && connection.credit.is_news() {
            connection.due |= due::CREDIT_UPDATE;
        }
        if connection.due != 0 && !connection.listed && connection.phase != Phase::Lingering {
            connection.listed = true;
            self.listed.push_back(id);
        }
        let (data, room) = connection.wants();
        let socket = connection.socket.as_fd();
        let changed = [
            (&self.readers, EventSet::IN, data, connection.watched.0),
            (&self.others, EventSet::OUT, room, connection.watched.1),
        ]
        .into_iter()
        .filter(|(.., wanted, watched)| wanted != watched)
        .try_for_each(|(epoll, events, wanted, _)| watch(epoll, socket, events, id, wanted));
        connection.watched = (data, room);
        if let Err(error) = changed {
            log::warn!("vsock: cannot watch a socket: {error}");
            self.kill(id);
            return;
        }
        self.wait(id);
    }

    /// Sets or ends the time limit of a connection.
    fn wait(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let wanted = connection.waits_for();
        if wanted.map(|(wait, _)| wait) == connection.wait.map(|(_, wait)| wait) {
            return;
        }
        if let Some((at, _)) = connection.wait.take() {
            self.times.remove(&(at, id));
        }
        if let Some((wait, time)) = wanted {
            let time = time.unwrap_or(match wait {
                Wait::Answer => self.settings.answer_time,
                _ => self.settings.close_time,
            });
            let at = later(time);
            connection.wait = Some((at, wait));
            self.times.insert((at, id));
        }
        self.arm();
    }

    /// Makes the timer ring at the earliest time limit, unless it rings before.
    fn arm(&mut self) {
        let Some((at, _)) = self.times.first() else {
            return;
        };
        if self.timer_at.is_some_and(|set| set <= *at) {
            return;
        }
        let left = at.saturating_duration_since(Instant::now());
        // Zero would stop the timer.
        let left = Timespec::try_from(left.max(Duration::from_nanos(1)));
        let it_value = left.unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        });
        let it_interval = Timespec::default();
        let setting = Itimerspec {
            it_interval,
            it_value,
        };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting) {
            Ok(_) => self.timer_at = Some(*at),
            Err(error) => log::error!("vsock: cannot set a timer: {error}"),
        }
    }

    /// The timer rang.
    pub(super) fn times_up(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        self.timer_at = None;
        let now = Instant::now();
        while let Some((at, id)) = self.times.first().copied() {
            if at > now {
                break;
            }
            self.times.remove(&(at, id));
            self.time_is_up(id);
        }
        self.resume_accepting();
        self.arm();
    }

    fn time_is_up(&mut self, id: u64) {
        if self.greetings.contains_key(&id) {
            self.refuse_greeting(id);
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match connection.wait.take() {
            Some((_, Wait::Ask)) => {
                connection.ask();
                self.settle(id);
            }
            _ => self.kill(id),
        }
    }

    fn accept_again(&mut self) -> io::Result<()> {
        if !self.accepting {
            let events = EpollEvent::new(EventSet::IN, LISTENER);
            let fd = self.file.as_fd().as_raw_fd();
            self.others.ctl(ControlOperation::Add, fd, events)?;
            self.accepting = true;
        }
        Ok(())
    }

    /// A file descriptor may have become free.
    fn resume_accepting(&mut self) {
        if let Err(error) = self.accept_again() {
            log::error!("vsock: cannot watch {}: {error}", self.path().display());
        }
    }
}

/// Watches a socket, or no longer does.
fn watch(
    epoll: &Epoll,
    socket: BorrowedFd<'_>,
    events: EventSet,
    id: u64,
    wanted: bool,
) -> io::Result<()> {
    let operation = if wanted {
        ControlOperation::Add
    } else {
        ControlOperation::Delete
    };
    epoll.ctl(operation, socket.as_raw_fd(), EpollEvent::new(events, id))
}

fn later(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}
