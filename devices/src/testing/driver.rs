//! A whole driver: finds a device through its registers, sets it up and talks to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bus::{BusDevice, Width};
use crate::line::IrqLine;
use crate::ram::GuestRam;
use crate::state::{BadState, Persist as _};
use crate::virtio::queue::QueueSetup;
use crate::virtio::rng::Rng;
use crate::virtio::transport::mmio::{CONFIG, QUEUE_NOTIFY};
use crate::virtio::{
    Connected, DeviceSlot, MmioTransport, SlotHandle, VirtioDevice, connect, features,
};

use super::ring::{Buffer, Ring};
use super::small_ram;

/// Offsets of the registers that a driver uses (virtio 1.2, 4.2.2).
pub mod register {
    /// Which 32 features `DEVICE_FEATURES` shows.
    pub const DEVICE_FEATURES_SELECT: u64 = 0x14;
    /// The features offered.
    pub const DEVICE_FEATURES: u64 = 0x10;
    /// The features accepted.
    pub const DRIVER_FEATURES: u64 = 0x20;
    /// Which 32 features `DRIVER_FEATURES` sets.
    pub const DRIVER_FEATURES_SELECT: u64 = 0x24;
    /// Which queue the queue registers mean.
    pub const QUEUE_SELECT: u64 = 0x30;
    /// How large the queue may be.
    pub const QUEUE_MAX: u64 = 0x34;
    /// How large it is.
    pub const QUEUE_SIZE: u64 = 0x38;
    /// Whether the device may use it.
    pub const QUEUE_READY: u64 = 0x44;
    /// Why the device interrupts.
    pub const INTERRUPT_STATUS: u64 = 0x60;
    /// Takes reasons away.
    pub const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
    /// The device status.
    pub const STATUS: u64 = 0x70;
    /// The low half of the descriptor table's address; the high half follows.
    pub const DESCRIPTORS: u64 = 0x80;
    /// The same of the available ring.
    pub const AVAILABLE: u64 = 0x90;
    /// The same of the used ring.
    pub const USED: u64 = 0xa0;
    /// Differs after a change of the configuration.
    pub const CONFIG_GENERATION: u64 = 0xfc;
}

/// Device status: everything up to FEATURES_OK.
pub const AGREED: u32 = 1 | 2 | 8;
/// Device status: everything up to DRIVER_OK.
pub const RUNNING: u32 = AGREED | 4;
/// Device status: the device waits for its reset.
pub const NEEDS_RESET: u32 = 64;

/// Where the first ring lies; the others follow.
const FIRST_RING: u64 = 0x1_0000;
/// Where memory for requests begins.
const FIRST_BUFFER: u64 = 0x8_0000;
/// A device that is busy for longer than this many steps spins.
const STEPS: usize = 100_000;

/// A driver with its device and their memory.
#[derive(Debug)]
pub struct GuestDriver {
    /// The guest's memory, see [`small_ram`].
    pub ram: GuestRam,
    /// The host's way to the device.
    pub handle: SlotHandle,
    /// The rings, by queue number, once set up.
    pub rings: Vec<Ring>,
    transport: MmioTransport,
    slot: Arc<Mutex<DeviceSlot>>,
    line: IrqLine,
    next_buffer: u64,
}

/// A device's registers, the device, and both ways to it.
type Parts = (MmioTransport, Arc<Mutex<DeviceSlot>>, SlotHandle, IrqLine);

fn connected(ram: &GuestRam, device: Box<dyn VirtioDevice>) -> Parts {
    let line = IrqLine::new().expect("an eventfd");
    let other_end = line.try_clone().expect("an eventfd");
    let connected = connect("test".into(), device, ram.clone(), other_end);
    let Connected {
        transport,
        slot,
        handle,
        ..
    } = connected.expect("eventfds");
    let slot = Arc::new(Mutex::new(slot));
    // Weak, since the slot's device may hold a handle to itself.
    let turns = Arc::downgrade(&slot);
    handle.pump_with(move || {
        if let Some(slot) = turns.upgrade() {
            lock(&slot).step();
        }
    });
    (transport, slot, handle, line)
}

fn lock(slot: &Mutex<DeviceSlot>) -> MutexGuard<'_, DeviceSlot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GuestDriver {
    /// Connects a device, which stays as it comes out of reset.
    ///
    /// # Panics
    /// When the process has no file descriptor left.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self::on(small_ram(), device)
    }

    /// The same in memory that is there already and is as [`small_ram`].
    ///
    /// # Panics
    /// When the process has no file descriptor left.
    pub fn on(ram: GuestRam, device: Box<dyn VirtioDevice>) -> Self {
        let (transport, slot, handle, line) = connected(&ram, device);
        Self {
            ram,
            handle,
            rings: Vec::new(),
            transport,
            slot,
            line,
            next_buffer: FIRST_BUFFER,
        }
    }

    /// Pauses the device: its state when it rests.
    ///
    /// # Panics
    /// When it does not come to rest.
    pub fn save(&mut self) -> Vec<u8> {
        let rest = self.handle.begin_pause().expect("the device is there");
        self.run();
        let rested = rest.within(Duration::ZERO);
        assert_eq!(rested, Some(Ok(())), "it is not at rest");
        self.transport.save().expect("a device at rest is saved")
    }

    /// Goes on with another device in the place of this one, in a saved state and at rest.
    ///
    /// # Errors
    /// When it cannot have this state. There is no device then.
    pub fn restore(
        &mut self,
        make: &dyn Fn() -> Box<dyn VirtioDevice>,
        state: &[u8],
    ) -> Result<(), BadState> {
        // What the old one has of the host's, such as a lock, the new one may need.
        self.replace(Box::new(Rng::new()));
        self.replace(make());
        let restored = self.transport.restore(state);
        restored.inspect_err(|_| self.replace(Box::new(Rng::new())))
    }

    fn replace(&mut self, device: Box<dyn VirtioDevice>) {
        (self.transport, self.slot, self.handle, self.line) = connected(&self.ram, device);
    }

    /// Lets a paused or restored device go on.
    pub fn resume(&mut self) {
        self.transport.tell_again();
        self.handle.resume().expect("the device is there");
        self.run();
    }

    /// Connects a device and starts it with all that it offers.
    pub fn started(device: Box<dyn VirtioDevice>) -> Self {
        Self::started_with(device, u64::MAX)
    }

    /// Connects a device and starts it with what it offers out of `wanted`.
    pub fn started_with(device: Box<dyn VirtioDevice>, wanted: u64) -> Self {
        let mut driver = Self::new(device);
        driver.start(wanted);
        driver
    }

    /// Reads anything in the device's window.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        let value = self.transport.read(offset, width);
        value.expect("the window answers everywhere")
    }

    /// Writes anything in the device's window; the device runs where the write waits for it.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) {
        let done = self.transport.write(offset, width, value);
        done.expect("the window answers everywhere");
    }

    /// Reads a register.
    pub fn get(&mut self, offset: u64) -> u32 {
        u32::try_from(self.read(offset, Width::Dword)).expect("four bytes")
    }

    /// Writes a register.
    pub fn set(&mut self, offset: u64, value: u32) {
        self.write(offset, Width::Dword, value.into());
    }

    /// Four configuration bytes from `offset` on.
    pub fn config(&mut self, offset: u64) -> u32 {
        self.get(CONFIG + offset)
    }

    /// Resets the device.
    pub fn reset(&mut self) {
        self.set(register::STATUS, 0);
    }

    /// All features that the device offers.
    pub fn offered(&mut self) -> u64 {
        let mut page = |page| {
            self.set(register::DEVICE_FEATURES_SELECT, page);
            u64::from(self.get(register::DEVICE_FEATURES))
        };
        page(0) | page(1) << 32
    }

    /// Accepts exactly `features`, offered or not, on a device that was just reset: whether
    /// the device agreed.
    pub fn agree(&mut self, features: u64) -> bool {
        self.set(register::STATUS, 1);
        self.set(register::STATUS, 1 | 2);
        for page in 0..2_u32 {
            let part = u32::try_from(features >> (32 * page) & 0xffff_ffff).expect("a page");
            self.set(register::DRIVER_FEATURES_SELECT, page);
            self.set(register::DRIVER_FEATURES, part);
        }
        self.set(register::STATUS, AGREED);
        self.get(register::STATUS) == AGREED
    }

    /// Writes a queue's registers without handing it over.
    pub fn describe_queue(&mut self, queue: u32, setup: &QueueSetup) {
        self.set(register::QUEUE_SELECT, queue);
        self.set(register::QUEUE_SIZE, setup.size);
        for (offset, address) in [
            (register::DESCRIPTORS, setup.descriptors),
            (register::AVAILABLE, setup.available),
            (register::USED, setup.used),
        ] {
            let (low, high) = (address & 0xffff_ffff, address >> 32);
            self.set(offset, u32::try_from(low).expect("half"));
            self.set(offset + 4, u32::try_from(high).expect("half"));
        }
    }

    /// Sets up every queue that the device has, as large as it may be.
    pub fn set_up_queues(&mut self) {
        self.rings.clear();
        for (queue, at) in (0..).zip((FIRST_RING..).step_by(0x4000)) {
            self.set(register::QUEUE_SELECT, queue);
            let max = u16::try_from(self.get(register::QUEUE_MAX)).expect("a size");
            if max == 0 {
                break;
            }
            let ring = Ring::new(self.ram.clone(), at, max);
            self.describe_queue(queue, &ring.setup);
            self.set(register::QUEUE_READY, 1);
            assert_eq!(self.get(register::QUEUE_READY), 1, "queue {queue} refused");
            self.rings.push(ring);
        }
    }

    /// Resets the device and starts it with what it offers out of `wanted`.
    pub fn start(&mut self, wanted: u64) {
        self.reset();
        let features = self.offered() & (wanted | features::VERSION_1);
        assert!(self.agree(features), "features {features:#x} refused");
        self.set_up_queues();
        self.set(register::STATUS, RUNNING);
        self.run();
        assert_eq!(self.get(register::STATUS), RUNNING);
    }

    /// Lets the device do all that it has to do.
    pub fn run(&mut self) {
        let steps = (0..STEPS).take_while(|_| self.step()).count();
        assert!(steps < STEPS, "the device spins");
    }

    /// Lets the device do one turn: whether it had anything to do.
    pub fn step(&mut self) -> bool {
        lock(&self.slot).step()
    }

    /// Rings a queue's doorbell and lets the device run.
    pub fn kick(&mut self, queue: u32) {
        self.set(QUEUE_NOTIFY, queue);
        self.run();
    }

    /// The ring of a queue.
    pub fn ring(&mut self, queue: u32) -> &mut Ring {
        let queue = usize::try_from(queue).expect("a queue");
        self.rings.get_mut(queue).expect("a queue that was set up")
    }

    /// Whether the device interrupted since the last call.
    pub fn interrupted(&self) -> bool {
        self.line.take()
    }

    /// Whether the device waits for its reset.
    pub fn needs_reset(&mut self) -> bool {
        self.get(register::STATUS) & NEEDS_RESET != 0
    }

    /// Zeroed memory for a request, from a stock that goes round.
    pub fn memory(&mut self, len: u32) -> u64 {
        if self.next_buffer + u64::from(len) > super::HOLE {
            self.next_buffer = FIRST_BUFFER;
        }
        let at = self.next_buffer;
        self.next_buffer += u64::from(len).next_multiple_of(16);
        let zeroes = vec![0; usize::try_from(len).expect("small")];
        self.ram.write_bytes(at, &zeroes).expect("memory");
        at
    }

    /// A readable buffer that holds `data`.
    pub fn holding(&mut self, data: &[u8]) -> Buffer {
        let len = u32::try_from(data.len()).expect("small");
        let at = self.memory(len);
        self.ram.write_bytes(at, data).expect("memory");
        Buffer::readable(at, len)
    }

    /// A writable buffer.
    pub fn room(&mut self, len: u32) -> Buffer {
        Buffer::writable(self.memory(len), len)
    }

    /// The bytes of a buffer.
    pub fn bytes(&self, buffer: Buffer) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(buffer.len).expect("small")];
        self.ram.read_bytes(buffer.at, &mut bytes).expect("memory");
        bytes
    }

    /// Sends one request and waits for its end: how many bytes the device says it wrote.
    pub fn request(&mut self, queue: u32, buffers: &[Buffer]) -> Option<u32> {
        let head = self.ring(queue).add(buffers);
        self.kick(queue);
        let (used, written) = self.ring(queue).take_used()?;
        assert_eq!(used, head, "another request came back");
        Some(written)
    }
}
