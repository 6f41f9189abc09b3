//! The entropy device (virtio 1.2, 5.4): hands out random bytes of the host's kernel.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{
    CommandError, ConfigSpace, DeviceCommand, Identity, Interrupt, Progress, StartContext,
    StartError, VirtioDevice, Virtqueue, Watches,
};
use crate::inspect::Report;
use crate::limit::{Limits, LimitsStateV1, Throttle};
use crate::ram::GuestRam;
use crate::state;
use crate::state::{BadState, Section};

const DEVICE_ID: u32 = 4;
const REQUESTS: usize = 0;
/// Largest size of its queue.
pub const QUEUE_SIZES: [u16; 1] = [64];

/// How much one request is given at most. A driver that wants more asks again (5.4.6).
pub const MOST_BYTES_A_REQUEST: usize = 64 << 10;
/// How much is handed out in one turn of the loop.
const BYTES_A_TURN: usize = 256 << 10;
/// A turn ends after this many requests, however small.
const REQUESTS_A_TURN: usize = 64;
/// Bytes that are worth an answer: fewer are waited for, unless the bucket is smaller.
const WORTH: u64 = 64;
/// The event of the timer that ends a wait for the limit.
const GO_ON: u32 = 0;
/// How much the host is asked for at once.
const CHUNK: usize = 4096;

#[derive(Debug)]
struct Running {
    queue: Virtqueue,
    ram: GuestRam,
    interrupt: Interrupt,
}

state! {
    /// An entropy device.
    pub struct RngStateV1: "rng", 1 {
        /// Its limits.
        pub limits: LimitsStateV1,
    }
}

/// A source of random bytes, without features or configuration.
#[derive(Debug)]
pub struct Rng {
    config: Arc<ConfigSpace>,
    running: Option<Running>,
    requests: u64,
    bytes: u64,
    host_errors: u64,
    throttle: Throttle,
    waits: u64,
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

impl Rng {
    /// A device that no driver has started yet.
    pub fn new() -> Self {
        Self {
            config: Arc::new(ConfigSpace::new(Vec::new())),
            running: None,
            requests: 0,
            bytes: 0,
            host_errors: 0,
            throttle: Throttle::default(),
            waits: 0,
        }
    }

    /// The same, with limits.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn limited(limits: Limits) -> io::Result<Self> {
        let mut rng = Self::new();
        rng.throttle.set(limits)?;
        Ok(rng)
    }

    /// Whether a request may be served now, and with how much: it is waited for otherwise.
    fn grant(&mut self) -> Option<u64> {
        let granted = self.throttle.grant(WORTH);
        if granted.is_none() {
            self.waits = self.waits.saturating_add(1);
        }
        granted
    }
}

impl VirtioDevice for Rng {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: QUEUE_SIZES.to_vec(),
            features: 0,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn attach(&mut self, watches: Watches) {
        self.throttle.attach(watches, GO_ON);
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        self.running = Some(Running {
            queue: context.take_queue(REQUESTS)?,
            ram: context.ram,
            interrupt: context.interrupt,
        });
        Ok(())
    }

    fn queue_ready(&mut self, _queue: usize) -> Progress {
        let mut turn = 0;
        let mut left = REQUESTS_A_TURN;
        let progress = loop {
            if left == 0 || turn >= BYTES_A_TURN {
                break Progress::More;
            }
            left = left.saturating_sub(1);
            if self.running.is_none() {
                return Progress::Idle;
            }
            let Some(granted) = self.grant() else {
                break Progress::Idle;
            };
            let granted = usize::try_from(granted).unwrap_or(usize::MAX);
            let most = MOST_BYTES_A_REQUEST.min(granted);
            let Some(running) = &mut self.running else {
                return Progress::Idle;
            };
            let Ok(Some(mut chain)) = running.queue.pop() else {
                break Progress::Idle;
            };
            self.requests = self.requests.saturating_add(1);
            let mut given = 0;
            while given < most {
                let mut chunk = [0; CHUNK];
                let wanted = usize::try_from(chain.writable_bytes()).unwrap_or(CHUNK);
                let wanted = wanted.min(most.saturating_sub(given));
                let (chunk, _) = chunk.split_at_mut(wanted.min(CHUNK));
                if chunk.is_empty() {
                    break;
                }
                if let Err(error) = fill(chunk) {
                    self.host_errors = self.host_errors.saturating_add(1);
                    running
                        .interrupt
                        .warn(format_args!("the host gives no random bytes: {error}"));
                    break;
                }
                given = given.saturating_add(chain.write(&running.ram, chunk));
            }
            turn = turn.saturating_add(given);
            self.bytes = self.bytes.saturating_add(given as u64);
            self.throttle.spend(given as u64);
            let given = u32::try_from(given).unwrap_or_default();
            running.queue.complete(chain, given);
        };
        if let Some(running) = &mut self.running {
            running.queue.notify();
        }
        progress
    }

    fn event(&mut self, _token: u32) {
        // The limit bounds a turn as well as a ring's: what is left waits for the timer again.
        if self.throttle.is_over() && self.queue_ready(REQUESTS) == Progress::More {
            self.throttle.look_again();
        }
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let DeviceCommand::Limit(limits) = command else {
            return Err(CommandError::NotSupported);
        };
        self.throttle.set(limits).map_err(CommandError::Host)
    }

    fn save(&self) -> Vec<u8> {
        let limits = self.throttle.save();
        RngStateV1 { limits }.to_tagged()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let RngStateV1 { limits } = RngStateV1::from_tagged(state)?;
        self.throttle.restore(&limits)
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn inspect(&self) -> Report {
        Report::new()
            .with("kind", "rng")
            .with("started", self.running.is_some())
            .with("requests", self.requests)
            .with("bytes", self.bytes)
            .with("host_errors", self.host_errors)
            .with("waits_for_limit", self.waits)
    }
}

/// Fills all of `chunk`, which may take more than one call after a signal.
fn fill(chunk: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = chunk.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(got) => done = done.saturating_add(got),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
