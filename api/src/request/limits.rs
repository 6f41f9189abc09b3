//! Changes of limits, which a device's requests share.

use serde::{Deserialize, Deserializer};

use crate::error::{ApiError, Code};
use crate::firecracker::{RateLimiter, TokenBucket};
use crate::limits::{BucketSpec, LimitsSpec};
use crate::spec::{RateSpec, SizeError};

/// What changes of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitsChange {
    /// Of bytes.
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schema(value_type = Option<RateSpec>))]
    pub bandwidth: Change<BucketSpec>,
    /// Of operations.
    #[serde(default, deserialize_with = "given", alias = "packets")]
    #[cfg_attr(test, schema(value_type = Option<RateSpec>))]
    pub iops: Change<BucketSpec>,
}

impl TryFrom<RateSpec> for BucketSpec {
    type Error = SizeError;

    fn try_from(rate: RateSpec) -> Result<Self, SizeError> {
        let burst = rate.burst.map_or(Ok(0), |burst| burst.bytes());
        Ok(Self {
            size: rate.size.bytes()?,
            refill_ms: rate.refill_ms,
            burst: burst?,
        })
    }
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays.
    #[default]
    Keep,
    /// There is none any more: `null` in JSON.
    Remove,
    /// Another one.
    Set(T),
}

impl<T> Change<T> {
    /// The value that there is afterwards.
    pub fn apply(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Remove => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl LimitsChange {
    /// Whether anything changes.
    #[must_use]
    pub fn is_any(&self) -> bool {
        (self.bandwidth, self.iops) != (Change::Keep, Change::Keep)
    }

    /// The limits that there are afterwards.
    #[must_use]
    pub fn apply(self, before: LimitsSpec) -> LimitsSpec {
        LimitsSpec {
            bandwidth: self.bandwidth.apply(before.bandwidth),
            iops: self.iops.apply(before.iops),
        }
    }

    pub(super) fn check(&self, field: &str) -> Result<(), ApiError> {
        for (name, change) in [("bandwidth", self.bandwidth), ("iops", self.iops)] {
            if let Change::Set(BucketSpec {
                size, refill_ms, ..
            }) = change
                && (size == 0 || refill_ms == 0)
            {
                let zero = if size == 0 { "size" } else { "refill_ms" };
                return Err(ApiError::new(
                    Code::InvalidValue,
                    format!("{zero} is zero, with which nothing would ever move"),
                    "give 1 or more, or null instead of the limit to remove it",
                )
                .of_field(format!("{field}{name}.{zero}")));
            }
        }
        Ok(())
    }
}

impl From<RateLimiter> for LimitsChange {
    /// In Firecracker's words, a bucket that limits nothing removes the limit.
    fn from(limiter: RateLimiter) -> Self {
        let change = |bucket: Option<TokenBucket>| match bucket.map(TokenBucket::spec) {
            None => Change::Keep,
            Some(None) => Change::Remove,
            Some(Some(spec)) => Change::Set(spec),
        };
        Self {
            bandwidth: change(limiter.bandwidth),
            iops: change(limiter.ops),
        }
    }
}

/// Tells a limit that is there, if only as `null`, from one that is not.
fn given<'de, D>(deserializer: D) -> Result<Change<BucketSpec>, D::Error>
where
    D: Deserializer<'de>,
{
    let rate: Option<RateSpec> = Option::deserialize(deserializer)?;
    let bucket = rate.map(BucketSpec::try_from).transpose();
    let bucket = bucket.map_err(serde::de::Error::custom)?;
    Ok(bucket.map_or(Change::Remove, Change::Set))
}
