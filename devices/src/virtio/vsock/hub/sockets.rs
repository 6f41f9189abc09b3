//! What host programs' sockets do to connections.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::super::connection::{Connection, Key, Phase, Reading, due};
use super::super::counters::bump;
use super::super::greeting::{LINE_BYTES, Line, Parsed};
use super::super::inbox::Inbox;
use super::{Greeting, Hub, LISTENER, later, watch};

/// The first port of a host program's end, as Firecracker has it.
pub(super) const FIRST_PORT: u32 = 1 << 30;
/// The last one.
const LAST_PORT: u32 = (1 << 31) - 1;

/// Connections that are looked at before the kernel is asked again who is ready: it puts those
/// behind all others then.
const EVENTS: usize = 4;
/// How often it is asked in a turn.
const ROUNDS: usize = 8;
/// How much is moved to the guest in a turn.
const READ_IN_ALL: usize = 1 << 20;
/// How many host programs are accepted in a turn.
const ACCEPTED_A_TURN: usize = 64;

impl Hub {
    /// Moves data to the guest, for one turn.
    pub(in super::super) fn read_sockets(&mut self, inbox: &mut Inbox) {
        let mut moved = 0;
        for _ in 0..ROUNDS {
            let mut events = [EpollEvent::default(); EVENTS];
            let ready = ready(&self.readers, &mut events);
            for event in ready {
                let (id, hung_up) = (event.data(), event.event_set().contains(EventSet::HANG_UP));
                let Some(connection) = self.connections.get_mut(&id) else {
                    continue;
                };
                match connection.read(inbox, &mut self.counters, &mut moved, hung_up) {
                    Reading::Done => self.settle(id),
                    Reading::Broken => self.kill(id),
                }
            }
            if ready.len() < EVENTS || moved >= READ_IN_ALL || inbox.is_starved() {
                break;
            }
        }
    }

    /// Serves the other sockets, for one turn. Without a driver nobody can be connected.
    pub(in super::super) fn serve_sockets(&mut self, driver: bool) {
        for _ in 0..ROUNDS {
            let mut events = [EpollEvent::default(); EVENTS];
            let ready = ready(&self.others, &mut events);
            for event in ready {
                match event.data() {
                    LISTENER => self.accept(),
                    id if self.greetings.contains_key(&id) => self.greet(id, driver),
                    id => self.flush(id),
                }
            }
            if ready.len() < EVENTS {
                break;
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED_A_TURN {
            let socket = match self.file.accept() {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => break,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    self.pause_accepting();
                    break;
                }
                // Something about that one connection.
                Err(_) => continue,
            };
            let all = self.connections.len().saturating_add(self.greetings.len());
            if self.greetings.len() >= self.settings.greetings || all >= self.settings.connections {
                bump(&mut self.counters.conns_over_limit);
                continue;
            }
            let id = self.number();
            if let Err(error) = watch(&self.others, socket.as_fd(), EventSet::IN, id, true) {
                log::warn!("vsock: cannot watch a socket: {error}");
                continue;
            }
            let until = later(self.settings.greeting_time);
            let line = Line::default();
            let greeting = Greeting {
                socket,
                line,
                until,
            };
            self.greetings.insert(id, greeting);
            self.times.insert((until, id));
            self.arm();
        }
    }

    /// Out of file descriptors: goes on when a connection has ended or a little later.
    fn pause_accepting(&mut self) {
        self.limit.warn(format_args!(
            "vsock: no file descriptor is left to accept a host program; raise `ulimit -n`"
        ));
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.file.as_fd());
        let nothing = EpollEvent::default();
        if self
            .others
            .ctl(ControlOperation::Delete, fd, nothing)
            .is_ok()
        {
            self.accepting = false;
            // The number of the listener is nobody's: its time only goes on with accepting.
            self.times.insert((later(super::PAUSE), LISTENER));
            self.arm();
        }
    }

    /// A host program that has not said what it wants says something.
    fn greet(&mut self, id: u64, driver: bool) {
        let Some(greeting) = self.greetings.get_mut(&id) else {
            return;
        };
        let mut bytes = [0; LINE_BYTES];
        let room = bytes.get_mut(..greeting.line.room()).unwrap_or_default();
        // Looked at first: what follows the line is data, which is read later.
        let seen = match rustix::net::recv(&greeting.socket, &mut *room, RecvFlags::PEEK) {
            Ok((_, seen)) => seen,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => 0,
        };
        let piece = bytes.get(..seen).unwrap_or_default();
        let parsed = match piece {
            [] => Parsed::Bad,
            piece => greeting.line.push(piece),
        };
        let used = match parsed {
            Parsed::Bad => {
                self.refuse_greeting(id);
                return;
            }
            Parsed::More => seen,
            Parsed::Connect { used, .. } => used,
        };
        let line = bytes.get_mut(..used).unwrap_or_default();
        let taken = rustix::net::recv(&greeting.socket, &mut *line, RecvFlags::empty());
        if taken.map(|(_, taken)| taken) != Ok(used) {
            self.refuse_greeting(id);
        } else if let Parsed::Connect { port, .. } = parsed {
            self.ask_guest(id, port, driver);
        }
    }

    /// Ends a host program's try.
    pub(super) fn refuse_greeting(&mut self, id: u64) {
        bump(&mut self.counters.handshakes_failed);
        self.end_greeting(id);
    }

    fn end_greeting(&mut self, id: u64) -> Option<Greeting> {
        let greeting = self.greetings.remove(&id)?;
        self.times.remove(&(greeting.until, id));
        self.resume_accepting();
        Some(greeting)
    }

    /// A host program wants to connect to a port of the guest.
    fn ask_guest(&mut self, id: u64, port: u32, driver: bool) {
        let Some(greeting) = self.end_greeting(id) else {
            return;
        };
        let unwatched = watch(
            &self.others,
            greeting.socket.as_fd(),
            EventSet::IN,
            id,
            false,
        );
        let (true, Ok(()), Some(room)) = (driver, unwatched, self.room()) else {
            bump(&mut self.counters.handshakes_failed);
            return;
        };
        let key = Key {
            host: self.free_port(port),
            guest: port,
        };
        let counts = (room, self.settings.first_count);
        let mut connection = Connection::new(key, self.cid, greeting.socket, Phase::Asking, counts);
        connection.due = due::REQUEST;
        self.insert(connection);
    }

    /// A port of the host with which no connection to the guest's `port` exists. There are more
    /// ports than connections, so that one is found soon.
    fn free_port(&mut self, guest: u32) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = if host >= LAST_PORT {
                FIRST_PORT
            } else {
                host.saturating_add(1)
            };
            if !self.keys.contains_key(&Key { host, guest }) {
                return host;
            }
        }
    }

    fn flush(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let progress = connection.flush(&mut self.counters);
        if progress && connection.phase == Phase::Lingering {
            // It is slow, not dead: a new time limit.
            if let Some((at, _)) = connection.wait.take() {
                self.times.remove(&(at, id));
            }
        }
        self.settle(id);
    }
}

/// A few of those that are ready, others each time.
fn ready<'a>(epoll: &Epoll, events: &'a mut [EpollEvent; EVENTS]) -> &'a [EpollEvent] {
    // Interrupted: the events come again.
    let count = epoll.wait(0, events).unwrap_or_default();
    events.get(..count).unwrap_or_default()
}
