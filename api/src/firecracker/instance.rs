//! Who answers.

use serde::Serialize;

use super::{APP_NAME, COMPATIBLE_VERSION};
use crate::machine::MachineState;

/// `GET /`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct InstanceInfo {
    /// The machine's name.
    pub id: String,
    /// `Not started`, `Running` or `Paused`.
    pub state: &'static str,
    /// As in [`Version`].
    pub vmm_version: &'static str,
    /// The program.
    pub app_name: &'static str,
    /// Coracle's own version.
    pub coracle_version: &'static str,
}

impl InstanceInfo {
    /// The instance `id` in `state`.
    #[must_use]
    pub fn new(id: &str, state: MachineState) -> Self {
        Self {
            id: id.to_owned(),
            state: match state {
                MachineState::NotStarted => "Not started",
                MachineState::Running => "Running",
                MachineState::Paused => "Paused",
            },
            vmm_version: COMPATIBLE_VERSION,
            app_name: APP_NAME,
            coracle_version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// `GET /version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Version {
    /// The release whose API is spoken.
    pub firecracker_version: &'static str,
}

impl Version {
    /// The release whose API is spoken.
    pub const SPOKEN: Self = Self {
        firecracker_version: COMPATIBLE_VERSION,
    };
}
