//! A disk of a machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A raw disk image or a block device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// The image. Its bytes are the disk's bytes; no other format is ever guessed.
    pub path: PathBuf,
    /// The guest can't write, and the file is opened without the right to.
    #[serde(default)]
    pub read_only: bool,
    /// The serial number that the guest reads (`/dev/disk/by-id/virtio-ID`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}
