//! The guest-physical map: where RAM, boot structures, windows and ports are; constants only.
//!
//! ```text
//! 0x0000_0500  GDT                        0x0010_0000  RAM, kernel, initrd
//! 0x0000_6000  PVH start_info             0xC000_0000  end of low RAM, the hole begins
//! 0x0000_7000  zero page (boot_params)    0xD000_0000  virtio-mmio windows
//! 0x0000_8FF0  top of the boot stack      0xD100_0000  windows of PCI functions
//! 0x0000_9000  page tables                0xE000_0000  PCI configuration spaces
//! 0x0002_0000  command line               0xFEC0_0000  IOAPIC
//! 0x0009_FC00  reserved up to 1 MiB       0xFEE0_0000  local APIC
//! 0x000E_0000  ACPI RSDP and tables       0xFFFB_C000  KVM's identity map page and TSS
//! 0x000F_0000  MP table                   0x1_0000_0000 RAM above the hole
//! ```

/// Size of a page of the guest, in bytes.
pub const PAGE_SIZE: u64 = 0x1000;

/// Global descriptor table that the boot CPU starts with.
pub const GDT: u64 = 0x500;
/// `hvm_start_info` of the PVH protocol.
pub const PVH_START_INFO: u64 = 0x6000;
/// Module list of the PVH protocol (one entry: the initrd).
pub const PVH_MODULES: u64 = 0x6040;
/// Memory map of the PVH protocol.
pub const PVH_MEMORY_MAP: u64 = 0x6100;
/// `boot_params` of the Linux boot protocol.
pub const ZERO_PAGE: u64 = 0x7000;
/// Page of the boot stack.
pub const BOOT_STACK: u64 = 0x8000;
/// Initial stack pointer, inside [`BOOT_STACK`].
pub const BOOT_STACK_TOP: u64 = 0x8ff0;
/// Root of the first page tables.
pub const PML4: u64 = 0x9000;
/// Page directory pointers of the first 512 GiB.
pub const PDPT: u64 = 0xa000;
/// First of four page directories, which map 4 GiB with 2 MiB pages.
pub const PAGE_DIRECTORIES: u64 = 0xb000;
/// First byte behind the page tables.
pub const PAGE_TABLES_END: u64 = 0xf000;
/// Kernel command line, NUL terminated.
pub const CMDLINE: u64 = 0x2_0000;
/// Bytes kept for the command line.
pub const CMDLINE_AREA: u64 = 0x1_0000;
/// Longest command line in bytes, the closing NUL not counted (Linux's `COMMAND_LINE_SIZE` - 1).
pub const CMDLINE_MAX: usize = 2047;
/// Where an extended BIOS data area would be: reserved from here to 1 MiB.
pub const EBDA: u64 = 0x9_fc00;
/// ACPI's RSDP, with the other tables behind it.
pub const ACPI: u64 = 0xe_0000;
/// End of the area of the ACPI tables.
pub const ACPI_END: u64 = 0x10_0000;
/// RAM for the kernel begins here (1 MiB).
pub const HIGH_RAM: u64 = 0x10_0000;

/// The hole for devices begins here; RAM below it is at most this long (3 GiB).
pub const HOLE_START: u64 = 0xc000_0000;
/// The hole ends here (4 GiB); the rest of RAM follows.
pub const HOLE_END: u64 = 0x1_0000_0000;
/// Least guest memory that the map makes sense with, in bytes.
pub const MIN_MEMORY: u64 = 2 << 20;
/// Most guest memory, in bytes: 16 TiB, inside the 46 physical bits that every host of 64 bits has.
pub const MAX_MEMORY: u64 = 1 << 44;

/// First virtio-mmio window.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// Size of one virtio-mmio window, in bytes.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// Number of virtio-mmio windows.
pub const VIRTIO_MMIO_SLOTS: usize = 16;
/// First address for the windows of PCI functions.
pub const PCI_MEMORY: u64 = 0xd100_0000;
/// Length of that range, in bytes; the configuration spaces follow.
pub const PCI_MEMORY_SIZE: u64 = PCI_ECAM - PCI_MEMORY;
/// Configuration spaces of PCI bus 0, 4 KiB each.
pub const PCI_ECAM: u64 = 0xe000_0000;
/// Length of the configuration spaces of one bus, in bytes.
pub const PCI_ECAM_SIZE: u64 = 1 << 20;
/// Number of devices on PCI bus 0 beside the host bridge, which is device 0.
pub const PCI_SLOTS: usize = 31;
/// Registers of the IOAPIC.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Length of the IOAPIC's window, in bytes.
pub const IOAPIC_SIZE: u64 = 0x1000;
/// Pins of the IOAPIC.
pub const IOAPIC_PINS: u8 = 24;
/// Registers of the local APICs.
pub const LAPIC: u64 = 0xfee0_0000;
/// Page that KVM uses for an identity map on some processors.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM uses for a TSS on some processors.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// First port of the first serial port.
pub const COM1: u16 = 0x3f8;
/// Number of ports of a serial port.
pub const COM1_PORTS: u16 = 8;
/// Data port of the i8042.
pub const I8042_DATA: u16 = 0x60;
/// Command and status port of the i8042.
pub const I8042_COMMAND: u16 = 0x64;
/// ACPI sleep control register.
pub const PM_SLEEP_CONTROL: u16 = 0x600;
/// ACPI sleep status register.
pub const PM_SLEEP_STATUS: u16 = 0x601;
/// ACPI reset register.
pub const PM_RESET: u16 = 0x602;
/// Value that resets the machine when written to [`PM_RESET`].
pub const PM_RESET_VALUE: u8 = 1;
/// Event byte of the generic event device: reading clears it, bit 0 is the power button.
pub const GED_EVENT: u16 = 0x604;
/// Number of ports of the power management block, from [`PM_SLEEP_CONTROL`].
pub const PM_PORTS: u16 = 8;
/// First port of the watchdog: stops it.
pub const WATCHDOG: u16 = 0x441;
/// Number of ports of the watchdog; the last starts and feeds it.
pub const WATCHDOG_PORTS: u16 = 3;
/// Port on which a guest tells of its kernel's panic.
pub const PVPANIC: u16 = 0x505;
/// Port of POST codes; writes are ignored.
pub const DEBUG_PORT: u16 = 0x80;

/// First port of PCI configuration mechanism 1: address, then data.
pub const PCI_CONFIG: u16 = 0xcf8;
/// Number of ports of that mechanism.
pub const PCI_CONFIG_PORTS: u16 = 8;

/// First GSI that is a message of a PCI function, behind the IOAPIC's pins.
pub const FIRST_MESSAGE: u32 = IOAPIC_PINS as u32;
/// Line (GSI and IOAPIC pin) of the first serial port.
pub const COM1_LINE: u32 = 4;
/// Line of the generic event device.
pub const GED_LINE: u32 = 9;
/// Lines of the virtio-mmio slots, in order.
pub const VIRTIO_LINES: [u32; VIRTIO_MMIO_SLOTS] =
    [5, 6, 7, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

/// Address and line of a virtio-mmio slot, or `None` when there is no such slot.
#[must_use]
pub fn virtio_slot(slot: usize) -> Option<(u64, u32)> {
    let line = *VIRTIO_LINES.get(slot)?;
    let offset = u64::try_from(slot).ok()?.checked_mul(VIRTIO_MMIO_SIZE)?;
    Some((VIRTIO_MMIO + offset, line))
}

/// Device number of a PCI slot, and where its window of `len` bytes goes, a power of two of at most
/// 4 MiB; `None` when there is no such slot.
#[must_use]
pub fn pci_slot(slot: usize, len: u64) -> Option<(u8, u64)> {
    let device = u8::try_from(slot + 1).ok().filter(|_| slot < PCI_SLOTS)?;
    let offset = u64::from(device).checked_mul(len)?;
    let fits = len.is_power_of_two() && len <= 4 << 20;
    fits.then_some((device, PCI_MEMORY + offset))
}

/// Splits guest memory around the hole: one or two `(start, length)` ranges, in bytes.
///
/// No memory gives no range. Nothing is rounded and nothing refused here; see [`MIN_MEMORY`].
#[must_use]
pub fn ram_ranges(memory_bytes: u64) -> Vec<(u64, u64)> {
    let low = memory_bytes.min(HOLE_START);
    let high = memory_bytes - low;
    [(0, low), (HOLE_END, high)]
        .into_iter()
        .filter(|&(_, len)| len > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ram_is_split_over_the_hole() {
        let table: [(u64, &[(u64, u64)]); 10] = [
            (0, &[]),
            (16, &[(0, 16)]),
            (2047, &[(0, 2047)]),
            (2048, &[(0, 2048)]),
            (2049, &[(0, 2049)]),
            (3071, &[(0, 3071)]),
            (3072, &[(0, 3072)]),
            (3073, &[(0, 3072), (4096, 1)]),
            (4096, &[(0, 3072), (4096, 1024)]),
            (6144, &[(0, 3072), (4096, 3072)]),
        ];
        for (memory, ranges) in table {
            let expected: Vec<_> = ranges
                .iter()
                .map(|&(at, len)| (at * MIB, len * MIB))
                .collect();
            assert_eq!(ram_ranges(memory * MIB), expected, "{memory} MiB");
        }
    }

    #[test]
    fn slots_are_in_the_hole_and_lines_are_unique() {
        let mut lines: Vec<u32> = VIRTIO_LINES.to_vec();
        lines.extend([COM1_LINE, GED_LINE]);
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), VIRTIO_MMIO_SLOTS + 2);
        assert!(lines.iter().all(|&line| line < u32::from(IOAPIC_PINS)));
        let (last, _) = virtio_slot(VIRTIO_MMIO_SLOTS - 1).unwrap();
        assert!(last + VIRTIO_MMIO_SIZE <= IOAPIC);
        assert_eq!(virtio_slot(VIRTIO_MMIO_SLOTS), None);
        assert!(last + VIRTIO_MMIO_SIZE <= PCI_MEMORY);
    }

    #[test]
    fn windows_of_functions_are_aligned_and_before_the_configuration_spaces() {
        assert_eq!(pci_slot(0, 0x8000), Some((1, 0xd100_8000)));
        assert_eq!(pci_slot(30, 0x8000), Some((31, 0xd10f_8000)));
        assert_eq!(pci_slot(31, 0x8000), None);
        assert_eq!(pci_slot(usize::MAX - 1, 0x8000), None);
        for len in [0, 3, 8 << 20, u64::MAX] {
            assert_eq!(pci_slot(1, len), None, "{len}");
        }
        let (_, last) = pci_slot(30, 4 << 20).unwrap();
        assert!(last.is_multiple_of(4 << 20));
        assert!(last + (4 << 20) <= PCI_MEMORY + PCI_MEMORY_SIZE);
        const { assert!(PCI_ECAM + PCI_ECAM_SIZE <= IOAPIC) };
    }
}
