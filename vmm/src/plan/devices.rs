//! Which devices a machine has and where: fixed places for the few old ones, the slots of
//! `arch::layout` for virtio, in the order console, random numbers, sockets, networks,
//! disks.

use api::spec::{ConsoleDevice, DiskCache, DiskEngine, Transport};
use arch::layout;
use devices::limit::Limits;
use devices::virtio::transport::pci;

use crate::blueprint::{
    DeviceBlueprint, DeviceKind, DiskBlueprint, DiskSource, PciBlueprint, Window,
};
use crate::config::{Config, DiskConfig};

/// The devices of a machine, in the order of their creation.
pub(super) fn list(config: &Config) -> Vec<DeviceBlueprint> {
    let virtio_console = carries_console(config) == ConsoleDevice::Virtio;
    let mut devices = old_devices(!virtio_console);
    devices.extend(guards(config));
    let mut virtio = Vec::new();
    if virtio_console {
        virtio.push(("console".to_owned(), DeviceKind::VirtioConsole));
    }
    if !config.console_ports.is_empty() {
        let ports = DeviceKind::ConsolePorts(config.console_ports.clone());
        virtio.push(("ports".to_owned(), ports));
    }
    if config.rng {
        virtio.push(("rng".to_owned(), DeviceKind::VirtioRng(config.rng_limits)));
    }
    if let Some(settings) = config.balloon {
        virtio.push(("balloon".to_owned(), DeviceKind::VirtioBalloon(settings)));
    }
    if let Some(vsock) = &config.vsock {
        virtio.push(("vsock".to_owned(), DeviceKind::VirtioVsock(vsock.clone())));
    }
    for (number, net) in config.nets.iter().enumerate() {
        let kind = DeviceKind::VirtioNet(number, net.clone());
        virtio.push((format!("net{number}"), kind));
    }
    let system = config.kernel.is_none().then(system_disk);
    let user = config
        .disks
        .iter()
        .enumerate()
        .map(|(index, disk)| user_disk(index, disk));
    for (number, disk) in system.into_iter().chain(user).enumerate() {
        virtio.push((format!("disk{number}"), DeviceKind::VirtioBlock(disk)));
    }
    match config.transport {
        Transport::Mmio => devices.extend(in_windows(virtio)),
        Transport::Pci => devices.extend(on_pci(virtio)),
    }
    devices
}

// `Config` holds the number of disks below the number of slots, so none is left out.
fn in_windows(virtio: Vec<(String, DeviceKind)>) -> impl Iterator<Item = DeviceBlueprint> {
    virtio
        .into_iter()
        .enumerate()
        .filter_map(|(slot, (name, kind))| {
            let (start, line) = layout::virtio_slot(slot)?;
            let at = Window::Mmio {
                start,
                len: layout::VIRTIO_MMIO_SIZE,
            };
            Some(DeviceBlueprint {
                name,
                kind,
                at,
                line: Some(line),
            })
        })
}

/// The bus, and the devices on it.
fn on_pci(virtio: Vec<(String, DeviceKind)>) -> Vec<DeviceBlueprint> {
    let mut devices = vec![DeviceBlueprint {
        name: "pci".into(),
        kind: DeviceKind::PciBus,
        at: Window::Ports {
            start: layout::PCI_CONFIG,
            len: layout::PCI_CONFIG_PORTS,
        },
        line: None,
    }];
    let mut first_gsi = layout::FIRST_MESSAGE;
    for (slot, (name, kind)) in virtio.into_iter().enumerate() {
        let Some((device, window)) = layout::pci_slot(slot, pci::WINDOW_BYTES.into()) else {
            continue;
        };
        let vectors = pci::vectors_for(kind.queues().len());
        let place = PciBlueprint {
            device,
            window,
            vectors,
            first_gsi,
        };
        first_gsi += u32::from(vectors);
        devices.push(DeviceBlueprint {
            name,
            kind,
            at: Window::Pci(place),
            line: None,
        });
    }
    devices
}

/// The device that carries the console, never [`ConsoleDevice::Auto`]. The serial port is the
/// one that every kernel has a driver for, from its first message on; the built-in guest has the
/// virtio console, whose window follows the terminal's.
pub(super) fn carries_console(config: &Config) -> ConsoleDevice {
    match config.console_device {
        ConsoleDevice::Auto if config.kernel.is_none() => ConsoleDevice::Virtio,
        ConsoleDevice::Auto => ConsoleDevice::Serial,
        chosen => chosen,
    }
}

fn old_devices(serial_console: bool) -> Vec<DeviceBlueprint> {
    let device = |name: &str, kind, at, line| DeviceBlueprint {
        name: name.into(),
        kind,
        at,
        line,
    };
    vec![
        device(
            "serial",
            DeviceKind::Serial {
                console: serial_console,
            },
            Window::Ports {
                start: layout::COM1,
                len: layout::COM1_PORTS,
            },
            Some(layout::COM1_LINE),
        ),
        device(
            "i8042",
            DeviceKind::I8042,
            Window::Ports {
                start: layout::I8042_DATA,
                len: layout::I8042_COMMAND - layout::I8042_DATA + 1,
            },
            None,
        ),
        device(
            "pm",
            DeviceKind::PowerManagement,
            Window::Ports {
                start: layout::PM_SLEEP_CONTROL,
                len: layout::PM_PORTS,
            },
            Some(layout::GED_LINE),
        ),
        device(
            "ioapic",
            DeviceKind::IoApic {
                pins: layout::IOAPIC_PINS,
            },
            Window::Mmio {
                start: layout::IOAPIC,
                len: layout::IOAPIC_SIZE,
            },
            None,
        ),
    ]
}

/// What tells of a guest that panics or hangs.
fn guards(config: &Config) -> impl Iterator<Item = DeviceBlueprint> {
    let device = |name: &str, kind, start, len| DeviceBlueprint {
        name: name.into(),
        kind,
        at: Window::Ports { start, len },
        line: None,
    };
    let panic = DeviceKind::Pvpanic(config.panic);
    let panic = device("pvpanic", panic, layout::PVPANIC, 1);
    let watchdog = config.watchdog.map(|action| {
        let kind = DeviceKind::Watchdog(action);
        device("watchdog", kind, layout::WATCHDOG, layout::WATCHDOG_PORTS)
    });
    std::iter::once(panic).chain(watchdog)
}

fn system_disk() -> DiskBlueprint {
    DiskBlueprint {
        source: DiskSource::BuiltIn,
        read_only: true,
        id: None,
        engine: DiskEngine::Sync,
        cache: DiskCache::Writeback,
        direct: false,
        queues: 1,
        limits: Limits::default(),
    }
}

fn user_disk(index: usize, disk: &DiskConfig) -> DiskBlueprint {
    DiskBlueprint {
        source: DiskSource::User {
            index,
            path: disk.path.clone(),
            format: disk.format,
        },
        read_only: disk.read_only,
        id: disk.id.clone(),
        engine: disk.engine,
        cache: disk.cache,
        direct: disk.direct,
        queues: disk.queues,
        limits: disk.limits,
    }
}
