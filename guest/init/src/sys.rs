//! The only unsafe code of the guest's init: signal masks, waiting for a signal, I/O ports.
#![expect(
    unsafe_code,
    reason = "signal masks and port writes have no safe wrapper"
)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use rustix::fs::OFlags;

/// The signals that PID 1 and the shell handle themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(pub(crate) libc::c_int);

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set behind a valid pointer.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was initialised above; a bad number is refused with EINVAL.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal.0) };
    }
    // SAFETY: sigemptyset initialised it.
    unsafe { set.assume_init() }
}

/// Blocks `signals` in this thread, and in programs that are started later unless
/// [`with_all_signals`] lets them have theirs.
pub(crate) fn block(signals: &[Signal]) {
    let set = set_of(signals);
    // SAFETY: the set is initialised and outlives the call; no old mask is asked for.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}

/// Has `command` start its program with no signal blocked: it would inherit ours, and a shell then
/// knows neither of its children's ends nor of Ctrl-C.
pub(crate) fn with_all_signals(command: &mut Command) -> &mut Command {
    let set = set_of(&[]);
    let unblock = move || {
        // SAFETY: the set is initialised and outlives the call; no old mask is asked for.
        match unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(unblock) }
}

/// Waits for one of `signals`, which must be blocked, without waking up for anything else.
pub(crate) fn wait(signals: &[Signal]) -> Signal {
    let set = set_of(signals);
    loop {
        // SAFETY: the set is initialised and outlives the call; no details are asked for.
        let got = unsafe { libc::sigwaitinfo(&raw const set, ptr::null_mut()) };
        if got > 0 {
            return Signal(got);
        }
    }
}

/// Sends this process SIGIO whenever `file` has input.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn signal_input(file: &File) -> io::Result<()> {
    let fd = file.as_raw_fd();
    let this = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: the call takes numbers only, and the descriptor is open.
    let owned = unsafe { libc::fcntl(fd, libc::F_SETOWN, this) };
    if owned < 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::fs::fcntl_setfl(file, OFlags::ASYNC)?;
    Ok(())
}

/// Lets a socket send and receive on one interface only.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn bind_to_interface(socket: impl AsFd, name: &str) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = libc::socklen_t::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    // SAFETY: the descriptor is open, and the name is as long as it is said to be.
    let bound = unsafe { libc::setsockopt(fd, level, option, name.as_ptr().cast(), len) };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes one byte to an I/O port.
///
/// # Errors
/// The kernel's refusal of port access (no CAP_SYS_RAWIO, or built without ioperm).
pub(crate) fn write_port(port: u16, value: u8) -> io::Result<()> {
    // SAFETY: asks for access to one port; it touches no memory.
    let granted = unsafe { libc::ioperm(libc::c_ulong::from(port), 1, 1) };
    if granted != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: access to the port was granted above, and an OUT has no memory operands.
    unsafe {
        std::arch::asm!(
            "out dx, al",
            in("dx") port,
            in("al") value,
            options(nomem, nostack, preserves_flags),
        );
    }
    Ok(())
}
