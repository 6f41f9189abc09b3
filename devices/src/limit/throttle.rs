//! A device's limits with the timer that ends a wait for them, for a device on an I/O loop.

use std::io;
use std::time::{Duration, Instant};

use super::{Limits, LimitsStateV1, Pace};
use crate::state::BadState;
use crate::timer::Timer;
use crate::virtio::Watches;

/// Who waits for tokens is not woken sooner than this.
const LEAST_WAIT: Duration = Duration::from_micros(100);

/// What holds a device's requests back. Without limits it has no descriptor and reads no clock.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    pace: Pace,
    /// There from the first limit on.
    timer: Option<Timer>,
    watches: Watches,
    token: u32,
}

impl Throttle {
    /// Tells the device's loop of the timer, now or once there is one: its event is `token`.
    pub(crate) fn attach(&mut self, watches: Watches, token: u32) {
        if let Some(timer) = &self.timer {
            watches.readable(timer, token);
        }
        (self.watches, self.token) = (watches, token);
    }

    /// Sets new limits, with full buckets. What waited under the old ones is looked at again.
    ///
    /// # Errors
    /// When the process has no file descriptor left; the old limits stay.
    pub(crate) fn set(&mut self, limits: Limits) -> io::Result<()> {
        if limits != Limits::default() {
            self.make_timer()?;
        }
        self.pace = Pace::new(limits, Instant::now());
        self.look_again();
        Ok(())
    }

    /// The limits, and how much of them is used up.
    pub(crate) fn save(&self) -> LimitsStateV1 {
        self.pace.save(Instant::now())
    }

    /// Takes limits as they were.
    ///
    /// # Errors
    /// When they cannot be.
    pub(crate) fn restore(&mut self, state: &LimitsStateV1) -> Result<(), BadState> {
        let pace = Pace::restore(state, Instant::now())?;
        if pace.is_limited() {
            let refused = |error: io::Error| BadState::Refused(error.to_string());
            self.make_timer().map_err(refused)?;
        }
        self.pace = pace;
        Ok(())
    }

    /// Makes the timer that [`look_again`](Self::look_again) needs also without limits.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(crate) fn make_timer(&mut self) -> io::Result<()> {
        if self.timer.is_none() {
            let timer = Timer::new()?;
            self.watches.readable(&timer, self.token);
            self.timer = Some(timer);
        }
        Ok(())
    }

    /// Takes what so many bytes and operations cost: false when that is not there yet, and then
    /// the timer tells when.
    pub(crate) fn take(&mut self, bytes: u64, operations: u64) -> bool {
        if !self.pace.is_limited() {
            return true;
        }
        let taken = self.pace.take(bytes, operations, Instant::now());
        taken.map_err(|wait| self.wait(wait)).is_ok()
    }

    /// How many bytes should be taken at once: what is more is felt only afterwards.
    pub(crate) fn portion(&self) -> u64 {
        self.pace.portion()
    }

    fn wait(&self, wait: Duration) {
        if let Some(timer) = &self.timer {
            timer.after(wait.max(LEAST_WAIT));
        }
    }

    /// How many bytes a request may move now; none when it has to wait until it may move
    /// `worth`, and then the timer tells when.
    pub(crate) fn grant(&mut self, worth: u64) -> Option<u64> {
        if !self.pace.is_limited() {
            return Some(u64::MAX);
        }
        match self.pace.grant(worth, Instant::now()) {
            Ok(bytes) => Some(bytes),
            Err(wait) => {
                self.wait(wait);
                None
            }
        }
    }

    /// A request moved so many bytes.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.pace.spend(bytes);
    }

    /// Whether a wait has ended since the last call.
    pub(crate) fn is_over(&self) -> bool {
        self.timer.as_ref().is_some_and(Timer::take)
    }

    /// Lets the timer run out at once, for what a turn of the loop left over.
    pub(crate) fn look_again(&self) {
        if let Some(timer) = &self.timer {
            timer.after(Duration::ZERO);
        }
    }
}
