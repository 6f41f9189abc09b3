//! Requests for what is known of a machine.

use super::{Asked, Call, Topic};
use crate::error::ApiError;

/// A reader of requests that have no more to them than their topic.
macro_rules! topics {
    ($($(#[$doc:meta])* $name:ident => $call:expr),+ $(,)?) => {$(
        $(#[$doc])*
        pub(crate) fn $name(_: &Asked<'_>) -> Result<Call, ApiError> {
            Ok($call)
        }
    )+};
}

topics! {
    /// `GET /`
    instance => Call::Tell(Topic::Instance),
    /// `GET /version`
    version => Call::Tell(Topic::Version),
    /// `GET /machine-config`
    machine_config => Call::Tell(Topic::MachineConfig),
    /// `GET /vm/config`
    vm_config => Call::Tell(Topic::VmConfig),
    /// `GET /balloon`
    balloon => Call::Tell(Topic::Balloon),
    /// `GET /balloon/statistics`
    balloon_statistics => Call::BalloonStatistics,
    /// `GET /balloon/hinting/status`
    hinting_status => Call::HintingStatus,
    /// `GET /coracle/v1/machine`
    machine => Call::Machine,
    /// `GET /coracle/v1/devices`
    devices => Call::Devices,
    /// `GET /coracle/v1/events`
    events => Call::Events,
    /// `GET /coracle/v1/metrics`
    metrics => Call::Metrics,
}
