//! What passed and what did not, by reason.

use serde::Serialize;

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames from the guest.
    pub tx_packets: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Frames to the guest.
    pub rx_packets: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// TCP connections that the guest opened.
    pub tcp_opened: u64,
    /// TCP connections to published ports.
    pub tcp_accepted: u64,
    /// TCP connections of the guest that the other host refused or that could not be had.
    pub tcp_failed: u64,
    /// TCP connections that ended.
    pub tcp_closed: u64,
    /// UDP flows.
    pub udp_opened: u64,
    /// Questions to the name server.
    pub dns_questions: u64,
    /// Those that no server answered.
    pub dns_failed: u64,
    /// Answers of the DHCP server.
    pub dhcp_answers: u64,
    /// Echo requests.
    pub pings: u64,
    /// What did not pass.
    pub drops: Drops,
}

/// Frames and flows that did not pass, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// Lengths or fields that contradict each other.
    pub malformed: u64,
    /// A wrong sum.
    pub checksum: u64,
    /// Packets in pieces that do not fit together, or do not come in time, or are too many.
    pub fragment: u64,
    /// For another MAC address, or from one that no host has.
    pub foreign: u64,
    /// From an IP address that the guest does not have.
    pub spoofed: u64,
    /// A protocol, or a message of one, that the network does not speak.
    pub unknown: u64,
    /// An offload that was not offered.
    pub offload: u64,
    /// Refused by the policy.
    pub policy: u64,
    /// Names that the policy refuses.
    pub names: u64,
    /// A table is full.
    pub full: u64,
    /// The host has no socket left or refused it.
    pub host: u64,
    /// The guest takes no frames.
    pub backlog: u64,
    /// A segment of a connection that does not exist.
    pub stray: u64,
    /// An answer that fits no question, or comes from another than the one asked.
    pub unasked: u64,
}
