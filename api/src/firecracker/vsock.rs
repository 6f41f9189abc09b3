//! The socket device.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::VsockSpec;

/// `PUT /vsock`, and the socket device in [`super::VmConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's context ID.
    pub guest_cid: u32,
    /// The Unix socket for programs of the host.
    #[cfg_attr(test, schema(value_type = String))]
    pub uds_path: PathBuf,
    /// A name that older clients give, and that nothing asks for.
    #[serde(default, skip_serializing)]
    pub vsock_id: Option<String>,
}

impl Vsock {
    /// The socket device of a machine.
    #[must_use]
    pub fn spec(self) -> VsockSpec {
        VsockSpec {
            cid: self.guest_cid.into(),
            path: self.uds_path,
        }
    }

    /// The socket device that a machine was given.
    #[must_use]
    pub fn of(spec: &VsockSpec) -> Self {
        Self {
            guest_cid: u32::try_from(spec.cid).unwrap_or(u32::MAX),
            uds_path: spec.path.clone(),
            vsock_id: None,
        }
    }
}
