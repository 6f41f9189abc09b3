//! The threads themselves: start, the run loop, kicks, the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use devices::Doorbell;
use vmm_sys_util::signal::Killable as _;

use super::dispatch::{Buses, Flow, dispatch};
use crate::kvm::exit::Unhandled;
use crate::kvm::{Kicker, RunError, Vcpu};

/// A kicked thread leaves the guest within microseconds; a kick that got lost is repeated.
const KICK_AGAIN: Duration = Duration::from_millis(10);

/// Why a vCPU's loop ended by itself.
#[derive(Debug)]
pub(crate) enum VcpuEnd {
    /// A triple fault.
    TripleFault,
    /// The guest can't go on.
    Fatal {
        /// The vCPU.
        id: u8,
        /// Why.
        why: Unhandled,
    },
    /// The host refused.
    Host(RunError),
}

/// All vCPU threads of a machine. Dropped, they are stopped and joined.
#[derive(Debug)]
pub(crate) struct VcpuThreads {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    ends: Receiver<VcpuEnd>,
    ended: Doorbell,
    /// Carries nothing: it disconnects when the last thread has left the guest.
    alive: Receiver<()>,
}

impl VcpuThreads {
    /// Starts one thread a vCPU; they run the guest at once.
    ///
    /// # Errors
    /// The host's reason when a thread, or the eventfd of their ends, can't be had.
    pub(crate) fn start(vcpus: Vec<Vcpu>, buses: &Arc<Buses>) -> std::io::Result<Self> {
        Kicker::install()?;
        let (sender, ends) = channel();
        let (alive_sender, alive) = channel();
        let mut all = Self {
            threads: Vec::with_capacity(vcpus.len()),
            stop: Arc::default(),
            ends,
            ended: Doorbell::new()?,
            alive,
        };
        for vcpu in vcpus {
            let runner = Runner {
                buses: Arc::clone(buses),
                stop: Arc::clone(&all.stop),
                sender: sender.clone(),
                ended: all.ended.try_clone()?,
                _alive: alive_sender.clone(),
            };
            let name = format!("vcpu-{}", vcpu.id());
            all.threads
                .push(Builder::new().name(name).spawn(move || runner.run(vcpu))?);
        }
        Ok(all)
    }

    /// Rings when a vCPU ended by itself.
    pub(crate) fn ended(&self) -> &Doorbell {
        &self.ended
    }

    /// The next end that a vCPU reported.
    pub(crate) fn next_end(&self) -> Option<VcpuEnd> {
        self.ended.clear();
        self.ends.try_recv().ok()
    }
}

impl VcpuThreads {
    /// Takes every vCPU out of the guest for good: whether all ended within `patience`.
    pub(crate) fn stop_within(&mut self, patience: Duration) -> bool {
        self.stop.store(true, Ordering::Release);
        let start = Instant::now();
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if start.elapsed() >= patience {
                return false;
            }
            for thread in &self.threads {
                // Fails only for a thread that is gone, which the next look shows.
                let _ = thread.kill(Kicker::signal());
            }
            // Every thread closes its sender as its last act, so this ends when all are gone.
            if self.alive.recv_timeout(KICK_AGAIN) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        for thread in self.threads.drain(..) {
            // A vCPU thread that panicked has aborted the process already.
            let _ = thread.join();
        }
        true
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.stop_within(Duration::MAX);
    }
}

struct Runner {
    buses: Arc<Buses>,
    stop: Arc<AtomicBool>,
    sender: Sender<VcpuEnd>,
    ended: Doorbell,
    _alive: Sender<()>,
}

impl Runner {
    fn run(self, mut vcpu: Vcpu) {
        vcpu.adopt();
        let end = self.serve_exits(&mut vcpu);
        if let Some(counts) = vcpu.assisted() {
            log::info!("vCPU {}: completed for a weak KVM: {counts:?}", vcpu.id());
        }
        if let Some(end) = end {
            // The receiver is gone only when the machine is being torn down.
            let _ = self.sender.send(end);
            self.ended.ring();
        }
    }

    /// Runs the guest until it is told to stop, which is `None`, or cannot go on.
    fn serve_exits(&self, vcpu: &mut Vcpu) -> Option<VcpuEnd> {
        while !self.stop.load(Ordering::Acquire) {
            let flow = match vcpu.run() {
                Ok(exit) => dispatch(exit, &self.buses),
                Err(cause) => return Some(VcpuEnd::Host(cause)),
            };
            match flow {
                Flow::Continue => {}
                Flow::TripleFault => return Some(VcpuEnd::TripleFault),
                Flow::Fatal(why) => return Some(VcpuEnd::Fatal { id: vcpu.id(), why }),
            }
        }
        None
    }
}
