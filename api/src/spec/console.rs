//! The console: where its characters go on the host, and which device carries them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::text::{TextError, words, written_as_text};

/// The console of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleSpec {
    /// Where the characters come from and go to on the host.
    pub backend: ConsoleBackend,
    /// Which device carries them.
    pub device: ConsoleDevice,
}

/// Where the console's characters come from and go to on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ConsoleBackend {
    /// The terminal (or pipes) that the monitor was started with.
    #[default]
    Stdio,
    /// A new pseudo-terminal, whose name is printed.
    Pty,
    /// Output is written to a file; there is no input.
    File(PathBuf),
    /// Output is dropped; there is no input.
    None,
}

impl std::str::FromStr for ConsoleBackend {
    type Err = TextError;

    fn from_str(value: &str) -> Result<Self, TextError> {
        match value {
            "stdio" => Ok(Self::Stdio),
            "pty" => Ok(Self::Pty),
            "none" => Ok(Self::None),
            _ => match value.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err(TextError {
                    field: "console",
                    value: value.to_owned(),
                    accepted: "stdio, pty, file:PATH, none",
                }),
            },
        }
    }
}

impl std::fmt::Display for ConsoleBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::Pty => f.write_str("pty"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::None => f.write_str("none"),
        }
    }
}

written_as_text!(ConsoleBackend);

/// Which device carries the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ConsoleDevice {
    /// The one that suits the kernel: what the built-in guest is made for, the serial port for
    /// any other.
    #[default]
    Auto,
    /// The first serial port, a 16550 (`ttyS0`).
    Serial,
    /// A virtio console (`hvc0`), which learns the size of the window.
    Virtio,
}

words!(ConsoleDevice, "console device", "auto, serial, virtio", {
    "auto" => ConsoleDevice::Auto,
    "serial" => ConsoleDevice::Serial,
    "virtio" => ConsoleDevice::Virtio,
});
