//! The control thread: the one owner of a running machine's life, from the first exit to the end.
//!
//! It waits for vCPUs and may wait for the I/O thread; neither waits for it. It touches no guest
//! memory and no device but the power button. The API is served here too, in the same poll. Before
//! there is a machine, [`prepare`] serves it alone.

mod description;
mod front;
mod metrics;
mod pause;
mod prepare;
mod service;
mod stop;

pub use description::Description;
pub use front::Front;
pub(crate) use pause::Pause;
pub use prepare::{Preparation, Prepared};
pub(crate) use service::Api;

use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::events::{self, End};
use devices::Doorbell;
use devices::PowerEvent;
use devices::legacy::{Pm, Serial};
use devices::line::{PowerEvents, Reports};
use devices::tty::UserRequest;
use devices::virtio::interrupt::Fault;
use proto::power::BUTTON_PRESSED;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::machine::{Ended, HostConsole, ResetCause};
use crate::sys::{Signals, borrow};
use crate::vcpu::{VcpuEnd, VcpuThreads};
use pause::Life;
use stop::{Event, Next, Stop};

/// How a machine's control loop failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// poll(2) failed.
    #[error("waiting for the machine's events failed")]
    Wait(#[source] std::io::Error),
    /// KVM refused to run a vCPU, or an assist failed.
    #[error("the host cannot go on with the guest")]
    Host(#[source] crate::kvm::RunError),
    /// The I/O thread ended by itself; its own error tells why.
    #[error("the I/O thread ended while the machine ran")]
    IoThread,
    /// The guest did what this KVM cannot do.
    #[error("vCPU {id} cannot go on")]
    Guest {
        /// The vCPU.
        id: u8,
        /// Why.
        #[source]
        why: crate::kvm::exit::Unhandled,
    },
}

/// How soon a press of the power button that the serial port did not take is tried again.
const PRESS_AGAIN: Duration = Duration::from_millis(100);

/// The guest's power button: ACPI's, and a byte on the serial port of the built-in guest.
#[derive(Debug)]
pub(crate) struct PowerButton {
    pm: Arc<Mutex<Pm>>,
    serial: Option<Arc<Mutex<Serial>>>,
    /// Whether the serial port still has to take the press.
    waiting: bool,
}

impl PowerButton {
    pub(crate) fn new(pm: Arc<Mutex<Pm>>, serial: Option<Arc<Mutex<Serial>>>) -> Self {
        let waiting = false;
        Self {
            pm,
            serial,
            waiting,
        }
    }

    fn press(&mut self) {
        self.pm
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .press_power_button();
        self.waiting = self.serial.is_some();
        self.tell_serial();
    }

    /// Tries again what the port did not take. A vCPU may hold it while its reader is slow, which
    /// this thread does not wait for, and a guest that still boots does not listen yet.
    fn tell_serial(&mut self) {
        let port = self.serial.as_ref().filter(|_| self.waiting);
        if let Some(Ok(mut port)) = port.map(|port| port.try_lock()) {
            self.waiting = port.enqueue_input(BUTTON_PRESSED) == 0;
        }
    }
}

/// What the control thread listens to.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) signals: Signals,
    pub(crate) power_events: PowerEvents,
    /// From the console's escape keys.
    pub(crate) requests: Reports<UserRequest>,
    pub(crate) button: PowerButton,
    pub(crate) stop_timeout: Duration,
    /// Rings when the I/O thread ends, which it must not do before it is told to.
    pub(crate) io_ended: Doorbell,
    /// Called on SIGWINCH: tells the guest's console its new size.
    pub(crate) on_resize: OnResize,
    /// How the machine is made to stand still.
    pub(crate) pause: Pause,
    /// Devices that went out of service.
    pub(crate) faults: Reports<Fault>,
    pub(crate) api: Option<Api>,
}

/// A callback that has no useful debug form.
pub(crate) struct OnResize(pub(crate) Box<dyn FnMut()>);

impl std::fmt::Debug for OnResize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnResize")
    }
}

impl Control {
    /// Waits for the end of the machine whose vCPUs run in `threads`.
    ///
    /// # Errors
    /// [`ControlError`] when the host or its KVM can't go on.
    pub(crate) fn run(&mut self, threads: &VcpuThreads) -> Result<Ended, ControlError> {
        let mut stop = Stop::new(self.stop_timeout);
        loop {
            let ready = self.wait(threads, stop.deadline())?;
            let mut events = self.collect(threads)?;
            if let Some(api) = &mut self.api {
                let mut life = Life {
                    pause: &mut self.pause,
                    cpus: threads,
                };
                events.extend(api.turn(&ready, Instant::now(), &mut life));
            }
            self.button.tell_serial();
            if stop
                .deadline()
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                events.push(Event::Deadline);
            }
            for event in events {
                match stop.next(event, Instant::now()) {
                    Next::PressButton => self.button.press(),
                    Next::AskToStop => self.ask_to_stop(threads),
                    Next::Nothing => {}
                    Next::End(ended) => return Ok(ended),
                }
            }
        }
    }

    fn ask_to_stop(&mut self, threads: &VcpuThreads) {
        // Who stands still does not hear of it.
        self.pause.resume(threads);
        self.button.press();
        self.tell(&events::Event::Stopping);
    }

    /// Tells the API's clients how it has ended.
    pub(crate) fn end(&mut self, ended: &Result<Ended, ControlError>) {
        let how = match ended {
            Ok(Ended::PowerOff) => End::PowerOff,
            Ok(Ended::Killed) => End::Killed,
            Ok(Ended::Reset(ResetCause::Asked)) => End::Reset,
            Ok(Ended::Reset(ResetCause::Panic)) => End::GuestPanic,
            Ok(Ended::Reset(ResetCause::Watchdog)) => End::Watchdog,
            Ok(Ended::Reset(ResetCause::TripleFault)) => End::TripleFault,
            Err(_) => End::Failed,
        };
        // Who still reads the machine's memory is to leave nothing half written.
        self.pause.stillness().end();
        if let Some(api) = &mut self.api {
            api.end(how);
        }
    }

    /// Tells the API's clients what has happened.
    pub(crate) fn tell(&mut self, event: &events::Event) {
        if let Some(api) = &mut self.api {
            api.tell(event);
        }
    }

    /// Waits for something to do: what poll found of the API's descriptors.
    fn wait(
        &self,
        threads: &VcpuThreads,
        deadline: Option<Instant>,
    ) -> Result<Vec<PollFlags>, ControlError> {
        let own = [
            self.signals.as_fd(),
            fd(&self.power_events),
            fd(&self.requests),
            fd(threads.ended()),
            fd(threads.standing()),
            fd(&self.faults),
            fd(&self.io_ended),
        ];
        let mut fds: Vec<_> = own
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .into();
        let owned = fds.len();
        let mut due = deadline;
        if let Some(api) = &self.api {
            api.watch(&mut fds);
            due = due.into_iter().chain(api.deadline()).min();
        }
        let left = due.map(|at| at.saturating_duration_since(Instant::now()));
        let again = self.button.waiting.then_some(PRESS_AGAIN);
        wait_for(&mut fds, left.into_iter().chain(again).min())?;
        Ok(fds.iter().skip(owned).map(PollFd::revents).collect())
    }

    /// Everything that happened, the guest's own ends first: they win over a stop signal.
    fn collect(&mut self, threads: &VcpuThreads) -> Result<Vec<Event>, ControlError> {
        if self.io_ended.clear() {
            return Err(ControlError::IoThread);
        }
        // Who waits for them looks at the vCPUs in each turn.
        threads.standing().clear();
        // In this order: what a vCPU reported before its end is seen when its end is.
        let ends: Vec<_> = std::iter::from_fn(|| threads.next_end()).collect();
        let power = std::iter::from_fn(|| self.power_events.take()).collect();
        let mut events = ends_of(self.tell_of_reports(power), ends)?;
        while let Some(Fault { device, reason }) = self.faults.take() {
            self.tell(&events::Event::DeviceFault { device, reason });
        }
        while let Some(request) = self.requests.take() {
            events.push(Event::Request(request));
        }
        while let Some(signal) = self.signals.next() {
            if HostConsole::stops(signal) {
                events.push(Event::StopSignal);
            } else if signal == libc::SIGWINCH {
                (self.on_resize.0)();
            }
        }
        Ok(events)
    }
}

impl Control {
    /// Tells of what the guest only wants known, and hands back what concerns the machine's life.
    fn tell_of_reports(&mut self, mut power: Vec<PowerEvent>) -> Vec<PowerEvent> {
        power.retain(|event| {
            let told = match event {
                PowerEvent::PanicReported => events::Event::GuestPanicked,
                PowerEvent::WatchdogReported => events::Event::WatchdogFired,
                _ => return true,
            };
            self.tell(&told);
            false
        });
        power
    }
}

/// Waits until one of `fds` is ready, for `patience` at most.
fn wait_for(fds: &mut [PollFd<'_>], patience: Option<Duration>) -> Result<(), ControlError> {
    let timeout = patience.map(|patience| {
        Timespec::try_from(patience).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        })
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(cause) => Err(ControlError::Wait(cause.into())),
    }
}

/// The guest's own ends. One that it asked for comes before what its CPUs did afterwards, since a
/// kernel that switched off or reset does not expect to run on.
fn ends_of(power: Vec<PowerEvent>, ends: Vec<VcpuEnd>) -> Result<Vec<Event>, ControlError> {
    let mut events: Vec<_> = power.into_iter().map(Event::Power).collect();
    for end in ends {
        match end {
            VcpuEnd::TripleFault => events.push(Event::TripleFault),
            _ if !events.is_empty() => {}
            VcpuEnd::Fatal { id, why } => return Err(ControlError::Guest { id, why }),
            VcpuEnd::Host(cause) => return Err(ControlError::Host(cause)),
        }
    }
    Ok(events)
}

fn fd(object: &impl AsRawFd) -> BorrowedFd<'_> {
    borrow(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::exit::Unhandled;

    #[test]
    fn an_end_that_the_guest_asked_for_comes_before_what_its_cpus_do_next() {
        let fatal = || VcpuEnd::Fatal {
            id: 0,
            why: Unhandled::FailEntry { reason: 1 },
        };
        let off = PowerEvent::PowerOff;
        let asked = ends_of(vec![off], vec![fatal(), VcpuEnd::TripleFault]).unwrap();
        assert_eq!(asked, [Event::Power(off), Event::TripleFault]);
        let lost = ends_of(Vec::new(), vec![fatal()]);
        assert!(matches!(lost, Err(ControlError::Guest { id: 0, .. })));
    }
}
