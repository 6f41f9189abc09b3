//! System calls that no library wraps safely: the descriptor that signals arrive on.
#![expect(
    unsafe_code,
    reason = "signalfd(2) has no safe wrapper in the libraries used here"
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
