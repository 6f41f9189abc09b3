//! How the registers of a device are reached, and where a transport has what.

use devices::Width;
use devices::virtio::transport::pci;

use crate::step::Register;

/// A transport of virtio.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// virtio-mmio, version 2 (virtio 1.2, 4.2).
    Mmio,
    /// virtio-pci, modern (virtio 1.2, 4.1).
    Pci,
}

impl Transport {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Transport::Mmio => "mmio",
            Transport::Pci => "pci",
        }
    }
}

/// A piece of a device's registers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Region {
    /// The whole window: of virtio-mmio, or the memory BAR of virtio-pci.
    Window,
    /// virtio-pci: the common configuration.
    Common,
    /// virtio-pci: the doorbells.
    Notify,
    /// virtio-pci: the interrupt reasons, one byte, cleared by reading.
    Isr,
    /// virtio-pci: the device's own configuration.
    Device,
    /// virtio-pci: the MSI-X table.
    MsixTable,
    /// virtio-pci: the pending bits.
    MsixPending,
    /// virtio-pci: the function's configuration space.
    PciConfig,
}

/// Where a region begins in the device's window; the configuration space is in none.
#[must_use]
pub fn start(region: Region) -> Option<u64> {
    match region {
        Region::Window | Region::Common => Some(pci::COMMON),
        Region::Isr => Some(pci::ISR),
        Region::Device => Some(pci::CONFIG),
        Region::Notify => Some(pci::NOTIFY),
        Region::MsixTable => Some(pci::MSIX_TABLE),
        Region::MsixPending => Some(pci::MSIX_PENDING),
        Region::PciConfig => None,
    }
}

/// Where the device's own configuration begins.
#[must_use]
pub fn config(transport: Transport) -> (Region, u64) {
    match transport {
        Transport::Mmio => (Region::Window, 0x100),
        Transport::Pci => (Region::Device, 0),
    }
}

/// Where a register is, and how wide.
#[must_use]
pub fn place(transport: Transport, register: Register) -> (Region, u64, Width) {
    match transport {
        Transport::Mmio => (Region::Window, mmio(register), Width::Dword),
        Transport::Pci => {
            let (offset, width) = common(register);
            (Region::Common, offset, width)
        }
    }
}

/// Virtio 1.2, 4.2.2.
fn mmio(register: Register) -> u64 {
    match register {
        Register::DeviceFeatures => 0x10,
        Register::DeviceFeatureSelect => 0x14,
        Register::DriverFeatures => 0x20,
        Register::DriverFeatureSelect => 0x24,
        Register::QueueSelect => 0x30,
        Register::QueueMax => 0x34,
        Register::QueueSize => 0x38,
        Register::QueueEnable => 0x44,
        Register::Status => 0x70,
        Register::DescriptorsLow => 0x80,
        Register::DescriptorsHigh => 0x84,
        Register::AvailableLow => 0x90,
        Register::AvailableHigh => 0x94,
        Register::UsedLow => 0xa0,
        Register::UsedHigh => 0xa4,
        Register::ConfigGeneration => 0xfc,
    }
}

/// Virtio 1.2, 4.1.4.3.
fn common(register: Register) -> (u64, Width) {
    match register {
        Register::DeviceFeatureSelect => (0x00, Width::Dword),
        Register::DeviceFeatures => (0x04, Width::Dword),
        Register::DriverFeatureSelect => (0x08, Width::Dword),
        Register::DriverFeatures => (0x0c, Width::Dword),
        Register::Status => (0x14, Width::Byte),
        Register::ConfigGeneration => (0x15, Width::Byte),
        Register::QueueSelect => (0x16, Width::Word),
        Register::QueueMax | Register::QueueSize => (0x18, Width::Word),
        Register::QueueEnable => (0x1c, Width::Word),
        Register::DescriptorsLow => (0x20, Width::Dword),
        Register::DescriptorsHigh => (0x24, Width::Dword),
        Register::AvailableLow => (0x28, Width::Dword),
        Register::AvailableHigh => (0x2c, Width::Dword),
        Register::UsedLow => (0x30, Width::Dword),
        Register::UsedHigh => (0x34, Width::Dword),
    }
}
