//! What a snapshot says of the machine as a whole. Pure.

use std::path::Path;

use api::spec::MachineSpec;
use devices::state;

use crate::blueprint::Blueprint;

state! {
    /// The machine.
    pub struct MachineStateV1: "machine", 1 {
        /// What it was made of: a `MachineSpec`, as JSON.
        pub spec: String,
        /// What its kernel was started with.
        pub cmdline: String,
        /// What its guest sees of the devices ([`Blueprint::layout`]).
        pub layout: Vec<String>,
        /// The ranges of its memory, first address and bytes, in the order of the memory's file.
        pub memory: Vec<(u64, u64)>,
        /// What the memory's file says of itself too: they belong together.
        pub memory_id: [u8; 16],
        /// The CRC-32 of each 2 MiB of the memory, and of what is left at the end.
        pub memory_sums: Vec<u32>,
        /// The CRC-32 of the built-in guest's system image, where that is its root disk.
        pub system_sum: Option<u32>,
        /// The user's disks as they were, in the order of the specification.
        pub disks: Vec<DiskMarkV1>,
    }
}

state! {
    /// By what a disk's image is known to be unchanged.
    pub struct DiskMarkV1 {
        /// Its length in bytes; 0 of a block device.
        pub bytes: u64,
        /// When it was last written, nanoseconds since 1970 (a signed number's bits); 0 of a block
        /// device, which does not tell.
        pub written_ns: u64,
    }
}

impl DiskMarkV1 {
    /// The image at `path` now; none where there is nothing.
    pub(super) fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let file = std::fs::metadata(path).ok()?;
        let tells = !file.file_type().is_block_device();
        let ns = file.mtime().wrapping_mul(1_000_000_000);
        let ns = ns.wrapping_add(file.mtime_nsec()).cast_unsigned();
        Some(Self {
            bytes: if tells { file.len() } else { 0 },
            written_ns: if tells { ns } else { 0 },
        })
    }

    /// Those of all disks of `spec`; one that is gone has a mark that none has.
    pub(super) fn of_all(spec: &MachineSpec) -> Vec<Self> {
        let gone = Self {
            bytes: u64::MAX,
            written_ns: u64::MAX,
        };
        let mark = |path: &Path| Self::of(path).unwrap_or_else(|| gone.clone());
        spec.disks.iter().map(|disk| mark(&disk.path)).collect()
    }
}

impl MachineStateV1 {
    /// The machine of `blueprint`, which `spec` describes. Its memory is known when it is written.
    pub(super) fn of(blueprint: &Blueprint, spec: &MachineSpec, system: Option<&[u8]>) -> Self {
        Self {
            spec: spec.to_json(),
            cmdline: blueprint.cmdline.clone(),
            layout: blueprint.layout(),
            memory: blueprint.memory.ranges(),
            memory_id: [0; 16],
            memory_sums: Vec::new(),
            system_sum: system.map(crc32fast::hash),
            disks: DiskMarkV1::of_all(spec),
        }
    }
}
