//! Whether the vCPUs may enter the guest: the one word by which the control thread holds them, and
//! the quota of CPU time that they share.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::quota::{Pool, Verdict};

/// What the vCPUs are to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Run the guest.
    #[default]
    Run,
    /// Stand still outside of it, at a completed exit.
    Pause,
    /// End.
    Stop,
}

#[derive(Debug, Default)]
struct State {
    wanted: Wanted,
    /// How many threads stand still or have ended.
    outside: usize,
    /// What the threads may use, if that is limited.
    pool: Option<Pool>,
    /// Counts the errands of those who stand still.
    errands: u64,
}

/// Stands between the vCPU threads and the guest.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether something else is wanted than to run: read before each entry of the guest.
    closed: AtomicBool,
    /// Whether there is a pool: read when a thread was taken out of the guest.
    limited: AtomicBool,
}

impl Gate {
    /// With this wanted from the beginning.
    pub(super) fn new(wanted: Wanted) -> Self {
        let gate = Self::default();
        gate.want(wanted);
        gate
    }

    /// Says what the vCPUs are to do. Who is in the guest has to be kicked besides.
    pub(super) fn want(&self, wanted: Wanted) {
        let mut state = self.lock();
        // An end is final.
        if state.wanted != Wanted::Stop {
            state.wanted = wanted;
        }
        self.closed
            .store(state.wanted != Wanted::Run, Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    /// What the vCPUs are to do.
    pub(super) fn wanted(&self) -> Wanted {
        match self.closed.load(Ordering::Acquire) {
            false => Wanted::Run,
            true => self.lock().wanted,
        }
    }

    /// Limits what the threads use of the host's CPUs, in hundredths of one of them, or not any
    /// more. Who is in the guest has to be kicked to hear of it.
    pub(super) fn limit(&self, percent: Option<NonZeroU32>) {
        let mut state = self.lock();
        state.pool = percent.map(|percent| Pool::new(percent, Instant::now()));
        self.limited.store(percent.is_some(), Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    /// Whether they are limited.
    pub(super) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Acquire)
    }

    /// Takes account, on a vCPU's thread, of what it has used since the last time, and lets it wait
    /// while that is too much: how much it may use before it is to come again. None where it is to
    /// look at what is wanted, or there is no limit any more.
    pub(super) fn charge(&self, mut used: Duration) -> Option<Duration> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let until = match state.pool.as_mut()?.charge(used, now) {
                Verdict::Go(slice) => return Some(slice),
                Verdict::Wait(until) => until,
            };
            used = Duration::ZERO;
            if state.wanted != Wanted::Run {
                return None;
            }
            let left = until.saturating_duration_since(now);
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits, on a vCPU's thread, until it may run or is to end. `stands` is called once it counts
    /// as standing still, `errand` whenever one is asked for meanwhile.
    pub(super) fn wait(&self, stands: impl FnOnce(), mut errand: impl FnMut()) {
        let mut state = self.lock();
        state.outside += 1;
        let mut done = state.errands;
        // Not under the lock: who hears of it asks for the count.
        drop(state);
        stands();
        state = self.lock();
        while state.wanted == Wanted::Pause {
            if state.errands != done {
                done = state.errands;
                drop(state);
                errand();
                state = self.lock();
                continue;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.outside -= 1;
    }

    /// Asks everyone who stands still for an errand.
    pub(super) fn send_on_errand(&self) {
        self.lock().errands += 1;
        self.changed.notify_all();
    }

    /// A vCPU's thread never enters the guest again.
    pub(super) fn leave(&self) {
        self.lock().outside += 1;
    }

    /// How many threads are outside of the guest and stay there for now.
    pub(super) fn outside(&self) -> usize {
        self.lock().outside
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// A debt of days, with a quota of a hundredth of a CPU.
    const USED: Duration = Duration::from_secs(3600);

    #[test]
    fn who_waits_is_counted_until_it_may_run() {
        let gate = Gate::default();
        assert_eq!((gate.wanted(), gate.outside()), (Wanted::Run, 0));
        gate.want(Wanted::Pause);
        let (stands, standing) = channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.wait(|| stands.send(()).unwrap(), || ()));
            standing.recv().unwrap();
            assert_eq!(gate.outside(), 1);
            gate.want(Wanted::Run);
            waiter.join().unwrap();
        });
        assert_eq!(gate.outside(), 0);
        // Without a pause nobody waits.
        gate.wait(|| (), || ());
        gate.leave();
        assert_eq!(gate.outside(), 1);
    }

    #[test]
    fn who_has_used_too_much_waits_until_the_limit_goes() {
        let gate = Gate::default();
        assert!(!gate.is_limited());
        assert_eq!(gate.charge(Duration::MAX), None, "there is no limit");
        gate.limit(NonZeroU32::new(1));
        assert!(gate.is_limited());
        assert!(gate.charge(Duration::ZERO).is_some());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.charge(USED));
            let other = scope.spawn(|| gate.charge(USED));
            gate.limit(None);
            assert_eq!(waiter.join().unwrap(), None);
            assert_eq!(other.join().unwrap(), None);
        });
    }

    #[test]
    fn who_has_used_too_much_still_pauses_and_ends() {
        for wanted in [Wanted::Pause, Wanted::Stop] {
            let gate = Gate::default();
            gate.limit(NonZeroU32::new(1));
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| gate.charge(USED));
                gate.want(wanted);
                assert_eq!(waiter.join().unwrap(), None);
            });
            assert!(gate.is_limited());
        }
    }

    #[test]
    fn who_waits_runs_errands_and_stays() {
        let gate = Gate::default();
        gate.want(Wanted::Pause);
        let (stands, standing) = channel();
        let (done, errands) = channel();
        std::thread::scope(|scope| {
            let (gate, stands) = (&gate, stands);
            let wait = move || {
                gate.wait(|| stands.send(()).unwrap(), || done.send(()).unwrap());
            };
            let waiter = scope.spawn(wait);
            standing.recv().unwrap();
            for _ in 0..3 {
                gate.send_on_errand();
                errands.recv().unwrap();
                assert_eq!(gate.outside(), 1);
            }
            gate.want(Wanted::Run);
            waiter.join().unwrap();
        });
        assert!(errands.recv().is_err(), "more errands than were asked for");
    }

    #[test]
    fn an_end_is_final_and_ends_a_pause() {
        let gate = Gate::default();
        gate.want(Wanted::Pause);
        let (stands, standing) = channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.wait(|| stands.send(()).unwrap(), || ()));
            standing.recv().unwrap();
            gate.want(Wanted::Stop);
            waiter.join().unwrap();
        });
        for wanted in [Wanted::Run, Wanted::Pause] {
            gate.want(wanted);
            assert_eq!(gate.wanted(), Wanted::Stop);
        }
    }
}
