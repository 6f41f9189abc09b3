//! Requests for the source of random numbers.

use serde::Deserialize;

use super::{Asked, Call, LimitsChange};
use crate::error::ApiError;

/// The body of `PATCH /coracle/v1/entropy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct EntropyPatch {
    limits: LimitsChange,
}

/// `PATCH /coracle/v1/entropy`
pub(crate) fn patch_ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let EntropyPatch { limits } = asked.body()?;
    limits.check("limits.")?;
    Ok(Call::ChangeEntropy(limits))
}
