//! A vCPU thread's account of its own CPU time, against the quota that all of them share. Nothing
//! is measured where there is none.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::gate::Gate;
use crate::kvm::Kicker;
use crate::sys::CpuTimer;

/// How long a thread goes on that was called away before it was told how long it may.
const SOON: Duration = Duration::from_millis(1);

/// The account.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Takes the thread out of the guest when it is to come again.
    timer: Option<CpuTimer>,
    /// What the thread had used when it came last.
    charged: Duration,
}

impl Meter {
    /// Whether this host has the timers that it takes.
    ///
    /// # Errors
    /// The host's reason.
    pub(super) fn try_out() -> std::io::Result<()> {
        CpuTimer::new(Kicker::signal()).map(drop)
    }

    /// Lets the thread wait while the vCPUs have used too much. To be called, on that thread,
    /// whenever it was taken out of the guest.
    pub(super) fn take_account(&mut self, gate: &Gate) {
        if !gate.is_limited() {
            self.timer = None;
            return;
        }
        let used = cpu_time();
        if self.timer.is_none() {
            match CpuTimer::new(Kicker::signal()) {
                Ok(timer) => self.timer = Some(timer),
                Err(cause) => log::error!("a vCPU's CPU time is not limited: {cause}"),
            }
            self.charged = used;
        }
        let since = used.saturating_sub(self.charged);
        self.charged = used;
        let slice = gate.charge(since).unwrap_or(SOON);
        if let Some(timer) = &self.timer {
            timer.set(slice);
        }
    }
}

/// What the calling thread has used, in its guest too.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime)
        .try_into()
        .unwrap_or_default()
}
