//! The registers of virtio-pci without its legacy interface (virtio 1.2, 4.1): one window of
//! memory, which holds every structure, and the function's configuration space.

mod config;
mod saved;
mod vectors;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::core::{Area, Core};
use crate::bus::{AddressRange, BadAccess, BusDevice, Place, Width};
use crate::line::{Doorbell, IrqLine};
use crate::pci::{MessageRoute, Msix, PciFunction};
use crate::virtio::{ConfigSpace, Interrupt};
use config::Space;
use vectors::{NO_VECTOR, Vectors};

pub use config::SpaceStateV1;
pub use saved::PciStateV1;
pub use vectors::VectorsStateV1;

/// The size of a device's window in bytes.
pub const WINDOW_BYTES: u32 = 0x8000;
/// Where the common configuration is in the window.
pub const COMMON: u64 = 0;
/// Where the interrupt status is.
pub const ISR: u64 = 0x1000;
/// Where the configuration fields begin.
pub const CONFIG: u64 = 0x2000;
/// Where queue 0 is notified; the others follow, [`NOTIFY_STEP`] apart. What is written counts
/// for nothing.
pub const NOTIFY: u64 = 0x3000;
/// How far the places where queues are notified are apart, in bytes.
pub const NOTIFY_STEP: u64 = 4;
/// Where the table of MSI-X is.
pub const MSIX_TABLE: u64 = 0x4000;
/// Where its pending bits are.
pub const MSIX_PENDING: u64 = 0x5000;
/// Where nothing is any more.
const UNUSED: u64 = 0x6000;
/// The most vectors of a function: one for the configuration and one for each queue up to here.
/// The queues beyond share what the driver lets them share.
pub const MAX_VECTORS: u16 = 128;

/// The length of the common configuration, up to the end of the queue's addresses.
const COMMON_BYTES: u64 = 0x38;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Field {
    DeviceFeaturesSelect,
    DeviceFeatures,
    DriverFeaturesSelect,
    DriverFeatures,
    ConfigVector,
    QueueCount,
    Status,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    QueueArea(Area, bool),
}

/// The common configuration (4.1.4.3). Addresses are accessed in halves (4.1.3.1).
const FIELDS: [(u64, Width, Field); 19] = {
    use Area::{Available, Descriptors, Used};
    use Width::{Byte, Dword, Word};
    [
        (0x00, Dword, Field::DeviceFeaturesSelect),
        (0x04, Dword, Field::DeviceFeatures),
        (0x08, Dword, Field::DriverFeaturesSelect),
        (0x0c, Dword, Field::DriverFeatures),
        (0x10, Word, Field::ConfigVector),
        (0x12, Word, Field::QueueCount),
        (0x14, Byte, Field::Status),
        (0x15, Byte, Field::ConfigGeneration),
        (0x16, Word, Field::QueueSelect),
        (0x18, Word, Field::QueueSize),
        (0x1a, Word, Field::QueueVector),
        (0x1c, Word, Field::QueueEnable),
        (0x1e, Word, Field::QueueNotifyOffset),
        (0x20, Dword, Field::QueueArea(Descriptors, false)),
        (0x24, Dword, Field::QueueArea(Descriptors, true)),
        (0x28, Dword, Field::QueueArea(Available, false)),
        (0x2c, Dword, Field::QueueArea(Available, true)),
        (0x30, Dword, Field::QueueArea(Used, false)),
        (0x34, Dword, Field::QueueArea(Used, true)),
    ]
};

/// Where queue number `queue` is notified when the window is at `window`.
pub fn notify_address(window: u64, queue: u16) -> u64 {
    window
        .saturating_add(NOTIFY)
        .saturating_add(NOTIFY_STEP.saturating_mul(queue.into()))
}

/// How many vectors a device with this many queues gets: one for each, and the configuration's.
pub fn vectors_for(queues: usize) -> u16 {
    let wanted = queues.saturating_add(1);
    u16::try_from(wanted).map_or(MAX_VECTORS, |wanted| wanted.min(MAX_VECTORS))
}

/// Is told where the window is that a device's doorbells are to be bound to, or that they are to
/// be bound to none: when the driver is ready, and whenever that changes.
pub type BellBinding = Box<dyn FnMut(&[Doorbell], Option<u64>) + Send>;

/// What the monitor gives a device on the PCI bus.
pub struct Attachment {
    /// Where its window is, a multiple of [`WINDOW_BYTES`] below 4 GiB.
    pub window: u32,
    /// Where the guest may move the window.
    pub within: AddressRange,
    /// Tells the memory bus where the window is.
    pub place: Place,
    /// An interrupt line for each vector, see [`vectors_for`].
    pub lines: Vec<IrqLine>,
    /// Is told what message each line stands for.
    pub route: MessageRoute,
    /// Is told where the doorbells are.
    pub bells: BellBinding,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("window", &self.window)
            .field("within", &self.within)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

/// The interrupts of a device on PCI, before it is connected.
pub(crate) struct Wiring {
    pub(crate) interrupt: Interrupt,
    vectors: Arc<Mutex<Vectors>>,
    window: (u32, AddressRange, Place),
    bells: BellBinding,
}

impl Wiring {
    pub(crate) fn new(name: String, queues: usize, attachment: Attachment) -> Self {
        let Attachment {
            window,
            within,
            place,
            lines,
            route,
            bells,
        } = attachment;
        let vectors = Vectors::new(Msix::new(lines, route), queues);
        let vectors = Arc::new(Mutex::new(vectors));
        let signal = vectors::Messages::new(Arc::clone(&vectors));
        Self {
            interrupt: Interrupt::new(name, signal),
            vectors,
            window: (window, within, place),
            bells,
        }
    }
}

/// The window and the configuration space of one device. Locked by the bus, for the length of
/// an access.
pub struct PciTransport {
    core: Core,
    config: Arc<ConfigSpace>,
    doorbells: Vec<Doorbell>,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u16,
    vectors: Arc<Mutex<Vectors>>,
    space: Space,
    place: Place,
    bells: BellBinding,
    // Where the doorbells are bound, and whether a driver was ever ready for them.
    bound: Option<u64>,
    wanted: bool,
}

impl fmt::Debug for PciTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciTransport")
            .field("core", &self.core)
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

impl PciTransport {
    pub(crate) fn new(
        core: Core,
        config: Arc<ConfigSpace>,
        doorbells: Vec<Doorbell>,
        wiring: Wiring,
    ) -> Self {
        let Wiring {
            interrupt: _,
            vectors,
            window: (window, within, place),
            bells,
        } = wiring;
        let count = lock(&vectors).msix.vectors();
        let space = Space::new(core.device_id(), window, within, count);
        place.set(space.window());
        Self {
            core: core.with_full_queues(),
            config,
            doorbells,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            vectors,
            space,
            place,
            bells,
            bound: None,
            wanted: false,
        }
    }

    fn vectors(&self) -> MutexGuard<'_, Vectors> {
        lock(&self.vectors)
    }

    fn read_field(&self, field: Field) -> u32 {
        let queue = u32::from(self.queue_select);
        match field {
            Field::DeviceFeaturesSelect => self.device_features_select,
            Field::DeviceFeatures => self.core.offered(self.device_features_select),
            Field::DriverFeaturesSelect => self.driver_features_select,
            Field::DriverFeatures => self.core.accepted(self.driver_features_select),
            Field::ConfigVector => self.vectors().config().into(),
            Field::QueueCount => self.core.queue_count().into(),
            Field::Status => self.core.status(),
            // One byte of it: a driver compares two reads that are close together.
            Field::ConfigGeneration => self.config.generation() & 0xff,
            Field::QueueSelect => queue,
            Field::QueueSize => self.core.queue_size(queue),
            Field::QueueVector => self.vectors().queue(self.queue_select).into(),
            Field::QueueEnable => self.core.queue_ready(queue).into(),
            Field::QueueNotifyOffset if self.core.queue_max(queue) == 0 => 0,
            Field::QueueNotifyOffset => queue,
            Field::QueueArea(area, high) => self.core.queue_area(queue, area, high),
        }
    }

    fn write_field(&mut self, field: Field, value: u32) {
        let queue = u32::from(self.queue_select);
        // The bus hands over no more bytes than the field has.
        let word = u16::try_from(value).unwrap_or(NO_VECTOR);
        match field {
            Field::DeviceFeaturesSelect => self.device_features_select = value,
            Field::DriverFeaturesSelect => self.driver_features_select = value,
            Field::DriverFeatures => self.core.accept(self.driver_features_select, value),
            Field::ConfigVector => self.vectors().set_config(word),
            Field::Status => self.set_status(value),
            Field::QueueSelect => self.queue_select = word,
            Field::QueueSize => self.core.set_queue_size(queue, value),
            Field::QueueVector => self.vectors().set_queue(self.queue_select, word),
            // A driver never takes a queue back this way (4.1.4.3.2).
            Field::QueueEnable if value == 1 => self.core.set_queue_ready(queue, true),
            Field::QueueEnable => self.core.refuse("queue enable", value),
            Field::QueueArea(area, high) => self.core.set_queue_area(queue, area, high, value),
            Field::DeviceFeatures
            | Field::QueueCount
            | Field::ConfigGeneration
            | Field::QueueNotifyOffset => self.core.refuse("a read-only field", value),
        }
    }

    fn set_status(&mut self, value: u32) {
        self.core.set_status(value);
        if value == 0 {
            self.device_features_select = 0;
            self.driver_features_select = 0;
            self.queue_select = 0;
            // The device is quiet by now: what it left for a masked vector goes with it.
            self.vectors().reset();
        } else if self.core.interrupt().is_running() && !self.wanted {
            self.wanted = true;
            self.bind();
        }
    }

    /// Lets the doorbells follow the window. Before a driver is ready there is no need to, and
    /// the kernel that looks for devices turns each off and on.
    fn bind(&mut self) {
        let window = self.space.window().filter(|_| self.wanted);
        if window != self.bound {
            self.bound = window;
            (self.bells)(&self.doorbells, window);
        }
    }

    /// For doorbells that nobody bound.
    fn ring(&self, offset: u64) -> bool {
        let queue = usize::try_from(offset / NOTIFY_STEP).unwrap_or(usize::MAX);
        let aligned = offset.is_multiple_of(NOTIFY_STEP);
        let doorbell = self.doorbells.get(queue).filter(|_| aligned);
        doorbell.inspect(|doorbell| doorbell.ring()).is_some()
    }

    /// Reads the window: what is nothing, or is read at another width than its own, reads zero.
    fn read_window(&mut self, offset: u64, width: Width) -> u64 {
        match offset {
            COMMON..ISR => {
                let field = find(offset, width);
                field.map_or(0, |field| self.read_field(field).into())
            }
            ISR if width == Width::Byte => self.core.interrupt().take_status().into(),
            CONFIG..NOTIFY => self.config.read(offset - CONFIG, width.bytes()),
            MSIX_TABLE..MSIX_PENDING => {
                let vectors = self.vectors();
                vectors.msix.read_table(offset - MSIX_TABLE, width)
            }
            MSIX_PENDING..UNUSED => {
                let vectors = self.vectors();
                vectors.msix.read_pending(offset - MSIX_PENDING, width)
            }
            _ => 0,
        }
    }

    /// Writes the window: whether anything took it.
    fn write_window(&mut self, offset: u64, width: Width, value: u64) -> bool {
        match offset {
            COMMON..ISR => {
                let field = find(offset, width).zip(u32::try_from(value).ok());
                field
                    .map(|(field, value)| self.write_field(field, value))
                    .is_some()
            }
            CONFIG..NOTIFY => {
                let field = offset - CONFIG;
                self.core.write_config(&self.config, field, width, value)
            }
            NOTIFY..MSIX_TABLE => self.ring(offset - NOTIFY),
            MSIX_TABLE..MSIX_PENDING => {
                let mut vectors = self.vectors();
                vectors.msix.write_table(offset - MSIX_TABLE, width, value)
            }
            _ => false,
        }
    }

    fn write_or_warn(&mut self, offset: u64, width: Width, value: u64) {
        if !self.write_window(offset, width, value) {
            self.core.interrupt().warn(format_args!(
                "guest write of {value:#x} at offset {offset:#x} ignored"
            ));
        }
    }
}

fn lock(vectors: &Mutex<Vectors>) -> MutexGuard<'_, Vectors> {
    vectors.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The field at `offset`, if it is accessed as a whole (4.1.3.1).
fn find(offset: u64, width: Width) -> Option<Field> {
    let index = FIELDS.binary_search_by_key(&offset, |(at, ..)| *at);
    let (_, own, field) = FIELDS.get(index.ok()?)?;
    (width == *own).then_some(*field)
}

impl BusDevice for PciTransport {
    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BadAccess> {
        Ok(self.read_window(offset, width))
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        self.write_or_warn(offset, width, value);
        Ok(())
    }
}

impl PciFunction for PciTransport {
    fn read_config(&mut self, offset: u16, width: Width) -> u32 {
        if let Some(access) = self.space.indirect(offset, width) {
            // A read of the data field reads the window first (4.1.4.9.1).
            let value = access.map_or(u64::MAX, |(at, width)| self.read_window(at, width));
            self.space.set_indirect_data(value);
        }
        if self.space.is_control(offset, width) {
            let control = self.vectors().msix.control();
            self.space.set_control(control);
        }
        self.space.read(offset, width)
    }

    fn write_config(&mut self, offset: u16, width: Width, value: u32) {
        if !self.space.write(offset, width, value) {
            self.core.interrupt().warn(format_args!(
                "guest moves the window to where it cannot be; it stays"
            ));
        }
        self.place.set(self.space.window());
        self.bind();
        if self.space.is_control(offset, width) {
            let control = self.space.control();
            self.vectors().msix.set_control(control);
        }
        if let Some(Some((at, width))) = self.space.indirect(offset, width) {
            let value = self.space.indirect_data(width);
            self.write_or_warn(at, width, value);
        }
    }
}

#[cfg(test)]
mod tests;
