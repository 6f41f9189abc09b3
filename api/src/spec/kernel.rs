//! Which kernel a machine starts, and how.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::text::words;

/// A kernel image given by the user. A machine without one starts the built-in guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelSpec {
    /// The image: an ELF `vmlinux` or a bzImage.
    #[cfg_attr(test, schema(value_type = String))]
    pub path: PathBuf,
    /// What the image is; anything else is refused.
    #[serde(default)]
    pub format: KernelFormat,
    /// How the kernel is entered.
    #[serde(default)]
    pub protocol: KernelProtocol,
}

/// What a kernel image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum KernelFormat {
    /// Told from the first bytes of the image.
    #[default]
    Auto,
    /// An ELF executable for x86-64.
    Elf,
    /// Linux's compressed image with the setup header.
    BzImage,
}

words!(KernelFormat, "kernel format", "auto, elf, bzimage", {
    "auto" => KernelFormat::Auto,
    "elf" => KernelFormat::Elf,
    "bzimage" => KernelFormat::BzImage,
});

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum KernelProtocol {
    /// The 64-bit entry where the image has one, else PVH.
    #[default]
    Auto,
    /// Linux's 64-bit boot protocol: long mode, paging on.
    Linux64,
    /// PVH: 32-bit protected mode, paging off, the entry named by an ELF note.
    Pvh,
}

words!(KernelProtocol, "kernel protocol", "auto, linux64, pvh", {
    "auto" => KernelProtocol::Auto,
    "linux64" => KernelProtocol::Linux64,
    "pvh" => KernelProtocol::Pvh,
});
