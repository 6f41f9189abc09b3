//! What follows when a guest hangs or its kernel panics.

use serde::{Deserialize, Serialize};

use super::text::words;

/// What a guest's watchdog does when the guest does not feed it in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum WatchdogAction {
    /// The machine ends as by a reset.
    Reset,
    /// The machine ends as switched off.
    PowerOff,
    /// It is logged, and the guest goes on.
    Report,
}

words!(WatchdogAction, "watchdog", "reset, poweroff, report", {
    "reset" => WatchdogAction::Reset,
    "poweroff" => WatchdogAction::PowerOff,
    "report" => WatchdogAction::Report,
});

/// What follows when the guest's kernel tells of its panic (pvpanic).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PanicAction {
    /// The machine ends at once.
    #[default]
    End,
    /// It is logged, and the kernel does what it was told to do in a panic.
    Report,
}

words!(PanicAction, "panic", "end, report", {
    "end" => PanicAction::End,
    "report" => PanicAction::Report,
});
