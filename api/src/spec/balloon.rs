//! The memory balloon.

use serde::{Deserialize, Serialize};

use super::SizeSpec;

/// A balloon: memory that the guest does without goes back to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BalloonSpec {
    /// How much the guest is to give up to begin with; nothing without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeSpec>,
    /// Whether the guest may take it back by itself when it runs out of memory.
    pub deflate_on_oom: bool,
    /// How often the guest is asked for its statistics, in seconds; zero for never.
    pub stats_seconds: u64,
    /// Whether the guest tells of free memory all the time, which goes back to the host.
    pub reporting: bool,
    /// Whether the guest can be asked for its free memory.
    pub hinting: bool,
}
