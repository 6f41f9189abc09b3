//! The user's part of the kernel's command line.

use arch::layout;

use super::{ConfigError, Problem};

/// Text for the kernel's command line: no byte in it that would end it early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CmdlineText(String);

impl CmdlineText {
    /// The text, without white space around it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for CmdlineText {
    type Error = ConfigError;

    fn try_from(text: &str) -> Result<Self, ConfigError> {
        let name = text.chars().find_map(|c| match c {
            '\0' => Some("a NUL byte"),
            '\n' => Some("a newline"),
            '\r' => Some("a carriage return"),
            '\t' => None,
            c if c.is_control() => Some("a control character"),
            _ => None,
        });
        if text.trim().len() > layout::CMDLINE_MAX {
            let most = "2047 bytes";
            let problem = Problem::TooLong { most };
            return Err(ConfigError::new("cmdline", &excerpt(text), problem));
        }
        match name {
            Some(name) => Err(ConfigError::new(
                "cmdline",
                &excerpt(text),
                Problem::Byte { name },
            )),
            None => Ok(Self(text.trim().to_owned())),
        }
    }
}

/// The text for a one-line message: quoted, with escapes, cut where it is long.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", text.split_at(end).0),
        None => format!("{text:?}"),
    }
}
