//! The zero page (`boot_params`) of Linux's boot protocol, as bytes.

use linux_loader::bootparam::{LOADED_HIGH, boot_e820_entry, boot_params, setup_header};
use vm_memory::ByteValued;

use super::{Kernel, MemoryKind, MemoryRange};
use crate::layout::CMDLINE;

const BOOT_FLAG: u16 = 0xaa55;
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// Protocol that is claimed for a kernel without a header of its own (an ELF).
const VERSION: u16 = 0x020f;
/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
const ALIGNMENT: u32 = 0x100_0000;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// What the zero page tells besides the kernel's own header.
pub(super) struct Told<'a> {
    /// Guest memory, at most 128 ranges.
    pub(super) memory_map: &'a [MemoryRange],
    /// Length of the command line without its NUL.
    pub(super) cmdline_len: u32,
    /// Address and length of the initrd.
    pub(super) initrd: Option<(u32, u32)>,
    /// Address of ACPI's RSDP; without it the kernel searches for one.
    pub(super) rsdp: Option<u64>,
}

/// Builds the zero page.
pub(super) fn bytes(kernel: &Kernel, told: &Told<'_>) -> Vec<u8> {
    let mut hdr = kernel.setup.unwrap_or(setup_header {
        version: VERSION,
        kernel_alignment: ALIGNMENT,
        cmdline_size: told.cmdline_len + 1,
        ..setup_header::default()
    });
    hdr.boot_flag = BOOT_FLAG;
    hdr.header = MAGIC;
    hdr.type_of_loader = LOADER_UNDEFINED;
    hdr.loadflags |= LOADED_HIGH;
    hdr.cmd_line_ptr = u32::try_from(CMDLINE).unwrap_or_default();
    hdr.setup_data = 0;
    let (image, size) = told.initrd.unwrap_or_default();
    hdr.ramdisk_image = image;
    hdr.ramdisk_size = size;
    let mut params = boot_params {
        hdr,
        ..boot_params::default()
    };
    params.acpi_rsdp_addr = told.rsdp.unwrap_or_default();
    let mut table = params.e820_table;
    let mut entries = 0;
    for (entry, range) in table.iter_mut().zip(told.memory_map) {
        *entry = e820(range);
        entries += 1;
    }
    params.e820_table = table;
    params.e820_entries = entries;
    params.as_slice().to_vec()
}

fn e820(range: &MemoryRange) -> boot_e820_entry {
    let kind = match range.kind {
        MemoryKind::Ram => E820_RAM,
        MemoryKind::Reserved => E820_RESERVED,
    };
    boot_e820_entry {
        addr: range.start,
        size: range.len,
        r#type: kind,
    }
}
