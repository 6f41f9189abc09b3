//! Requests that do something with the machine as a whole.

use serde::Deserialize;

use super::{Asked, Call};
use crate::error::ApiError;
use crate::firecracker::{Action, ActionType};
use crate::routes::{FRESH, STARTED};

/// `PUT /actions`
pub(crate) fn theirs(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let action: Action = asked.body()?;
    match action.action_type {
        ActionType::InstanceStart => start(asked),
        ActionType::SendCtrlAltDel => press_power_button(asked),
        ActionType::FlushMetrics => {
            asked.must_be_in(STARTED)?;
            Ok(Call::FlushMetrics)
        }
    }
}

/// What `PUT /coracle/v1/actions` can do.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verb {
    /// Start the machine.
    Start,
    /// Press the power button.
    PowerButton,
}

/// The body of `PUT /coracle/v1/actions`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Ours {
    pub(crate) action: Verb,
}

/// `PUT /coracle/v1/actions`
pub(crate) fn ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let Ours { action } = asked.body()?;
    match action {
        Verb::Start => start(asked),
        Verb::PowerButton => press_power_button(asked),
    }
}

fn start(asked: &Asked<'_>) -> Result<Call, ApiError> {
    asked.must_be_in(FRESH)?;
    Ok(Call::Start)
}

fn press_power_button(asked: &Asked<'_>) -> Result<Call, ApiError> {
    asked.must_be_in(STARTED)?;
    Ok(Call::PressPowerButton)
}
