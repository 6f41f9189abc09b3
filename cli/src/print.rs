//! Standard output, written so that a reader who goes away (`coracle … | head`) ends the command
//! quietly, and standard error, whose loss is never a reason to fail.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

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

#[cfg(test)]
mod tests {
    use super::*;

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
