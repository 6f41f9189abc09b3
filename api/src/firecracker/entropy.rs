//! The source of random numbers.

use serde::Serialize;

use super::RateLimiter;
use crate::spec::MachineSpec;

/// The source of random numbers in [`super::VmConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Entropy {
    /// Its limits.
    pub rate_limiter: Option<RateLimiter>,
}

impl Entropy {
    /// That of a machine, where it has one.
    pub(super) fn of(spec: &MachineSpec) -> Option<Self> {
        let rate_limiter = RateLimiter::of(spec.rng_bandwidth.as_ref(), spec.rng_iops.as_ref());
        spec.rng.then_some(Self { rate_limiter })
    }
}
