//! System calls on guest memory: the only unsafe code of this crate.

#![expect(
    unsafe_code,
    reason = "system calls that take raw guest memory, which no safe wrapper can express"
)]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FallocateFlags, fallocate};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
    VolatileSlice,
};

use crate::disk::spans::total;
use crate::ram::GuestRam;
use crate::virtio::Span;

pub(crate) mod frame;
pub(crate) mod lock;
pub(crate) mod stream;
pub(crate) mod tap;
pub(crate) mod uring;

/// How many pieces one system call moves; the kernel takes up to 1024.
const PIECES: usize = 64;
/// How many pieces a small request has at most.
const FEW_PIECES: usize = 4;

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
    transfer_with(direction, fd, ram, spans, offset, 0)
}

/// Reads what the host has without waiting for a device; the rest ends with
/// [`io::ErrorKind::WouldBlock`].
pub(crate) fn read_cached(
    fd: BorrowedFd<'_>,
    ram: &GuestRam,
    spans: &[Span],
    offset: u64,
) -> Transferred {
    transfer_with(Direction::Read, fd, ram, spans, offset, libc::RWF_NOWAIT)
}

fn transfer_with(
    direction: Direction,
    fd: BorrowedFd<'_>,
    ram: &GuestRam,
    spans: &[Span],
    offset: u64,
    flags: i32,
) -> Transferred {
    let total = total(spans);
    let mut done = 0_u64;
    while done < total {
        // Most requests have one piece, and a short list is made quickly.
        let at = (done, offset.saturating_add(done));
        let moved = if spans.len() <= FEW_PIECES {
            step::<FEW_PIECES>(direction, fd, ram, spans, at, flags)
        } else {
            step::<PIECES>(direction, fd, ram, spans, at, flags)
        };
        match moved {
            // The end of the file, which shrank since its capacity was told to the guest.
            Ok(0) => return (done, Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(moved) => done = done.saturating_add(moved),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

/// One system call with what follows the first `skip` bytes.
fn step<const MOST: usize>(
    direction: Direction,
    fd: BorrowedFd<'_>,
    ram: &GuestRam,
    spans: &[Span],
    (skip, offset): (u64, u64),
    flags: i32,
) -> io::Result<u64> {
    let mut pieces = [EMPTY; MOST];
    let count = gather(ram, spans, skip, &mut pieces)?;
    let filled = pieces.get(..count).unwrap_or_default();
    call(direction, fd, filled, offset, flags)
}

const EMPTY: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// Hands `take` each piece of the host's memory that holds what follows the first `skip` bytes of
/// `spans`, in their order, until `take` says that it has enough.
fn each_piece(
    ram: &GuestRam,
    spans: &[Span],
    mut skip: u64,
    mut take: impl FnMut(&VolatileSlice<'_>) -> bool,
) -> io::Result<()> {
    let outside = || io::Error::from(io::ErrorKind::InvalidInput);
    for span in spans {
        let len = u64::from(span.len);
        if skip >= len {
            skip -= len;
            continue;
        }
        let at = span.at.checked_add(skip).ok_or_else(outside)?;
        let left = usize::try_from(len - skip).map_err(|_| outside())?;
        skip = 0;
        if let Some(slice) = ram.slice(at, left) {
            if !take(&slice) {
                return Ok(());
            }
            continue;
        }
        for slice in GuestMemoryBackend::get_slices(ram.memory(), GuestAddress(at), left) {
            if !take(&slice.map_err(|_| outside())?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Fills `pieces` with what follows the first `skip` bytes of `spans`: how many are filled.
fn gather(
    ram: &GuestRam,
    spans: &[Span],
    skip: u64,
    pieces: &mut [libc::iovec],
) -> io::Result<usize> {
    let mut pieces_left = pieces.iter_mut();
    let mut count = 0;
    each_piece(ram, spans, skip, |slice| {
        let Some(piece) = pieces_left.next() else {
            return false;
        };
        let guard = slice.ptr_guard_mut();
        piece.iov_base = guard.as_ptr().cast();
        piece.iov_len = guard.len();
        count += 1;
        true
    })?;
    Ok(count)
}

fn call(
    direction: Direction,
    fd: BorrowedFd<'_>,
    pieces: &[libc::iovec],
    offset: u64,
    flags: i32,
) -> io::Result<u64> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = i64::try_from(offset).map_err(too_large)?;
    let fd = fd.as_raw_fd();
    // Not through the C library's functions: those can be cancelled, and prepare for it with two
    // locked instructions.
    let moved = if let ([one], 0) = (pieces, flags) {
        // One piece costs the kernel less without a list.
        let number = match direction {
            Direction::Read => libc::SYS_pread64,
            Direction::Write => libc::SYS_pwrite64,
        };
        // SAFETY: each piece comes from a slice of guest memory, which stays mapped as long as the
        // caller's `GuestRam` lives. Nobody holds references into guest memory, so that the kernel
        // may read and write it at any time, as the guest itself does.
        unsafe { libc::syscall(number, fd, one.iov_base, one.iov_len, offset) }
    } else {
        let number = match direction {
            Direction::Read => libc::SYS_preadv2,
            Direction::Write => libc::SYS_pwritev2,
        };
        let (list, count) = (pieces.as_ptr(), pieces.len());
        // The upper half of the offset is in the lower one's register on 64-bit hosts.
        // SAFETY: as above, for each piece of the list, which outlives the call.
        unsafe { libc::syscall(number, fd, list, count, offset, 0, flags) }
    };
    u64::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// Asks the CPU to fetch what lies at the start of `slice`, which is soon read: it changes nothing.
pub(crate) fn prefetch(slice: &VolatileSlice<'_>) {
    let guard = slice.ptr_guard();
    // SAFETY: a hint to the CPU, which is free to ignore it and never faults for it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(guard.as_ptr().cast()) }
}

/// The host's page without huge pages.
const PAGE_BYTES: u64 = 4096;
/// The huge page that is meant where the mapping names none.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// The size of the pages that the host backs `region` with.
pub(crate) fn page_bytes(region: &GuestRegionMmap) -> u64 {
    let flags = region.flags();
    if flags & libc::MAP_HUGETLB == 0 {
        return PAGE_BYTES;
    }
    match flags >> libc::MAP_HUGE_SHIFT & libc::MAP_HUGE_MASK {
        0 => HUGE_PAGE_BYTES,
        log => 1_u64
            .checked_shl(log.unsigned_abs())
            .unwrap_or(HUGE_PAGE_BYTES),
    }
}

/// Gives `len` bytes from `offset` in `region` on back to the host, whole pages of it both.
pub(crate) fn discard(region: &GuestRegionMmap, offset: u64, len: u64) -> io::Result<()> {
    let outside = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let count = usize::try_from(len).map_err(|_| outside(()))?;
    let shared = region.flags() & libc::MAP_SHARED != 0;
    match (region.file_offset(), shared) {
        (Some(file), true) => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let at = file.start().checked_add(offset).ok_or(outside(()))?;
            return Ok(fallocate(file.file(), flags, at, len)?);
        }
        // Its pages would come back with what the file holds.
        (Some(_), false) => return Err(io::ErrorKind::Unsupported.into()),
        (None, _) => {}
    }
    let advice = if shared {
        libc::MADV_REMOVE
    } else {
        libc::MADV_DONTNEED
    };
    let address = MemoryRegionAddress(offset);
    let slice = region.get_slice(address, count).map_err(|_| outside(()))?;
    let guard = slice.ptr_guard_mut();
    // SAFETY: the slice is guest memory, mapped as long as the region lives. The advice changes
    // what it holds and not that it is mapped, and nobody holds references into guest memory, so
    // that it may change at any time, as when the guest writes it.
    match unsafe { libc::madvise(guard.as_ptr().cast(), guard.len(), advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
