//! System calls on guest memory: the only unsafe code of this crate.

#![expect(
    unsafe_code,
    reason = "system calls that take raw guest memory, which no safe wrapper can express"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::ram::GuestRam;
use crate::virtio::Span;

/// How many pieces one system call moves; the kernel takes up to 1024.
const PIECES: usize = 64;

/// Which way bytes go between a file and guest memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    /// From the file into guest memory.
    Read,
    /// From guest memory into the file.
    Write,
}

/// How far a transfer came, and what ended it early.
pub(crate) type Transferred = (u64, io::Result<()>);

/// Moves all bytes of `spans` from or to `fd` at `offset`, without a copy in between.
pub(crate) fn transfer(
    direction: Direction,
    fd: BorrowedFd<'_>,
    ram: &GuestRam,
    spans: &[Span],
    offset: u64,
) -> Transferred {
    let mut done = 0_u64;
    loop {
        let mut pieces = [EMPTY; PIECES];
        let count = match gather(ram, spans, done, &mut pieces) {
            Ok(0) => return (done, Ok(())),
            Ok(count) => count,
            Err(error) => return (done, Err(error)),
        };
        let filled = pieces.get(..count).unwrap_or_default();
        match call(direction, fd, filled, offset.saturating_add(done)) {
            // The end of the file, which shrank since its capacity was told to the guest.
            Ok(0) => return (done, Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(moved) => done = done.saturating_add(moved),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
}

const EMPTY: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// Fills `pieces` with what follows the first `skip` bytes of `spans`: how many are filled.
fn gather(
    ram: &GuestRam,
    spans: &[Span],
    mut skip: u64,
    pieces: &mut [libc::iovec],
) -> io::Result<usize> {
    let outside = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut pieces_left = pieces.iter_mut();
    let mut count = 0;
    for span in spans {
        let len = u64::from(span.len);
        if skip >= len {
            skip -= len;
            continue;
        }
        let at = GuestAddress(span.at.wrapping_add(skip));
        let left = usize::try_from(len - skip).unwrap_or_default();
        skip = 0;
        for slice in GuestMemoryBackend::get_slices(ram.memory(), at, left) {
            let slice = slice.map_err(|_| outside(()))?;
            let Some(piece) = pieces_left.next() else {
                return Ok(count);
            };
            let guard = slice.ptr_guard_mut();
            piece.iov_base = guard.as_ptr().cast();
            piece.iov_len = guard.len();
            count += 1;
        }
    }
    Ok(count)
}

fn call(
    direction: Direction,
    fd: BorrowedFd<'_>,
    pieces: &[libc::iovec],
    offset: u64,
) -> io::Result<u64> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let count = i32::try_from(pieces.len()).map_err(too_large)?;
    let offset = i64::try_from(offset).map_err(too_large)?;
    let (fd, pieces) = (fd.as_raw_fd(), pieces.as_ptr());
    let moved = match direction {
        // SAFETY: each piece comes from a slice of guest memory, which stays mapped as long as
        // the caller's `GuestRam` lives. Nobody holds references into guest memory, so that the
        // kernel may write it at any time, as the guest itself does.
        Direction::Read => unsafe { libc::preadv64(fd, pieces, count, offset) },
        // SAFETY: as above; the kernel only reads the pieces.
        Direction::Write => unsafe { libc::pwritev64(fd, pieces, count, offset) },
    };
    u64::try_from(moved).map_err(|_| io::Error::last_os_error())
}
