//! The judge of a machine's end: which event does what, in which state. Pure; no clock, no fd.
//!
//! ```text
//! Running ──stop signal──▶ Stopping (power button pressed, deadline set)
//!    │                        │
//!    └── guest's own end ─────┴── deadline, second stop signal, quit ──▶ ended
//! ```

use std::time::{Duration, Instant};

use devices::PowerEvent;
use devices::tty::UserRequest;

use crate::machine::{Ended, ResetCause};

/// Something that happened to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGTERM or another signal that would have ended the process.
    StopSignal,
    /// A client of the API wants the machine to stop within a time, or the usual one.
    Stop(Option<Duration>),
    /// A console's escape key.
    Request(UserRequest),
    /// The guest asked the platform for its end.
    Power(PowerEvent),
    /// A vCPU shut down.
    TripleFault,
    /// The deadline passed.
    Deadline,
}

/// What follows from an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Press the power button.
    PressButton,
    /// Press it, and let a machine that is paused go on to hear of it.
    AskToStop,
    /// The machine ends so.
    End(Ended),
    /// The machine goes on as before.
    Nothing,
}

/// Where a machine is on its way to the end.
#[derive(Debug)]
pub(crate) struct Stop {
    timeout: Duration,
    deadline: Option<Instant>,
}

impl Stop {
    /// A running machine, whose guest has `timeout` from a stop signal to its end.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            deadline: None,
        }
    }

    /// When [`Event::Deadline`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Judges one event at the time `now`.
    pub(crate) fn next(&mut self, event: Event, now: Instant) -> Next {
        match event {
            Event::StopSignal if self.deadline.is_some() => Next::End(Ended::Killed),
            Event::StopSignal => self.ask(self.timeout, now),
            // Once more is no impatience: a client cannot know whether another one has asked.
            Event::Stop(None) if self.deadline.is_some() => Next::AskToStop,
            Event::Stop(timeout) => self.ask(timeout.unwrap_or(self.timeout), now),
            Event::Request(UserRequest::PowerButton) => Next::PressButton,
            Event::Request(UserRequest::Quit) | Event::Deadline => Next::End(Ended::Killed),
            Event::Power(PowerEvent::PowerOff) => Next::End(Ended::PowerOff),
            Event::Power(PowerEvent::Reset) => Next::End(Ended::Reset(ResetCause::Asked)),
            Event::Power(PowerEvent::Panicked) => Next::End(Ended::Reset(ResetCause::Panic)),
            Event::Power(PowerEvent::WatchdogReset) => {
                Next::End(Ended::Reset(ResetCause::Watchdog))
            }
            // Told of already.
            Event::Power(PowerEvent::PanicReported | PowerEvent::WatchdogReported) => Next::Nothing,
            Event::TripleFault => Next::End(Ended::Reset(ResetCause::TripleFault)),
        }
    }
}

impl Stop {
    fn ask(&mut self, timeout: Duration, now: Instant) -> Next {
        // A timeout beyond the clock's end is no timeout: the far future will do.
        let far = now + Duration::from_secs(u32::MAX.into());
        self.deadline = Some(now.checked_add(timeout).unwrap_or(far));
        Next::AskToStop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(events: &[Event]) -> Vec<Next> {
        let mut stop = Stop::new(Duration::from_secs(5));
        let now = Instant::now();
        events.iter().map(|&event| stop.next(event, now)).collect()
    }

    #[test]
    fn the_guests_own_ends() {
        let ends = [
            (Event::Power(PowerEvent::PowerOff), Ended::PowerOff),
            (
                Event::Power(PowerEvent::Reset),
                Ended::Reset(ResetCause::Asked),
            ),
            (
                Event::Power(PowerEvent::Panicked),
                Ended::Reset(ResetCause::Panic),
            ),
            (
                Event::Power(PowerEvent::WatchdogReset),
                Ended::Reset(ResetCause::Watchdog),
            ),
            (Event::TripleFault, Ended::Reset(ResetCause::TripleFault)),
        ];
        for (event, end) in ends {
            assert_eq!(judge(&[event]), [Next::End(end)]);
            assert_eq!(
                judge(&[Event::StopSignal, event]),
                [Next::AskToStop, Next::End(end)]
            );
        }
    }

    #[test]
    fn a_stop_signal_presses_the_button_and_a_second_kills() {
        assert_eq!(
            judge(&[Event::StopSignal, Event::StopSignal]),
            [Next::AskToStop, Next::End(Ended::Killed)]
        );
    }

    #[test]
    fn clients_ask_as_often_as_they_like_and_may_set_another_time() {
        let mut stop = Stop::new(Duration::from_secs(5));
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        assert_eq!(stop.next(Event::Stop(None), now), Next::AskToStop);
        assert_eq!(stop.next(Event::Stop(None), later), Next::AskToStop);
        assert_eq!(stop.deadline(), Some(now + Duration::from_secs(5)));
        let soon = Some(Duration::from_secs(1));
        assert_eq!(stop.next(Event::Stop(soon), later), Next::AskToStop);
        assert_eq!(stop.deadline(), Some(later + Duration::from_secs(1)));
        assert_eq!(
            stop.next(Event::StopSignal, later),
            Next::End(Ended::Killed)
        );
    }

    #[test]
    fn the_deadline_runs_from_the_first_stop_signal_only() {
        let mut stop = Stop::new(Duration::from_secs(5));
        let now = Instant::now();
        stop.next(Event::Request(UserRequest::PowerButton), now);
        assert_eq!(
            stop.deadline(),
            None,
            "a press of the button alone sets no deadline"
        );
        stop.next(Event::StopSignal, now);
        assert_eq!(stop.deadline(), Some(now + Duration::from_secs(5)));
        assert_eq!(stop.next(Event::Deadline, now), Next::End(Ended::Killed));
    }

    #[test]
    fn an_endless_timeout_is_no_overflow() {
        let mut stop = Stop::new(Duration::MAX);
        stop.next(Event::StopSignal, Instant::now());
        assert!(stop.deadline().is_some());
    }

    #[test]
    fn quit_ends_at_once() {
        assert_eq!(
            judge(&[Event::Request(UserRequest::Quit)]),
            [Next::End(Ended::Killed)]
        );
    }
}
