//! What the device counts, under Firecracker's names where it counts the same.

use crate::inspect::Report;

/// Counts since the device was made; "rx" is what the guest receives.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Data bytes to the guest.
    pub(super) rx_bytes: u64,
    /// Packets to the guest.
    pub(super) rx_packets: u64,
    /// Data bytes from the guest.
    pub(super) tx_bytes: u64,
    /// Packets from the guest.
    pub(super) tx_packets: u64,
    /// Connections made, of both sides.
    pub(super) conns_added: u64,
    /// Connections ended by this device: a rule broken, a time limit.
    pub(super) conns_killed: u64,
    /// Connections that are no more.
    pub(super) conns_removed: u64,
    /// Connections that the guest asked for and nobody serves.
    pub(super) conns_refused: u64,
    /// Connections, of both sides, beyond the limits.
    pub(super) conns_over_limit: u64,
    /// Host programs that sent no good CONNECT line, or none in time.
    pub(super) handshakes_failed: u64,
    /// Reads from host programs that failed.
    pub(super) rx_read_fails: u64,
    /// Writes to host programs that failed.
    pub(super) tx_write_fails: u64,
    /// Packets of the guest that were dropped: no header, another's address.
    pub(super) tx_malformed: u64,
    /// Packets that broke a rule and ended their connection.
    pub(super) violations: u64,
    /// RST packets that the device sent.
    pub(super) resets: u64,
    /// How often data waited for want of a buffer of the guest.
    pub(super) rx_starved: u64,
    /// Buffers of the guest that were too small for a packet.
    pub(super) rx_too_small: u64,
}

impl Counters {
    /// Adds all of them to a report.
    pub(super) fn report(&self, report: Report) -> Report {
        [
            ("rx_bytes_count", self.rx_bytes),
            ("rx_packets_count", self.rx_packets),
            ("tx_bytes_count", self.tx_bytes),
            ("tx_packets_count", self.tx_packets),
            ("conns_added", self.conns_added),
            ("conns_killed", self.conns_killed),
            ("conns_removed", self.conns_removed),
            ("conns_refused", self.conns_refused),
            ("conns_over_limit", self.conns_over_limit),
            ("handshakes_failed", self.handshakes_failed),
            ("rx_read_fails", self.rx_read_fails),
            ("tx_write_fails", self.tx_write_fails),
            ("tx_malformed", self.tx_malformed),
            ("violations", self.violations),
            ("resets_sent", self.resets),
            ("rx_starved", self.rx_starved),
            ("rx_buffers_too_small", self.rx_too_small),
        ]
        .into_iter()
        .fold(report, |report, (name, count)| report.with(name, count))
    }
}

/// One more.
pub(super) fn bump(counter: &mut u64) {
    add(counter, 1);
}

/// `count` more.
pub(super) fn add(counter: &mut u64, count: usize) {
    *counter = counter.saturating_add(count as u64);
}
