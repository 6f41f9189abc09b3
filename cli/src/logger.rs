//! The log: lines on standard error, or where a client of the API wants them, chosen by level. The
//! one global of the program.

use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use api::error::{ApiError, Code};
use api::firecracker::{LogLevel, Logger};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;
use rustix::termios::{OutputModes, tcgetattr};

use crate::failure::Failure;
use crate::print;

/// The level names, as `--log-level` and `CORACLE_LOG` take them.
const LEVELS: &str = "off, error, warn, info, debug, trace";

struct Sink;

static SINK: Sink = Sink;

/// How lines are written.
struct Setup {
    /// The machine's name, in lines of a file.
    id: String,
    /// Where they go; standard error without it.
    file: Option<File>,
    show_level: bool,
    show_origin: bool,
    /// The only part of the program whose lines are written.
    module: Option<String>,
    /// Whether somebody has said how much is written.
    level_said: bool,
}

static SETUP: Mutex<Setup> = Mutex::new(Setup {
    id: String::new(),
    file: None,
    show_level: false,
    show_origin: false,
    module: None,
    level_said: false,
});

fn setup() -> MutexGuard<'static, Setup> {
    SETUP.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let setup = setup();
        let module = setup.module.as_deref().unwrap_or_default();
        if !record.target().starts_with(module) {
            return;
        }
        match &setup.file {
            // A FIFO that is full takes no more; that is no reason to wait.
            Some(file) => {
                let line = setup.line(record, SystemTime::now());
                let _ = rustix::io::write(file, line.as_bytes());
            }
            None => print::err_if_taken(&line(record, stderr_is_raw())),
        }
    }

    fn flush(&self) {}
}

impl Setup {
    /// A line as Firecracker's clients read it.
    fn line(&self, record: &Record<'_>, now: SystemTime) -> String {
        let thread = std::thread::current();
        let mut about = format!("{}:{}", self.id, thread.name().unwrap_or("main"));
        if self.show_level {
            about += &format!(":{}", record.level());
        }
        if let (true, Some(file), Some(line)) = (self.show_origin, record.file(), record.line()) {
            about += &format!(":{file}:{line}");
        }
        format!("{} [{about}] {}\n", timestamp(now), record.args())
    }
}

/// Date and time in UTC.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let nanos = since.subsec_nanos();
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}")
}

/// The date so many days after 1970-01-01. Years are counted from March, so that the day that is
/// not always there is their last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Gives the machine's lines a name.
pub(crate) fn name(id: &str) {
    id.clone_into(&mut setup().id);
}

/// Sets the log up as a client wants it.
///
/// # Errors
/// When its file can't be written to; nothing has changed then.
pub(crate) fn set_up(logger: &Logger) -> Result<(), ApiError> {
    let file = logger.log_path.as_deref().map(open).transpose()?;
    let mut setup = setup();
    // Who gives the log a file, and no level, means to read it: Firecracker's is Info then.
    let unsaid = file.is_some() && !setup.level_said;
    let level = logger.level.or_else(|| unsaid.then_some(LogLevel::Info));
    setup.level_said |= logger.level.is_some();
    if file.is_some() {
        setup.file = file;
    }
    setup.show_level = logger.show_level.unwrap_or(setup.show_level);
    setup.show_origin = logger.show_log_origin.unwrap_or(setup.show_origin);
    if logger.module.is_some() {
        setup.module.clone_from(&logger.module);
    }
    if let Some(level) = level {
        log::set_max_level(match level {
            LogLevel::Off => LevelFilter::Off,
            LogLevel::Error => LevelFilter::Error,
            LogLevel::Warning => LevelFilter::Warn,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Debug => LevelFilter::Debug,
            LogLevel::Trace => LevelFilter::Trace,
        });
    }
    Ok(())
}

/// A FIFO is opened for both ways, so that there need not be a reader yet.
fn open(path: &Path) -> Result<File, ApiError> {
    let mut options = File::options();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    options.create(true).read(true).append(true);
    options.custom_flags(flags).open(path).map_err(|error| {
        let message = format!("log {}: can't be opened: {error}", path.display());
        let hint = "give log_path a file or FIFO that can be written";
        ApiError::new(Code::BadFile, message, hint).of_field("log_path")
    })
}

/// Chooses the level: the flag, else the environment, else warnings. Other crates' debugging is
/// kept out by what they are: none of ours logs at these levels in a hot path.
///
/// # Errors
/// When the word is no level.
pub(crate) fn start(flag: Option<&str>) -> Result<(), Failure> {
    let environment = std::env::var("CORACLE_LOG").ok();
    let level = choose(flag, environment.as_deref())?;
    setup().level_said = flag.is_some() || environment.is_some_and(|word| !word.is_empty());
    // A second logger is only met in tests, which run many commands in one process.
    let _ = log::set_logger(&SINK);
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
    use std::time::Duration;

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
    fn a_clients_lines() {
        let mut setup = Setup {
            id: "vm-1".into(),
            file: None,
            show_level: false,
            show_origin: false,
            module: None,
            level_said: false,
        };
        let now = UNIX_EPOCH + Duration::from_nanos(1_709_164_799_000_000_001);
        let line = |setup: &Setup| {
            let mut record = Record::builder();
            record.level(Level::Info).file(Some("a.rs")).line(Some(7));
            setup.line(&record.args(format_args!("x")).build(), now)
        };
        let plain = line(&setup);
        assert!(
            plain.starts_with("2024-02-28T23:59:59.000000001 [vm-1:"),
            "{plain}"
        );
        assert!(
            plain.ends_with("] x\n") && !plain.contains("INFO"),
            "{plain}"
        );
        setup.show_level = true;
        setup.show_origin = true;
        assert!(line(&setup).ends_with(":INFO:a.rs:7] x\n"));
    }

    #[test]
    fn dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_819, (2027, 1, 1)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
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
