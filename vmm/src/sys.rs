//! System calls that no library wraps safely: the descriptor that signals arrive on, and a timer
//! of a thread's CPU time.
#![expect(
    unsafe_code,
    reason = "signalfd(2) and timer_create(2) have no safe wrapper in the libraries used here"
)]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Blocks signals in this thread, and those that it starts later, and receives them instead.
#[derive(Debug)]
pub(crate) struct Signals(File);

impl Signals {
    /// Takes over `signals` for the process. To be called before other threads exist.
    ///
    /// # Errors
    /// The host's reason.
    pub(crate) fn take_over(signals: &[i32]) -> io::Result<Self> {
        for &signal in signals {
            match vmm_sys_util::signal::block_signal(signal) {
                Ok(()) | Err(vmm_sys_util::signal::Error::SignalAlreadyBlocked(_)) => {}
                Err(cause) => return Err(io::Error::other(cause.to_string())),
            }
        }
        let set = vmm_sys_util::signal::create_sigset(signals)
            .map_err(|cause| io::Error::from_raw_os_error(cause.errno()))?;
        // SAFETY: `set` is a valid signal set that lives over the call.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nothing else owns it.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// The next signal that arrived, if any.
    pub(crate) fn next(&mut self) -> Option<i32> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        self.0.read_exact(&mut record).ok()?;
        let number = record.first_chunk().copied().map(u32::from_ne_bytes)?;
        i32::try_from(number).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends the thread that made it a signal once it has used so much CPU time. A guest's time is its
/// thread's.
#[derive(Debug)]
pub(crate) struct CpuTimer(libc::timer_t);

impl CpuTimer {
    /// One of the calling thread, not set.
    ///
    /// # Errors
    /// The host's reason.
    pub(crate) fn new(signal: i32) -> io::Result<Self> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        // SAFETY: a plain C structure, of which all zeros are a value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = thread;
        let mut timer = std::ptr::null_mut();
        let clock = libc::CLOCK_THREAD_CPUTIME_ID;
        // SAFETY: both structures live over the call, which writes the timer's name to the second.
        let made = unsafe { libc::timer_create(clock, &raw mut event, &raw mut timer) };
        match made {
            0 => Ok(Self(timer)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sets it: once after so much more CPU time, or never for zero.
    pub(crate) fn set(&self, after: Duration) {
        let none = Timespec::default();
        let value = Timespec::try_from(after).unwrap_or(none);
        let spec = |time: Timespec| libc::timespec {
            tv_sec: time.tv_sec,
            tv_nsec: time.tv_nsec,
        };
        let setting = libc::itimerspec {
            it_interval: spec(none),
            it_value: spec(value),
        };
        let old = std::ptr::null_mut();
        // SAFETY: the timer is this one's own, the setting lives over the call, and no old one is
        // asked for. It fails for no value that a `Timespec` of a duration can have.
        unsafe { libc::timer_settime(self.0, 0, &raw const setting, old) };
    }
}

impl Drop for CpuTimer {
    fn drop(&mut self) {
        // SAFETY: the timer is this one's own and is not used after this.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Waits until `object` is readable, for `patience` at most.
pub(crate) fn wait_readable(object: &impl AsRawFd, patience: Duration) {
    let mut fds = [PollFd::from_borrowed_fd(borrow(object), PollFlags::IN)];
    let timeout = Timespec::try_from(patience).ok();
    // Whatever it returns, the caller looks for itself.
    let _ = poll(&mut fds, timeout.as_ref());
}

/// The descriptor of an object that offers it only by number.
pub(crate) fn borrow(object: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the number belongs to `object`, which keeps it open while it is borrowed.
    unsafe { BorrowedFd::borrow_raw(object.as_raw_fd()) }
}
