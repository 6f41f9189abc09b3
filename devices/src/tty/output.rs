//! The writing side of a console, shared by the devices that print on it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl};

/// What a pipe or socket that is writable at all takes without waiting (PIPE_BUF).
const TAKEN_AT_ONCE: usize = 4096;

/// What to do when a non-blocking output takes no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WhenFull {
    /// Wait: somebody reads slowly.
    Wait,
    /// Drop what does not fit: perhaps nobody reads.
    Drop,
}

/// What became of bytes that were offered to an output. The rest has to wait.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offered {
    /// How many bytes were written.
    pub written: usize,
    /// How many bytes after those were dropped, since nobody will ever read them.
    pub dropped: usize,
}

/// Where a device on an I/O loop writes, which never makes the loop wait.
pub trait ConsoleSink: Send {
    /// Takes from the front of `data` what goes without waiting.
    fn offer(&mut self, data: &[u8]) -> Offered;

    /// A descriptor of the caller's own that is writable when more is taken; none if there is
    /// never anything to wait for.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    fn room(&self) -> io::Result<Option<OwnedFd>>;

    /// Waits at the machine's end until more is taken: false when the time for that is over, or
    /// when the machine does not end.
    fn wait_at_the_end(&mut self) -> bool;
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
    file: Option<Arc<File>>,
    /// A write may wait although the file is writable.
    blocking: bool,
    name: String,
    when_full: WhenFull,
    dropping: bool,
}

/// A handle to a console's output, cheap to clone. Writing never fails: when the other side is
/// gone (a closed pipe, a terminal that hung up, a full disk), output is dropped from then on and
/// one log line says so. A slow reader slows the writer down, until [`Self::finish_within`]; who
/// may not be slowed down uses it as a [`ConsoleSink`].
#[derive(Clone, Debug)]
pub struct ConsoleOutput {
    /// Never locked for longer than a write that does not wait.
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
        let output = Output {
            blocking: blocks(&file)?,
            file: Some(Arc::new(file)),
            name: name.to_owned(),
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
        let output = Output {
            file: None,
            blocking: false,
            name: String::new(),
            when_full: WhenFull::Drop,
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

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What an output did with bytes.
enum Took {
    Some(Offered),
    /// Nothing: this file takes no more now.
    Full(Arc<File>),
}

impl Output {
    /// Writes once, without waiting.
    fn take(&mut self, data: &[u8]) -> Took {
        let mut done = Offered::default();
        while let Some(file) = &self.file {
            match write_now(file, self.blocking, data) {
                Ok(written) if written > 0 => {
                    done.written = written;
                    self.dropping = false;
                    return Took::Some(done);
                }
                Ok(_) => self.close(&ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.when_full == WhenFull::Wait {
                        return Took::Full(Arc::clone(file));
                    }
                    self.note_full();
                    break;
                }
                Err(error) => self.close(&error),
            }
        }
        done.dropped = data.len();
        Took::Some(done)
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

fn write_now(mut file: &File, blocking: bool, data: &[u8]) -> io::Result<usize> {
    if !blocking {
        return file.write(data);
    }
    let mut room = [PollFd::new(file, PollFlags::OUT)];
    if poll(&mut room, Some(&Timespec::default()))? == 0 {
        return Err(ErrorKind::WouldBlock.into());
    }
    file.write(data.get(..TAKEN_AT_ONCE).unwrap_or(data))
}

impl Write for ConsoleOutput {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Some(ending) = &self.ending else {
            return Ok(data.len());
        };
        let mut rest = data;
        while !rest.is_empty() {
            let took = self.lock().take(rest);
            match took {
                Took::Some(Offered { written, dropped }) => {
                    rest = rest
                        .get(written.saturating_add(dropped)..)
                        .unwrap_or_default();
                }
                // Nobody is locked out meanwhile: others may be unable to wait.
                Took::Full(file) if ending.wait_for_room(&file) => {}
                Took::Full(_) => {
                    self.lock().note_full();
                    break;
                }
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ConsoleSink for ConsoleOutput {
    fn offer(&mut self, data: &[u8]) -> Offered {
        let mut total = Offered::default();
        let taken = |total: Offered| total.written.saturating_add(total.dropped);
        while let Some(rest) = data.get(taken(total)..).filter(|rest| !rest.is_empty()) {
            let Took::Some(more) = self.lock().take(rest) else {
                break;
            };
            total.written = total.written.saturating_add(more.written);
            total.dropped = more.dropped;
        }
        total
    }

    fn room(&self) -> io::Result<Option<OwnedFd>> {
        let output = self.lock();
        let file = output
            .file
            .as_ref()
            .filter(|_| output.when_full == WhenFull::Wait);
        let room = file.map(|file| file.try_clone()).transpose()?;
        Ok(room.map(OwnedFd::from))
    }

    fn wait_at_the_end(&mut self) -> bool {
        let Some(ending) = &self.ending else {
            return false;
        };
        let file = self.lock().file.clone();
        ending.deadline.get().is_some() && file.is_some_and(|file| ending.wait_for_room(&file))
    }
}

/// Whether a write may wait for a reader.
fn blocks(file: &File) -> io::Result<bool> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode);
    let waits = matches!(
        kind,
        FileType::CharacterDevice | FileType::Fifo | FileType::Socket
    );
    Ok(waits && !fcntl_getfl(file)?.contains(OFlags::NONBLOCK))
}

/// The same terminal or pipe, opened anew so that it does not block. The flag can't be set on
/// `file` itself: it would hold for every process that has the terminal from the same shell.
/// What cannot be opened anew is handed back as it is.
pub(super) fn non_blocking(file: File) -> File {
    let kind = rustix::fs::fstat(&file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let Ok(FileType::CharacterDevice | FileType::Fifo) = kind else {
        return file;
    };
    let open = |path: &str| {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(open_flags()).open(path)
    };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // The terminal of another user, as after su, can still be opened as the own one.
    let own = || rustix::termios::tcgetsid(&file).is_ok();
    open(&path)
        .or_else(|error| if own() { open("/dev/tty") } else { Err(error) })
        .unwrap_or(file)
}

/// Flags to open an output with: it neither blocks nor becomes the controlling terminal.
pub(super) fn open_flags() -> i32 {
    i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0)
}
