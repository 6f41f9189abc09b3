//! Locks of single bytes of a file (open file description locks, fcntl(2)).

#![expect(
    unsafe_code,
    reason = "no safe wrapper has locks that belong to an open file description"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Shares the lock of byte `at` with whoever else has it, until the file is closed.
pub(crate) fn share(file: &impl AsFd, at: u64) -> io::Result<()> {
    let mut lock = describe(libc::F_RDLCK, at)?;
    fcntl(file, libc::F_OFD_SETLK, &mut lock)
}

/// Whether anybody else has the lock of byte `at`.
pub(crate) fn is_taken(file: &impl AsFd, at: u64) -> io::Result<bool> {
    let mut lock = describe(libc::F_WRLCK, at)?;
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn describe(kind: i32, at: u64) -> io::Result<libc::flock> {
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    Ok(libc::flock {
        l_type: i16::try_from(kind).map_err(wrong)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(wrong)?,
        l_start: i64::try_from(at).map_err(wrong)?,
        l_len: 1,
        l_pid: 0,
    })
}

fn fcntl(file: &impl AsFd, command: i32, lock: &mut libc::flock) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    let lock: *mut libc::flock = lock;
    // SAFETY: the descriptor is open, and the lock is a valid description that outlives the call.
    match unsafe { libc::fcntl(fd, command, lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
