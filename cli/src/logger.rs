//! The log: lines on standard error, chosen by level. The one global of the program.

use std::io::IsTerminal;

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::termios::{OutputModes, tcgetattr};

use crate::failure::Failure;
use crate::print;

/// The level names, as `--log-level` and `CORACLE_LOG` take them.
const LEVELS: &str = "off, error, warn, info, debug, trace";

struct Stderr;

static STDERR: Stderr = Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            print::err_if_taken(&line(record, stderr_is_raw()));
        }
    }

    fn flush(&self) {}
}

/// Chooses the level: the flag, else the environment, else warnings. Other crates' debugging is
/// kept out by what they are: none of ours logs at these levels in a hot path.
///
/// # Errors
/// When the word is no level.
pub(crate) fn start(flag: Option<&str>) -> Result<(), Failure> {
    let environment = std::env::var("CORACLE_LOG").ok();
    let level = choose(flag, environment.as_deref())?;
    // A second logger is only met in tests, which run many commands in one process.
    let _ = log::set_logger(&STDERR);
    log::set_max_level(level);
    Ok(())
}

fn choose(flag: Option<&str>, environment: Option<&str>) -> Result<LevelFilter, Failure> {
    let (name, word) = match (flag, environment) {
        (Some(word), _) => ("log level", word),
        (None, Some(word)) if !word.is_empty() => ("CORACLE_LOG", word),
        _ => return Ok(LevelFilter::Warn),
    };
    word.parse().map_err(|_| {
        Failure::input(
            format!("{name} {word:?} is not one of {LEVELS}"),
            "choose one of them, such as info",
        )
    })
}

/// One line; a raw terminal needs a carriage return to come back to its left edge.
fn line(record: &Record<'_>, raw: bool) -> String {
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let end = if raw { "\r\n" } else { "\n" };
    format!("coracle: {level}: {}{end}", record.args())
}

/// Asked each time, since the terminal becomes raw and cooked again while the guest runs.
fn stderr_is_raw() -> bool {
    let stderr = std::io::stderr();
    stderr.is_terminal()
        && tcgetattr(&stderr).is_ok_and(|modes| !modes.output_modes.contains(OutputModes::OPOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(choose(None, None).unwrap(), LevelFilter::Warn);
        assert_eq!(choose(None, Some("")).unwrap(), LevelFilter::Warn);
        assert_eq!(choose(None, Some("debug")).unwrap(), LevelFilter::Debug);
        assert_eq!(
            choose(Some("off"), Some("debug")).unwrap(),
            LevelFilter::Off
        );
        let message = choose(Some("loud"), None).unwrap_err().message;
        assert_eq!(
            message,
            "log level \"loud\" is not one of off, error, warn, info, debug, trace"
        );
        assert!(
            choose(None, Some("1"))
                .unwrap_err()
                .message
                .starts_with("CORACLE_LOG \"1\"")
        );
    }

    #[test]
    fn lines_end_where_the_terminal_is() {
        let record = |raw| {
            line(
                &Record::builder()
                    .level(Level::Warn)
                    .args(format_args!("x"))
                    .build(),
                raw,
            )
        };
        assert_eq!(record(false), "coracle: warning: x\n");
        assert_eq!(record(true), "coracle: warning: x\r\n");
    }
}
