//! The file that counters are written to, and how Firecracker's clients know them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// `PUT /metrics`. Other fields are let be, as Firecracker does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Metrics {
    /// The file or FIFO that a line is added to each time.
    #[cfg_attr(test, schema(value_type = String))]
    pub metrics_path: PathBuf,
}

impl Metrics {
    /// Those that are written to the file at `path`.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self {
            metrics_path: path.to_owned(),
        }
    }
}

/// A counter of a device, as Firecracker names it.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// The device's model.
    pub model: &'static str,
    /// Where it stands in the device's report.
    pub ours: &'static str,
    /// What it is called in a line.
    pub theirs: &'static str,
}

const fn counter(model: &'static str, ours: &'static str, theirs: &'static str) -> Counter {
    Counter {
        model,
        ours,
        theirs,
    }
}

/// The counters of which both of us have the thing that they count.
#[rustfmt::skip]
pub const COUNTERS: &[Counter] = &[
    counter("virtio-blk", "reads", "read_count"),
    counter("virtio-blk", "read_bytes", "read_bytes"),
    counter("virtio-blk", "writes", "write_count"),
    counter("virtio-blk", "written_bytes", "write_bytes"),
    counter("virtio-blk", "flushes", "flush_count"),
    counter("virtio-blk", "host_errors", "execute_fails"),
    counter("virtio-blk", "malformed", "invalid_reqs_count"),
    counter("virtio-blk", "throttled", "rate_limiter_throttled_events"),
    counter("virtio-net", "rx_packets_count", "rx_packets_count"),
    counter("virtio-net", "rx_bytes_count", "rx_bytes_count"),
    counter("virtio-net", "rx_host_errors", "rx_fails"),
    counter("virtio-net", "rx_throttled", "rx_rate_limiter_throttled"),
    counter("virtio-net", "rx_starved", "no_rx_avail_buffer"),
    counter("virtio-net", "tx_packets_count", "tx_packets_count"),
    counter("virtio-net", "tx_bytes_count", "tx_bytes_count"),
    counter("virtio-net", "tx_host_errors", "tx_fails"),
    counter("virtio-net", "tx_dropped_malformed", "tx_malformed_frames"),
    counter("virtio-net", "tx_spoofed_mac_count", "tx_spoofed_mac_count"),
    counter("virtio-net", "tx_throttled", "tx_rate_limiter_throttled"),
    counter("virtio-rng", "requests", "entropy_event_count"),
    counter("virtio-rng", "bytes", "entropy_bytes"),
    counter("virtio-rng", "host_errors", "host_rng_fails"),
    counter("virtio-rng", "waits_for_limit", "entropy_rate_limiter_throttled"),
    counter("virtio-vsock", "rx_bytes_count", "rx_bytes_count"),
    counter("virtio-vsock", "rx_packets_count", "rx_packets_count"),
    counter("virtio-vsock", "tx_bytes_count", "tx_bytes_count"),
    counter("virtio-vsock", "tx_packets_count", "tx_packets_count"),
    counter("virtio-vsock", "conns_added", "conns_added"),
    counter("virtio-vsock", "conns_killed", "conns_killed"),
    counter("virtio-vsock", "conns_removed", "conns_removed"),
    counter("virtio-vsock", "rx_read_fails", "rx_read_fails"),
    counter("virtio-vsock", "tx_write_fails", "tx_write_fails"),
];

/// The groups that a device's counters are told in: that of all devices of its kind and, where
/// there can be several, its own.
#[must_use]
pub fn groups(model: &str, name: &str) -> Vec<String> {
    match model {
        "virtio-blk" => vec!["block".to_owned(), format!("block_{name}")],
        "virtio-net" => vec!["net".to_owned(), format!("net_{name}")],
        "virtio-rng" => vec!["entropy".to_owned()],
        "virtio-vsock" => vec!["vsock".to_owned()],
        _ => Vec::new(),
    }
}

/// The counters of a line: groups, each with its counters.
pub type Counts = BTreeMap<String, BTreeMap<&'static str, u64>>;

/// The line of JSON that tells what has been counted since `told`, `millis` after 1970.
#[must_use]
pub fn counts_line(counts: &Counts, told: &Counts, millis: u64) -> String {
    let before = |group: &str, name: &str| {
        let group = told.get(group);
        group
            .and_then(|group| group.get(name))
            .copied()
            .unwrap_or(0)
    };
    let mut line = Map::new();
    line.insert("utc_timestamp_ms".to_owned(), millis.into());
    for (group, counters) in counts {
        let news = counters.iter().map(|(name, &number)| {
            let new = number.saturating_sub(before(group, name));
            ((*name).to_owned(), new.into())
        });
        line.insert(group.clone(), Value::Object(news.collect()));
    }
    format!("{}\n", Value::Object(line))
}
