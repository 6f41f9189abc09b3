//! What happens to a machine, as `GET /coracle/v1/events` tells it: one JSON object a line.

use serde::Serialize;

use crate::machine::MachineState;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The machine's state, to begin with and whenever it changes.
    State {
        /// The state from now on.
        state: MachineState,
    },
    /// The machine was told to stop, and its guest has until the time is over.
    Stopping,
    /// The machine is at its end, and so are its events.
    Ended {
        /// How it came to it.
        how: End,
    },
    /// The guest's kernel panicked, and the machine goes on.
    GuestPanicked,
    /// The guest did not feed its watchdog, and the machine goes on.
    WatchdogFired,
    /// A device is out of service until its driver resets it.
    DeviceFault {
        /// The device's name.
        device: String,
        /// What its driver did.
        reason: String,
    },
    /// A request has changed a device.
    DeviceChanged {
        /// The device's name.
        device: String,
    },
    /// This client did not keep up, and so many events were not sent to it.
    Lost {
        /// How many.
        count: u64,
    },
}

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The guest switched it off.
    PowerOff,
    /// The guest reset it.
    Reset,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The guest did not feed its watchdog.
    Watchdog,
    /// A vCPU shut down after a triple fault.
    TripleFault,
    /// It was killed, or did not stop in time.
    Killed,
    /// The host or its KVM failed.
    Failed,
}

/// An event with its place and time.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Counts the machine's events; a gap is a loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<u64>,
    #[serde(flatten)]
    event: &'a Event,
}

/// An event as it is sent, with its line's end.
#[must_use]
pub fn line(sequence: u64, time_ms: u64, event: &Event) -> Vec<u8> {
    written(&Line {
        sequence: Some(sequence),
        time_ms: Some(time_ms),
        event,
    })
}

/// What a client is told that did not keep up.
pub(crate) fn lost(count: u64) -> Vec<u8> {
    written(&Line {
        sequence: None,
        time_ms: None,
        event: &Event::Lost { count },
    })
}

fn written(line: &Line<'_>) -> Vec<u8> {
    // Nothing here is a map with keys that are no text, which alone cannot be written.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let text = |event| String::from_utf8(line(3, 1000, &event)).unwrap();
        let state = MachineState::Paused;
        assert_eq!(
            text(Event::State { state }),
            "{\"sequence\":3,\"time_ms\":1000,\"event\":\"state\",\"state\":\"paused\"}\n"
        );
        let how = End::GuestPanic;
        assert!(text(Event::Ended { how }).contains("\"event\":\"ended\",\"how\":\"guest-panic\""));
        let fault = Event::DeviceFault {
            device: "disk0".into(),
            reason: "a\nb".into(),
        };
        assert_eq!(text(fault).lines().count(), 1);
        assert_eq!(
            String::from_utf8(lost(7)).unwrap(),
            "{\"event\":\"lost\",\"count\":7}\n"
        );
    }
}
