//! Requests that change the balloon.

use serde::Deserialize;

use super::{Asked, Call};
use crate::error::ApiError;
use crate::firecracker::{BalloonPatch, BalloonStatisticsPatch, mebibytes};
use crate::spec::SizeSpec;

/// What changes of the balloon; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonChange {
    /// How much memory the guest is to give up in all.
    pub size: Option<SizeSpec>,
    /// How often the guest gives its statistics, in seconds; zero for never.
    pub statistics_interval_s: Option<u16>,
    /// Whether the guest is to tell of its free pages now, or to take them back.
    pub hinting: Option<Hinting>,
}

/// What becomes of a run of free page hinting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Hinting {
    /// The guest tells of its free pages, once.
    Start,
    /// The guest may use all of them again.
    Stop,
}

/// `PATCH /balloon`
pub(crate) fn patch_theirs(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let patch: BalloonPatch = asked.body()?;
    Ok(Call::ChangeBalloon(BalloonChange {
        size: Some(mebibytes(patch.amount_mib)),
        ..BalloonChange::default()
    }))
}

/// `PATCH /balloon/statistics`
pub(crate) fn patch_statistics(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let patch: BalloonStatisticsPatch = asked.body()?;
    Ok(Call::ChangeBalloon(BalloonChange {
        statistics_interval_s: Some(patch.stats_polling_interval_s),
        ..BalloonChange::default()
    }))
}

/// `PATCH /coracle/v1/balloon`
pub(crate) fn patch_ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::ChangeBalloon(asked.body()?))
}
