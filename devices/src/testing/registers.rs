//! Where a driver finds each register of a virtio device, by transport: the same driver runs over
//! both, in this process (offsets in the window) or in a guest (added to the window's address).

use crate::bus::Width;
use crate::virtio::transport::{mmio, pci};

/// A register: its offset in the device's window and the one width at which it is accessed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Register {
    /// The offset.
    pub offset: u64,
    /// The width.
    pub width: Width,
}

const fn at(offset: u64, width: Width) -> Register {
    Register { offset, width }
}

/// The registers of one transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Registers {
    /// Which 32 features `device_features` shows.
    pub device_features_select: Register,
    /// The features offered.
    pub device_features: Register,
    /// Which 32 features `driver_features` sets.
    pub driver_features_select: Register,
    /// The features accepted.
    pub driver_features: Register,
    /// Which queue the queue registers mean.
    pub queue_select: Register,
    /// How large the queue may be; on PCI only until the driver wrote its size.
    pub queue_max: Register,
    /// How large the queue is.
    pub queue_size: Register,
    /// Hands the queue over; reads 1 where the device took it.
    pub queue_ready: Register,
    /// The low half of the descriptor table's address; the high half follows.
    pub descriptors: Register,
    /// The same of the available ring.
    pub available: Register,
    /// The same of the used ring.
    pub used: Register,
    /// The device status.
    pub status: Register,
    /// Why the device interrupts.
    pub interrupt_status: Register,
    /// Takes reasons away; none where the read of the status does.
    pub interrupt_acknowledge: Option<Register>,
    /// Differs after a change of the configuration.
    pub generation: Register,
    /// Where queue 0 is notified.
    pub notify: Register,
    /// How far the place for the next queue is.
    pub notify_step: u64,
    /// Where the configuration fields begin.
    pub config: u64,
}

impl Registers {
    /// Where a queue is notified; what is written is its number.
    pub fn notify_of(&self, queue: u16) -> Register {
        let behind = self.notify_step * u64::from(queue);
        at(self.notify.offset + behind, self.notify.width)
    }

    /// The register of the high half of an address.
    pub fn high(register: Register) -> Register {
        at(register.offset + 4, register.width)
    }
}

/// The registers of virtio-mmio (virtio 1.2, 4.2.2).
pub const MMIO: Registers = Registers {
    device_features_select: at(0x14, Width::Dword),
    device_features: at(0x10, Width::Dword),
    driver_features_select: at(0x24, Width::Dword),
    driver_features: at(0x20, Width::Dword),
    queue_select: at(0x30, Width::Dword),
    queue_max: at(0x34, Width::Dword),
    queue_size: at(0x38, Width::Dword),
    queue_ready: at(0x44, Width::Dword),
    descriptors: at(0x80, Width::Dword),
    available: at(0x90, Width::Dword),
    used: at(0xa0, Width::Dword),
    status: at(0x70, Width::Dword),
    interrupt_status: at(0x60, Width::Dword),
    interrupt_acknowledge: Some(at(0x64, Width::Dword)),
    generation: at(0xfc, Width::Dword),
    notify: at(mmio::QUEUE_NOTIFY, Width::Dword),
    notify_step: 0,
    config: mmio::CONFIG,
};

/// The registers of virtio-pci in the device's window (virtio 1.2, 4.1.4).
pub const PCI: Registers = Registers {
    device_features_select: at(pci::COMMON, Width::Dword),
    device_features: at(pci::COMMON + 0x04, Width::Dword),
    driver_features_select: at(pci::COMMON + 0x08, Width::Dword),
    driver_features: at(pci::COMMON + 0x0c, Width::Dword),
    queue_select: at(pci::COMMON + 0x16, Width::Word),
    queue_max: at(pci::COMMON + 0x18, Width::Word),
    queue_size: at(pci::COMMON + 0x18, Width::Word),
    queue_ready: at(pci::COMMON + 0x1c, Width::Word),
    descriptors: at(pci::COMMON + 0x20, Width::Dword),
    available: at(pci::COMMON + 0x28, Width::Dword),
    used: at(pci::COMMON + 0x30, Width::Dword),
    status: at(pci::COMMON + 0x14, Width::Byte),
    interrupt_status: at(pci::ISR, Width::Byte),
    interrupt_acknowledge: None,
    generation: at(pci::COMMON + 0x15, Width::Byte),
    notify: at(pci::NOTIFY, Width::Word),
    notify_step: pci::NOTIFY_STEP,
    config: pci::CONFIG,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_notified_where_the_transport_says() {
        assert_eq!(MMIO.notify_of(3), at(0x50, Width::Dword));
        assert_eq!(PCI.notify_of(3), at(0x300c, Width::Word));
        assert_eq!(pci::notify_address(0, 3), 0x300c);
        assert_eq!(Registers::high(PCI.used), at(0x34, Width::Dword));
    }
}
