//! Interrupt lines, doorbells and the power line: eventfds, the whole seam to the hypervisor.
//!
//! A device holds one end. The monitor binds the other to the hypervisor (an irqfd, an
//! ioeventfd) or polls it; tests simply read and write it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

fn eventfd() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

/// Adds one to the counter of an eventfd.
fn raise(fd: &EventFd) {
    // The only failure of a non-blocking eventfd is a full counter, and then the other side has
    // its signal already.
    let _ = fd.write(1);
}

/// An edge-triggered interrupt line, active high: each pulse is one interrupt, and pulses that
/// nobody collected yet merge into one, as on a wire.
#[derive(Debug)]
pub struct IrqLine(EventFd);

impl IrqLine {
    /// Makes a line that is bound to nothing yet.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        eventfd().map(Self)
    }

    /// Raises and lowers the line.
    pub fn pulse(&self) {
        raise(&self.0);
    }

    /// Collects the pulses since the last call: whether there were any. This is the other end's
    /// operation, for a host without irqfd and for tests.
    pub fn take(&self) -> bool {
        self.0.read().is_ok()
    }

    /// Another handle to the same line.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The eventfd, to bind it.
    pub fn event_fd(&self) -> &EventFd {
        &self.0
    }
}

impl AsRawFd for IrqLine {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What a guest rings when a queue has something new.
#[derive(Debug)]
pub struct Doorbell(EventFd);

impl Doorbell {
    /// Makes a doorbell that is bound to nothing yet.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        eventfd().map(Self)
    }

    /// Rings: from a register write that the hypervisor did not turn into an event itself.
    pub fn ring(&self) {
        raise(&self.0);
    }

    /// Silences the bell: whether it had been rung since the last call.
    pub fn clear(&self) -> bool {
        self.0.read().is_ok()
    }

    /// Another handle to the same bell.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The eventfd, to bind it.
    pub fn event_fd(&self) -> &EventFd {
        &self.0
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What a guest asked of the machine as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PowerEvent {
    /// Restart, through the keyboard controller or the reset register of the ACPI tables.
    Reset,
    /// Switch off: the sleep state S5.
    PowerOff,
}

/// How many events wait at most. The first one ends the machine, so a guest that reports more
/// before it is stopped loses nothing.
const POWER_EVENTS_WAITING: usize = 16;

#[derive(Debug)]
struct PowerQueue {
    events: Mutex<VecDeque<PowerEvent>>,
    ready: EventFd,
}

/// The sending side: legacy devices report on it, from vCPU threads.
#[derive(Clone, Debug)]
pub struct PowerLine(Arc<PowerQueue>);

impl PowerLine {
    /// Reports `event`. Never waits; an event beyond the sixteen that may wait is dropped.
    pub fn report(&self, event: PowerEvent) {
        let mut events = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() < POWER_EVENTS_WAITING {
            events.push_back(event);
        }
        drop(events);
        raise(&self.0.ready);
    }
}

/// The receiving side: the control thread polls its file descriptor and takes the events.
#[derive(Debug)]
pub struct PowerEvents(Arc<PowerQueue>);

impl PowerEvents {
    /// The oldest event that was not taken yet. The descriptor stays readable until this
    /// returned `None`.
    pub fn take(&self) -> Option<PowerEvent> {
        let mut events = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        let event = events.pop_front();
        if event.is_none() {
            // Under the lock, so that no report slips in between and loses its signal.
            let _ = self.0.ready.read();
        }
        event
    }
}

impl AsRawFd for PowerEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.ready.as_raw_fd()
    }
}

/// Makes a power line.
///
/// # Errors
/// When the process has no file descriptor left.
pub fn power_line() -> io::Result<(PowerLine, PowerEvents)> {
    let queue = Arc::new(PowerQueue {
        events: Mutex::default(),
        ready: eventfd()?,
    });
    Ok((PowerLine(Arc::clone(&queue)), PowerEvents(queue)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulses_merge_and_are_taken_once() {
        let line = IrqLine::new().unwrap();
        let other = line.try_clone().unwrap();
        assert!(!line.take());
        other.pulse();
        other.pulse();
        assert!(line.take());
        assert!(!line.take());
    }

    #[test]
    fn doorbells_are_silenced_by_either_handle() {
        let bell = Doorbell::new().unwrap();
        let other = bell.try_clone().unwrap();
        bell.ring();
        assert!(other.clear());
        assert!(!bell.clear());
    }

    #[test]
    fn power_events_come_in_order_and_are_bounded() {
        let (line, events) = power_line().unwrap();
        line.report(PowerEvent::PowerOff);
        for _ in 0..1000 {
            line.clone().report(PowerEvent::Reset);
        }
        assert_eq!(events.take(), Some(PowerEvent::PowerOff));
        let rest = std::iter::from_fn(|| events.take()).count();
        assert_eq!(rest, POWER_EVENTS_WAITING - 1);
        assert!(
            events.0.ready.read().is_err(),
            "the descriptor must be quiet once all is taken"
        );
        line.report(PowerEvent::Reset);
        assert!(events.0.ready.read().is_ok());
    }
}
