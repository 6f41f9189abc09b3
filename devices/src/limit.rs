//! How much a device may do in a time: token buckets, as plain values and as they run.

mod pace;
mod throttle;

use pace::Pace;
pub use pace::{BucketStateV1, LimitsStateV1};
pub(crate) use throttle::Throttle;

use std::time::Duration;

/// The limits of a device; what has none is unlimited.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Bytes moved.
    pub bytes: Option<BucketSpec>,
    /// Operations carried out.
    pub operations: Option<BucketSpec>,
}

/// A token bucket: each unit costs a token, and what finds too few waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BucketSpec {
    /// The tokens that the bucket holds when full, which it is to begin with.
    pub size: u64,
    /// Tokens that are there once, before those of the bucket, and do not come back.
    pub burst: u64,
    /// How long an empty bucket takes to be full.
    pub refill: Duration,
}
