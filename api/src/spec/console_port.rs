//! Further ports of a console: named channels between programs of the host and of the guest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::text::{TextError, written_as_text};

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConsolePortSpec {
    /// The name by which programs of the guest find it.
    pub name: String,
    /// The host's side.
    pub backend: PortBackend,
    /// Whether the guest is to have a console there.
    #[serde(default)]
    pub console: bool,
}

/// The host's side of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PortBackend {
    /// A unix socket that programs of the host connect to.
    Socket(PathBuf),
    /// A file that takes the output; there is no input.
    File(PathBuf),
    /// A new pseudo-terminal, whose name is logged.
    Pty,
}

impl std::str::FromStr for PortBackend {
    type Err = TextError;

    fn from_str(value: &str) -> Result<Self, TextError> {
        match value.split_once(':') {
            Some(("socket", path)) if !path.is_empty() => Ok(Self::Socket(path.into())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            None if value == "pty" => Ok(Self::Pty),
            _ => Err(TextError {
                field: "console port",
                value: value.to_owned(),
                accepted: "socket:PATH, file:PATH, pty",
            }),
        }
    }
}

impl std::fmt::Display for PortBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "socket:{}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Pty => f.write_str("pty"),
        }
    }
}

written_as_text!(PortBackend);
