//! The writing side of a console, shared by the devices that print on it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

/// What to do when a non-blocking output takes no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WhenFull {
    /// Wait: somebody reads slowly.
    Wait,
    /// Drop what does not fit: perhaps nobody reads.
    Drop,
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
/// one log line says so. A slow reader slows the writer down.
#[derive(Clone, Debug)]
pub struct ConsoleOutput(Arc<Mutex<Output>>);

impl ConsoleOutput {
    pub(super) fn new(file: File, name: &str, when_full: WhenFull) -> Self {
        let (file, name) = (Some(file), name.to_owned());
        Self(Arc::new(Mutex::new(Output {
            file,
            name,
            when_full,
            dropping: false,
        })))
    }

    /// An output that drops everything.
    pub fn nowhere() -> Self {
        let (name, when_full) = (String::new(), WhenFull::Drop);
        Self(Arc::new(Mutex::new(Output {
            file: None,
            name,
            when_full,
            dropping: false,
        })))
    }
}

impl Output {
    fn write(&mut self, mut data: &[u8]) {
        while let Some(file) = self.file.as_mut().filter(|_| !data.is_empty()) {
            match file.write(data) {
                Ok(written) if written > 0 => {
                    data = data.get(written..).unwrap_or_default();
                    self.dropping = false;
                }
                Ok(_) => self.close(&ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.when_full == WhenFull::Drop {
                        self.note_full();
                        return;
                    }
                    // A failed or interrupted wait is found out by the next write.
                    let _ = poll(&mut [PollFd::new(file, PollFlags::OUT)], None);
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
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
