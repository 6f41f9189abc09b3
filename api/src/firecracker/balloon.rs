//! The balloon.

use serde::{Deserialize, Serialize};

use super::MIB;
use crate::spec::{BalloonSpec, SizeSpec};

/// `PUT /balloon` and `GET /balloon`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// How much the guest is to give up, in MiB.
    pub amount_mib: u32,
    /// Whether the guest may take it back rather than run out of memory.
    pub deflate_on_oom: bool,
    /// How often the guest gives its statistics, in seconds; zero for never.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    /// Whether the guest can be asked for its free pages.
    #[serde(default)]
    pub free_page_hinting: bool,
    /// Whether the guest tells of free pages by itself.
    #[serde(default)]
    pub free_page_reporting: bool,
}

impl Balloon {
    /// The balloon of a machine.
    #[must_use]
    pub fn spec(self) -> BalloonSpec {
        BalloonSpec {
            size: Some(mebibytes(self.amount_mib)),
            deflate_on_oom: self.deflate_on_oom,
            stats_seconds: self.stats_polling_interval_s.into(),
            reporting: self.free_page_reporting,
            hinting: self.free_page_hinting,
        }
    }

    /// The balloon that a machine was given.
    #[must_use]
    pub fn of(spec: &BalloonSpec) -> Self {
        let bytes = spec.size.as_ref().map_or(Ok(0), SizeSpec::bytes);
        let mib = bytes.unwrap_or_default() / MIB;
        Self {
            amount_mib: u32::try_from(mib).unwrap_or(u32::MAX),
            deflate_on_oom: spec.deflate_on_oom,
            stats_polling_interval_s: u16::try_from(spec.stats_seconds).unwrap_or(u16::MAX),
            free_page_hinting: spec.hinting,
            free_page_reporting: spec.reporting,
        }
    }
}

/// A size in MiB; one of 32 bits is far below 2^64 bytes.
pub(crate) fn mebibytes(mib: u32) -> SizeSpec {
    SizeSpec::Bytes(u64::from(mib).saturating_mul(MIB))
}

/// `PATCH /balloon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonPatch {
    /// How much the guest is to give up, in MiB.
    pub amount_mib: u32,
}

/// `PATCH /balloon/statistics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BalloonStatisticsPatch {
    /// How often the guest gives its statistics, in seconds; zero for never.
    pub stats_polling_interval_s: u16,
}

/// `PATCH /balloon/hinting/start`, whose body may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HintingStart {
    /// Whether the guest may use its free pages again as soon as it has told of all.
    pub acknowledge_on_stop: bool,
}

impl Default for HintingStart {
    fn default() -> Self {
        Self {
            acknowledge_on_stop: true,
        }
    }
}

/// `PATCH /balloon/hinting/stop`: a body without fields, which may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// `GET /balloon/hinting/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct HintingStatus {
    /// The run that the host asks for: 0 for the end of all, 1 for none, or its number.
    pub host_cmd: u64,
    /// The run that the guest is at.
    pub guest_cmd: Option<u64>,
}
