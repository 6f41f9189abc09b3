//! Changes of what the host's CPU shows to the guest.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{ApiError, Code};

/// `PUT /cpu-config`: lists of changes, by what they change. There is no such change here, so only
/// one that changes nothing is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CpuConfig(BTreeMap<String, Value>);

impl CpuConfig {
    /// Whether it can be had.
    ///
    /// # Errors
    /// When it changes anything.
    pub fn check(&self) -> Result<(), ApiError> {
        let nothing = |changes: &Value| changes.as_array().is_some_and(Vec::is_empty);
        match self.0.iter().find(|(_, changes)| !nothing(changes)) {
            None => Ok(()),
            Some((field, _)) => Err(ApiError::new(
                Code::NotSupported,
                format!("{field} cannot be changed: the guest sees the host's CPU"),
                "leave it out",
            )
            .of_field(field)),
        }
    }
}
