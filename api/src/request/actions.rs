//! Requests that do something with the machine as a whole.

use std::time::Duration;

use serde::Deserialize;

use super::{Asked, Call};
use crate::error::{ApiError, Code};
use crate::firecracker::{Action, ActionType, VmPatch, VmState};
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
    /// Let the guest stand still.
    Pause,
    /// Let it go on.
    Resume,
    /// Press the power button, and end the machine if that does not in time.
    Stop,
    /// End the machine at once.
    Kill,
}

/// The body of `PUT /coracle/v1/actions`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Ours {
    /// Which.
    pub(crate) action: Verb,
    /// How long a `stop` may take.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// `PUT /coracle/v1/actions`
pub(crate) fn ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let Ours { action, timeout_ms } = asked.body()?;
    if timeout_ms.is_some() && !matches!(action, Verb::Stop) {
        let message = "timeout_ms comes with another action than stop";
        let error = ApiError::new(Code::InvalidValue, message, "leave it out");
        return Err(error.of_field("timeout_ms"));
    }
    let call = match action {
        Verb::Start => return start(asked),
        Verb::PowerButton => return press_power_button(asked),
        Verb::Pause => Call::Pause,
        Verb::Resume => Call::Resume,
        Verb::Stop => Call::Stop {
            timeout: timeout_ms.map(Duration::from_millis),
        },
        Verb::Kill => Call::Kill,
    };
    asked.must_be_in(STARTED)?;
    Ok(call)
}

/// `PATCH /vm`
pub(crate) fn patch_vm(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let patch: VmPatch = asked.body()?;
    Ok(match patch.state {
        VmState::Paused => Call::Pause,
        VmState::Resumed => Call::Resume,
    })
}

fn start(asked: &Asked<'_>) -> Result<Call, ApiError> {
    asked.must_be_in(FRESH)?;
    Ok(Call::Start)
}

fn press_power_button(asked: &Asked<'_>) -> Result<Call, ApiError> {
    asked.must_be_in(STARTED)?;
    Ok(Call::PressPowerButton)
}
