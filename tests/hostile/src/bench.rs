//! A device on a bench: its registers within reach, its loop turned by hand, no thread.

use devices::bus::{AddressRange, BusDevice, Place, Width};
use devices::pci::PciFunction;
use devices::testing::small_ram;
use devices::virtio::transport::pci::{Attachment, WINDOW_BYTES, vectors_for};
use devices::virtio::{
    Connected, DeviceSlot, MmioTransport, PciTransport, SlotHandle, VirtioDevice, connect,
    connect_pci,
};
use devices::{GuestRam, IrqLine};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::access::{self, Region, Transport};
use crate::lower::World;
use crate::step::{Fixture, Host};

/// Where the windows of devices are.
pub const WINDOW: u64 = 0xd000_0000;
/// A device that is busy for longer than this many turns never stops.
const TURNS: usize = 20_000;
/// Offset of the control word of MSI-X in its capability.
const CONTROL: u16 = 2;

#[derive(Debug)]
enum Registers {
    Mmio(MmioTransport),
    Pci(Box<PciTransport>),
}

/// A device with its registers, its memory and its host.
#[derive(Debug)]
pub struct Bench {
    /// Guest memory, see [`small_ram`].
    pub ram: GuestRam,
    /// The host's side of the device.
    pub host: Host,
    registers: Registers,
    slot: Arc<Mutex<DeviceSlot>>,
    lines: Vec<IrqLine>,
}

impl Bench {
    /// Puts a device on the bench, as it comes out of reset, in memory that is as [`small_ram`].
    ///
    /// # Panics
    /// When the process has no file descriptor left.
    #[must_use]
    pub fn on(ram: GuestRam, transport: Transport, fixture: Fixture) -> Bench {
        let Fixture { device, backend } = fixture;
        let mut bench = match transport {
            Transport::Mmio => Bench::mmio(ram, device),
            Transport::Pci => Bench::pci(ram, device),
        };
        bench.host.backend = backend;
        bench
    }

    /// The same in memory of its own.
    #[must_use]
    pub fn new(transport: Transport, fixture: Fixture) -> Bench {
        Bench::on(small_ram(), transport, fixture)
    }

    fn mmio(ram: GuestRam, device: Box<dyn VirtioDevice>) -> Bench {
        let line = IrqLine::new().expect("an eventfd");
        let other = line.try_clone().expect("an eventfd");
        let connected = connect("hostile".into(), device, ram.clone(), other);
        let Connected {
            transport,
            slot,
            handle,
            ..
        } = connected.expect("eventfds");
        Bench::with(ram, Registers::Mmio(transport), slot, handle, vec![line])
    }

    fn pci(ram: GuestRam, device: Box<dyn VirtioDevice>) -> Bench {
        let vectors = vectors_for(device.identity().queue_sizes.len());
        let lines: Vec<_> = (0..vectors)
            .map(|_| IrqLine::new().expect("an eventfd"))
            .collect();
        let own = lines.iter().map(IrqLine::try_clone);
        let attachment = Attachment {
            window: u32::try_from(WINDOW).expect("below 4 GiB"),
            within: AddressRange {
                start: WINDOW,
                len: 16 * u64::from(WINDOW_BYTES),
            },
            place: Place::nowhere(),
            lines: own.collect::<Result<_, _>>().expect("eventfds"),
            route: Box::new(|_, _| {}),
            bells: Box::new(|_, _| {}),
        };
        let connected = connect_pci("hostile".into(), device, ram.clone(), attachment);
        let Connected {
            transport,
            slot,
            handle,
            ..
        } = connected.expect("eventfds");
        let registers = Registers::Pci(Box::new(transport));
        let mut bench = Bench::with(ram, registers, slot, handle, lines);
        bench.unmask(vectors);
        bench
    }

    fn with(
        ram: GuestRam,
        registers: Registers,
        slot: DeviceSlot,
        handle: SlotHandle,
        lines: Vec<IrqLine>,
    ) -> Bench {
        let slot = Arc::new(Mutex::new(slot));
        // Weak: the device may hold a handle to itself.
        let turned = Arc::downgrade(&slot);
        handle.pump_with(move || {
            if let Some(slot) = turned.upgrade() {
                lock(&slot).step();
            }
        });
        Bench {
            ram,
            host: Host {
                handle,
                backend: Box::new(()),
            },
            registers,
            slot,
            lines,
        }
    }

    /// Lets all messages of MSI-X go.
    fn unmask(&mut self, vectors: u16) {
        for vector in 0..u64::from(vectors) {
            let control = vector * 16 + 12;
            self.write(Region::MsixTable, control, Width::Dword, 0);
        }
        if let Some(at) = self.capability(devices::pci::msix::CAPABILITY) {
            self.write(
                Region::PciConfig,
                (at + CONTROL).into(),
                Width::Word,
                0x8000,
            );
        }
    }

    /// Where the first capability of a kind is in the configuration space.
    pub fn capability(&mut self, kind: u8) -> Option<u16> {
        let mut next = self.read(Region::PciConfig, 0x34, Width::Byte);
        // A list cannot be longer than the space.
        for _ in 0..64 {
            if next == 0 {
                break;
            }
            if self.read(Region::PciConfig, next, Width::Byte) == u64::from(kind) {
                return u16::try_from(next).ok();
            }
            next = self.read(Region::PciConfig, next + 1, Width::Byte);
        }
        None
    }

    /// The transport.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.registers {
            Registers::Mmio(_) => Transport::Mmio,
            Registers::Pci(_) => Transport::Pci,
        }
    }

    /// What a row has to know of the bench.
    #[must_use]
    pub fn world(&self) -> World {
        World {
            transport: self.transport(),
            base: 0,
            hole: devices::testing::HOLE,
            window: WINDOW,
            config: None,
        }
    }

    /// Reads a register.
    ///
    /// # Panics
    /// When the window refuses, which no device does.
    pub fn read(&mut self, region: Region, offset: u64, width: Width) -> u64 {
        let start = access::start(region);
        let value = match (&mut self.registers, start) {
            (Registers::Mmio(window), Some(_)) => window.read(offset, width),
            (Registers::Pci(window), Some(start)) => window.read(start + offset, width),
            (Registers::Mmio(_), None) => Ok(0),
            (Registers::Pci(function), None) => {
                let offset = u16::try_from(offset).expect("a configuration offset");
                Ok(function.read_config(offset, width).into())
            }
        };
        let value = value.expect("a window answers everywhere");
        let most = u64::MAX >> (64 - 8 * width.bytes());
        assert!(value <= most, "{value:#x} read at {width:?}");
        value
    }

    /// Writes a register.
    ///
    /// # Panics
    /// When the window refuses, which no device does.
    pub fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) {
        let start = access::start(region);
        let done = match (&mut self.registers, start) {
            (Registers::Mmio(window), Some(_)) => window.write(offset, width, value),
            (Registers::Pci(window), Some(start)) => window.write(start + offset, width, value),
            (Registers::Mmio(_), None) => Ok(()),
            (Registers::Pci(function), None) => {
                let offset = u16::try_from(offset).expect("a configuration offset");
                let value = u32::try_from(value).expect("at most four bytes");
                function.write_config(offset, width, value);
                Ok(())
            }
        };
        done.expect("a window answers everywhere");
    }

    /// One turn of the device's loop: whether it had anything to do.
    pub fn turn(&mut self) -> bool {
        lock(&self.slot).step()
    }

    /// Lets the device do all that it wants to: whether it came to rest.
    pub fn settle(&mut self) -> bool {
        (0..TURNS).any(|_| !self.turn())
    }

    /// Whether an interrupt arrived since the last call.
    pub fn interrupted(&mut self) -> bool {
        let mut any = false;
        for line in &self.lines {
            any |= line.take();
        }
        any
    }
}

fn lock(slot: &Mutex<DeviceSlot>) -> MutexGuard<'_, DeviceSlot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
