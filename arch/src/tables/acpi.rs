//! The ACPI tables (ACPI 6.5): hardware-reduced, every device in the DSDT.
//!
//! There is no legacy hardware to describe: no SCI, no PM timer, no FACS. Devices name their
//! interrupts themselves, since a hardware-reduced platform has no ISA lines. The power button
//! is a control method device, told by the generic event device.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use super::{AcpiTables, IOAPIC_ID, Platform};
use crate::boot::{Placement, Source};
use crate::layout;

const OEM: [u8; 6] = *b"CORACL";
const OEM_TABLE: [u8; 8] = *b"CORACLE ";
const OEM_REVISION: u32 = 1;

/// Where each table starts: a multiple of this.
const ALIGNMENT: usize = 16;
/// Room for the RSDP, which comes first.
const RSDP_LEN: usize = 36;

// IA-PC boot architecture flags: what a kernel need not look for.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// Makes the ACPI tables.
#[must_use]
pub fn acpi(platform: &Platform) -> AcpiTables {
    let mut area = Area::default();
    // The RSDP is at a place known beforehand; what it points to is known last.
    area.bytes.resize(RSDP_LEN, 0);
    let dsdt = area.add(&dsdt::dsdt(platform));
    let fadt = area.add(&fadt(dsdt));
    let madt = area.add(&madt(platform));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    if let Some(pci) = &platform.pci {
        let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
        mcfg.add_ecam(pci.ecam, 0, 0, 0);
        xsdt.add_entry(area.add(&mcfg));
    }
    let xsdt = area.add(&xsdt);
    let rsdp = bytes_of(&Rsdp::new(OEM, xsdt));
    area.bytes
        .iter_mut()
        .zip(rsdp)
        .for_each(|(to, byte)| *to = byte);
    let source = Source::Bytes(area.bytes);
    let placement = Placement {
        name: "ACPI tables",
        address: layout::ACPI,
        source,
    };
    AcpiTables {
        placement,
        rsdp: layout::ACPI,
    }
}

/// The tables, one behind the other.
#[derive(Default)]
struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Adds a table and returns its guest-physical address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let at = layout::ACPI + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        at
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// A register of one byte at a port.
fn port(address: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        address.into(),
    )
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::Wbinvd)
        // Neither button is a fixed feature.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = port(layout::PM_RESET);
    fadt.reset_value = layout::PM_RESET_VALUE;
    fadt.sleep_control_reg = port(layout::PM_SLEEP_CONTROL);
    fadt.sleep_status_reg = port(layout::PM_SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE).into();
    fadt.finalize()
}

fn madt(platform: &Platform) -> impl Aml {
    let address = |of: u64| u32::try_from(of).unwrap_or(0);
    let lapic = LocalInterruptController::Address(address(layout::LAPIC));
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, lapic);
    for cpu in 0..platform.cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(IOAPIC_ID, address(layout::IOAPIC), 0));
    madt
}

#[cfg(test)]
mod tests;
