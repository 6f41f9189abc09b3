//! Whether the vCPUs may enter the guest: the one word by which the control thread holds them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
}

/// Stands between the vCPU threads and the guest.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether something else is wanted than to run: read before each entry of the guest.
    closed: AtomicBool,
}

impl Gate {
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

    /// Waits, on a vCPU's thread, until it may run or is to end. `stands` is called once it counts
    /// as standing still.
    pub(super) fn wait(&self, stands: impl FnOnce()) {
        let mut state = self.lock();
        state.outside += 1;
        // Not under the lock: who hears of it asks for the count.
        drop(state);
        stands();
        state = self.lock();
        while state.wanted == Wanted::Pause {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.outside -= 1;
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

    #[test]
    fn who_waits_is_counted_until_it_may_run() {
        let gate = Gate::default();
        assert_eq!((gate.wanted(), gate.outside()), (Wanted::Run, 0));
        gate.want(Wanted::Pause);
        let (stands, standing) = channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.wait(|| stands.send(()).unwrap()));
            standing.recv().unwrap();
            assert_eq!(gate.outside(), 1);
            gate.want(Wanted::Run);
            waiter.join().unwrap();
        });
        assert_eq!(gate.outside(), 0);
        // Without a pause nobody waits.
        gate.wait(|| ());
        gate.leave();
        assert_eq!(gate.outside(), 1);
    }

    #[test]
    fn an_end_is_final_and_ends_a_pause() {
        let gate = Gate::default();
        gate.want(Wanted::Pause);
        let (stands, standing) = channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.wait(|| stands.send(()).unwrap()));
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
