//! The blueprint: everything that a machine will have, computed without opening anything. It
//! prints, compares and is golden-tested; [`crate::machine`] builds exactly what it says.

use std::path::PathBuf;
use std::time::Duration;

use api::spec::{
    ConsoleBackend, ConsolePortSpec, DiskCache, DiskEngine, DiskFormat, PanicAction, WatchdogAction,
};
use arch::boot::{BootPlan, KernelFormat, Placement};
use arch::layout;
use arch::tables::Platform;
use devices::disk::Access;
use devices::limit::Limits;
use devices::virtio::{balloon, blk, console, net, rng, vsock};

use crate::config::{DiskId, NetConfig, VsockConfig, access};

/// Everything that a machine will have.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// How many virtual CPUs; their APIC ids count from 0.
    pub cpus: u8,
    /// The guest's memory.
    pub memory: MemoryBlueprint,
    /// What the kernel is, for the reader.
    pub kernel: KernelBlueprint,
    /// The kernel's command line.
    pub cmdline: String,
    /// Where kernel, initrd and boot structures go, and the first CPU's registers. None for a
    /// machine that comes from a snapshot.
    pub boot: Option<BootPlan>,
    /// The machine as its tables describe it.
    pub platform: Platform,
    /// The tables' bytes.
    pub tables: Vec<Placement>,
    /// The devices, in the order of their creation.
    pub devices: Vec<DeviceBlueprint>,
    /// The host's side of the console.
    pub console: ConsoleBackend,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Whether this host's KVM leaves work to the monitor.
    pub assisted: bool,
    /// How long a guest that was asked to stop may take.
    pub stop_timeout: Duration,
}

/// The guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBlueprint {
    /// All of it.
    pub bytes: u64,
    /// Whether reserved 2 MiB pages back it.
    pub hugepages: bool,
    /// KVM's slots, by number.
    pub slots: Vec<MemorySlot>,
}

impl MemoryBlueprint {
    /// The first address and the length of each slot.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        self.slots
            .iter()
            .map(|slot| (slot.start, slot.len))
            .collect()
    }
}

/// One of KVM's memory slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySlot {
    /// KVM's number for it.
    pub slot: u32,
    /// The guest's address of the first byte.
    pub start: u64,
    /// The length in bytes.
    pub len: u64,
}

/// What the kernel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelBlueprint {
    /// The image, or `None` for the built-in guest.
    pub path: Option<PathBuf>,
    /// What the image is. Not known of a machine that comes from a snapshot.
    pub format: Option<KernelFormat>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceBlueprint {
    /// Its name, unique in the machine.
    pub name: String,
    /// Which device it is.
    pub kind: DeviceKind,
    /// Where the guest finds it.
    pub at: Window,
    /// Its line (pin of the I/O APIC), where it has one.
    pub line: Option<u32>,
}

/// Where the guest finds a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Ports.
    Ports {
        /// The first port.
        start: u16,
        /// How many.
        len: u16,
    },
    /// Addresses in the hole of the guest's memory.
    Mmio {
        /// The first address.
        start: u64,
        /// How many bytes.
        len: u64,
    },
    /// A function on PCI bus 0.
    Pci(PciBlueprint),
}

/// A device's place on PCI bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciBlueprint {
    /// The device number, 1 to 31.
    pub device: u8,
    /// Where its window is to begin with.
    pub window: u64,
    /// How many messages it has.
    pub vectors: u16,
    /// The GSI of the first message; the others follow.
    pub first_gsi: u32,
}

/// Which device, with what its constructor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The first serial port.
    Serial {
        /// Whether it carries the console; else its output is shown too and it gets no input.
        console: bool,
    },
    /// The keyboard controller, of which only the reset line is there.
    I8042,
    /// Sleep and reset registers, the power button.
    PowerManagement,
    /// The I/O APIC.
    IoApic {
        /// Its pins.
        pins: u8,
    },
    /// The PCI bus with its host bridge.
    PciBus,
    /// The port on which the guest's kernel tells of its panic.
    Pvpanic(PanicAction),
    /// The watchdog.
    Watchdog(WatchdogAction),
    /// virtio-console, which carries the console.
    VirtioConsole,
    /// virtio-console of several named ports.
    ConsolePorts(Vec<ConsolePortSpec>),
    /// virtio-rng.
    VirtioRng(Limits),
    /// virtio-balloon.
    VirtioBalloon(balloon::Settings),
    /// virtio-vsock.
    VirtioVsock(VsockConfig),
    /// virtio-net: the number of its link (an index into [`crate::machine::Setup::links`]), and
    /// how it is to be.
    VirtioNet(usize, NetConfig),
    /// virtio-blk.
    VirtioBlock(DiskBlueprint),
}

/// The host's side of a virtio-blk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskBlueprint {
    /// Where its bytes are.
    pub source: DiskSource,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// The serial number that the guest reads; without one, the device's name.
    pub id: Option<DiskId>,
    /// How the host reads and writes it.
    pub engine: DiskEngine,
    /// What the guest is told of the host's cache.
    pub cache: DiskCache,
    /// Whether the host's page cache is passed by.
    pub direct: bool,
    /// How many queues it has.
    pub queues: u16,
    /// How much it may do in a time.
    pub limits: Limits,
}

impl DiskBlueprint {
    /// How its image is opened.
    #[must_use]
    pub fn access(&self) -> Access {
        access(self.read_only, self.direct, self.engine)
    }
}

/// Where a disk's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// The system image of the built-in guest.
    BuiltIn,
    /// The user's disk number `index` (an index into [`crate::files::Files::disks`]).
    User {
        /// The index.
        index: usize,
        /// The image or block device.
        path: PathBuf,
        /// What it is.
        format: DiskFormat,
    },
}

impl DeviceKind {
    /// The largest sizes of the device's queues; empty for a device without queues.
    #[must_use]
    pub fn queues(&self) -> Vec<u16> {
        match self {
            Self::VirtioConsole => console::QUEUE_SIZES.to_vec(),
            Self::ConsolePorts(ports) => console::Ports::queue_sizes(ports.len()),
            Self::VirtioRng(_) => rng::QUEUE_SIZES.to_vec(),
            Self::VirtioBalloon(settings) => settings.queue_sizes(),
            Self::VirtioVsock(_) => vsock::QUEUE_SIZES.to_vec(),
            Self::VirtioNet(_, net) => net::queue_sizes(net.pairs),
            Self::VirtioBlock(disk) => blk::queue_sizes(disk.queues),
            Self::Serial { .. }
            | Self::I8042
            | Self::PowerManagement
            | Self::IoApic { .. }
            | Self::PciBus
            | Self::Pvpanic(_)
            | Self::Watchdog(_) => Vec::new(),
        }
    }
}

impl Blueprint {
    /// How many GSIs there are: the I/O APIC's pins and the messages of PCI functions.
    #[must_use]
    pub fn gsis(&self) -> usize {
        let messages = self.devices.iter().map(|device| match device.at {
            Window::Pci(place) => usize::from(place.vectors),
            Window::Ports { .. } | Window::Mmio { .. } => 0,
        });
        usize::from(layout::IOAPIC_PINS) + messages.sum::<usize>()
    }

    /// The virtio devices, in the order of their windows.
    pub fn virtio(&self) -> impl Iterator<Item = &DeviceBlueprint> {
        self.devices
            .iter()
            .filter(|device| !device.kind.queues().is_empty())
    }
}
