//! The socket device of a machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Streams between programs of the guest and of the host. Firecracker's names of the fields are
/// understood too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VsockSpec {
    /// The guest's context ID, by which its programs are addressed: 3 to 4294967294.
    #[serde(alias = "guest_cid")]
    pub cid: u64,
    /// The Unix socket that host programs connect to. Guests reach those that listen on the same
    /// path with an underscore and a port.
    #[serde(alias = "uds_path")]
    #[cfg_attr(test, schema(value_type = String))]
    pub path: PathBuf,
}
