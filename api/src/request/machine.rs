//! Requests that describe a machine and its size.

use super::{Asked, Call, Part};
use crate::error::ApiError;
use crate::firecracker::MachineConfig;

/// `PUT /machine-config`
pub(crate) fn put_config(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let config: MachineConfig = asked.body()?;
    Ok(Call::Describe(Part::Size(config.patch())))
}

/// `PATCH /machine-config`
pub(crate) fn patch_config(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Describe(Part::Size(asked.body()?)))
}

/// `PUT /coracle/v1/machine`
pub(crate) fn put(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Describe(Part::Machine(asked.body()?)))
}
