//! Requests that change the balloon.

use serde::Deserialize;

use super::{Asked, Call, Part};
use crate::error::ApiError;
use crate::firecracker::{
    Balloon, BalloonPatch, BalloonStatisticsPatch, HintingStart, Nothing, mebibytes,
};
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
    /// Whether to refuse what Firecracker refuses: another size while there is no driver, and to
    /// begin or end statistics.
    #[serde(skip)]
    pub as_firecracker: bool,
}

/// What becomes of a run of free page hinting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Hinting {
    /// The guest tells of its free pages, once, and uses them again when it has told of all.
    Start,
    /// The same, but the guest leaves them until it is told to use them again.
    StartAndKeep,
    /// The guest may use all of them again.
    Stop,
}

/// `PUT /balloon`
pub(crate) fn put(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let balloon: Balloon = asked.body()?;
    Ok(Call::Describe(Part::Balloon(balloon.spec())))
}

/// `PATCH /balloon/hinting/start`
pub(crate) fn start_hinting(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let HintingStart {
        acknowledge_on_stop,
    } = asked.body_or_default()?;
    Ok(hint(match acknowledge_on_stop {
        true => Hinting::Start,
        false => Hinting::StartAndKeep,
    }))
}

/// `PATCH /balloon/hinting/stop`
pub(crate) fn stop_hinting(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let Nothing {} = asked.body_or_default()?;
    Ok(hint(Hinting::Stop))
}

fn hint(hinting: Hinting) -> Call {
    Call::ChangeBalloon(BalloonChange {
        hinting: Some(hinting),
        ..BalloonChange::default()
    })
}

/// `PATCH /balloon`
pub(crate) fn patch_theirs(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let patch: BalloonPatch = asked.body()?;
    Ok(Call::ChangeBalloon(BalloonChange {
        size: Some(mebibytes(patch.amount_mib)),
        as_firecracker: true,
        ..BalloonChange::default()
    }))
}

/// `PATCH /balloon/statistics`
pub(crate) fn patch_statistics(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let patch: BalloonStatisticsPatch = asked.body()?;
    Ok(Call::ChangeBalloon(BalloonChange {
        statistics_interval_s: Some(patch.stats_polling_interval_s),
        as_firecracker: true,
        ..BalloonChange::default()
    }))
}

/// `PATCH /coracle/v1/balloon`
pub(crate) fn patch_ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::ChangeBalloon(asked.body()?))
}
