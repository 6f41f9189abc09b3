//! The registers of virtio-mmio, version 2 (virtio 1.2, 4.2.2).

use std::fmt;
use std::sync::Arc;

use super::core::{Area, Core, CoreStateV1};
use crate::bus::{BadAccess, BusDevice, Width};
use crate::line::Doorbell;
use crate::state;
use crate::state::{BadState, NotSaved, Persist, Section};
use crate::virtio::ConfigSpace;

/// The size of a device's window in bytes.
pub const WINDOW_BYTES: u64 = 0x1000;
/// Where a driver writes a queue's number to ring its doorbell.
pub const QUEUE_NOTIFY: u64 = 0x50;
/// Where the configuration fields begin.
pub const CONFIG: u64 = 0x100;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
/// The version of the register layout.
const VERSION: u32 = 2;
/// The vendor: drivers only print it. "CRCL", little-endian.
const VENDOR: u32 = 0x4c43_5243;
/// What half of a length or base of a shared memory region reads that does not exist.
const NO_REGION: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Register {
    Magic,
    Version,
    DeviceId,
    Vendor,
    DeviceFeatures,
    DeviceFeaturesSelect,
    DriverFeatures,
    DriverFeaturesSelect,
    QueueSelect,
    QueueMax,
    QueueSize,
    QueueReady,
    QueueNotify,
    InterruptStatus,
    InterruptAcknowledge,
    Status,
    QueueArea(Area, bool),
    SharedMemorySelect,
    SharedMemory,
    ConfigGeneration,
}

/// Which way a register goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    Read,
    Write,
    Both,
}

/// All registers below the configuration fields; each is four bytes wide.
const REGISTERS: [(u64, Register, Access); 28] = {
    use Access::{Both, Read, Write};
    use Area::{Available, Descriptors, Used};
    [
        (0x00, Register::Magic, Read),
        (0x04, Register::Version, Read),
        (0x08, Register::DeviceId, Read),
        (0x0c, Register::Vendor, Read),
        (0x10, Register::DeviceFeatures, Read),
        (0x14, Register::DeviceFeaturesSelect, Write),
        (0x20, Register::DriverFeatures, Write),
        (0x24, Register::DriverFeaturesSelect, Write),
        (0x30, Register::QueueSelect, Write),
        (0x34, Register::QueueMax, Read),
        (0x38, Register::QueueSize, Write),
        (0x44, Register::QueueReady, Both),
        (QUEUE_NOTIFY, Register::QueueNotify, Write),
        (0x60, Register::InterruptStatus, Read),
        (0x64, Register::InterruptAcknowledge, Write),
        (0x70, Register::Status, Both),
        (0x80, Register::QueueArea(Descriptors, false), Write),
        (0x84, Register::QueueArea(Descriptors, true), Write),
        (0x90, Register::QueueArea(Available, false), Write),
        (0x94, Register::QueueArea(Available, true), Write),
        (0xa0, Register::QueueArea(Used, false), Write),
        (0xa4, Register::QueueArea(Used, true), Write),
        (0xac, Register::SharedMemorySelect, Write),
        (0xb0, Register::SharedMemory, Read),
        (0xb4, Register::SharedMemory, Read),
        (0xb8, Register::SharedMemory, Read),
        (0xbc, Register::SharedMemory, Read),
        (0xfc, Register::ConfigGeneration, Read),
    ]
};

/// The window of one device. Locked by the bus, for the length of a register access.
pub struct MmioTransport {
    core: Core,
    config: Arc<ConfigSpace>,
    doorbells: Vec<Doorbell>,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
}

impl fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioTransport")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

impl MmioTransport {
    pub(crate) fn new(core: Core, config: Arc<ConfigSpace>, doorbells: Vec<Doorbell>) -> Self {
        Self {
            core,
            config,
            doorbells,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
        }
    }

    fn read_register(&self, register: Register) -> u32 {
        match register {
            Register::Magic => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.core.device_id(),
            Register::Vendor => VENDOR,
            Register::DeviceFeatures => self.core.offered(self.device_features_select),
            Register::QueueMax => self.core.queue_max(self.queue_select),
            Register::QueueReady => self.core.queue_ready(self.queue_select).into(),
            Register::InterruptStatus => self.core.interrupt().status(),
            Register::Status => self.core.status(),
            Register::SharedMemory => NO_REGION,
            Register::ConfigGeneration => self.config.generation(),
            Register::DeviceFeaturesSelect
            | Register::DriverFeatures
            | Register::DriverFeaturesSelect
            | Register::QueueSelect
            | Register::QueueSize
            | Register::QueueNotify
            | Register::InterruptAcknowledge
            | Register::QueueArea(..)
            | Register::SharedMemorySelect => 0,
        }
    }

    fn write_register(&mut self, register: Register, value: u32) {
        match register {
            Register::DeviceFeaturesSelect => self.device_features_select = value,
            Register::DriverFeaturesSelect => self.driver_features_select = value,
            Register::DriverFeatures => self.core.accept(self.driver_features_select, value),
            Register::QueueSelect => self.queue_select = value,
            Register::QueueSize => self.core.set_queue_size(self.queue_select, value),
            Register::QueueReady => {
                let ready = value & 1 != 0;
                self.core.set_queue_ready(self.queue_select, ready);
            }
            Register::QueueNotify => self.ring(value),
            Register::InterruptAcknowledge => self.core.interrupt().acknowledge(value),
            Register::Status => self.set_status(value),
            Register::QueueArea(area, high) => {
                let queue = self.queue_select;
                self.core.set_queue_area(queue, area, high, value);
            }
            // There is no region to select.
            Register::SharedMemorySelect
            | Register::Magic
            | Register::Version
            | Register::DeviceId
            | Register::Vendor
            | Register::DeviceFeatures
            | Register::QueueMax
            | Register::InterruptStatus
            | Register::SharedMemory
            | Register::ConfigGeneration => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.device_features_select = 0;
            self.driver_features_select = 0;
            self.queue_select = 0;
        }
        self.core.set_status(value);
    }

    /// For doorbells that nobody bound to this register.
    fn ring(&self, queue: u32) {
        let queue = usize::try_from(queue).unwrap_or(usize::MAX);
        if let Some(doorbell) = self.doorbells.get(queue) {
            doorbell.ring();
        }
    }
}

/// The register at `offset`, if it goes that way and is accessed as a whole (4.2.2.2).
fn find(offset: u64, width: Width, way: Access) -> Option<Register> {
    let index = REGISTERS.binary_search_by_key(&offset, |(at, ..)| *at);
    let (_, register, access) = REGISTERS.get(index.ok()?)?;
    let fits = width == Width::Dword && (*access == way || *access == Access::Both);
    fits.then_some(*register)
}

impl BusDevice for MmioTransport {
    /// What is no register, or is read at another width than its own, reads zero.
    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BadAccess> {
        if let Some(field) = offset.checked_sub(CONFIG) {
            return Ok(self.config.read(field, width.bytes()));
        }
        let register = find(offset, width, Access::Read);
        Ok(register.map_or(0, |register| self.read_register(register).into()))
    }

    /// What is no register or configuration field to write ignores the write.
    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        if let Some(field) = offset.checked_sub(CONFIG)
            && self.core.write_config(&self.config, field, width, value)
        {
            return Ok(());
        }
        let register = find(offset, width, Access::Write);
        match (register, u32::try_from(value)) {
            (Some(register), Ok(value)) => self.write_register(register, value),
            _ => self.core.interrupt().warn(format_args!(
                "guest write of {value:#x} at offset {offset:#x} ignored"
            )),
        }
        Ok(())
    }
}

state! {
    /// A window and the device behind it.
    pub struct MmioStateV1: "virtio-mmio", 1 {
        /// Which 32 features of the device are shown.
        pub device_features_select: u32,
        /// Which 32 features of the driver are set.
        pub driver_features_select: u32,
        /// Which queue is meant.
        pub queue_select: u32,
        /// All else.
        pub core: CoreStateV1,
    }
}

impl Persist for MmioTransport {
    fn save(&self) -> Result<Vec<u8>, NotSaved> {
        let state = MmioStateV1 {
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            queue_select: self.queue_select,
            core: self.core.save()?,
        };
        Ok(state.to_tagged())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let state = MmioStateV1::from_tagged(state)?;
        self.device_features_select = state.device_features_select;
        self.driver_features_select = state.driver_features_select;
        self.queue_select = state.queue_select;
        self.core.restore(state.core)
    }

    fn tell_again(&mut self) {
        self.core.tell_again();
    }
}
