//! The entropy device (virtio 1.2, 5.4): hands out random bytes of the host's kernel.

use std::sync::Arc;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{
    ConfigSpace, Identity, Interrupt, Progress, StartContext, StartError, VirtioDevice, Virtqueue,
};
use crate::inspect::Report;
use crate::ram::GuestRam;

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
/// How much the host is asked for at once.
const CHUNK: usize = 4096;

#[derive(Debug)]
struct Running {
    queue: Virtqueue,
    ram: GuestRam,
    interrupt: Interrupt,
}

/// A source of random bytes, without features or configuration.
#[derive(Debug)]
pub struct Rng {
    config: Arc<ConfigSpace>,
    running: Option<Running>,
    requests: u64,
    bytes: u64,
    host_errors: u64,
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
        }
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

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        self.running = Some(Running {
            queue: context.take_queue(REQUESTS)?,
            ram: context.ram,
            interrupt: context.interrupt,
        });
        Ok(())
    }

    fn queue_ready(&mut self, _queue: usize) -> Progress {
        let Some(running) = &mut self.running else {
            return Progress::Idle;
        };
        let mut turn = 0;
        let mut left = REQUESTS_A_TURN;
        let progress = loop {
            if left == 0 || turn >= BYTES_A_TURN {
                break Progress::More;
            }
            left = left.saturating_sub(1);
            let Ok(Some(mut chain)) = running.queue.pop() else {
                break Progress::Idle;
            };
            self.requests = self.requests.saturating_add(1);
            let mut given = 0;
            while given < MOST_BYTES_A_REQUEST {
                let mut chunk = [0; CHUNK];
                let wanted = usize::try_from(chain.writable_bytes()).unwrap_or(CHUNK);
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
            let given = u32::try_from(given).unwrap_or_default();
            running.queue.complete(chain, given);
        };
        running.queue.notify();
        progress
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
