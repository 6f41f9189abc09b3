//! Standard output, written so that a reader who goes away (`coracle … | head`) ends the command
//! quietly, and standard error, whose loss is never a reason to fail.

use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::failure::Failure;

const PAGE: usize = 4096;

/// Writes to standard output. A closed pipe is success: the reader has what it wanted.
///
/// # Errors
/// When standard output can't be written for another reason (a full disk).
pub(crate) fn out(text: &str) -> Result<(), Failure> {
    deliver(&mut io::stdout().lock(), text)
}

fn deliver(to: &mut impl Write, text: &str) -> Result<(), Failure> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::host(
            format!("standard output can't be written: {error}"),
            "check where the output goes (a full disk?)",
        )),
        _ => Ok(()),
    }
}

/// JSON for people and programs: indented, with a newline at its end.
///
/// # Errors
/// Never for the types of `api`, whose keys are all text.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::host(format!("JSON can't be written: {error}"), ""))?;
    Ok(text + "\n")
}

/// Writes to standard error, in one call so that lines of two processes don't mix. There is
/// nobody to tell when that fails.
pub(crate) fn err(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes a log line to standard error, or drops it where that would wait for a reader: the
/// threads of a machine log, and a guest can make them.
pub(crate) fn err_if_taken(text: &str) {
    if_taken(&io::stderr().lock(), text);
}

/// What fits into a pipe that has any room is at most a page; our lines are shorter.
fn if_taken<F: AsFd>(to: &F, text: &str) {
    let mut room = [PollFd::new(to, PollFlags::OUT)];
    if poll(&mut room, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
        let part = text.as_bytes();
        let _ = rustix::io::write(to, part.get(..PAGE).unwrap_or(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up() {
        let (mut reader, writer) = io::pipe().unwrap();
        for _ in 0..10_000 {
            if_taken(&writer, "coracle: warning: a line of a log\n");
        }
        drop(writer);
        let mut heard = String::new();
        io::Read::read_to_string(&mut reader, &mut heard).unwrap();
        assert!(heard.len() >= 4096 && heard.ends_with("log\n"));
    }

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
        assert!(deliver(&mut Fails(io::ErrorKind::BrokenPipe), "x").is_ok());
        assert!(deliver(&mut Fails(io::ErrorKind::StorageFull), "x").is_err());
        let mut text = Vec::new();
        deliver(&mut text, "plan\n").unwrap();
        assert_eq!(text, b"plan\n");
    }
}
