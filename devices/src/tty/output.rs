//! The writing side of a console, shared by the devices that print on it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{FileType, OFlags};

/// What to do when a non-blocking output takes no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WhenFull {
    /// Wait: somebody reads slowly.
    Wait,
    /// Drop what does not fit: perhaps nobody reads.
    Drop,
}

/// When all writing has to be over, and what wakes those who wait without an end.
#[derive(Debug)]
struct Ending {
    deadline: OnceLock<Instant>,
    bell: OwnedFd,
}

#[derive(Debug)]
struct Output {
    /// None once writing failed, or when there is no console.
    file: Option<File>,
    name: String,
    when_full: WhenFull,
    dropping: bool,
}

/// A handle to a console's output, cheap to clone. Writing never fails: when the other side is
/// gone (a closed pipe, a terminal that hung up, a full disk), output is dropped from then on and
/// one log line says so. A slow reader slows the writer down, until [`Self::finish_within`].
#[derive(Clone, Debug)]
pub struct ConsoleOutput {
    output: Arc<Mutex<Output>>,
    /// None when nothing is ever waited for.
    ending: Option<Arc<Ending>>,
}

impl ConsoleOutput {
    /// Writes to `file`, which should not block where it can block for long
    /// (see [`non_blocking`]).
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new(file: File, name: &str, when_full: WhenFull) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let ending = Ending {
            deadline: OnceLock::new(),
            bell,
        };
        let (file, name) = (Some(file), name.to_owned());
        let output = Output {
            file,
            name,
            when_full,
            dropping: false,
        };
        Ok(Self {
            output: Arc::new(Mutex::new(output)),
            ending: Some(Arc::new(ending)),
        })
    }

    /// An output that drops everything.
    pub fn nowhere() -> Self {
        let (name, when_full) = (String::new(), WhenFull::Drop);
        let output = Output {
            file: None,
            name,
            when_full,
            dropping: false,
        };
        Self {
            output: Arc::new(Mutex::new(output)),
            ending: None,
        }
    }

    /// The machine ends: whoever waits for a slow reader waits `grace` longer at most, and what
    /// the reader has not taken by then is dropped. The first call counts.
    pub fn finish_within(&self, grace: Duration) {
        if let Some(ending) = &self.ending {
            ending.deadline.get_or_init(|| Instant::now() + grace);
            // It is never silenced, so that it wakes every waiter.
            let _ = rustix::io::write(&ending.bell, &1_u64.to_ne_bytes());
        }
    }
}

impl Ending {
    /// Waits until `file` takes more: false when the time for that is over.
    fn wait_for_room(&self, file: &File) -> bool {
        // An interrupted or failed wait is like a finished one: the next write finds out.
        let Some(deadline) = self.deadline.get() else {
            let (room, end) = (PollFlags::OUT, PollFlags::IN);
            let _ = poll(
                &mut [PollFd::new(file, room), PollFd::new(&self.bell, end)],
                None,
            );
            return true;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok().filter(|_| !left.is_zero());
        if let Some(left) = left {
            let _ = poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&left));
        }
        left.is_some()
    }
}

impl Output {
    fn write(&mut self, mut data: &[u8], ending: &Ending) {
        while let Some(file) = self.file.as_mut().filter(|_| !data.is_empty()) {
            match file.write(data) {
                Ok(written) if written > 0 => {
                    data = data.get(written..).unwrap_or_default();
                    self.dropping = false;
                }
                Ok(_) => self.close(&ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.when_full == WhenFull::Drop || !ending.wait_for_room(file) {
                        self.note_full();
                        return;
                    }
                }
                Err(error) => self.close(&error),
            }
        }
    }

    fn close(&mut self, error: &io::Error) {
        log::warn!(
            "console: {} takes no more output, it is dropped: {error}",
            self.name
        );
        self.file = None;
    }

    fn note_full(&mut self) {
        if !std::mem::replace(&mut self.dropping, true) {
            log::debug!("console: nobody reads {}, output is dropped", self.name);
        }
    }
}

impl Write for ConsoleOutput {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if let Some(ending) = &self.ending {
            self.output
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(data, ending);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same terminal or pipe, opened anew so that it does not block. The flag can't be set on
/// `file` itself: it would hold for every process that has the terminal from the same shell.
/// What cannot be opened anew is handed back as it is.
pub(super) fn non_blocking(file: File) -> File {
    let kind = rustix::fs::fstat(&file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let Ok(FileType::CharacterDevice | FileType::Fifo) = kind else {
        return file;
    };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new()
        .write(true)
        .custom_flags(open_flags())
        .open(path)
        .unwrap_or(file)
}

/// Flags to open an output with: it neither blocks nor becomes the controlling terminal.
pub(super) fn open_flags() -> i32 {
    i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0)
}
