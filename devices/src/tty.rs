//! Consoles of the host: the terminal, a pseudoterminal, a file, or none.
//!
//! A [`Terminal`] has one output, which any number of devices may write to, and one input, which
//! exactly one device may take. On a terminal it switches to raw mode, so that every key reaches
//! the guest, and filters the keys meant for the monitor out (see [`ESCAPE_HELP`]). Raw mode ends
//! when the terminal is dropped, when the process panics, and when a [`Restorer`] is asked.

mod buffer;
mod escape;
mod input;
mod output;
mod pty;
mod raw;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use buffer::{ConsoleSource, InputBuffer, TYPED_WAITING};
pub use escape::{ESCAPE_HELP, Escape, EscapeFilter};
pub use input::{ConsoleInput, InputState, UserRequest};
pub use output::{ConsoleOutput, ConsoleSink, Offered};
pub use raw::{RawMode, Restorer};

use crate::line::Reporter;
use output::WhenFull;

/// A console that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TtyError {
    /// Standard input or output could not be duplicated.
    #[error("cannot use standard input and output as the console")]
    Stdio(#[source] io::Error),
    /// The terminal refused raw mode.
    #[error("cannot switch the terminal to raw mode")]
    Raw(#[source] io::Error),
    /// No pseudoterminal to be had.
    #[error("cannot open a pseudoterminal as the console: is /dev/pts mounted?")]
    Pty(#[source] io::Error),
    /// The file cannot be opened or created.
    #[error("cannot write the console to {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// The size of a terminal's window, in characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Where the input comes from and whether it knows escape keys.
#[derive(Debug)]
struct InputSource {
    file: File,
    escapes: bool,
}

/// One end of a console.
#[derive(Debug)]
pub struct Terminal {
    output: ConsoleOutput,
    input: Option<InputSource>,
    raw: Option<RawMode>,
    window: Option<File>,
    pty: Option<pty::Pty>,
}

impl Terminal {
    /// Standard input and output. When the input is a terminal it is in raw mode from here on;
    /// otherwise its bytes are passed on as they are and its end just ends the input.
    ///
    /// # Errors
    /// When they cannot be duplicated, or the terminal refuses raw mode.
    pub fn stdio() -> Result<Self, TtyError> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let duplicate = |fd: io::Result<OwnedFd>| fd.map(File::from).map_err(TtyError::Stdio);
        let input = duplicate(stdin.as_fd().try_clone_to_owned())?;
        let output = duplicate(stdout.as_fd().try_clone_to_owned())?;
        let window = duplicate(stdout.as_fd().try_clone_to_owned())?;
        let output = output::non_blocking(output);
        let output = ConsoleOutput::new(output, "standard output", WhenFull::Wait);
        let output = output.map_err(TtyError::Stdio)?;
        let raw = RawMode::enter(input.as_fd()).map_err(TtyError::Raw)?;
        Ok(Self {
            output,
            input: Some(InputSource {
                file: input,
                escapes: raw.is_some(),
            }),
            raw,
            window: rustix::termios::isatty(&window).then_some(window),
            pty: None,
        })
    }

    /// A new pseudoterminal, whose path [`Self::pty_path`] tells. What the guest writes while
    /// nobody reads there is kept as far as the system buffers it, then dropped.
    ///
    /// # Errors
    /// When the system has none.
    pub fn pty() -> Result<Self, TtyError> {
        let (pty, ends) = pty::open().map_err(TtyError::Pty)?;
        let [output, input, window] = ends;
        let output = ConsoleOutput::new(output, "the pseudoterminal", WhenFull::Drop);
        Ok(Self {
            output: output.map_err(TtyError::Pty)?,
            input: Some(InputSource {
                file: input,
                escapes: false,
            }),
            raw: None,
            window: Some(window),
            pty: Some(pty),
        })
    }

    /// A file that takes the output, emptied if it exists; there is no input.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn file(path: &Path) -> Result<Self, TtyError> {
        // A named pipe without a reader is an error then, not a wait for one.
        let flags = output::open_flags();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags)
            .open(path);
        let name = path.display().to_string();
        let output = file.and_then(|file| ConsoleOutput::new(file, &name, WhenFull::Wait));
        let output = output.map_err(|error| TtyError::File {
            path: path.to_owned(),
            error,
        })?;
        Ok(Self::without_input(output))
    }

    /// No console: output is dropped, there is no input.
    pub fn none() -> Self {
        Self::without_input(ConsoleOutput::nowhere())
    }

    /// No output, and input without escapes from `file`.
    #[cfg(test)]
    pub(crate) fn reading(file: File) -> Self {
        let input = Some(InputSource {
            file,
            escapes: false,
        });
        Self {
            input,
            ..Self::none()
        }
    }

    /// A terminal as [`Self::stdio`] makes it of one: input from `file` with escapes.
    #[cfg(test)]
    pub(crate) fn typing(file: File) -> Self {
        let input = Some(InputSource {
            file,
            escapes: true,
        });
        Self {
            input,
            ..Self::none()
        }
    }

    /// An output that somebody may read slowly, or not at all.
    #[cfg(test)]
    pub(crate) fn piped_output(file: File) -> ConsoleOutput {
        let file = output::non_blocking(file);
        ConsoleOutput::new(file, "a pipe", WhenFull::Wait).expect("an eventfd")
    }

    fn without_input(output: ConsoleOutput) -> Self {
        Self {
            output,
            input: None,
            raw: None,
            window: None,
            pty: None,
        }
    }

    /// A handle to write to the console. When the machine ends, its
    /// [`finish_within`](ConsoleOutput::finish_within) frees whoever waits for a slow reader.
    pub fn output(&self) -> ConsoleOutput {
        self.output.clone()
    }

    /// The input, for the one device that gets it; none if there is none or it was taken. What
    /// the user asks of the monitor by escape keys goes to `requests`.
    pub fn take_input(&mut self, requests: Reporter<UserRequest>) -> Option<ConsoleInput> {
        let InputSource { file, escapes } = self.input.take()?;
        let escapes = escapes.then(|| (EscapeFilter::default(), self.output.clone()));
        match ConsoleInput::new(file, escapes, requests) {
            Ok(input) => Some(input),
            Err(error) => {
                log::warn!("console: its input is not read: {error}");
                None
            }
        }
    }

    /// The size of the window, if there is one and it has a size.
    pub fn window_size(&self) -> Option<WindowSize> {
        let size = rustix::termios::tcgetwinsize(self.window.as_ref()?).ok()?;
        let size = WindowSize {
            columns: size.ws_col,
            rows: size.ws_row,
        };
        (size.columns > 0 && size.rows > 0).then_some(size)
    }

    /// The path of the pseudoterminal, if it is one.
    pub fn pty_path(&self) -> Option<&Path> {
        self.pty.as_ref().map(pty::Pty::path)
    }

    /// A handle that ends raw mode from elsewhere, if the terminal is in raw mode.
    pub fn restorer(&self) -> Option<Restorer> {
        self.raw.as_ref().map(RawMode::restorer)
    }
}

#[cfg(test)]
mod tests;
