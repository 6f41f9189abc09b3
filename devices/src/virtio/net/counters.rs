//! What the device counts; "rx" is what the guest receives.

use crate::inspect::Report;

/// Counts of one direction that both have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    /// Frames that went through.
    pub(super) packets: u64,
    /// Their bytes, without the header of virtio-net.
    pub(super) bytes: u64,
    /// Frames that had to wait for the limits.
    pub(super) throttled: u64,
    /// What the host failed to receive or refused to send.
    pub(super) host_errors: u64,
    /// Frames with an offload that was not agreed on or cannot be.
    pub(super) bad_offloads: u64,
    /// Frames without a whole header of virtio-net or Ethernet, or longer than any may be.
    pub(super) malformed: u64,
}

impl Moved {
    pub(super) fn count(&mut self, bytes: u64) {
        bump(&mut self.packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn report(&self, direction: &str, report: Report) -> Report {
        [
            ("packets_count", self.packets),
            ("bytes_count", self.bytes),
            ("throttled", self.throttled),
            ("host_errors", self.host_errors),
            ("dropped_offload", self.bad_offloads),
            ("dropped_malformed", self.malformed),
        ]
        .into_iter()
        .fold(report, |report, (name, count)| {
            report.with(format!("{direction}_{name}"), count)
        })
    }
}

/// Counts since the device was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) rx: Moved,
    /// Frames that did not fit into what the guest had given.
    pub(super) rx_too_large: u64,
    /// Buffers of the guest that no frame can be put into.
    pub(super) rx_bad_buffers: u64,
    /// How often frames waited for want of buffers of the guest.
    pub(super) rx_starved: u64,
    pub(super) tx: Moved,
    /// Frames sent from another address than the device's, whether they went through or not.
    pub(super) tx_spoofed: u64,
    /// Frames sent while the link was down.
    pub(super) tx_link_down: u64,
    /// How often frames waited for want of room on the host.
    pub(super) tx_full: u64,
    /// Commands carried out.
    pub(super) commands: u64,
    /// Commands refused.
    pub(super) commands_refused: u64,
}

impl Counters {
    /// Adds all of them to a report.
    pub(super) fn report(&self, report: Report) -> Report {
        let report = self.rx.report("rx", report);
        let report = report
            .with("rx_dropped_too_large", self.rx_too_large)
            .with("rx_bad_buffers", self.rx_bad_buffers)
            .with("rx_starved", self.rx_starved);
        let report = self.tx.report("tx", report);
        report
            .with("tx_spoofed_mac_count", self.tx_spoofed)
            .with("tx_dropped_link_down", self.tx_link_down)
            .with("tx_full", self.tx_full)
            .with("commands", self.commands)
            .with("commands_refused", self.commands_refused)
    }
}

/// One more.
pub(super) fn bump(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
