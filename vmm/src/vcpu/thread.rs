//! The threads themselves: start, the run loop, kicks, pauses, the end.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use devices::Doorbell;
use vmm_sys_util::signal::Killable as _;

use super::dispatch::{Buses, Flow, dispatch};
use super::gate::{Gate, Wanted};
use super::meter::Meter;
use crate::kvm::exit::Unhandled;
use crate::kvm::state::VcpuStateV1;
use crate::kvm::{Exit, Kicker, RunError, Vcpu};
use crate::snapshot::SaveError;

/// A kicked thread leaves the guest within microseconds; a kick that got lost is repeated.
const KICK_AGAIN: Duration = Duration::from_millis(10);

/// A thread that stands still tells its state within a millisecond, unless the host hangs.
const SAVE_PATIENCE: Duration = Duration::from_secs(5);

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

/// What a vCPU's thread does while it stands still.
type Errand = Arc<dyn Fn(&Vcpu) + Send + Sync>;

/// All vCPU threads of a machine. Dropped, they are stopped and joined.
#[derive(Debug)]
pub(crate) struct VcpuThreads {
    threads: Vec<JoinHandle<()>>,
    gate: Arc<Gate>,
    errands: Vec<Sender<Errand>>,
    ends: Receiver<VcpuEnd>,
    ended: Doorbell,
    standing: Doorbell,
    /// Carries nothing: it disconnects when the last thread has left the guest.
    alive: Receiver<()>,
}

impl VcpuThreads {
    /// Starts one thread a vCPU. They run the guest at once, or stand still until
    /// [`resume`](Self::resume) if `standing`.
    ///
    /// # Errors
    /// The host's reason when a thread, or the eventfd of their ends, can't be had.
    pub(crate) fn start(
        vcpus: Vec<Vcpu>,
        buses: &Arc<Buses>,
        standing: bool,
    ) -> std::io::Result<Self> {
        Kicker::install()?;
        let (sender, ends) = channel();
        let (alive_sender, alive) = channel();
        let mut all = Self {
            threads: Vec::with_capacity(vcpus.len()),
            gate: Arc::new(Gate::new(match standing {
                true => Wanted::Pause,
                false => Wanted::Run,
            })),
            errands: Vec::with_capacity(vcpus.len()),
            ends,
            ended: Doorbell::new()?,
            standing: Doorbell::new()?,
            alive,
        };
        for vcpu in vcpus {
            let (errand_sender, errands) = channel();
            all.errands.push(errand_sender);
            let runner = Runner {
                buses: Arc::clone(buses),
                gate: Arc::clone(&all.gate),
                errands,
                sender: sender.clone(),
                ended: all.ended.try_clone()?,
                standing: all.standing.try_clone()?,
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

    /// Lets the vCPUs go on, wherever they are on their way to a pause.
    pub(crate) fn resume(&self) {
        self.gate.want(Wanted::Run);
    }

    /// Makes every vCPU stand still at a completed exit: whether all do. To be called again until
    /// they do; [`standing`](Self::standing) rings when it is worth it.
    pub(crate) fn pause(&self) -> bool {
        self.gate.want(Wanted::Pause);
        self.standing.clear();
        let all_stand = self.gate.outside() == self.threads.len();
        if !all_stand {
            self.kick();
        }
        all_stand
    }

    /// Limits how much of the host's CPUs all vCPUs together use, in hundredths of one CPU, or not
    /// any more.
    ///
    /// # Errors
    /// The host's reason when it has no timers for that; nothing has changed then.
    pub(crate) fn limit(&self, percent: Option<NonZeroU32>) -> std::io::Result<()> {
        if percent.is_some() {
            Meter::try_out()?;
        }
        self.gate.limit(percent);
        self.kick();
        Ok(())
    }

    /// The state of every vCPU, all of which stand still, in the order of their numbers. `msrs` are
    /// those of [`Kvm::saved_msrs`](crate::kvm::Kvm::saved_msrs).
    ///
    /// # Errors
    /// KVM's refusal, or a thread that is gone.
    pub(crate) fn save(&self, msrs: Vec<u32>) -> Result<Vec<VcpuStateV1>, SaveError> {
        let (sender, saved) = channel();
        let errand: Errand = Arc::new(move |vcpu| {
            // Nobody listens any more once one of them has failed.
            let _ = sender.send(vcpu.save(&msrs));
        });
        for errands in &self.errands {
            // A thread that is gone shows below: its state is missing.
            let _ = errands.send(Arc::clone(&errand));
        }
        drop(errand);
        self.gate.send_on_errand();
        let mut states = Vec::with_capacity(self.threads.len());
        while states.len() < self.threads.len() {
            match saved.recv_timeout(SAVE_PATIENCE) {
                Ok(state) => states.push(state?),
                Err(_) => return Err(SaveError::Cpus),
            }
        }
        states.sort_by_key(|state| state.id);
        Ok(states)
    }

    /// Rings when a vCPU stands still.
    pub(crate) fn standing(&self) -> &Doorbell {
        &self.standing
    }

    /// Takes whoever is in the guest out of it.
    fn kick(&self) {
        for thread in &self.threads {
            // Fails only for a thread that is gone, which the next look shows.
            let _ = thread.kill(Kicker::signal());
        }
    }

    /// Takes every vCPU out of the guest for good: whether all ended within `patience`.
    pub(crate) fn stop_within(&mut self, patience: Duration) -> bool {
        self.gate.want(Wanted::Stop);
        let start = Instant::now();
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if start.elapsed() >= patience {
                return false;
            }
            self.kick();
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
    gate: Arc<Gate>,
    errands: Receiver<Errand>,
    sender: Sender<VcpuEnd>,
    ended: Doorbell,
    standing: Doorbell,
    _alive: Sender<()>,
}

impl Runner {
    fn run(self, mut vcpu: Vcpu) {
        vcpu.adopt();
        let end = self.serve_exits(&mut vcpu);
        self.gate.leave();
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
        let mut meter = Meter::default();
        loop {
            let ended = match self.gate.wanted() {
                Wanted::Run => self.turn(vcpu, &mut meter),
                Wanted::Pause => self.stand_still(vcpu, &mut meter),
                Wanted::Stop => return None,
            };
            if ended.is_some() {
                return ended;
            }
        }
    }

    fn turn(&self, vcpu: &mut Vcpu, meter: &mut Meter) -> Option<VcpuEnd> {
        let id = vcpu.id();
        match vcpu.run() {
            Ok(Exit::Kicked) => {
                meter.take_account(&self.gate);
                None
            }
            Ok(exit) => self.serve(exit, id),
            Err(cause) => Some(VcpuEnd::Host(cause)),
        }
    }

    fn stand_still(&self, vcpu: &mut Vcpu, meter: &mut Meter) -> Option<VcpuEnd> {
        let id = vcpu.id();
        loop {
            match vcpu.finish() {
                Ok(Some(exit)) => {
                    if let Some(end) = self.serve(exit, id) {
                        return Some(end);
                    }
                }
                Ok(None) => break,
                Err(cause) => return Some(VcpuEnd::Host(cause)),
            }
        }
        let errand = || self.errands.try_iter().for_each(|errand| errand(vcpu));
        self.gate.wait(|| self.standing.ring(), errand);
        vcpu.tell_of_pause();
        // A limit that came meanwhile has kicked in vain.
        meter.take_account(&self.gate);
        None
    }

    fn serve(&self, exit: Exit<'_>, id: u8) -> Option<VcpuEnd> {
        match dispatch(exit, &self.buses) {
            Flow::Continue => None,
            Flow::TripleFault => Some(VcpuEnd::TripleFault),
            Flow::Fatal(why) => Some(VcpuEnd::Fatal { id, why }),
        }
    }
}
