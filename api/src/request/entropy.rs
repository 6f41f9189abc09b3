//! Requests for the source of random numbers.

use serde::Deserialize;

use super::{Asked, Call, LimitsChange, Part};
use crate::error::ApiError;

/// The body of `PATCH /coracle/v1/entropy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct EntropyPatch {
    limits: LimitsChange,
}

/// `PUT /entropy`
pub(crate) fn put(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Describe(Part::Entropy(asked.body()?)))
}

/// `PATCH /coracle/v1/entropy`
pub(crate) fn patch_ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let EntropyPatch { limits } = asked.body()?;
    limits.check("limits.")?;
    Ok(Call::ChangeEntropy(limits))
}
