//! Requests that say what is started.

use super::{Asked, Call, Part};
use crate::error::ApiError;

/// `PUT /boot-source`
pub(crate) fn put(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Describe(Part::BootSource(asked.body()?)))
}
