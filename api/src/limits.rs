//! How much a device may do in a time, once every way of saying it has been read.

/// The limits of a device; what has none is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsSpec {
    /// Bytes moved.
    pub bandwidth: Option<BucketSpec>,
    /// Operations carried out.
    pub iops: Option<BucketSpec>,
}

/// A token bucket: `size` tokens come back in `refill_ms`, and each byte or operation costs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSpec {
    /// The tokens of a full bucket, never zero.
    pub size: u64,
    /// How long an empty bucket takes to be full, in milliseconds, never zero.
    pub refill_ms: u64,
    /// Tokens that are there once, before those of the bucket, and do not come back.
    pub burst: u64,
}
