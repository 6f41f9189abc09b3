//! Machines as rows for people.

use serde::Serialize;

/// What is told of a machine in a list.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// `not-started`, `running`, `paused`, or `unreachable`.
    pub(super) state: String,
    pub(super) vcpus: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) kernel: Option<String>,
    pub(super) pid: u32,
    pub(super) created_ms: u64,
    pub(super) socket: String,
}

const TITLES: [&str; 6] = ["NAME", "STATE", "VCPUS", "MEMORY", "PID", "UP"];

/// The rows below their titles, in columns; `now_ms` is the time.
pub(super) fn text(rows: &[Row], now_ms: u64) -> String {
    let cells = |row: &Row| {
        let unknown = || "-".to_owned();
        [
            row.name.clone(),
            row.state.clone(),
            row.vcpus.map_or_else(unknown, |count| count.to_string()),
            row.memory_bytes.map_or_else(unknown, size),
            row.pid.to_string(),
            time(now_ms.saturating_sub(row.created_ms) / 1000),
        ]
    };
    let lines: Vec<_> = std::iter::once(TITLES.map(str::to_owned))
        .chain(rows.iter().map(cells))
        .collect();
    let widths: Vec<_> = (0..TITLES.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].len())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}  "));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ => format!("{}K", bytes >> 10),
    }
}

/// The two largest units of so many seconds.
fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let row = |name: &str, state: &str, vcpus, created_ms| Row {
            name: name.into(),
            state: state.into(),
            vcpus,
            memory_bytes: vcpus.map(|_| 512 << 20),
            kernel: None,
            pid: 7,
            created_ms,
            socket: String::new(),
        };
        let rows = [
            row("web", "running", Some(2), 0),
            row("a-long-name", "unreachable", None, 90_061_000),
        ];
        assert_eq!(
            text(&rows, 90_061_000),
            "NAME         STATE        VCPUS  MEMORY  PID  UP\n\
             web          running      2      512M    7    1d1h\n\
             a-long-name  unreachable  -      -       7    0s\n"
        );
        assert_eq!(text(&[], 0).lines().count(), 1);
        assert_eq!([size(1 << 30), size(4096)], ["1G", "4K"]);
        assert_eq!([time(59), time(61), time(3700)], ["59s", "1m1s", "1h1m"]);
    }
}
