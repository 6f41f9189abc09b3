//! The platform as the guest is told: ACPI and MP tables as bytes.
//!
//! Distribution kernels find their devices through ACPI, lean kernels without ACPI through the
//! MP table and their command line. Which of them a machine has is the plan's choice; where both
//! are there, they say the same.

mod acpi;
mod mptable;

pub use acpi::acpi;
pub use mptable::{MPTABLE, mptable};

use crate::boot::Placement;

/// What the tables describe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Platform {
    /// Number of vCPUs, 1 to 64; their APIC identities are 0, 1, ….
    pub cpus: u8,
    /// Guest memory as start and length, in bytes. The tables do not name it: the kernel learns
    /// it from its boot protocol.
    pub ram: Vec<(u64, u64)>,
    /// The virtio-mmio windows, at most 16.
    pub virtio: Vec<VirtioMmio>,
    /// The PCI bus, if there is one.
    pub pci: Option<PciBus>,
    /// Whether there is a serial port.
    pub serial: bool,
}

/// One virtio-mmio window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VirtioMmio {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
    /// Its interrupt line: GSI and pin of the I/O APIC.
    pub line: u32,
}

/// PCI bus 0, whose functions interrupt by message only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PciBus {
    /// Guest-physical address of the configuration spaces, 1 MiB.
    pub ecam: u64,
    /// The addresses that functions may have windows at: start and length, below 4 GiB.
    pub memory: (u64, u64),
}

/// The ACPI tables, ready to be placed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcpiTables {
    /// All tables in one piece.
    pub placement: Placement,
    /// Guest-physical address of the RSDP, for the boot protocols that pass it on.
    pub rsdp: u64,
}

/// Identity of the one I/O APIC, in both kinds of tables and in its register at reset.
const IOAPIC_ID: u8 = 0;

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}
