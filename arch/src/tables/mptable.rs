//! The MP table of the MultiProcessor Specification 1.4: processors, ISA bus, interrupt lines.
//!
//! It lies at 0xF0000, where Linux looks after the extended BIOS data area: that one's single
//! KiB has no room for 64 processors.

use super::{IOAPIC_ID, Platform, checksum};
use crate::boot::{Placement, Source};
use crate::layout::{IOAPIC, IOAPIC_PINS, LAPIC};

/// Guest-physical address of the MP table's floating pointer, in memory that is reserved.
pub const MPTABLE: u64 = 0xf_0000;

/// Length of the floating pointer, behind which the table itself begins.
const POINTER_LEN: u64 = 16;
/// Length of the table's header.
const HEADER_LEN: usize = 44;
/// Revision 1.4 of the specification.
const REVISION: u8 = 4;

// Kinds of entries, in the order in which they must stand.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 2;
/// Version of an integrated local APIC.
const LAPIC_VERSION: u8 = 0x14;
/// Version of the I/O APIC, one with an EOI register.
const IOAPIC_VERSION: u8 = 0x20;
/// Family 6, and the features FPU and APIC: what the specification asks for; Linux asks CPUID.
const PROCESSOR_SIGNATURE: u32 = 0x600;
const PROCESSOR_FEATURES: u32 = 0x201;

const ISA: u8 = 0;
// Kinds of interrupts.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// Active high and edge-triggered, said explicitly.
const HIGH_EDGE: u16 = 1 | 1 << 2;
/// As the bus has it.
const CONFORMING: u16 = 0;
const ALL_LAPICS: u8 = 0xff;

/// Makes the MP table.
#[must_use]
pub fn mptable(platform: &Platform) -> Placement {
    let (entries, count) = entries(platform);
    let mut table = header(&entries, count);
    table.extend(entries);
    seal(&mut table, 7);
    let mut bytes = floating_pointer();
    bytes.extend(table);
    Placement {
        name: "MP table",
        address: MPTABLE,
        source: Source::Bytes(bytes),
    }
}

fn floating_pointer() -> Vec<u8> {
    let table = u32::try_from(MPTABLE + POINTER_LEN).unwrap_or(0);
    let mut bytes = b"_MP_".to_vec();
    bytes.extend(table.to_le_bytes());
    // Length in units of 16 bytes, revision, checksum, features: a table follows, no PIC mode.
    bytes.extend([1, REVISION, 0, 0, 0, 0, 0, 0]);
    seal(&mut bytes, 10);
    bytes
}

fn header(entries: &[u8], count: u16) -> Vec<u8> {
    let length = u16::try_from(HEADER_LEN + entries.len()).unwrap_or(u16::MAX);
    let mut bytes = b"PCMP".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend([REVISION, 0]);
    bytes.extend(b"CORACLE MICROVM     ");
    // No table of the manufacturer.
    bytes.extend([0; 6]);
    bytes.extend(count.to_le_bytes());
    bytes.extend(low_address(LAPIC));
    // No extended entries.
    bytes.extend([0; 4]);
    bytes
}

fn entries(platform: &Platform) -> (Vec<u8>, u16) {
    let mut bytes = Vec::new();
    let mut count = 0;
    let mut add = |entry: &[u8]| {
        bytes.extend(entry);
        count += 1;
    };
    for cpu in 0..platform.cpus {
        add(&processor(cpu));
    }
    add(&[BUS, ISA, b'I', b'S', b'A', b' ', b' ', b' ']);
    let [a, b, c, d] = low_address(IOAPIC);
    add(&[IO_APIC, IOAPIC_ID, IOAPIC_VERSION, ENABLED, a, b, c, d]);
    for pin in 0..IOAPIC_PINS {
        add(&interrupt(
            IO_INTERRUPT,
            INT,
            HIGH_EDGE,
            pin,
            IOAPIC_ID,
            pin,
        ));
    }
    add(&interrupt(LOCAL_INTERRUPT, EXT_INT, CONFORMING, 0, 0, 0));
    add(&interrupt(
        LOCAL_INTERRUPT,
        NMI,
        CONFORMING,
        0,
        ALL_LAPICS,
        1,
    ));
    (bytes, count)
}

fn processor(cpu: u8) -> [u8; 20] {
    let mut entry = [0; 20];
    let flags = if cpu == 0 {
        ENABLED | BOOT_PROCESSOR
    } else {
        ENABLED
    };
    let [s0, s1, s2, s3] = PROCESSOR_SIGNATURE.to_le_bytes();
    let [f0, f1, f2, f3] = PROCESSOR_FEATURES.to_le_bytes();
    let known = [
        PROCESSOR,
        cpu,
        LAPIC_VERSION,
        flags,
        s0,
        s1,
        s2,
        s3,
        f0,
        f1,
        f2,
        f3,
    ];
    entry
        .iter_mut()
        .zip(known)
        .for_each(|(to, byte)| *to = byte);
    entry
}

fn interrupt(entry: u8, kind: u8, flags: u16, irq: u8, apic: u8, pin: u8) -> [u8; 8] {
    let [low, high] = flags.to_le_bytes();
    [entry, kind, low, high, ISA, irq, apic, pin]
}

/// The address of an APIC, which is below 4 GiB.
fn low_address(address: u64) -> [u8; 4] {
    u32::try_from(address).unwrap_or(0).to_le_bytes()
}

/// Sets the checksum at `at`, which is zero.
fn seal(bytes: &mut [u8], at: usize) {
    let sum = checksum(bytes);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{ACPI_END, HIGH_RAM};

    fn platform(cpus: u8) -> Platform {
        Platform {
            cpus,
            ram: vec![(0, 128 << 20)],
            virtio: Vec::new(),
            pci: None,
            serial: true,
        }
    }

    fn bytes(cpus: u8) -> Vec<u8> {
        let placement = mptable(&platform(cpus));
        assert_eq!(placement.address, 0xf_0000);
        let Source::Bytes(bytes) = placement.source else {
            panic!("not bytes")
        };
        bytes
    }

    /// Walks the table as a kernel does; returns the entries.
    fn walk(bytes: &[u8]) -> Vec<&[u8]> {
        let (pointer, table) = bytes.split_at(16);
        assert_eq!(&pointer[..4], b"_MP_");
        assert_eq!(checksum(pointer), 0);
        assert_eq!(pointer[4..8], 0xf_0010_u32.to_le_bytes());
        assert_eq!(&table[..4], b"PCMP");
        assert_eq!(checksum(table), 0);
        assert_eq!(
            usize::from(u16::from_le_bytes([table[4], table[5]])),
            table.len()
        );
        assert_eq!(table[36..40], 0xfee0_0000_u32.to_le_bytes());
        let count = u16::from_le_bytes([table[34], table[35]]);
        let mut rest = &table[44..];
        let mut entries = Vec::new();
        while let Some(kind) = rest.first() {
            let (entry, after) = rest.split_at(if *kind == PROCESSOR { 20 } else { 8 });
            entries.push(entry);
            rest = after;
        }
        assert_eq!(entries.len(), usize::from(count));
        entries
    }

    #[test]
    fn every_processor_and_pin_has_its_entry() {
        for cpus in [1, 2, 37, 64] {
            let bytes = bytes(cpus);
            let entries = walk(&bytes);
            let of = |kind: u8| entries.iter().filter(move |entry| entry[0] == kind);
            assert!(entries.is_sorted_by_key(|entry| entry[0]), "kinds in order");
            assert!(of(PROCESSOR).map(|entry| entry[1]).eq(0..cpus));
            assert!(
                of(PROCESSOR)
                    .enumerate()
                    .all(|(n, entry)| (entry[3] == 3) == (n == 0))
            );
            let pins = of(IO_INTERRUPT).map(|entry| (entry[5], entry[6], entry[7]));
            assert!(pins.eq((0..24).map(|pin| (pin, IOAPIC_ID, pin))));
            assert_eq!(
                of(IO_APIC).next().unwrap()[4..],
                0xfec0_0000_u32.to_le_bytes()
            );
            let local: Vec<_> = of(LOCAL_INTERRUPT).map(|e| (e[1], e[6], e[7])).collect();
            assert_eq!(local, [(3, 0, 0), (1, 0xff, 1)]);
        }
    }

    #[test]
    fn it_stays_below_the_memory_that_kernels_use() {
        assert!(bytes(1).len() < 0x400);
        let len = u64::try_from(bytes(64).len()).unwrap();
        assert!(len > 0x400, "why it is not in the last KiB of low memory");
        assert!(MPTABLE + len <= HIGH_RAM.min(ACPI_END));
    }
}
