//! The tables as a kernel walks them, and their exact bytes.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::*;
use crate::tables::{MPTABLE, PciBus, VirtioMmio, checksum};

fn platform(cpus: u8, windows: usize) -> Platform {
    let virtio = (0..windows).map(|slot| {
        let (address, line) = layout::virtio_slot(slot).unwrap();
        VirtioMmio {
            address,
            size: layout::VIRTIO_MMIO_SIZE,
            line,
        }
    });
    Platform {
        cpus,
        ram: vec![(0, 128 << 20)],
        virtio: virtio.collect(),
        pci: None,
        serial: true,
    }
}

fn with_pci() -> Platform {
    let bus = PciBus {
        ecam: layout::PCI_ECAM,
        memory: (layout::PCI_MEMORY, layout::PCI_MEMORY_SIZE),
    };
    Platform {
        pci: Some(bus),
        ..platform(2, 0)
    }
}

fn bytes(platform: &Platform) -> Vec<u8> {
    let AcpiTables { placement, rsdp } = acpi(platform);
    assert_eq!((placement.address, rsdp), (layout::ACPI, layout::ACPI));
    let Source::Bytes(bytes) = placement.source else {
        panic!("not bytes")
    };
    bytes
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len]
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The table at a guest-physical address, its sum checked.
fn table(bytes: &[u8], at: u64, signature: &[u8; 4]) -> Vec<u8> {
    let at = usize::try_from(at - layout::ACPI).unwrap();
    assert_eq!(&bytes[at..at + 4], signature);
    let len = usize::try_from(number(bytes, at + 4, 4)).unwrap();
    let table = &bytes[at..at + len];
    assert_eq!(
        checksum(table),
        0,
        "the sum of {}",
        String::from_utf8_lossy(signature)
    );
    table.to_vec()
}

/// RSDP to DSDT: returns DSDT, FADT and MADT.
fn walk(bytes: &[u8]) -> [Vec<u8>; 3] {
    assert_eq!(&bytes[..8], b"RSD PTR ");
    assert_eq!(checksum(&bytes[..20]), 0);
    assert_eq!(checksum(&bytes[..36]), 0);
    assert_eq!(bytes[15], 2);
    let xsdt = table(bytes, number(bytes, 24, 8), b"XSDT");
    assert!([36 + 2 * 8, 36 + 3 * 8].contains(&xsdt.len()));
    let fadt = table(bytes, number(&xsdt, 36, 8), b"FACP");
    let madt = table(bytes, number(&xsdt, 44, 8), b"APIC");
    let dsdt = table(bytes, number(&fadt, 140, 8), b"DSDT");
    [dsdt, fadt, madt]
}

#[test]
fn the_fadt_describes_reduced_hardware() {
    let [_, fadt, _] = walk(&bytes(&platform(1, 1)));
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    let flags = number(&fadt, 112, 4);
    assert_eq!(flags, 1 << 20 | 1 << 12 | 1 << 10 | 1 << 5 | 1 << 4 | 1);
    assert_eq!(number(&fadt, 109, 2), 0x24, "no VGA, no CMOS clock");
    let register = |port: u16| {
        let [low, high] = port.to_le_bytes();
        [1, 8, 0, 1, low, high, 0, 0, 0, 0, 0, 0]
    };
    assert_eq!(fadt[116..128], register(0x602));
    assert_eq!(fadt[128], 1);
    assert_eq!(fadt[244..256], register(0x600));
    assert_eq!(fadt[256..268], register(0x601));
}

#[test]
fn the_madt_lists_every_vcpu_and_the_ioapic() {
    for cpus in [1, 2, 64] {
        let [_, _, madt] = walk(&bytes(&platform(cpus, 0)));
        assert_eq!(number(&madt, 36, 8), 0xfee0_0000, "address, and no 8259");
        let (lapics, ioapic) = madt[44..].split_at(usize::from(cpus) * 8);
        let ids = lapics.chunks(8).map(|lapic| {
            assert_eq!((lapic[0], lapic[1], number(lapic, 4, 4)), (0, 8, 1));
            (lapic[2], lapic[3])
        });
        assert!(ids.eq((0..cpus).map(|cpu| (cpu, cpu))));
        assert_eq!(ioapic, [1, 12, IOAPIC_ID, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    }
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .filter(|window| *window == needle)
        .count()
}

#[test]
fn the_dsdt_has_a_node_for_each_device() {
    let [dsdt, ..] = walk(&bytes(&platform(1, 16)));
    assert_eq!(count(&dsdt, b"LNRO0005"), 16);
    for slot in 0..16 {
        let (address, line) = layout::virtio_slot(slot).unwrap();
        let mut window = vec![0x86, 9, 0, 1];
        window.extend(u32::try_from(address).unwrap().to_le_bytes());
        window.extend(0x1000_u32.to_le_bytes());
        window.extend([0x89, 6, 0, 3, 1]);
        window.extend(line.to_le_bytes());
        assert_eq!(count(&dsdt, &window), 1, "slot {slot}: window and line");
        assert_eq!(count(&dsdt, format!("VI{slot:02}").as_bytes()), 1);
    }
    assert_eq!(count(&dsdt, b"ACPI0013"), 1);
    assert_eq!(count(&dsdt, b"COM1"), 1);
    // I/O, decoded in 16 bits, at 0x505 and nowhere else, one port.
    let panic_port = [0x47, 1, 5, 5, 5, 5, 1, 1];
    assert_eq!(count(&dsdt, b"QEMU0001"), 1);
    assert_eq!(count(&dsdt, &panic_port), 1);
    let silent = Platform {
        serial: false,
        ..platform(1, 0)
    };
    let [dsdt, ..] = walk(&bytes(&silent));
    assert_eq!((count(&dsdt, b"COM1"), count(&dsdt, b"LNRO0005")), (0, 0));
    assert_eq!(count(&dsdt, b"PWRB"), 2, "the device and its notification");
}

#[test]
fn a_pci_bus_has_a_node_and_its_configuration_spaces_a_table() {
    let bytes = bytes(&with_pci());
    let xsdt = table(&bytes, number(&bytes, 24, 8), b"XSDT");
    let mcfg = table(&bytes, number(&xsdt, 52, 8), b"MCFG");
    let mut entry = vec![0; 8];
    entry.extend(layout::PCI_ECAM.to_le_bytes());
    // Segment 0, buses 0 to 0.
    entry.extend([0; 8]);
    assert_eq!(mcfg[36..], entry);
    let [dsdt, ..] = walk(&bytes);
    assert_eq!(count(&dsdt, b"PCI0"), 1);
    // PNP0A08, PNP0A03, PNP0C02.
    for id in [
        [0x41, 0xd0, 0x0a, 0x08],
        [0x41, 0xd0, 0x0a, 0x03],
        [0x41, 0xd0, 0x0c, 0x02],
    ] {
        assert_eq!(count(&dsdt, &id), 1, "{id:x?}");
    }
    for (what, resource) in [
        (
            "bus",
            vec![0x88, 13, 0, 2, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ),
        ("bridge", vec![0x47, 1, 0xf8, 0x0c, 0xf8, 0x0c, 1, 8]),
        (
            "low ports",
            vec![
                0x88, 13, 0, 1, 0x0c, 3, 0, 0, 0, 0, 0xf7, 0x0c, 0, 0, 0xf8, 0x0c,
            ],
        ),
        (
            "high ports",
            vec![
                0x88, 13, 0, 1, 0x0c, 3, 0, 0, 0, 0x0d, 0xff, 0xff, 0, 0, 0, 0xf3,
            ],
        ),
        ("spaces", vec![0x86, 9, 0, 1, 0, 0, 0, 0xe0, 0, 0, 0x10, 0]),
    ] {
        assert_eq!(count(&dsdt, &resource), 1, "{what}");
    }
    let mut memory = vec![0x87, 23, 0, 0, 0x0c, 1, 0, 0, 0, 0];
    memory.extend(0xd100_0000_u32.to_le_bytes());
    memory.extend(0xdfff_ffff_u32.to_le_bytes());
    memory.extend(0_u32.to_le_bytes());
    memory.extend(0x0f00_0000_u32.to_le_bytes());
    assert_eq!(count(&dsdt, &memory), 1);
    assert_eq!(count(&dsdt, b"LNRO0005"), 0);
}

#[test]
fn a_window_above_4_gib_is_named_in_full() {
    let far = VirtioMmio {
        address: 0x12_3456_7000,
        size: 0x1000,
        line: 5,
    };
    let platform = Platform {
        virtio: vec![far],
        ..platform(1, 0)
    };
    let [dsdt, ..] = walk(&bytes(&platform));
    let mut range = 0x12_3456_7000_u64.to_le_bytes().to_vec();
    range.extend(0x12_3456_7fff_u64.to_le_bytes());
    assert_eq!(count(&dsdt, &range), 1);
}

#[test]
fn the_largest_platform_leaves_room_for_the_mp_table() {
    let len = u64::try_from(bytes(&platform(64, 16)).len()).unwrap();
    assert!(layout::ACPI + len <= MPTABLE, "{len} bytes");
}

/// The tables of two vCPUs and two windows, byte by byte. When a change is meant, put what the
/// failure prints into the file.
#[test]
fn the_bytes_are_the_reviewed_ones() {
    let mut dump = String::new();
    for line in bytes(&platform(2, 2)).chunks(16) {
        let words: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(dump, "{}", words.join(" ")).unwrap();
    }
    assert!(
        dump == include_str!("golden.hex"),
        "the tables are now:\n{dump}"
    );
}

/// Has `iasl` read the table of this name, which must find nothing wrong with it, and returns the
/// source that it made of it.
fn disassembled(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let table = folder.join(name).with_extension("aml");
    std::fs::write(&table, bytes).unwrap();
    let output = Command::new("iasl").arg("-d").arg(&table).output().unwrap();
    judge(&output, name);
    table.with_extension("dsl")
}

fn judge(output: &Output, name: &str) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{name}: {text}");
    for word in ["Warning", "Invalid", "Incorrect", "Could not"] {
        let good = text.replace("0 Warnings", "");
        assert!(!good.contains(word), "{name}: {text}");
    }
}

/// ACPICA, which is what Linux and the BSDs have, reads every table and compiles again what it
/// read, with the object that says how the machine is switched off among it.
#[test]
fn acpica_reads_the_tables_and_compiles_what_it_read() {
    if harness::skip::without_program("iasl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let largest = bytes(&platform(64, 16));
    let pci = bytes(&with_pci());
    let [dsdt, fadt, madt] = walk(&largest);
    let [dsdt_pci, ..] = walk(&pci);
    let xsdt = table(&pci, number(&pci, 24, 8), b"XSDT");
    let mcfg = table(&pci, number(&xsdt, 52, 8), b"MCFG");
    for (name, bytes) in [
        ("facp", &fadt),
        ("apic", &madt),
        ("xsdt", &xsdt),
        ("mcfg", &mcfg),
    ] {
        disassembled(folder.path(), name, bytes);
    }
    for (name, bytes) in [("dsdt", &dsdt), ("dsdt-pci", &dsdt_pci)] {
        let source = disassembled(folder.path(), name, bytes);
        let text = std::fs::read_to_string(&source).unwrap();
        assert!(text.contains("Name (\\_S5"), "{name}");
        let compiled = Command::new("iasl").arg(source).output().unwrap();
        judge(&compiled, name);
    }
}
