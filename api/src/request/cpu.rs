//! Requests for the virtual CPUs.

use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer};

use super::{Asked, Call};
use crate::error::{ApiError, Code};

/// What changes of the virtual CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct CpuPatch {
    /// How much CPU time of the host all of them together may use, in hundredths of one CPU, or
    /// null for all that there is.
    #[serde(deserialize_with = "said")]
    #[cfg_attr(test, schema(required, minimum = 1))]
    quota: Option<u32>,
}

/// Null has to be said: nothing is no change.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Option::deserialize(deserializer)
}

/// `PATCH /coracle/v1/cpu`
pub(crate) fn patch_ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let CpuPatch { quota } = asked.body()?;
    let quota = quota.map(|percent| {
        NonZeroU32::new(percent).ok_or_else(|| {
            ApiError::new(
                Code::InvalidValue,
                "quota is zero, with which the guest would never run",
                "give 1 or more, null for no quota, or pause the machine",
            )
            .of_field("quota")
        })
    });
    Ok(Call::LimitCpu(quota.transpose()?))
}
