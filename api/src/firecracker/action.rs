//! Things that a machine can do.

use serde::Deserialize;

/// `PUT /actions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Which.
    pub action_type: ActionType,
}

/// What `PUT /actions` can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum ActionType {
    /// Start the guest.
    InstanceStart,
    /// Ask the guest to stop: the power button here.
    SendCtrlAltDel,
    /// Write the metrics.
    FlushMetrics,
}

/// `PATCH /vm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VmPatch {
    /// What the machine is to do.
    pub state: VmState,
}

/// What `PATCH /vm` can bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum VmState {
    /// The guest stands still.
    Paused,
    /// It goes on.
    Resumed,
}
