//! Requests about the metadata that the guest can read.

use serde_json::Value;

use super::{Asked, Call, Part, Topic};
use crate::error::ApiError;

/// What becomes of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataChange {
    /// This takes the place of what there was.
    Put(Value),
    /// This is merged into it (RFC 7396).
    Merge(Value),
}

/// `GET /mmds`, `GET /coracle/v1/metadata`
pub(crate) fn get(_: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Tell(Topic::Metadata))
}

/// `PUT /mmds`, `PUT /coracle/v1/metadata`
pub(crate) fn put(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::ChangeMetadata(MetadataChange::Put(asked.body()?)))
}

/// `PATCH /mmds`, `PATCH /coracle/v1/metadata`
pub(crate) fn patch(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::ChangeMetadata(MetadataChange::Merge(asked.body()?)))
}

/// `PUT /mmds/config`
pub(crate) fn put_config(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Describe(Part::Mmds(asked.body()?)))
}
