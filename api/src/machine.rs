//! What the API tells about a running machine.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::plan::DevicePlan;

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// It is described and not started.
    NotStarted,
    /// Its guest runs.
    Running,
    /// Its guest stands still.
    Paused,
}

/// A machine: `GET /coracle/v1/machine`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct MachineView {
    /// Where it is in its life.
    pub state: MachineState,
    /// The monitor's process.
    pub pid: u32,
    /// Coracle's version.
    pub version: &'static str,
    /// The kernel image, or `built-in`.
    pub kernel: String,
    /// The kernel's command line.
    pub cmdline: String,
    /// How many virtual CPUs.
    pub vcpus: u32,
    /// How much CPU time of the host they may use together, in hundredths of one CPU, if that is
    /// limited.
    #[cfg_attr(test, schema(value_type = Option<u32>, minimum = 1))]
    pub cpu_quota: Option<NonZeroU32>,
    /// The guest's memory.
    pub memory_bytes: u64,
    /// The devices, each with the file that is behind it now.
    pub devices: Vec<DevicePlan>,
}

/// What is known of a machine without asking it: the record in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// What it is called.
    pub name: String,
    /// The monitor's process.
    pub pid: u32,
    /// When that was started, in the host's ticks since its boot: together they mean one process.
    pub start_time: u64,
    /// Where its API is.
    pub socket: PathBuf,
    /// When the machine was started, in milliseconds since 1970.
    pub created_ms: u64,
}

/// What a device is and did: a row of `GET /coracle/v1/devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct DeviceView {
    /// Its name in the machine.
    pub name: String,
    /// What it is.
    pub model: String,
    /// Its own account.
    pub report: ReportValue,
}

/// A device's account of itself, in its own order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportValue {
    /// A name, a path, a state.
    Text(String),
    /// A count, a size, an address.
    Number(u64),
    /// Something that is so or not.
    Flag(bool),
    /// Named values.
    Part(Vec<(String, ReportValue)>),
}

impl Serialize for ReportValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Part(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (name, value) in entries {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_keep_their_order() {
        let part = ReportValue::Part(vec![("size".into(), ReportValue::Number(256))]);
        let report = ReportValue::Part(vec![
            ("kind".into(), ReportValue::Text("block".into())),
            ("queue".into(), part),
            ("started".into(), ReportValue::Flag(true)),
        ]);
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            "{\"kind\":\"block\",\"queue\":{\"size\":256},\"started\":true}"
        );
    }
}
