//! The socket device: its context ID and the path of its socket.

use std::path::PathBuf;

use api::spec::VsockSpec;
use devices::virtio::vsock::{MAX_CID, MAX_PATH_BYTES, MIN_CID};

use super::{ConfigError, Problem, check_path};

/// A socket device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's context ID.
    pub cid: u64,
    /// The Unix socket for host programs.
    pub path: PathBuf,
}

impl TryFrom<&VsockSpec> for VsockConfig {
    type Error = ConfigError;

    fn try_from(spec: &VsockSpec) -> Result<Self, ConfigError> {
        if !(MIN_CID..=MAX_CID).contains(&spec.cid) {
            let (least, most) = (MIN_CID, MAX_CID);
            let problem = Problem::Outside { least, most };
            return Err(ConfigError::new("vsock cid", &spec.cid, problem));
        }
        check_path("vsock path", &spec.path)?;
        if spec.path.as_os_str().len() > MAX_PATH_BYTES {
            // The limit is that of Linux's addresses of Unix sockets.
            const { assert!(MAX_PATH_BYTES == 107) };
            let problem = Problem::TooLong { most: "107 bytes" };
            return Err(ConfigError::new(
                "vsock path",
                &spec.path.display(),
                problem,
            ));
        }
        Ok(Self {
            cid: spec.cid,
            path: spec.path.clone(),
        })
    }
}
