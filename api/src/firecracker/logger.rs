//! Where the monitor writes its log, and how.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

/// `PUT /logger`: what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Logger {
    /// The file or FIFO that lines are added to.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub log_path: Option<PathBuf>,
    /// The least level that is written.
    #[serde(deserialize_with = "level")]
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub level: Option<LogLevel>,
    /// Whether a line says its level.
    pub show_level: Option<bool>,
    /// Whether a line says where in the source it was written.
    pub show_log_origin: Option<bool>,
    /// The only part of the program whose lines are written.
    pub module: Option<String>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong.
    Error,
    /// What may be wrong.
    Warning,
    /// What happens.
    Info,
    /// What helps to find faults.
    Debug,
    /// All.
    Trace,
}

impl std::str::FromStr for LogLevel {
    type Err = UnknownLevel;

    /// Clients write levels in several ways.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "error" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warning),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(UnknownLevel(text.to_owned())),
        }
    }
}

/// A word that is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown level `{0}`, expected one of Off, Trace, Debug, Info, Warn, Error")]
pub struct UnknownLevel(String);

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LogLevel>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    let level = text.map(|text| text.parse()).transpose();
    level.map_err(serde::de::Error::custom)
}
