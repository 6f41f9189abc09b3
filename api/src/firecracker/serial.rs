//! The serial port's output.

use std::path::PathBuf;

use serde::Deserialize;

use super::TokenBucket;
use crate::error::{ApiError, Code};
use crate::spec::ConsoleBackend;

/// `PUT /serial`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// The file that it is written to; without one, the monitor's terminal.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub serial_out_path: Option<PathBuf>,
    /// How much of it there may be in a time; there is no such limit here.
    pub rate_limiter: Option<TokenBucket>,
}

impl Serial {
    /// The console's other end.
    ///
    /// # Errors
    /// When it is to be limited.
    pub fn backend(self) -> Result<ConsoleBackend, ApiError> {
        match self.rate_limiter.and_then(TokenBucket::spec) {
            Some(_) => Err(ApiError::new(
                Code::NotSupported,
                "the serial port's output cannot be limited",
                "leave rate_limiter out: a guest waits for a reader that is slow",
            )
            .of_field("rate_limiter")),
            None => Ok(self
                .serial_out_path
                .map_or(ConsoleBackend::Stdio, ConsoleBackend::File)),
        }
    }
}
