//! A ring of io_uring (io_uring(7)) for one file: what runs in it owns its piece list and a handle
//! to guest memory until the kernel is done with both.

#![expect(
    unsafe_code,
    reason = "entries carry raw guest memory, which the kernel uses after the call"
)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Direction, each_piece};
use crate::ram::GuestRam;
use crate::virtio::Span;

/// The kernel takes no more pieces in one entry.
const MOST_PIECES: usize = 1024;
/// The file's place among the ring's registered files.
const FILE: Fixed = Fixed(0);
/// The tag of entries whose end nobody waits for.
const NOBODY: u64 = u64::MAX;
/// How long a ring that is dropped waits for what runs, and then asks the kernel to give it up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits at most.
const LAST_PATIENCE: Duration = Duration::from_secs(30);
/// How often the kernel is asked to take what it does not take at once, and how far apart.
const RETRIES: usize = 100;
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

/// What the kernel must know.
const NEEDED: [u8; 7] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::AsyncCancel::CODE,
];

/// `struct iovec` with its address as a number, so that a list of them may change threads.
#[derive(Clone, Copy)]
#[repr(C)]
struct Piece {
    base: usize,
    len: usize,
}

/// What an entry does.
#[derive(Clone, Copy)]
enum Kind {
    Transfer { direction: Direction, offset: u64 },
    Sync,
    Allocate { mode: i32, offset: u64, len: u64 },
}

/// An entry that runs.
struct Job {
    kind: Kind,
    // Where the transfer goes, with what is done cut off the front from `at` on.
    pieces: Vec<Piece>,
    at: usize,
    done: u64,
    // Keeps what the pieces point to mapped.
    _ram: Option<GuestRam>,
}

/// The end of an entry.
pub(crate) struct Ended {
    pub(crate) tag: u16,
    pub(crate) done: u64,
    pub(crate) result: io::Result<()>,
}

/// A transfer to be made.
#[derive(Clone, Copy)]
pub(crate) struct Transfer<'a> {
    pub(crate) direction: Direction,
    pub(crate) offset: u64,
    /// Bytes of the spans that are done already.
    pub(crate) skip: u64,
    pub(crate) ram: &'a GuestRam,
    pub(crate) spans: &'a [Span],
}

/// A ring with one registered file.
pub(crate) struct Ring {
    ring: IoUring,
    jobs: Vec<Option<Job>>,
    // Lists that were used and are empty again.
    spare: Vec<Vec<Piece>>,
    running: usize,
    // What goes on with the next call: transfers that came short.
    again: VecDeque<u16>,
    lost: bool,
    // The kernel was asked to give up what runs, so that nothing of it is tried again.
    giving_up: bool,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("running", &self.running)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes a ring for up to `depth` entries at once on `file`.
    ///
    /// # Errors
    /// When the host has no such rings or forbids them.
    pub(crate) fn new(file: &impl AsFd, depth: u16) -> io::Result<Self> {
        // Twice: each job may be cancelled while it runs.
        let ring = IoUring::builder()
            .setup_cqsize(u32::from(depth).saturating_mul(4))
            .build(u32::from(depth).saturating_mul(2))?;
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        let parameters = ring.params();
        if !parameters.is_feature_nodrop() || !parameters.is_feature_submit_stable() {
            return Err(unsupported());
        }
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !NEEDED.iter().all(|code| probe.is_supported(*code)) {
            return Err(unsupported());
        }
        ring.submitter()
            .register_files(&[file.as_fd().as_raw_fd()])?;
        Ok(Self {
            ring,
            jobs: (0..depth).map(|_| None).collect(),
            spare: Vec::new(),
            running: 0,
            again: VecDeque::new(),
            lost: false,
            giving_up: false,
        })
    }

    /// How many entries have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Whether something goes on that [`submit`](Self::submit) has to start again.
    pub(crate) fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// Takes a transfer under a free tag: false when the tag is not free, or the spans are not
    /// guest memory.
    pub(crate) fn transfer(&mut self, tag: u16, transfer: Transfer<'_>) -> bool {
        let Transfer {
            direction,
            offset,
            skip,
            ram,
            spans,
        } = transfer;
        let mut pieces = self.spare.pop().unwrap_or_default();
        let gathered = each_piece(ram, spans, skip, |slice| {
            let guard = slice.ptr_guard_mut();
            pieces.push(Piece {
                base: guard.as_ptr().expose_provenance(),
                len: guard.len(),
            });
            true
        });
        if gathered.is_err() || pieces.is_empty() {
            return false;
        }
        let kind = Kind::Transfer { direction, offset };
        self.add(
            tag,
            Job {
                kind,
                pieces,
                at: 0,
                done: skip,
                _ram: Some(ram.clone()),
            },
        )
    }

    /// Takes an fdatasync under a free tag.
    pub(crate) fn sync(&mut self, tag: u16) -> bool {
        self.add(tag, Job::plain(Kind::Sync))
    }

    /// Takes a fallocate under a free tag.
    pub(crate) fn allocate(&mut self, tag: u16, mode: i32, offset: u64, len: u64) -> bool {
        self.add(tag, Job::plain(Kind::Allocate { mode, offset, len }))
    }

    fn add(&mut self, tag: u16, job: Job) -> bool {
        let free = self.jobs.get_mut(usize::from(tag));
        let Some(place @ None) = free.filter(|_| !self.lost) else {
            return false;
        };
        *place = Some(job);
        self.running = self.running.saturating_add(1);
        if !self.push(tag, false) {
            self.forget(tag);
            return false;
        }
        true
    }

    /// Drops a job that is not in the ring.
    fn forget(&mut self, tag: u16) {
        if let Some(place) = self.jobs.get_mut(usize::from(tag)) {
            *place = None;
            self.running = self.running.saturating_sub(1);
        }
    }

    /// Puts what is left of a job into the ring.
    fn push(&mut self, tag: u16, patiently: bool) -> bool {
        let Some(Some(job)) = self.jobs.get(usize::from(tag)) else {
            return false;
        };
        let mut entry = job.entry().user_data(tag.into());
        if patiently {
            // The kernel said that it would have to wait: a thread of its own may.
            entry = entry.flags(squeue::Flags::ASYNC);
        }
        // SAFETY: the entry points to the job's list and to guest memory. The list is not touched
        // while the job is in the ring, and the job holds a handle to the memory. A job leaves
        // `jobs` only when the kernel has reported its end; a ring that is dropped earlier leaks
        // them. Nobody holds references into guest memory.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.is_ok()
    }

    /// Starts all that was taken, with one system call unless the kernel has to be asked again.
    ///
    /// # Errors
    /// When the kernel does not take more; nothing can be added to the ring any more then.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        while let Some(tag) = self.again.pop_front() {
            if !self.push(tag, true) {
                self.again.push_front(tag);
                break;
            }
        }
        match self.enter() {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lose(error)),
        }
    }

    /// Hands over what is in the submission queue.
    fn enter(&mut self) -> io::Result<()> {
        let mut retries = RETRIES;
        while !self.lost && !self.ring.submission().is_empty() {
            match self.ring.submit() {
                // An entry that the kernel refuses ends the call, and has ended itself.
                Ok(1..) => continue,
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Too many ends are not fetched, or memory is short for a moment.
                    Some(libc::EBUSY | libc::EAGAIN) => {
                        let _ = poll(&mut [], Some(&PAUSE));
                    }
                    _ => return Err(error),
                },
            }
            retries = retries.saturating_sub(1);
            if retries == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(())
    }

    /// What the kernel did not take never ran.
    fn lose(&mut self, error: io::Error) -> io::Error {
        self.lost = true;
        let waiting = self.ring.submission().len();
        let waiting = waiting.saturating_add(self.again.len());
        self.again.clear();
        self.running = self.running.saturating_sub(waiting);
        error
    }

    /// The next entry that has ended.
    pub(crate) fn next_ended(&mut self) -> Option<Ended> {
        loop {
            let entry = self.ring.completion().next()?;
            if entry.user_data() == NOBODY {
                continue;
            }
            let tag = u16::try_from(entry.user_data()).ok()?;
            if let Some(ended) = self.end(tag, entry.result()) {
                return Some(ended);
            }
        }
    }

    /// The end of a job, unless it goes on with what is left of it.
    fn end(&mut self, tag: u16, result: i32) -> Option<Ended> {
        let goes_on = !self.lost && !self.giving_up;
        let place = self.jobs.get_mut(usize::from(tag))?;
        let job = place.as_mut()?;
        let result = match (result, job.kind) {
            (code, _) if goes_on && (code == -libc::EINTR || code == -libc::EAGAIN) => {
                self.again.push_back(tag);
                return None;
            }
            (code @ ..0, _) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
            // The end of the file, which shrank since its capacity was told to the guest.
            (0, Kind::Transfer { .. }) => Err(io::ErrorKind::UnexpectedEof.into()),
            (moved, Kind::Transfer { .. }) => {
                job.advance(moved.unsigned_abs());
                let is_short = job.at < job.pieces.len();
                if is_short && goes_on {
                    self.again.push_back(tag);
                    return None;
                }
                if is_short {
                    Err(io::ErrorKind::Interrupted.into())
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        };
        let mut job = place.take()?;
        job.pieces.clear();
        if self.spare.len() < self.jobs.len() {
            self.spare.push(std::mem::take(&mut job.pieces));
        }
        self.running = self.running.saturating_sub(1);
        self.giving_up &= self.running > 0;
        let done = job.done;
        Some(Ended { tag, done, result })
    }

    /// Waits until something has ended, at most so long.
    pub(crate) fn wait(&mut self, patience: Duration) {
        if self.running == 0 || !self.ring.completion().is_empty() {
            return;
        }
        let time = Timespec::try_from(patience).ok();
        // An error or the end of the time: the caller looks again either way.
        let _ = poll(&mut [PollFd::new(&*self, PollFlags::IN)], time.as_ref());
    }

    /// Asks the kernel to give up all that runs. What it does not give up ends as always.
    pub(crate) fn cancel(&mut self) {
        // From here on the submission queue has no jobs. That of a lost ring is never touched
        // again: what it holds was reported as never run.
        if self.submit().is_err() || self.lost {
            return;
        }
        self.giving_up = self.running > 0;
        let running = (0_u64..).zip(&self.jobs);
        let running = running.filter(|(_, job)| job.is_some());
        let tags: Vec<u64> = running.map(|(tag, _)| tag).collect();
        for tag in tags {
            let entry = opcode::AsyncCancel::new(tag).build().user_data(NOBODY);
            // SAFETY: a cancellation carries a number and no memory.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_err() {
                break;
            }
        }
        // What is not cancelled is waited for.
        self.lost |= self.enter().is_err();
    }
}

impl Job {
    fn plain(kind: Kind) -> Self {
        Self {
            kind,
            pieces: Vec::new(),
            at: 0,
            done: 0,
            _ram: None,
        }
    }

    fn entry(&self) -> squeue::Entry {
        match self.kind {
            Kind::Sync => opcode::Fsync::new(FILE).flags(FsyncFlags::DATASYNC).build(),
            Kind::Allocate { mode, offset, len } => opcode::Fallocate::new(FILE, len)
                .mode(mode)
                .offset(offset)
                .build(),
            Kind::Transfer { direction, offset } => {
                let rest = self.pieces.get(self.at..).unwrap_or_default();
                entry(direction, rest, offset.wrapping_add(self.done))
            }
        }
    }

    /// Cuts `moved` bytes off the front.
    fn advance(&mut self, moved: u32) {
        self.done = self.done.saturating_add(moved.into());
        let mut left = usize::try_from(moved).unwrap_or(usize::MAX);
        while let Some(piece) = self.pieces.get_mut(self.at) {
            if left < piece.len {
                piece.base = piece.base.wrapping_add(left);
                piece.len = piece.len.saturating_sub(left);
                return;
            }
            left = left.saturating_sub(piece.len);
            self.at = self.at.saturating_add(1);
        }
    }
}

/// The entry that moves `pieces` from or to `offset`.
fn entry(direction: Direction, pieces: &[Piece], offset: u64) -> squeue::Entry {
    if let [one] = pieces
        && let Ok(len) = u32::try_from(one.len)
    {
        // One piece costs the kernel less without a list.
        let base = std::ptr::with_exposed_provenance_mut::<u8>(one.base);
        return match direction {
            Direction::Read => opcode::Read::new(FILE, base, len).offset(offset).build(),
            Direction::Write => opcode::Write::new(FILE, base, len).offset(offset).build(),
        };
    }
    let count = u32::try_from(pieces.len().min(MOST_PIECES)).unwrap_or(0);
    let list = pieces.as_ptr().cast::<libc::iovec>();
    match direction {
        Direction::Read => opcode::Readv::new(FILE, list, count).offset(offset).build(),
        Direction::Write => opcode::Writev::new(FILE, list, count)
            .offset(offset)
            .build(),
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring, from which it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Nothing is begun or gone on with any more.
        if self.has_more() || !self.ring.submission().is_empty() {
            self.lose(io::ErrorKind::Interrupted.into());
        }
        self.giving_up = true;
        let began = Instant::now();
        let mut cancelled = false;
        while self.running > 0 && began.elapsed() < LAST_PATIENCE {
            while self.next_ended().is_some() {}
            if self.running > 0 {
                self.wait(Duration::from_millis(100));
            }
            if !cancelled && began.elapsed() > PATIENCE {
                self.cancel();
                cancelled = true;
            }
        }
        if self.running == 0 {
            // Otherwise the kernel keeps the file, and its locks, until it gets round to the ring.
            let _ = self.ring.submitter().unregister_files();
        } else {
            log::error!("disk: the host does not end {} operations", self.running);
            // The kernel may still use their lists and the memory: neither is ever freed.
            std::mem::forget(std::mem::take(&mut self.jobs));
        }
    }
}

#[cfg(test)]
mod tests;
