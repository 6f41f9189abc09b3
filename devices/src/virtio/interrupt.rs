//! What a running device tells its driver: used buffers, changed configuration, a need of reset.
//!
//! Shared between the transport, whose registers the vCPUs read, and the device on its loop.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::line::{IrqLine, Reporter};
use crate::log::RateLimit;

/// Interrupt status bit: some queue has used buffers (virtio 1.2, 4.2.2).
pub const USED_BUFFERS: u32 = 1;
/// Interrupt status bit: the configuration or the device's own status changed.
pub const CONFIG_CHANGED: u32 = 2;

/// How a transport carries a device's interrupts to the guest.
pub trait Signal: fmt::Debug + Send + Sync {
    /// Queue number `queue` has used buffers.
    fn used_buffers(&self, queue: u16);

    /// The configuration or the device's own status changed.
    fn config_changed(&self);
}

/// One line for everything: the driver reads the reasons from the interrupt status (4.2.2).
impl Signal for IrqLine {
    fn used_buffers(&self, _queue: u16) {
        self.pulse();
    }

    fn config_changed(&self) {
        self.pulse();
    }
}

/// A device that is out of service until its driver resets it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Its name.
    pub device: String,
    /// What its driver did.
    pub reason: String,
}

#[derive(Debug)]
struct Shared {
    name: String,
    faults: OnceLock<Reporter<Fault>>,
    limit: RateLimit,
    signal: Box<dyn Signal>,
    status: AtomicU32,
    needs_reset: AtomicBool,
    // From DRIVER_OK to reset. Outside it a device may not interrupt (2.1.2, 2.4.1).
    running: AtomicBool,
}

/// A device's way to interrupt its driver; clones act on the same device.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<Shared>);

impl Interrupt {
    /// Interrupts go out through `signal`, once the device runs; `name` is for log lines.
    pub fn new(name: String, signal: impl Signal + 'static) -> Self {
        Self(Arc::new(Shared {
            name,
            faults: OnceLock::new(),
            limit: RateLimit::new(),
            signal: Box::new(signal),
            status: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            running: AtomicBool::new(false),
        }))
    }

    /// From now on, needs of reset are reported there too; the first call counts.
    pub(crate) fn report_faults(&self, to: Reporter<Fault>) {
        let _ = self.0.faults.set(to);
    }

    /// Tells the driver that queue number `queue` has used buffers.
    pub fn used_buffers(&self, queue: u16) {
        if self.note(USED_BUFFERS) {
            self.0.signal.used_buffers(queue);
        }
    }

    /// Tells the driver that a configuration field changed.
    pub fn config_changed(&self) {
        if self.note(CONFIG_CHANGED) {
            self.0.signal.config_changed();
        }
    }

    /// Gives up on the driver until it resets the device (2.1.2), for the reason given.
    pub fn need_reset(&self, reason: &dyn fmt::Display) {
        if self.is_running() && !self.0.needs_reset.swap(true, Ordering::AcqRel) {
            // First the driver, since a log may be slow.
            self.config_changed();
            if let Some(faults) = self.0.faults.get() {
                faults.report(Fault {
                    device: self.0.name.clone(),
                    reason: reason.to_string(),
                });
            }
            self.warn(format_args!(
                "{reason}; out of service until its driver resets it"
            ));
        }
    }

    /// Logs something that the guest caused, under the device's name and sparingly.
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        self.0
            .limit
            .warn(format_args!("{}: {message}", self.0.name));
    }

    /// Whether the device waits to be reset.
    pub fn needs_reset(&self) -> bool {
        self.0.needs_reset.load(Ordering::Acquire)
    }

    /// Whether the device is between DRIVER_OK and reset.
    pub fn is_running(&self) -> bool {
        self.0.running.load(Ordering::Acquire)
    }

    pub(crate) fn set_running(&self) {
        self.0.running.store(true, Ordering::Release);
    }

    /// No interrupt goes out any more, and none is left pending.
    pub(crate) fn reset(&self) {
        self.0.running.store(false, Ordering::Release);
        self.0.needs_reset.store(false, Ordering::Release);
        self.0.status.store(0, Ordering::Release);
    }

    /// As it was between DRIVER_OK and reset, when the device was saved. Nothing goes out.
    pub(crate) fn restore(&self, status: u32, needs_reset: bool) {
        self.0.status.store(status, Ordering::Release);
        self.0.needs_reset.store(needs_reset, Ordering::Release);
        self.set_running();
    }

    pub(crate) fn status(&self) -> u32 {
        self.0.status.load(Ordering::Acquire)
    }

    /// The interrupt status, which is clear afterwards: on PCI a read does that (4.1.4.5).
    pub(crate) fn take_status(&self) -> u32 {
        self.0.status.swap(0, Ordering::AcqRel)
    }

    pub(crate) fn acknowledge(&self, bits: u32) {
        self.0.status.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Records the reason for an interrupt: whether one may go out.
    fn note(&self, bits: u32) -> bool {
        let running = self.is_running();
        if running {
            self.0.status.fetch_or(bits, Ordering::AcqRel);
        }
        running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_before_driver_ok_or_after_reset() {
        let line = IrqLine::new().unwrap();
        let interrupt = Interrupt::new("test".into(), line.try_clone().unwrap());
        interrupt.used_buffers(0);
        interrupt.need_reset(&"broken");
        assert!(!line.take() && interrupt.status() == 0 && !interrupt.needs_reset());
        interrupt.set_running();
        interrupt.used_buffers(0);
        interrupt.config_changed();
        assert!(line.take());
        assert_eq!(interrupt.status(), USED_BUFFERS | CONFIG_CHANGED);
        interrupt.acknowledge(USED_BUFFERS);
        assert_eq!(interrupt.status(), CONFIG_CHANGED);
        interrupt.reset();
        interrupt.config_changed();
        assert!(!line.take() && interrupt.status() == 0);
    }

    #[test]
    fn a_need_of_reset_is_told_once() {
        let line = IrqLine::new().unwrap();
        let interrupt = Interrupt::new("test".into(), line.try_clone().unwrap());
        interrupt.set_running();
        interrupt.need_reset(&"broken");
        assert!(line.take() && interrupt.needs_reset());
        let (reporter, faults) = crate::line::report_line().unwrap();
        interrupt.report_faults(reporter);
        interrupt.need_reset(&"broken");
        assert!(!line.take() && faults.take().is_none());
        interrupt.reset();
        interrupt.set_running();
        interrupt.need_reset(&"broken");
        let fault = faults.take().unwrap();
        assert_eq!(
            (fault.device.as_str(), fault.reason.as_str()),
            ("test", "broken")
        );
    }
}
