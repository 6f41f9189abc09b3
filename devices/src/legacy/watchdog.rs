//! A watchdog as the IB700 board has it: a guest that stops feeding it is ended, or reported.
//!
//! Attach it at port 0x441, three ports long:
//!
//! | offset | register | access |
//! |---|---|---|
//! | 0 | stop | any write stops the watchdog |
//! | 2 | start | a write starts it, or feeds it: the low four bits choose 30, 28, … 0 seconds |
//!
//! It stands still until the guest starts it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use crate::bus::{BadAccess, BusDevice, Width};
use crate::inspect::Report;
use crate::line::{PowerEvent, PowerLine};
use crate::state;
use crate::state::{BadState, NotSaved, Persist, Section};
use crate::timer::Timer;

const STOP: u64 = 0;
const START: u64 = 2;

/// The longest time, and how much shorter it gets with each step of the register.
const LONGEST_SECONDS: u64 = 30;
const STEP_SECONDS: u64 = 2;
const STEPS: u64 = 0xf;

/// What happens when the guest did not feed its watchdog in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WatchdogAction {
    /// The machine is reset.
    Reset,
    /// The machine is switched off.
    PowerOff,
    /// It is logged and counted, and the guest goes on.
    Report,
}

#[derive(Debug)]
struct Shared {
    timer: Timer,
    /// In a pause, what is left of its time.
    left: Mutex<Option<Duration>>,
    fed: AtomicU64,
    fired: AtomicU64,
}

impl Shared {
    fn left(&self) -> MutexGuard<'_, Option<Duration>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registers, for the bus of ports.
#[derive(Debug)]
pub struct Watchdog(Arc<Shared>);

/// The timer's side, for an I/O loop.
#[derive(Debug)]
pub struct WatchdogTimer {
    shared: Arc<Shared>,
    action: WatchdogAction,
    power: PowerLine,
}

/// The way to let a watchdog sleep while its guest stands still and cannot feed it.
#[derive(Debug)]
pub struct WatchdogPause {
    shared: Arc<Shared>,
}

/// Makes a watchdog that stands still; what it ends is reported on `power`.
///
/// # Errors
/// When the process has no file descriptor left.
pub fn watchdog(action: WatchdogAction, power: PowerLine) -> io::Result<(Watchdog, WatchdogTimer)> {
    let shared = Arc::new(Shared {
        timer: Timer::new()?,
        left: Mutex::default(),
        fed: AtomicU64::new(0),
        fired: AtomicU64::new(0),
    });
    let registers = Watchdog(Arc::clone(&shared));
    let timer = WatchdogTimer {
        shared,
        action,
        power,
    };
    Ok((registers, timer))
}

impl Watchdog {
    /// The way to let it sleep.
    pub fn pauses(&self) -> WatchdogPause {
        WatchdogPause {
            shared: Arc::clone(&self.0),
        }
    }

    /// What it is and did.
    pub fn inspect(&self) -> Report {
        Report::new()
            .with("kind", "watchdog")
            .with("running", self.0.timer.is_set())
            .with("fed", self.0.fed.load(Ordering::Relaxed))
            .with("fired", self.0.fired.load(Ordering::Relaxed))
    }
}

impl WatchdogPause {
    /// Its time stands still; its guest must do so already.
    pub fn pause(&mut self) {
        let timer = &self.shared.timer;
        // One whose time is over is that after the pause too.
        let over = timer.take().then_some(Duration::ZERO);
        let mut left = self.shared.left();
        *left = left.or(over).or_else(|| timer.left());
        timer.stop();
    }

    /// Its time goes on.
    pub fn resume(&mut self) {
        if let Some(left) = self.shared.left().take() {
            self.shared.timer.after(left);
        }
    }
}

impl BusDevice for Watchdog {
    fn read(&mut self, _offset: u64, _width: Width) -> Result<u64, BadAccess> {
        Err(BadAccess)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        match (offset, width) {
            (STOP, Width::Byte) => self.0.timer.stop(),
            (START, Width::Byte) => {
                self.0.fed.fetch_add(1, Ordering::Relaxed);
                self.0.timer.after(time_of(value));
            }
            _ => return Err(BadAccess),
        }
        Ok(())
    }
}

state! {
    /// A watchdog in a pause.
    pub struct WatchdogStateV1: "watchdog", 1 {
        /// What is left of its time, in nanoseconds; none if the guest has not started it.
        pub left_ns: Option<u64>,
    }
}

impl Persist for Watchdog {
    fn save(&self) -> Result<Vec<u8>, NotSaved> {
        if self.0.timer.is_set() {
            return Err(NotSaved::Running);
        }
        let nanos = |left: Duration| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        let left_ns = self.0.left().map(nanos);
        Ok(WatchdogStateV1 { left_ns }.to_tagged())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let left = WatchdogStateV1::from_tagged(state)?.left_ns;
        let left = left.map(Duration::from_nanos);
        if let Some(left) = left.filter(|left| *left > time_of(0)) {
            let seconds = left.as_secs();
            return Err(BadState::value("the seconds of a watchdog", seconds));
        }
        self.0.timer.stop();
        *self.0.left() = left;
        Ok(())
    }
}

fn time_of(value: u64) -> Duration {
    let shorter = (value & STEPS).saturating_mul(STEP_SECONDS);
    Duration::from_secs(LONGEST_SECONDS.saturating_sub(shorter))
}

impl WatchdogTimer {
    /// Looks whether the time is over. One that was fed at the last moment is not: feeding takes
    /// the timer's event away.
    fn look(&self) {
        if !self.shared.timer.take() {
            return;
        }
        self.shared.fired.fetch_add(1, Ordering::Relaxed);
        let (outcome, event) = match self.action {
            WatchdogAction::Reset => ("the machine is reset", PowerEvent::WatchdogReset),
            WatchdogAction::PowerOff => ("the machine is switched off", PowerEvent::PowerOff),
            WatchdogAction::Report => ("the guest goes on", PowerEvent::WatchdogReported),
        };
        log::error!("watchdog: the guest has not fed it in time: {outcome}");
        self.power.report(event);
    }
}

impl MutEventSubscriber for WatchdogTimer {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.look();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.shared.timer, EventSet::IN)) {
            log::error!("watchdog: its timer cannot be watched: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::inspect::Value;
    use crate::line::{PowerEvents, power_line};

    fn made(action: WatchdogAction) -> (Watchdog, WatchdogTimer, PowerEvents) {
        let (power, events) = power_line().unwrap();
        let (registers, timer) = watchdog(action, power).unwrap();
        (registers, timer, events)
    }

    #[test]
    fn the_register_counts_down_from_thirty_seconds() {
        for (value, seconds) in [
            (0, 30),
            (1, 28),
            (5, 20),
            (0xe, 2),
            (0xf, 0),
            (0x10, 30),
            (0xff, 0),
        ] {
            assert_eq!(time_of(value), Duration::from_secs(seconds), "{value:#x}");
        }
    }

    #[test]
    fn a_guest_that_stops_feeding_is_ended_once() {
        for (action, event) in [
            (WatchdogAction::Reset, PowerEvent::WatchdogReset),
            (WatchdogAction::PowerOff, PowerEvent::PowerOff),
            (WatchdogAction::Report, PowerEvent::WatchdogReported),
        ] {
            let (mut registers, timer, events) = made(action);
            timer.look();
            assert_eq!(events.take(), None, "not started");
            registers.write(START, Width::Byte, 0xf).unwrap();
            poll(&mut [PollFd::new(&timer.shared.timer, PollFlags::IN)], None).unwrap();
            // Fed at the last moment: its time is not over any more.
            registers.write(START, Width::Byte, 0).unwrap();
            timer.look();
            assert_eq!(events.take(), None);
            registers.write(START, Width::Byte, 0xf).unwrap();
            poll(&mut [PollFd::new(&timer.shared.timer, PollFlags::IN)], None).unwrap();
            timer.look();
            timer.look();
            assert_eq!(events.take(), Some(event));
            assert_eq!(events.take(), None);
            let report = registers.inspect();
            assert_eq!(report.find("fired"), Some(&Value::Number(1)));
            assert_eq!(report.find("fed"), Some(&Value::Number(3)));
            assert_eq!(report.find("running"), Some(&Value::Flag(false)));
        }
    }

    #[test]
    fn it_sleeps_while_its_guest_is_paused() {
        let (mut registers, timer, events) = made(WatchdogAction::Reset);
        let mut pause = registers.pauses();
        pause.pause();
        pause.resume();
        assert!(!timer.shared.timer.is_set(), "one that was not started");
        registers.write(START, Width::Byte, 0).unwrap();
        pause.pause();
        pause.pause();
        assert!(!timer.shared.timer.is_set());
        pause.resume();
        let left = timer.shared.timer.left().unwrap();
        assert!(left > Duration::ZERO && left <= Duration::from_secs(30));
        // One whose time was over bites afterwards.
        registers.write(START, Width::Byte, 0xf).unwrap();
        poll(&mut [PollFd::new(&timer.shared.timer, PollFlags::IN)], None).unwrap();
        pause.pause();
        timer.look();
        assert_eq!(events.take(), None);
        pause.resume();
        poll(&mut [PollFd::new(&timer.shared.timer, PollFlags::IN)], None).unwrap();
        timer.look();
        assert_eq!(events.take(), Some(PowerEvent::WatchdogReset));
    }

    #[test]
    fn what_is_left_of_its_time_outlives_a_restore() {
        let (mut before, ..) = made(WatchdogAction::Reset);
        before.write(START, Width::Byte, 0).unwrap();
        assert_eq!(before.save(), Err(NotSaved::Running));
        before.pauses().pause();
        let state = before.save().unwrap();
        let (mut after, timer, _events) = made(WatchdogAction::Reset);
        after.restore(&state).unwrap();
        assert_eq!(after.save().unwrap(), state);
        assert!(!timer.shared.timer.is_set());
        let mut pause = after.pauses();
        // One that its monitor pauses once more keeps it.
        pause.pause();
        assert_eq!(after.save().unwrap(), state);
        pause.resume();
        assert!(timer.shared.timer.left().unwrap() > Duration::from_secs(1));
        let long = WatchdogStateV1 {
            left_ns: Some(30_000_000_001),
        };
        assert!(after.restore(&long.to_tagged()).is_err());
        crate::testing::persistence::cuts_are_refused(&mut after, &state);
    }

    #[test]
    fn it_is_stopped_and_knows_no_other_ports() {
        let (mut registers, timer, events) = made(WatchdogAction::Reset);
        registers.write(START, Width::Byte, 0).unwrap();
        assert!(timer.shared.timer.is_set());
        registers.write(STOP, Width::Byte, 0xff).unwrap();
        assert!(!timer.shared.timer.is_set());
        for offset in 0..3 {
            for width in [Width::Byte, Width::Word, Width::Dword] {
                assert_eq!(registers.read(offset, width), Err(BadAccess));
                if width != Width::Byte || offset == 1 {
                    assert_eq!(registers.write(offset, width, 0xf), Err(BadAccess));
                }
            }
        }
        assert!(!timer.shared.timer.is_set());
        assert_eq!(events.take(), None);
    }
}
