//! Log lines that a guest can cause, limited so that it cannot fill the host's log.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most this many lines within one window.
const LINES: u32 = 10;
/// How long a window lasts.
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Window {
    opened: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// A limit of ten lines in ten seconds, kept by whoever logs. Lines beyond it are counted and
/// the count is told with the next line that is let through.
#[derive(Debug, Default)]
pub struct RateLimit(Mutex<Window>);

impl RateLimit {
    /// A fresh limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs a warning about something that the guest did wrong.
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        self.log(log::Level::Warn, message);
    }

    /// Logs something that guests do in the normal course of things.
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        self.log(log::Level::Debug, message);
    }

    fn log(&self, level: log::Level, message: fmt::Arguments<'_>) {
        if !log::log_enabled!(level) {
            return;
        }
        match self.admit(Instant::now()) {
            None => {}
            Some(0) => log::log!(level, "{message}"),
            Some(left_out) => log::log!(level, "{message} ({left_out} lines before it left out)"),
        }
    }

    /// Whether a line may be written at `now`: the number of lines left out since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = window
            .opened
            .is_none_or(|opened| now.duration_since(opened) >= WINDOW);
        if fresh {
            window.opened = Some(now);
            window.lines = 0;
        }
        if window.lines == LINES {
            window.suppressed = window.suppressed.saturating_add(1);
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_told_later() {
        let limit = RateLimit::new();
        let start = Instant::now();
        for _ in 0..LINES {
            assert_eq!(limit.admit(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limit.admit(start + Duration::from_secs(9)), None);
        }
        assert_eq!(limit.admit(start + WINDOW), Some(7));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }
}
