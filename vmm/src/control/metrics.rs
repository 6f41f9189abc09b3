//! Counters in a file, as Firecracker's clients read them: one line of JSON each time, with what
//! has been counted since the last one.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::error::{ApiError, Code};
use api::firecracker::{COUNTERS, Counts, counts_line, groups};
use devices::inspect::{Report, Value};
use rustix::fs::OFlags;

/// How often a line is written by itself.
const PERIOD: Duration = Duration::from_secs(60);

/// The file.
#[derive(Debug)]
pub(super) struct MetricsFile {
    file: File,
    /// What has been told already.
    told: Counts,
    /// When the next line is due.
    due: Instant,
}

/// What one device has counted.
#[derive(Debug)]
pub(super) struct Counted<'a> {
    pub(super) model: &'a str,
    /// The name by which clients know it.
    pub(super) name: String,
    pub(super) report: &'a Report,
}

impl MetricsFile {
    /// Opens the file; the first line is due at once.
    pub(super) fn open(path: &Path) -> Result<Self, ApiError> {
        // A FIFO is opened for both ways, so that there need not be a reader yet.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut options = File::options();
        options.create(true).read(true).append(true);
        let file = options.custom_flags(flags).open(path).map_err(|error| {
            let message = format!("metrics {}: can't be opened: {error}", path.display());
            let hint = "give metrics_path a file or FIFO that can be written";
            ApiError::new(Code::BadFile, message, hint).of_field("metrics_path")
        })?;
        Ok(Self {
            file,
            told: Counts::new(),
            due: Instant::now(),
        })
    }

    /// When the next line is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// A line is on its way.
    pub(super) fn begun(&mut self, now: Instant) {
        self.due = now.checked_add(PERIOD).unwrap_or(now);
    }

    /// Writes a line.
    ///
    /// # Errors
    /// When the file takes none; what it would have told is in the next one.
    pub(super) fn write(&mut self, devices: &[Counted<'_>]) -> io::Result<()> {
        let counts = count(devices);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.unwrap_or_default().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let line = counts_line(&counts, &self.told, millis);
        self.file.write_all(line.as_bytes())?;
        self.told = counts;
        Ok(())
    }
}

fn count(devices: &[Counted<'_>]) -> Counts {
    let mut counts = Counts::new();
    for device in devices {
        for counter in COUNTERS.iter().filter(|one| one.model == device.model) {
            let Some(Value::Number(number)) = device.report.find(counter.ours) else {
                continue;
            };
            for group in groups(device.model, &device.name) {
                let sum = counts.entry(group).or_default();
                let sum = sum.entry(counter.theirs).or_default();
                *sum = sum.saturating_add(*number);
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_has_come_since_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        let mut file = MetricsFile::open(&path).unwrap();
        for reads in [5_u64, 8] {
            let report = Report::new().with("reads", reads).with("kind", "block");
            let none = Report::new().with("reads", 1_u64);
            let device = |name: &str, report| Counted {
                model: "virtio-blk",
                name: name.into(),
                report,
            };
            file.write(&[device("d1", &report), device("d2", &none)])
                .unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        assert_eq!(lines[0]["block"]["read_count"], 6);
        assert_eq!(lines[0]["block_d1"]["read_count"], 5);
        assert_eq!(lines[1]["block"]["read_count"], 3);
        assert_eq!(lines[1]["block_d2"]["read_count"], 0);
        assert!(lines[1]["utc_timestamp_ms"].as_u64().unwrap() > 1_700_000_000_000);
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_had() {
        let error = MetricsFile::open(Path::new("/no/such/folder/m")).unwrap_err();
        assert_eq!(error.code, Code::BadFile);
    }
}
