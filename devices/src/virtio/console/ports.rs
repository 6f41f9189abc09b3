//! Several ports with names (virtio 1.2, 5.3.6): the driver and the device tell each other over
//! two control queues which there are and which are open.
//!
//! What the device has to tell is kept as the state of each port and not as a list of messages,
//! so that a driver which never reads them makes nothing grow.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::backend::PortBackend;
use super::queues::{INPUT_WAITING, Queues, Turn, pump};
use super::{DEVICE_ID, size_bytes};
use crate::inspect::Report;
use crate::line::Doorbell;
use crate::ram::GuestRam;
use crate::state::{BadState, Section};
use crate::virtio::{
    CommandError, ConfigSpace, DeviceCommand, Identity, Progress, StartContext, StartError,
    VirtioDevice, Virtqueue, Watches,
};

mod saved;

pub use saved::{PortStateV1, PortsStateV1, UntoldStateV1};

/// There are several ports.
pub const F_MULTIPORT: u64 = 1 << 1;

/// Most ports of a device.
pub const MOST_PORTS: usize = 15;

/// The queues of port 0, which no port of ours has: it is what a driver without F_MULTIPORT
/// knows. Then the control queues, then two for each port (5.3.2).
const NOBODYS_TRANSMIT: usize = 1;
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
const FIRST_PORT_QUEUE: usize = 4;
const QUEUE_SIZE: u16 = 64;

const CONFIG_BYTES: usize = 12;
/// Where the configuration says how many ports there can be.
const MAX_PORTS: usize = 4;

/// The event of a port whose turn ended before its output did; the ports' own are their numbers.
const AGAIN: u32 = 0;

/// Control messages that are read in one turn.
const MESSAGES_A_TURN: usize = 64;

/// What control messages tell (5.3.6.2).
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const PORT_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const RESIZE: u16 = 5;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// A port to be.
pub struct PortSetup {
    /// The name by which programs of the guest find it.
    pub name: String,
    /// Whether the guest is to have a console there.
    pub console: bool,
    /// The host's side.
    pub backend: Box<dyn PortBackend>,
}

impl fmt::Debug for PortSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortSetup")
            .field("name", &self.name)
            .field("console", &self.console)
            .finish_non_exhaustive()
    }
}

/// What the driver is still to be told of a port.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Untold {
    exists: bool,
    console: bool,
    name: bool,
    size: bool,
}

/// A port.
struct Port {
    id: u32,
    name: String,
    console: bool,
    size: Option<(u16, u16)>,
    backend: Box<dyn PortBackend>,
    queues: Option<Queues>,
    // From the host and not yet taken by the guest, and the other way round.
    pending: Vec<u8>,
    unsent: Vec<u8>,
    untold: Untold,
    /// The driver has the port, and a program of the guest has it open.
    ready: bool,
    guest_open: bool,
    /// What the driver was told of the host's side.
    told_open: bool,
    /// Its last turn ended before its output did, and no ring of the guest's goes on with it.
    again: bool,
    sent: u64,
    received: u64,
    dropped: u64,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("untold", &self.untold)
            .field("guest_open", &self.guest_open)
            .finish_non_exhaustive()
    }
}

impl Port {
    fn new(id: u32, setup: PortSetup) -> Self {
        let PortSetup {
            name,
            console,
            backend,
        } = setup;
        Self {
            id,
            name,
            console,
            size: None,
            backend,
            queues: None,
            pending: Vec::new(),
            unsent: Vec::new(),
            untold: Untold::default(),
            ready: false,
            guest_open: false,
            told_open: false,
            again: false,
            sent: 0,
            received: 0,
            dropped: 0,
        }
    }

    /// As it is before a driver knows of it.
    fn stop(&mut self) {
        self.queues = None;
        self.untold = Untold::default();
        (self.ready, self.guest_open, self.told_open) = (false, false, false);
    }

    /// The driver has the port and wants to know all of it.
    fn introduce(&mut self) {
        self.ready = true;
        self.told_open = false;
        self.untold = Untold {
            exists: false,
            console: self.console,
            name: true,
            size: self.console && self.size.is_some(),
        };
    }

    /// The next control message: event, value and what follows.
    fn next_message(&mut self) -> Option<(u16, u16, Vec<u8>)> {
        if std::mem::take(&mut self.untold.exists) {
            return Some((event::PORT_ADD, 1, Vec::new()));
        }
        if !self.ready {
            return None;
        }
        if std::mem::take(&mut self.untold.console) {
            return Some((event::CONSOLE_PORT, 1, Vec::new()));
        }
        if std::mem::take(&mut self.untold.name) {
            return Some((event::PORT_NAME, 1, self.name.clone().into_bytes()));
        }
        if std::mem::take(&mut self.untold.size)
            && let Some((columns, rows)) = self.size
        {
            return Some((event::RESIZE, 1, size_bytes(columns, rows).to_vec()));
        }
        let open = self.backend.is_open();
        if std::mem::replace(&mut self.told_open, open) != open {
            return Some((event::PORT_OPEN, open.into(), Vec::new()));
        }
        None
    }

    /// Moves input, as long as a program of the guest has the port open: a driver drops what
    /// comes otherwise.
    fn receive(&mut self) {
        if !self.guest_open {
            return;
        }
        let room = INPUT_WAITING.saturating_sub(self.pending.len());
        if room > 0 {
            self.backend.read(room, &mut self.pending);
        }
        if let Some(queues) = &mut self.queues {
            let delivered = queues.deliver(&self.pending);
            self.pending.drain(..delivered.min(self.pending.len()));
            self.received = self.received.saturating_add(delivered as u64);
        }
    }

    fn transmit(&mut self) -> Turn {
        let mut unsent = std::mem::take(&mut self.unsent);
        let mut queues = self.queues.take();
        let turn = pump(&mut queues, &mut unsent, &mut |unsent| self.send(unsent));
        (self.unsent, self.queues) = (unsent, queues);
        turn
    }

    fn send(&mut self, unsent: &mut Vec<u8>) -> usize {
        if unsent.is_empty() {
            return 0;
        }
        let offered = self.backend.offer(unsent);
        self.sent = self.sent.saturating_add(offered.written as u64);
        self.dropped = self.dropped.saturating_add(offered.dropped as u64);
        let gone = offered.written.saturating_add(offered.dropped);
        unsent.drain(..gone.min(unsent.len()));
        gone
    }

    /// Something happened on the host's side.
    fn event(&mut self) {
        if self.backend.event() {
            // What was meant for the one before is not for this one.
            self.pending.clear();
            self.unsent.clear();
        }
        self.receive();
        self.again = self.transmit() == Turn::More;
    }

    fn watch(&mut self) {
        let room = self.pending.len() < INPUT_WAITING;
        let output = !self.unsent.is_empty();
        self.backend.want(self.guest_open && room, output);
    }

    fn report(&self) -> Report {
        Report::new()
            .with("name", self.name.as_str())
            .with("backend", self.backend.kind())
            .with("console", self.console)
            .with("host_open", self.backend.is_open())
            .with("guest_open", self.guest_open)
            .with("output_bytes", self.sent)
            .with("output_bytes_dropped", self.dropped)
            .with("output_bytes_waiting", self.unsent.len() as u64)
            .with("input_bytes", self.received)
            .with("input_bytes_waiting", self.pending.len() as u64)
    }
}

#[derive(Debug)]
struct Running {
    ram: GuestRam,
    nobodys: Option<Virtqueue>,
    to_driver: Option<Virtqueue>,
    from_driver: Option<Virtqueue>,
    introduced: bool,
}

/// A console device of named ports, without a console of its own.
#[derive(Debug)]
pub struct Ports {
    ports: Vec<Port>,
    config: Arc<ConfigSpace>,
    again: Doorbell,
    running: Option<Running>,
    messages: u64,
    ignored: u64,
    lost: u64,
}

impl Ports {
    /// A device of these ports, at most [`MOST_PORTS`]: their numbers count from 1.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(ports: Vec<PortSetup>) -> io::Result<Self> {
        let ports: Vec<Port> = (1..)
            .zip(ports)
            .take(MOST_PORTS)
            .map(|(id, setup)| Port::new(id, setup))
            .collect();
        let config = ConfigSpace::new(vec![0; CONFIG_BYTES]);
        let most = u32::try_from(ports.len()).unwrap_or_default();
        config.update(MAX_PORTS, &most.saturating_add(1).to_le_bytes());
        Ok(Self {
            ports,
            config: Arc::new(config),
            again: Doorbell::new()?,
            running: None,
            messages: 0,
            ignored: 0,
            lost: 0,
        })
    }

    /// The largest sizes of the queues of a device with so many ports.
    pub fn queue_sizes(ports: usize) -> Vec<u16> {
        let count = ports.saturating_mul(2).saturating_add(FIRST_PORT_QUEUE);
        vec![QUEUE_SIZE; count]
    }

    /// Tells the driver what it does not know yet, as far as it has buffers for it.
    fn tell(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(queue) = &mut running.to_driver else {
            return;
        };
        for port in &mut self.ports {
            loop {
                let before = (port.untold, port.told_open);
                let Some((event, value, text)) = port.next_message() else {
                    break;
                };
                let Ok(Some(mut chain)) = queue.pop() else {
                    (port.untold, port.told_open) = before;
                    queue.notify();
                    return;
                };
                let mut message = port.id.to_le_bytes().to_vec();
                message.extend_from_slice(&event.to_le_bytes());
                message.extend_from_slice(&value.to_le_bytes());
                message.extend_from_slice(&text);
                if chain.writable_bytes() < message.len() as u64 {
                    // The driver's own fault: it will not know.
                    self.lost = self.lost.saturating_add(1);
                    queue.complete(chain, 0);
                    continue;
                }
                let len = chain.write(&running.ram, &message);
                queue.complete(chain, u32::try_from(len).unwrap_or_default());
                self.messages = self.messages.saturating_add(1);
            }
        }
        queue.notify();
    }

    /// Reads what the driver tells.
    fn hear(&mut self) -> Progress {
        for _ in 0..MESSAGES_A_TURN {
            let Some(running) = &mut self.running else {
                return Progress::Idle;
            };
            let Some(queue) = &mut running.from_driver else {
                return Progress::Idle;
            };
            let Ok(Some(mut chain)) = queue.pop() else {
                return Progress::Idle;
            };
            let message = chain.take_header::<[u8; 8]>(&running.ram);
            queue.complete(chain, 0);
            let heard = message.is_ok_and(|message| self.heard(message));
            self.ignored = self.ignored.saturating_add((!heard).into());
        }
        Progress::More
    }

    /// One message of the driver: whether it makes sense.
    fn heard(&mut self, message: [u8; 8]) -> bool {
        let [a, b, c, d, event_low, event_high, value_low, value_high] = message;
        let id = u32::from_le_bytes([a, b, c, d]);
        let event = u16::from_le_bytes([event_low, event_high]);
        let value = u16::from_le_bytes([value_low, value_high]);
        if event == event::DEVICE_READY {
            let running = self.running.as_mut().filter(|_| value == 1);
            let Some(running) = running.filter(|running| !running.introduced) else {
                return false;
            };
            running.introduced = true;
            for port in &mut self.ports {
                port.untold.exists = true;
            }
            return true;
        }
        let introduced = self.running.as_ref().is_some_and(|r| r.introduced);
        let port = self.ports.iter_mut().find(|port| port.id == id);
        let Some(port) = port.filter(|_| introduced) else {
            return false;
        };
        match (event, value) {
            (event::PORT_READY, 1) => port.introduce(),
            // The driver has no memory for it.
            (event::PORT_READY, 0) => port.ready = false,
            (event::PORT_OPEN, value) => {
                port.guest_open = value != 0;
                port.receive();
                port.watch();
            }
            _ => return false,
        }
        true
    }

    /// Takes what a driver sends to the port that is not there.
    fn swallow(&mut self) -> Progress {
        let queue = self.running.as_mut().and_then(|r| r.nobodys.as_mut());
        let Some(queue) = queue else {
            return Progress::Idle;
        };
        for _ in 0..MESSAGES_A_TURN {
            let Ok(Some(chain)) = queue.pop() else {
                queue.notify();
                return Progress::Idle;
            };
            self.ignored = self.ignored.saturating_add(1);
            queue.complete(chain, 0);
        }
        queue.notify();
        Progress::More
    }

    fn serve(&mut self, queue: usize) -> Progress {
        let number = queue.saturating_sub(FIRST_PORT_QUEUE);
        let Some(port) = self.ports.get_mut(number / 2) else {
            return Progress::Idle;
        };
        let turn = if number.is_multiple_of(2) {
            port.receive();
            Turn::Done
        } else {
            port.transmit()
        };
        port.watch();
        match turn {
            Turn::More => Progress::More,
            Turn::Done | Turn::Full => Progress::Idle,
        }
    }
}

/// The machine ends: what the guest has sent is written as far as there is time for it.
impl Drop for Ports {
    fn drop(&mut self) {
        for port in &mut self.ports {
            while port.transmit() != Turn::Done && port.backend.wait_at_the_end() {}
        }
    }
}

impl VirtioDevice for Ports {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: Self::queue_sizes(self.ports.len()),
            features: F_MULTIPORT,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn attach(&mut self, watches: Watches) {
        watches.readable(&self.again, AGAIN);
        for port in &self.ports {
            watches.readable(&Fd(port.backend.as_raw_fd()), port.id);
        }
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        let multiport = context.features & F_MULTIPORT != 0;
        let mut take = |queue: usize| context.queues.get_mut(queue).and_then(Option::take);
        let nobodys = take(NOBODYS_TRANSMIT);
        let control = [CONTROL_RECEIVE, CONTROL_TRANSMIT].map(&mut take);
        let [to_driver, from_driver] = control;
        if multiport {
            for (queue, number) in [
                (&to_driver, CONTROL_RECEIVE),
                (&from_driver, CONTROL_TRANSMIT),
            ] {
                if queue.is_none() {
                    return Err(StartError::MissingQueue(number));
                }
            }
            for (port, receive) in self.ports.iter_mut().zip((FIRST_PORT_QUEUE..).step_by(2)) {
                let pair = take(receive).zip(take(receive.saturating_add(1)));
                let ram = context.ram.clone();
                port.queues = pair.map(|(receive, transmit)| Queues::new(receive, transmit, ram));
            }
        }
        self.running = Some(Running {
            ram: context.ram,
            nobodys,
            to_driver: to_driver.filter(|_| multiport),
            from_driver: from_driver.filter(|_| multiport),
            introduced: false,
        });
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize) -> Progress {
        let progress = match queue {
            NOBODYS_TRANSMIT => self.swallow(),
            CONTROL_TRANSMIT => {
                let progress = self.hear();
                let queue = self.running.as_mut().and_then(|r| r.from_driver.as_mut());
                if let Some(queue) = queue {
                    queue.notify();
                }
                progress
            }
            FIRST_PORT_QUEUE.. => self.serve(queue),
            _ => Progress::Idle,
        };
        self.tell();
        progress
    }

    fn event(&mut self, token: u32) {
        if token == AGAIN {
            self.again.clear();
        }
        for port in &mut self.ports {
            if port.id == token || (token == AGAIN && std::mem::take(&mut port.again)) {
                port.event();
                port.watch();
            }
            if port.again {
                self.again.ring();
            }
        }
        self.tell();
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let DeviceCommand::Resize { columns, rows } = command else {
            return Err(CommandError::NotSupported);
        };
        for port in self.ports.iter_mut().filter(|port| port.console) {
            let size = Some((columns, rows));
            port.untold.size |= port.size != size;
            port.size = size;
        }
        self.tell();
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        self.state().to_tagged()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        self.take_state(PortsStateV1::from_tagged(state)?)
    }

    fn stop(&mut self) {
        self.running = None;
        for port in &mut self.ports {
            port.stop();
            port.watch();
        }
    }

    fn inspect(&self) -> Report {
        let report = Report::new()
            .with("kind", "console-ports")
            .with("started", self.running.is_some())
            .with("control_messages_sent", self.messages)
            .with("control_messages_lost", self.lost)
            .with("control_messages_ignored", self.ignored);
        self.ports.iter().fold(report, |report, port| {
            report.with(format!("port{}", port.id), port.report())
        })
    }
}

/// A descriptor by its number, for what only borrows it.
struct Fd(std::os::fd::RawFd);

impl std::os::fd::AsRawFd for Fd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0
    }
}

#[cfg(test)]
mod tests;
