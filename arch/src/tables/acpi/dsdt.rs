//! The DSDT: the devices and what the guest may ask of them, as AML.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, Field, FieldAccessType, FieldEntry,
    FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method, Name, Notify,
    ONE, OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::super::{PciBus, Platform, VirtioMmio};
use super::{OEM, OEM_REVISION, OEM_TABLE, bytes_of};
use crate::layout;

/// Revision 2 has integers of 64 bits.
const REVISION: u8 = 2;
/// Length of a table's header.
const HEADER_LEN: u32 = 36;
/// What the sleep control register takes as S5.
const SLEEP_TYPE_S5: u8 = 5;
/// The bit of the event byte that is the power button.
const POWER_BUTTON: u8 = 1;
/// What a power button is notified with when it was pressed.
const PRESSED: u8 = 0x80;

/// Bytes of AML that are complete already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// Makes the DSDT.
pub(super) fn dsdt(platform: &Platform) -> impl Aml {
    let mut devices = Vec::new();
    if platform.serial {
        devices.push(serial());
    }
    for (number, window) in (0_u8..).zip(&platform.virtio) {
        devices.push(virtio(number, window));
    }
    devices.push(pvpanic());
    if let Some(pci) = &platform.pci {
        devices.push(pci_bus(pci));
        devices.push(configuration_spaces(pci.ecam));
    }
    devices.push(power_button());
    devices.push(event_device());
    let devices = devices.iter().map(|device| device as &dyn Aml).collect();
    let bus = bytes_of(&Scope::new("\\_SB_".into(), devices));
    let sleep = Package::new(vec![&SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO]);
    let sleep = bytes_of(&Name::new("\\_S5_".into(), &sleep));
    let mut table = Sdt::new(*b"DSDT", HEADER_LEN, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&sleep);
    table.append_slice(&bus);
    Raw(table.as_slice().to_vec())
}

/// A line of ours: edge-triggered, active high, not shared.
fn line(number: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, number)
}

fn serial() -> Raw {
    let last = u8::try_from(layout::COM1_PORTS).unwrap_or(0);
    let ports = IO::new(layout::COM1, layout::COM1, 1, last);
    let line = line(layout::COM1_LINE);
    Raw(bytes_of(&Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &line])),
        ],
    )))
}

fn virtio(number: u8, window: &VirtioMmio) -> Raw {
    let name = format!("VI{number:02}");
    let memory = memory(window.address, window.size);
    let line = line(window.line);
    Raw(bytes_of(&Device::new(
        name.as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &number),
            &Name::new("_CCA".into(), &ONE),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory, &line])),
        ],
    )))
}

/// The window as a resource; one that 32 bits cannot name takes the larger form.
fn memory(address: u64, size: u64) -> Raw {
    Raw(match (u32::try_from(address), u32::try_from(size)) {
        (Ok(address), Ok(size)) => bytes_of(&Memory32Fixed::new(true, address, size)),
        _ => {
            let last = address.saturating_add(size.saturating_sub(1));
            let cached = AddressSpaceCacheable::NotCacheable;
            bytes_of(&AddressSpace::<u64>::new_memory(
                cached, true, address, last, None,
            ))
        }
    })
}

/// The port on which the kernel tells of its panic, as QEMU describes it; present and working.
fn pvpanic() -> Raw {
    const WORKS: u8 = 0xf;
    let port = IO::new(layout::PVPANIC, layout::PVPANIC, 1, 1);
    Raw(bytes_of(&Device::new(
        "PEVT".into(),
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&port])),
            &Name::new("_STA".into(), &WORKS),
        ],
    )))
}

/// PCI bus 0 with its host bridge: the bus number, the ports that are not the bridge's own, and
/// the addresses of functions' windows. No routing: there are no interrupt pins.
fn pci_bus(pci: &PciBus) -> Raw {
    let (first, own) = (layout::PCI_CONFIG, layout::PCI_CONFIG_PORTS);
    let bus = AddressSpace::<u16>::new_bus_number(0, 0);
    let bridge = IO::new(first, first, 1, u8::try_from(own).unwrap_or(0));
    let below = AddressSpace::<u16>::new_io(0, first - 1, None);
    let above = AddressSpace::<u16>::new_io(first + own, u16::MAX, None);
    let (start, len) = pci.memory;
    let low = |address: u64| u32::try_from(address).unwrap_or(u32::MAX);
    let memory = AddressSpace::<u32>::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        low(start),
        low(start.saturating_add(len).saturating_sub(1)),
        None,
    );
    let resources: Vec<&dyn Aml> = vec![&bus, &bridge, &below, &above, &memory];
    Raw(bytes_of(&Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_CCA".into(), &ONE),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
        ],
    )))
}

/// The addresses of MCFG as taken: kernels believe that table only then (PCI Firmware 3.2, 4.1.2).
fn configuration_spaces(ecam: u64) -> Raw {
    let spaces = memory(ecam, layout::PCI_ECAM_SIZE);
    Raw(bytes_of(&Device::new(
        "ECAM".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&spaces])),
        ],
    )))
}

fn power_button() -> Raw {
    Raw(bytes_of(&Device::new(
        "PWRB".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C0C")),
            &Name::new("_UID".into(), &ZERO),
        ],
    )))
}

/// The generic event device: reads the event byte, which clears it, and tells the power button.
fn event_device() -> Raw {
    let port = layout::GED_EVENT;
    let line = line(layout::GED_LINE);
    let events = Path::new("EVNT");
    let region = OpRegion::new("EVRG".into(), OpRegionSpace::SystemIO, &port, &ONE);
    let field = Field::new(
        "EVRG".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"EVNT", 8)],
    );
    let button = Path::new("\\_SB_.PWRB");
    let pressed = And::new(&ZERO, &Local(0), &POWER_BUTTON);
    let notify = Notify::new(&button, &PRESSED);
    Raw(bytes_of(&Device::new(
        "GED_".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&line])),
            &region,
            &field,
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![
                    &Store::new(&Local(0), &events),
                    &If::new(&pressed, vec![&notify]),
                ],
            ),
        ],
    )))
}
