//! Requests for drives.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Asked, Call, LimitsChange, Part};
use crate::error::ApiError;
use crate::firecracker::{Drive, DrivePatch};
use crate::spec::SizeSpec;

/// What changes of a drive; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DriveChange {
    /// Another image, of the same format.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub path: Option<PathBuf>,
    /// Other limits.
    #[serde(default)]
    pub limits: LimitsChange,
    /// Another size: the image is grown to it.
    pub size: Option<SizeSpec>,
    /// The host has changed the image's size.
    #[serde(default)]
    pub rescan: bool,
}

/// `PUT /drives/{id}`
pub(crate) fn put(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let drive: Drive = asked.body()?;
    asked.must_be_named("drive_id", &drive.drive_id)?;
    asked.must_be_plain()?;
    let cache = drive.cache_type;
    Ok(Call::Describe(Part::Disk(Box::new(drive.spec()?), cache)))
}

/// `DELETE /drives/{id}`
pub(crate) fn delete(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Describe(Part::WithoutDisk(asked.id.to_owned())))
}

/// `PATCH /drives/{id}`
pub(crate) fn patch_theirs(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let patch: DrivePatch = asked.body()?;
    asked.must_be_named("drive_id", &patch.drive_id)?;
    let change = DriveChange {
        path: patch.path_on_host.map(PathBuf::from),
        limits: patch.rate_limiter.unwrap_or_default().into(),
        ..DriveChange::default()
    };
    Ok(changed(asked, change))
}

/// `PATCH /coracle/v1/drives/{id}`
pub(crate) fn patch_ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let change: DriveChange = asked.body()?;
    change.limits.check("limits.")?;
    Ok(changed(asked, change))
}

fn changed(asked: &Asked<'_>, change: DriveChange) -> Call {
    let id = asked.id.to_owned();
    Call::Drive { id, change }
}
