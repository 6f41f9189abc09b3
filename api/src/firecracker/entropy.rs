//! The source of random numbers.

use serde::{Deserialize, Serialize};

use super::RateLimiter;
use crate::spec::MachineSpec;

/// `PUT /entropy`, and the source of random numbers in [`super::VmConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Entropy {
    /// Its limits.
    pub rate_limiter: Option<RateLimiter>,
}

impl Entropy {
    /// Gives it to a machine.
    pub fn apply(self, spec: &mut MachineSpec) {
        spec.rng = true;
        (spec.rng_bandwidth, spec.rng_iops) = self.rate_limiter.unwrap_or_default().rates();
    }

    /// That of a machine, where it has one.
    pub(super) fn of(spec: &MachineSpec) -> Option<Self> {
        let rate_limiter = RateLimiter::of(spec.rng_bandwidth.as_ref(), spec.rng_iops.as_ref());
        spec.rng.then_some(Self { rate_limiter })
    }
}
