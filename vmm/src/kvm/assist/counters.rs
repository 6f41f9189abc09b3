//! Counts what was completed: relaxed atomics, written by one vCPU thread, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

/// Running totals of one vCPU.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) instructions: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) system_calls: AtomicU64,
    pub(super) system_returns: AtomicU64,
    pub(super) software_interrupts: AtomicU64,
    pub(super) faults_passed: AtomicU64,
    pub(super) single_steps: AtomicU64,
    pub(super) unknown: AtomicU64,
}

/// A reading of [`Counters`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Instructions performed in place of the host's emulator, `sysret` aside.
    pub instructions: u64,
    /// Exceptions given to the guest on behalf of such an instruction.
    pub faults: u64,
    /// `syscall` entries completed.
    pub system_calls: u64,
    /// `sysret` instructions completed.
    pub system_returns: u64,
    /// `int n` instructions of user code completed.
    pub software_interrupts: u64,
    /// The guest's own faults that hit a breakpoint.
    pub faults_passed: u64,
    /// Single steps needed to get past the breakpoint.
    pub single_steps: u64,
    /// Instructions that could not be completed.
    pub unknown: u64,
}

impl Counters {
    /// The totals at this moment.
    pub fn read(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            instructions: get(&self.instructions),
            faults: get(&self.faults),
            system_calls: get(&self.system_calls),
            system_returns: get(&self.system_returns),
            software_interrupts: get(&self.software_interrupts),
            faults_passed: get(&self.faults_passed),
            single_steps: get(&self.single_steps),
            unknown: get(&self.unknown),
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
