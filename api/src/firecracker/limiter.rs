//! Limits: token buckets.

use serde::{Deserialize, Serialize};

use crate::limits::BucketSpec;
use crate::spec::{RateSpec, SizeSpec};

/// Limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Of bytes.
    pub bandwidth: Option<TokenBucket>,
    /// Of operations.
    pub ops: Option<TokenBucket>,
}

impl RateLimiter {
    /// The limiter of these two, if they limit anything.
    pub(super) fn of(bandwidth: Option<&RateSpec>, ops: Option<&RateSpec>) -> Option<Self> {
        let limiter = Self {
            bandwidth: bandwidth.and_then(TokenBucket::of),
            ops: ops.and_then(TokenBucket::of),
        };
        (limiter != Self::default()).then_some(limiter)
    }

    /// The rates of bytes and of operations.
    pub(super) fn rates(self) -> (Option<RateSpec>, Option<RateSpec>) {
        let rate = |bucket: Option<TokenBucket>| bucket.and_then(TokenBucket::rate);
        (rate(self.bandwidth), rate(self.ops))
    }
}

/// A token bucket. One of size or refill time zero is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// The tokens of a full bucket.
    pub size: u64,
    /// Tokens that are there once.
    pub one_time_burst: Option<u64>,
    /// How long an empty bucket takes to be full, in milliseconds.
    pub refill_time: u64,
}

impl TokenBucket {
    /// The limit that it is, if it is one.
    #[must_use]
    pub fn spec(self) -> Option<BucketSpec> {
        self.limits().then_some(BucketSpec {
            size: self.size,
            refill_ms: self.refill_time,
            burst: self.one_time_burst.unwrap_or_default(),
        })
    }

    fn rate(self) -> Option<RateSpec> {
        self.limits().then_some(RateSpec {
            size: SizeSpec::Bytes(self.size),
            burst: self.one_time_burst.map(SizeSpec::Bytes),
            refill_ms: self.refill_time,
        })
    }

    fn limits(self) -> bool {
        self.size != 0 && self.refill_time != 0
    }

    /// None for a size that no machine would have started with.
    fn of(rate: &RateSpec) -> Option<Self> {
        let burst = rate.burst.as_ref().map(SizeSpec::bytes);
        Some(Self {
            size: rate.size.bytes().ok()?,
            one_time_burst: burst.transpose().ok()?,
            refill_time: rate.refill_ms,
        })
    }
}
