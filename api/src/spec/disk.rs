//! A disk of a machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::SizeSpec;
use super::text::words;

/// A disk image or a block device of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// The image.
    #[cfg_attr(test, schema(value_type = String))]
    pub path: PathBuf,
    /// What the image is, always named and never guessed.
    #[serde(default, skip_serializing_if = "DiskFormat::is_raw")]
    pub format: DiskFormat,
    /// The guest can't write, and the file is opened without the right to.
    #[serde(default)]
    pub read_only: bool,
    /// The name by which the API knows it. The guest reads its first 20 bytes as serial number
    /// (`/dev/disk/by-id/virtio-ID`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether the guest's root is on it, which the kernel's command line then says.
    #[serde(default, skip_serializing_if = "is_false")]
    pub root: bool,
    /// The partition that is the root, where it is not the whole disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    /// How the host reads and writes a raw image.
    #[serde(default)]
    pub engine: DiskEngine,
    /// What the guest is told of the host's cache.
    #[serde(default)]
    pub cache: DiskCache,
    /// Whether a raw image is used past the host's page cache (`O_DIRECT`).
    #[serde(default)]
    pub direct: bool,
    /// How many queues the guest gets; without it one for each virtual CPU, up to four.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u64>,
    /// How many bytes it may move in a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<RateSpec>,
    /// How many operations it may carry out in a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<RateSpec>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the shape that serde takes"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// So much in a time: a bucket of tokens that fills again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RateSpec {
    /// The tokens of a full bucket: bytes or operations.
    pub size: SizeSpec,
    /// Tokens beside them that are there once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<SizeSpec>,
    /// How long an empty bucket takes to be full, in milliseconds.
    #[serde(default = "a_second")]
    pub refill_ms: u64,
}

fn a_second() -> u64 {
    1000
}

impl RateSpec {
    /// So much a second, without a burst.
    #[must_use]
    pub fn per_second(size: SizeSpec) -> Self {
        Self {
            size,
            burst: None,
            refill_ms: a_second(),
        }
    }

    /// `10M`, or `10M+1G` with a burst: so much a second.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let (size, burst) = match text.split_once('+') {
            Some((size, burst)) => (size, Some(SizeSpec::Text(burst.to_owned()))),
            None => (text, None),
        };
        Self {
            burst,
            ..Self::per_second(SizeSpec::Text(size.to_owned()))
        }
    }
}

/// How the host reads and writes an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiskEngine {
    /// What the page cache has is copied at once, the rest goes through `io_uring` where the host
    /// allows that.
    #[default]
    Auto,
    /// One system call after the other.
    Sync,
    /// Everything through `io_uring`.
    IoUring,
}

words!(DiskEngine, "disk engine", "auto, sync, io_uring", {
    "auto" => DiskEngine::Auto,
    "sync" => DiskEngine::Sync,
    "io_uring" => DiskEngine::IoUring,
});

/// What the guest is told of the host's cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DiskCache {
    /// A write lasts after the next flush.
    #[default]
    Writeback,
    /// A write lasts before it is reported.
    Writethrough,
}

words!(DiskCache, "disk cache", "writeback, writethrough", {
    "writeback" => DiskCache::Writeback,
    "writethrough" => DiskCache::Writethrough,
});

/// The format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
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
