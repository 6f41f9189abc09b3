//! How much a device may do in a time.

use serde::{Deserialize, Serialize};

/// The limits of a device; what has none is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// Bytes moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BucketSpec>,
    /// Operations carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<BucketSpec>,
}

/// A token bucket: `size` tokens come back in `refill_ms`, and each byte or operation costs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketSpec {
    /// The tokens of a full bucket.
    pub size: u64,
    /// How long an empty bucket takes to be full, in milliseconds.
    pub refill_ms: u64,
    /// Tokens that are there once, before those of the bucket, and do not come back.
    #[serde(default)]
    pub burst: u64,
}
