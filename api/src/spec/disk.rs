//! A disk of a machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::text::words;

/// A disk image or a block device of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// The image.
    pub path: PathBuf,
    /// What the image is, always named and never guessed.
    #[serde(default, skip_serializing_if = "DiskFormat::is_raw")]
    pub format: DiskFormat,
    /// The guest can't write, and the file is opened without the right to.
    #[serde(default)]
    pub read_only: bool,
    /// The serial number that the guest reads (`/dev/disk/by-id/virtio-ID`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The image's bytes are the disk's bytes.
    #[default]
    Raw,
    /// QEMU's format, read only.
    Qcow2,
    /// A copy-on-write delta over a base that it names.
    Cow,
}

words!(DiskFormat, "disk format", "raw, qcow2, cow", {
    "raw" => DiskFormat::Raw,
    "qcow2" => DiskFormat::Qcow2,
    "cow" => DiskFormat::Cow,
});

impl DiskFormat {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the shape that serde takes"
    )]
    fn is_raw(&self) -> bool {
        *self == Self::Raw
    }
}
