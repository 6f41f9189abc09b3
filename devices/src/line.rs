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

/// A message that interrupts: written to `address`, the local APICs take it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Msi {
    /// Where to: destination and its mode.
    pub address: u64,
    /// What: vector, delivery mode, trigger mode.
    pub data: u32,
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

/// What a guest asked of the machine as a whole, or brought upon it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PowerEvent {
    /// Restart, through the keyboard controller or the reset register of the ACPI tables.
    Reset,
    /// Switch off: the sleep state S5.
    PowerOff,
    /// Its kernel panicked and said so.
    Panicked,
    /// It did not feed its watchdog, which is to reset the machine then.
    WatchdogReset,
    /// Its kernel panicked, and the machine goes on.
    PanicReported,
    /// It did not feed its watchdog, and the machine goes on.
    WatchdogReported,
}

/// How many reports wait at most. The first one decides, so a guest that goes on reporting
/// before it is stopped loses nothing.
const REPORTS_WAITING: usize = 16;

#[derive(Debug)]
struct ReportQueue<T> {
    reports: Mutex<VecDeque<T>>,
    ready: EventFd,
}

/// The sending side of a line that carries values: devices report on it from their threads.
#[derive(Debug)]
pub struct Reporter<T>(Arc<ReportQueue<T>>);

impl<T> Clone for Reporter<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Reporter<T> {
    /// Reports `what`. Never waits; a report beyond the sixteen that may wait is dropped.
    pub fn report(&self, what: T) {
        let mut reports = self
            .0
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if reports.len() < REPORTS_WAITING {
            reports.push_back(what);
        }
        drop(reports);
        raise(&self.0.ready);
    }
}

/// The receiving side: the control thread polls its file descriptor and takes the reports.
#[derive(Debug)]
pub struct Reports<T>(Arc<ReportQueue<T>>);

impl<T> Reports<T> {
    /// The oldest report that was not taken yet. The descriptor stays readable until this
    /// returned `None`.
    pub fn take(&self) -> Option<T> {
        let mut reports = self
            .0
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let report = reports.pop_front();
        if report.is_none() {
            // Under the lock, so that no report slips in between and loses its signal.
            let _ = self.0.ready.read();
        }
        report
    }
}

impl<T> AsRawFd for Reports<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.ready.as_raw_fd()
    }
}

/// Makes a line that carries values of one kind.
///
/// # Errors
/// When the process has no file descriptor left.
pub fn report_line<T>() -> io::Result<(Reporter<T>, Reports<T>)> {
    let queue = Arc::new(ReportQueue {
        reports: Mutex::default(),
        ready: eventfd()?,
    });
    Ok((Reporter(Arc::clone(&queue)), Reports(queue)))
}

/// Where legacy devices report what the guest asked of the machine.
pub type PowerLine = Reporter<PowerEvent>;

/// Where the monitor takes what the guest asked of the machine.
pub type PowerEvents = Reports<PowerEvent>;

/// Makes a power line.
///
/// # Errors
/// When the process has no file descriptor left.
pub fn power_line() -> io::Result<(PowerLine, PowerEvents)> {
    report_line()
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
        assert_eq!(rest, REPORTS_WAITING - 1);
        assert!(
            events.0.ready.read().is_err(),
            "the descriptor must be quiet once all is taken"
        );
        line.report(PowerEvent::Reset);
        assert!(events.0.ready.read().is_ok());
    }
}
