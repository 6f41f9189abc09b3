//! Timers for devices on an I/O loop: descriptors that become readable when their time has come.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_gettime, timerfd_settime,
};

/// A timer of the host's monotonic clock, which stands still until it is set.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// Makes a timer.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Lets it run out once, after `time`; at once when that is zero.
    pub fn after(&self, time: Duration) {
        self.set(time.max(Duration::from_nanos(1)), Duration::ZERO);
    }

    /// Lets it run out again and again, `interval` apart; never when that is zero.
    pub fn every(&self, interval: Duration) {
        self.set(interval, interval);
    }

    /// Stops it. A time that has come and was not [taken](Self::take) is forgotten too.
    pub fn stop(&self) {
        self.set(Duration::ZERO, Duration::ZERO);
    }

    /// Whether it is going to run out.
    pub fn is_set(&self) -> bool {
        self.left().is_some()
    }

    /// How long it is until it runs out; none when it stands still.
    pub fn left(&self) -> Option<Duration> {
        let left = timerfd_gettime(&self.0).ok()?.it_value;
        let left = Duration::try_from(left).ok()?;
        (!left.is_zero()).then_some(left)
    }

    /// Silences it: whether it had run out since the last call.
    pub fn take(&self) -> bool {
        rustix::io::read(&self.0, &mut [0_u8; 8]).is_ok()
    }

    fn set(&self, first: Duration, interval: Duration) {
        // A time beyond the clock's end is never reached either way.
        let far = Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        };
        let spec = |time: Duration| Timespec::try_from(time).unwrap_or(far);
        let new = Itimerspec {
            it_interval: spec(interval),
            it_value: spec(first),
        };
        // Fails only for a descriptor that is no timer or a time that is none.
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &new);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_out_when_it_is_set_and_not_when_it_was_stopped() {
        let timer = Timer::new().unwrap();
        assert!(!timer.is_set() && !timer.take());
        timer.after(Duration::ZERO);
        let fd = rustix::event::PollFlags::IN;
        let mut polled = [rustix::event::PollFd::new(&timer, fd)];
        rustix::event::poll(&mut polled, None).unwrap();
        assert!(timer.take() && !timer.take());
        timer.every(Duration::MAX);
        assert!(timer.is_set() && !timer.take());
        timer.stop();
        assert!(!timer.is_set());
        timer.every(Duration::ZERO);
        assert!(!timer.is_set());
    }
}
