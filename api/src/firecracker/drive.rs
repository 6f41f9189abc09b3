//! Drives.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{RateLimiter, Words};
use crate::error::{ApiError, Code};
use crate::spec::{DiskEngine, DiskSpec};

/// `PUT /drives/{id}`, and a drive in [`super::VmConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// The name that changes it.
    pub drive_id: String,
    /// The partition that is the root, where it is not the whole drive.
    pub partuuid: Option<String>,
    /// Whether it is the root of the guest.
    pub is_root_device: bool,
    /// Whether the guest is to know of the host's cache. It always may flush here.
    #[serde(default)]
    pub cache_type: CacheType,
    /// Whether the guest may only read.
    pub is_read_only: Option<bool>,
    /// The image.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub path_on_host: Option<PathBuf>,
    /// Its limits.
    pub rate_limiter: Option<RateLimiter>,
    /// How the host reads and writes it.
    pub io_engine: Option<IoEngine>,
    /// The socket of a program that plays the drive; there is none here.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub socket: Option<PathBuf>,
}

/// Whether a guest's flush is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum CacheType {
    /// Firecracker does not tell the guest that it can flush.
    #[default]
    Unsafe,
    /// It can.
    Writeback,
}

/// How the host reads and writes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum IoEngine {
    /// By system calls.
    Sync,
    /// By `io_uring`.
    Async,
}

impl Drive {
    /// The disk that it is.
    ///
    /// # Errors
    /// When it is none of a file.
    pub fn spec(self) -> Result<DiskSpec, ApiError> {
        let refuse = |message: &str, hint: &str| {
            ApiError::new(Code::NotSupported, message, hint).of_field("socket")
        };
        let path = match (self.path_on_host, self.socket) {
            (Some(path), None) => path,
            (None, None) => return Err(refuse("the drive has no path_on_host", "give it one")),
            (_, Some(_)) => {
                let hint = "give path_on_host instead";
                return Err(refuse(
                    "drives behind a vhost-user socket are not there",
                    hint,
                ));
            }
        };
        let (bandwidth, iops) = self.rate_limiter.unwrap_or_default().rates();
        Ok(DiskSpec {
            path,
            read_only: self.is_read_only.unwrap_or_default(),
            id: Some(self.drive_id),
            root: self.is_root_device,
            partuuid: self.partuuid,
            engine: match self.io_engine {
                None => DiskEngine::Auto,
                Some(IoEngine::Sync) => DiskEngine::Sync,
                Some(IoEngine::Async) => DiskEngine::IoUring,
            },
            bandwidth,
            iops,
            ..DiskSpec::default()
        })
    }

    /// The drive that a disk is, under the name by which it is changed.
    #[must_use]
    pub fn of(drive_id: String, disk: &DiskSpec, words: &Words) -> Self {
        let cache_type = match words.unsafe_drives.contains(&drive_id) {
            true => CacheType::Unsafe,
            false => CacheType::Writeback,
        };
        Self {
            drive_id,
            partuuid: disk.partuuid.clone(),
            is_root_device: disk.root,
            cache_type,
            is_read_only: Some(disk.read_only),
            path_on_host: Some(disk.path.clone()),
            rate_limiter: RateLimiter::of(disk.bandwidth.as_ref(), disk.iops.as_ref()),
            io_engine: Some(match disk.engine {
                DiskEngine::IoUring => IoEngine::Async,
                DiskEngine::Auto | DiskEngine::Sync => IoEngine::Sync,
            }),
            socket: None,
        }
    }
}

/// `PATCH /drives/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DrivePatch {
    /// The name in the path once more.
    pub drive_id: String,
    /// Another image.
    pub path_on_host: Option<String>,
    /// Other limits.
    pub rate_limiter: Option<RateLimiter>,
}
