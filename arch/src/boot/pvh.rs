//! `hvm_start_info` of the PVH protocol with its module list and memory map, as bytes.

use linux_loader::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE,
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::ByteValued;

use super::{MemoryKind, MemoryRange};
use crate::layout::{CMDLINE, PVH_MEMORY_MAP, PVH_MODULES, PVH_START_INFO};

/// Version of `hvm_start_info` that has a memory map.
const VERSION: u32 = 1;

/// What the start info tells.
pub(super) struct Told<'a> {
    /// Guest memory.
    pub(super) memory_map: &'a [MemoryRange],
    /// Address and length of the initrd.
    pub(super) initrd: Option<(u64, u64)>,
    /// Address of ACPI's RSDP.
    pub(super) rsdp: Option<u64>,
}

/// Builds everything from [`PVH_START_INFO`] on.
pub(super) fn bytes(told: &Told<'_>) -> Vec<u8> {
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: told.initrd.is_some().into(),
        modlist_paddr: if told.initrd.is_some() {
            PVH_MODULES
        } else {
            0
        },
        cmdline_paddr: CMDLINE,
        rsdp_paddr: told.rsdp.unwrap_or_default(),
        memmap_paddr: PVH_MEMORY_MAP,
        memmap_entries: u32::try_from(told.memory_map.len()).unwrap_or(u32::MAX),
        ..hvm_start_info::default()
    };
    let mut bytes = info.as_slice().to_vec();
    pad_to(&mut bytes, PVH_MODULES);
    if let Some((paddr, size)) = told.initrd {
        let module = hvm_modlist_entry {
            paddr,
            size,
            ..hvm_modlist_entry::default()
        };
        bytes.extend_from_slice(module.as_slice());
    }
    pad_to(&mut bytes, PVH_MEMORY_MAP);
    for range in told.memory_map {
        bytes.extend_from_slice(entry(range).as_slice());
    }
    bytes
}

fn pad_to(bytes: &mut Vec<u8>, address: u64) {
    let len = usize::try_from(address - PVH_START_INFO).unwrap_or(usize::MAX);
    bytes.resize(len.max(bytes.len()), 0);
}

fn entry(range: &MemoryRange) -> hvm_memmap_table_entry {
    let type_ = match range.kind {
        MemoryKind::Ram => XEN_HVM_MEMMAP_TYPE_RAM,
        MemoryKind::Reserved => XEN_HVM_MEMMAP_TYPE_RESERVED,
    };
    let (addr, size) = (range.start, range.len);
    hvm_memmap_table_entry {
        addr,
        size,
        type_,
        reserved: 0,
    }
}
