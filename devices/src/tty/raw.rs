//! Raw mode of a terminal, and every way out of it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

#[derive(Debug)]
struct Saved {
    terminal: OwnedFd,
    modes: Termios,
    raw: AtomicBool,
}

/// Ends raw mode, from any thread and as often as wanted: the first time counts.
#[derive(Clone, Debug)]
pub struct Restorer(Arc<Saved>);

impl Restorer {
    /// Gives the terminal its old modes back.
    pub fn restore(&self) {
        if self.0.raw.swap(false, Ordering::AcqRel) {
            // It fails when the terminal is gone, and then there is nothing to restore.
            let _ = tcsetattr(&self.0.terminal, OptionalActions::Now, &self.0.modes);
        }
    }
}

/// A terminal in raw mode for as long as this lives.
#[derive(Debug)]
pub struct RawMode(Restorer);

impl RawMode {
    /// Switches the terminal to raw mode; none if it is not a terminal. Output is raw too: the
    /// guest's terminal has already put a carriage return where one belongs, and a full-screen
    /// program counts on a line feed that only goes down. Whoever logs meanwhile ends lines with
    /// both. A panic anywhere in the process ends raw mode before its message is printed.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !rustix::termios::isatty(terminal) {
            return Ok(None);
        }
        let modes = tcgetattr(terminal)?;
        let mut raw_modes = modes.clone();
        raw_modes.make_raw();
        let terminal = terminal.try_clone_to_owned()?;
        tcsetattr(&terminal, OptionalActions::Now, &raw_modes)?;
        let restorer = Restorer(Arc::new(Saved {
            terminal,
            modes,
            raw: AtomicBool::new(true),
        }));
        let (at_panic, print) = (restorer.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            at_panic.restore();
            print(info);
        }));
        Ok(Some(Self(restorer)))
    }

    /// A handle that ends raw mode from elsewhere.
    pub fn restorer(&self) -> Restorer {
        self.0.clone()
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.0.restore();
    }
}
