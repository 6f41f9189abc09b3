//! The socket device (virtio 1.2, 5.10): streams between programs of the guest and of the host,
//! which find each other through Unix sockets as with Firecracker.
//!
//! `hub` knows all connections, `connection` one of them, `credit` its counters; `inbox` fills
//! the guest's buffers; `socket` and `greeting` are the host programs' side.

mod connection;
mod counters;
mod credit;
pub mod greeting;
mod hub;
mod inbox;
mod socket;
pub mod wire;

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{
    CommandError, ConfigSpace, DeviceCommand, Identity, Interrupt, Progress, StartContext,
    StartError, VirtioDevice, Virtqueue, Watches,
};
use crate::inspect::Report;
use crate::ram::GuestRam;
use crate::state::BadState;
use hub::{Hub, Settings};
use inbox::Inbox;

pub use socket::{MAX_PATH_BYTES, SocketError, SocketFile};

const DEVICE_ID: u32 = 19;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const EVENTS: usize = 2;
/// Largest sizes of its queues: receive, transmit, events.
pub const QUEUE_SIZES: [u16; 3] = [256, 256, 16];

/// The least context ID of a guest: those below have meanings of their own (5.10.4).
pub const MIN_CID: u64 = 3;
/// The greatest: the one above means "any".
pub const MAX_CID: u64 = 0xffff_fffe;

/// How many packets, and how much data, are taken from the guest in a turn.
const PACKETS_A_TURN: usize = 256;
const BYTES_A_TURN: usize = 1 << 20;

/// What is watched: sockets with data for the guest, all others, the time.
const READERS: u32 = 0;
const OTHERS: u32 = 1;
const TIMER: u32 = 2;

#[derive(Debug)]
struct Running {
    inbox: Inbox,
    transmit: Virtqueue,
    events: Virtqueue,
    ram: GuestRam,
    interrupt: Interrupt,
    // The guest's packets wait until it takes the answers to those before.
    congested: bool,
    // The guest has to be told that all connections are gone.
    reset_due: bool,
}

/// A socket device.
#[derive(Debug)]
pub struct Vsock {
    cid: u64,
    hub: Hub,
    config: Arc<ConfigSpace>,
    watches: Watches,
    running: Option<Running>,
}

impl Vsock {
    /// A device for the guest with context ID `cid`, from [`MIN_CID`] to [`MAX_CID`], whose host
    /// programs connect to `file`.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(cid: u64, file: SocketFile) -> io::Result<Self> {
        Self::with(cid, file, Settings::default())
    }

    fn with(cid: u64, file: SocketFile, settings: Settings) -> io::Result<Self> {
        Ok(Self {
            cid,
            hub: Hub::new(cid, file, settings)?,
            // The only field is the context ID (5.10.4).
            config: Arc::new(ConfigSpace::new(cid.to_le_bytes().to_vec())),
            watches: Watches::default(),
            running: None,
        })
    }

    /// The path of its socket.
    pub fn path(&self) -> &Path {
        self.hub.path()
    }

    /// Ends all connections and tells the guest that they are gone (5.10.6.7): what a restored
    /// machine begins with. What listens in the guest goes on listening.
    pub fn reset_transport(&mut self) {
        self.hub.clear();
        if let Some(running) = &mut self.running {
            running.reset_due = true;
            running.tell_events();
        }
    }

    /// Takes packets of the guest, for one turn.
    fn transmit(&mut self) -> Progress {
        let Some(running) = &mut self.running else {
            return Progress::Idle;
        };
        let mut bytes = 0_usize;
        let mut progress = Progress::More;
        running.congested = false;
        for _ in 0..PACKETS_A_TURN {
            if self.hub.is_congested() {
                self.hub.send_due(&mut running.inbox);
                running.congested = self.hub.is_congested();
            }
            if running.congested || bytes >= BYTES_A_TURN {
                break;
            }
            let Ok(Some(mut chain)) = running.transmit.pop() else {
                progress = Progress::Idle;
                break;
            };
            let moved = self.hub.packet(&running.ram, &mut chain);
            bytes = bytes.saturating_add(moved);
            running.transmit.complete(chain, 0);
        }
        running.transmit.notify();
        if running.congested {
            // The next buffer of the guest goes on.
            progress = Progress::Idle;
        }
        progress
    }

    /// After everything that happened: sends what is due, tells the guest of it, and wants data
    /// only as long as the guest has room for it.
    fn finish(&mut self) {
        let room = self.running.as_mut().is_some_and(|running| {
            self.hub.send_due(&mut running.inbox);
            running.inbox.notify();
            !running.inbox.is_starved() && !running.interrupt.needs_reset()
        });
        self.watches.want(READERS, room);
    }
}

impl Running {
    /// Tells of lost connections, once the guest has given a buffer for it.
    fn tell_events(&mut self) {
        if !self.reset_due {
            return;
        }
        if let Ok(Some(mut chain)) = self.events.pop() {
            let event = wire::TRANSPORT_RESET.to_le_bytes();
            let len = chain.write(&self.ram, &event);
            self.events
                .complete(chain, u32::try_from(len).unwrap_or_default());
            self.events.notify();
            // One that was too small to say anything leaves it to the next.
            self.reset_due = len < wire::EVENT_BYTES;
        }
    }
}

impl VirtioDevice for Vsock {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: QUEUE_SIZES.to_vec(),
            features: wire::F_STREAM,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn attach(&mut self, watches: Watches) {
        watches.readable(self.hub.readers(), READERS);
        watches.readable(self.hub.others(), OTHERS);
        watches.readable(self.hub.timer(), TIMER);
        watches.want(READERS, false);
        self.watches = watches;
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        let receive = context.take_queue(RECEIVE)?;
        self.running = Some(Running {
            inbox: Inbox::new(receive, context.ram.clone()),
            transmit: context.take_queue(TRANSMIT)?,
            events: context.take_queue(EVENTS)?,
            ram: context.ram,
            interrupt: context.interrupt,
            congested: false,
            reset_due: false,
        });
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize) -> Progress {
        let Some(running) = &mut self.running else {
            return Progress::Idle;
        };
        let mut progress = Progress::Idle;
        match queue {
            RECEIVE => {
                running.inbox.refilled();
                self.hub.send_due(&mut running.inbox);
                if running.congested {
                    progress = self.transmit();
                    // The rest comes with the next call for this queue, not the other.
                    if let Some(running) = &mut self.running {
                        running.congested |= progress == Progress::More;
                    }
                }
            }
            TRANSMIT if !running.congested => progress = self.transmit(),
            EVENTS => running.tell_events(),
            _ => {}
        }
        self.finish();
        progress
    }

    fn event(&mut self, token: u32) {
        match token {
            READERS => {
                if let Some(running) = &mut self.running {
                    self.hub.read_sockets(&mut running.inbox);
                }
            }
            OTHERS => self.hub.serve_sockets(self.running.is_some()),
            _ => self.hub.times_up(),
        }
        self.finish();
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let DeviceCommand::ResetTransport = command else {
            return Err(CommandError::NotSupported);
        };
        if self.running.is_none() {
            return Err(CommandError::NoDriver);
        }
        self.reset_transport();
        self.finish();
        Ok(())
    }

    /// Nothing of the connections is saved, since their host programs are not. The guest of a
    /// restored device is told that they are gone.
    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        if let Some(running) = &mut self.running {
            running.reset_due = true;
        }
        match state.len() {
            0 => Ok(()),
            more => Err(BadState::Long(more)),
        }
    }

    fn stop(&mut self) {
        self.running = None;
        self.hub.clear();
        self.finish();
    }

    fn inspect(&self) -> Report {
        let report = Report::new()
            .with("kind", "vsock")
            .with("started", self.running.is_some())
            .with("guest_cid", self.cid)
            .with("uds_path", self.hub.path().display().to_string())
            .with("connections", self.hub.len() as u64)
            .with("handshakes", self.hub.waiting() as u64)
            .with("tx_bytes_waiting", self.hub.pending() as u64);
        self.hub.counters.report(report)
    }
}

#[cfg(test)]
mod tests;
