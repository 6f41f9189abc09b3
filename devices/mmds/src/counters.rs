//! What a responder counts.

use devices::inspect::Report;

/// Counts since the responder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames of the guest to the address.
    pub frames: u64,
    /// Those that were no frame that is answered: cut short, a wrong sum, a fragment.
    pub malformed: u64,
    /// Packets to the address that were not TCP.
    pub unusual: u64,
    /// Frames for the guest.
    pub replies: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// Frames for the guest that were dropped, because it takes none.
    pub dropped: u64,
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that had to go for another one.
    pub replaced: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Those that were refused for want of a token.
    pub no_token: u64,
    /// Those with a token that is none, or none any more.
    pub invalid_token: u64,
}

impl Counters {
    /// All of them, for people and JSON.
    #[must_use]
    pub fn report(&self) -> Report {
        [
            ("rx_count", self.frames),
            ("rx_malformed", self.malformed),
            ("rx_unusual", self.unusual),
            ("tx_count", self.replies),
            ("tx_bytes", self.reply_bytes),
            ("tx_dropped", self.dropped),
            ("connections_created", self.opened),
            ("connections_replaced", self.replaced),
            ("requests", self.requests),
            ("no_token", self.no_token),
            ("invalid_token", self.invalid_token),
        ]
        .into_iter()
        .fold(Report::new(), |report, (name, count)| {
            report.with(name, count)
        })
    }
}

/// One more.
pub(crate) fn bump(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
