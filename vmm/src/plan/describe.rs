//! A blueprint for the reader: the wire type that `--print-plan` prints.

mod net;

use std::path::Path;

use api::plan::{
    ConsolePlan, DevicePlan, FileNeed, Hex, HostNeeds, InterruptPlan, KernelPlan, MachinePlan,
    MemoryPlan, PciPlan, PlacementPlan, RangePlan, SlotPlan, ThreadPlan, WindowPlan,
};
use api::spec::{ConsoleBackend, ConsolePortSpec, DiskFormat, PortBackend};
use arch::boot::{KernelFormat, MemoryKind, Placement, Source};
use arch::layout;
use devices::limit::{BucketSpec, Limits};
use devices::virtio::transport::pci::WINDOW_BYTES;

use crate::blueprint::{Blueprint, DeviceBlueprint, DeviceKind, DiskBlueprint, DiskSource, Window};
use crate::config::HUGE_PAGE_BYTES;
use crate::host::KvmCaps;

const BUILT_IN: &str = "built-in";
const IO_THREAD: &str = "io-0";

impl Blueprint {
    /// The whole machine as it is printed.
    #[must_use]
    pub fn describe(&self) -> MachinePlan {
        MachinePlan {
            kernel: self.describe_kernel(),
            cmdline: self.cmdline.clone(),
            vcpus: self.cpus.into(),
            memory: self.describe_memory(),
            placements: self
                .boot
                .iter()
                .flat_map(|boot| &boot.placements)
                .chain(&self.tables)
                .map(placement)
                .collect(),
            console: ConsolePlan {
                backend: self.console.to_string(),
                device: self.console_device().to_owned(),
            },
            tables: self
                .tables
                .iter()
                .map(|table| table.name.to_owned())
                .collect(),
            devices: self.devices.iter().map(device).collect(),
            interrupts: self
                .devices
                .iter()
                .filter_map(|device| {
                    Some(InterruptPlan {
                        line: device.line?,
                        device: device.name.clone(),
                    })
                })
                .collect(),
            threads: self.describe_threads(),
            host: self.describe_needs(),
            stop_timeout_ms: u64::try_from(self.stop_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What the guest sees of the devices, a line each: where they are and how they are reached.
    /// Machines that differ in it cannot take each other's place under a running guest.
    #[must_use]
    pub fn layout(&self) -> Vec<String> {
        let line = |device: &DeviceBlueprint| {
            let DeviceBlueprint {
                name,
                kind,
                at,
                line,
            } = device;
            let (model, queues) = (model(kind), kind.queues());
            format!("{name} {model} {at:x?} {line:?} {queues:?}")
        };
        self.devices.iter().map(line).collect()
    }

    /// The name of the device that carries the console.
    #[must_use]
    pub fn console_device(&self) -> &str {
        let carries = |kind: &DeviceKind| {
            matches!(
                kind,
                DeviceKind::VirtioConsole | DeviceKind::Serial { console: true }
            )
        };
        self.devices
            .iter()
            .find(|one| carries(&one.kind))
            .map_or("none", |one| &one.name)
    }

    fn describe_kernel(&self) -> KernelPlan {
        KernelPlan {
            image: self
                .kernel
                .path
                .as_deref()
                .map_or_else(|| BUILT_IN.to_owned(), show),
            format: match self.kernel.format {
                None => "snapshot".to_owned(),
                Some(KernelFormat::Elf) => "elf".to_owned(),
                Some(KernelFormat::BzImage) => "bzimage".to_owned(),
            },
            protocol: match &self.boot {
                None => "none".to_owned(),
                Some(boot) => boot.protocol.to_string(),
            },
            entry: Hex(self.boot.as_ref().map_or(0, |boot| boot.cpu.regs.rip)),
        }
    }

    fn describe_memory(&self) -> MemoryPlan {
        let slots = self.memory.slots.iter();
        MemoryPlan {
            bytes: self.memory.bytes,
            hugepages: self.memory.hugepages,
            slots: slots
                .map(|one| SlotPlan {
                    slot: one.slot,
                    start: Hex(one.start),
                    bytes: one.len,
                })
                .collect(),
            map: self
                .boot
                .iter()
                .flat_map(|boot| &boot.memory_map)
                .map(|range| RangePlan {
                    start: Hex(range.start),
                    bytes: range.len,
                    kind: match range.kind {
                        MemoryKind::Ram => "ram".to_owned(),
                        MemoryKind::Reserved => "reserved".to_owned(),
                    },
                })
                .collect(),
        }
    }

    fn describe_threads(&self) -> Vec<ThreadPlan> {
        let thread = |name: String, role: &str| ThreadPlan {
            name,
            role: role.to_owned(),
        };
        let mut threads = vec![thread(
            "coracle".into(),
            "signals, timers, the machine's life",
        )];
        threads.extend((0..self.cpus).map(|n| thread(format!("vcpu-{n}"), "a virtual CPU")));
        threads.push(thread(
            IO_THREAD.into(),
            "the virtio devices and the console's input",
        ));
        threads
    }

    fn describe_needs(&self) -> HostNeeds {
        let file = |path: &Path, access: &str| FileNeed {
            path: show(path),
            access: access.to_owned(),
        };
        let mut files = vec![file(Path::new("/dev/kvm"), "read-write")];
        files.extend(
            self.kernel
                .path
                .iter()
                .chain(&self.initrd)
                .map(|path| file(path, "read")),
        );
        for device in &self.devices {
            if let DeviceKind::VirtioBlock(disk) = &device.kind
                && let DiskSource::User { path, .. } = &disk.source
            {
                files.push(file(
                    path,
                    if disk.read_only { "read" } else { "read-write" },
                ));
            }
            if let DeviceKind::VirtioNet(_, net) = &device.kind
                && net::opens_tun(net)
            {
                files.push(file(Path::new(net::TUN), "read-write"));
            }
        }
        if let ConsoleBackend::File(path) = &self.console {
            files.push(file(path, "write"));
        }
        let kvm = KvmCaps::stock().features();
        let pages = self.memory.bytes / HUGE_PAGE_BYTES;
        HostNeeds {
            files,
            kvm: kvm
                .iter()
                .filter(|one| one.required)
                .map(|one| one.name.to_owned())
                .collect(),
            memory_bytes: self.memory.bytes,
            hugepages: if self.memory.hugepages { pages } else { 0 },
            assisted: self.assisted,
        }
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn placement(placement: &Placement) -> PlacementPlan {
    let source = match placement.source {
        Source::Bytes(_) => "monitor",
        Source::Kernel { .. } => "kernel",
        Source::Initrd { .. } => "initrd",
    };
    PlacementPlan {
        name: placement.name.to_owned(),
        start: Hex(placement.address),
        bytes: placement.source.len(),
        source: source.to_owned(),
    }
}

fn device(device: &DeviceBlueprint) -> DevicePlan {
    let window = |start, bytes| {
        let start = Hex(start);
        Some(WindowPlan { start, bytes })
    };
    let (ports, mmio, pci) = match device.at {
        Window::Ports { start, len } => (window(start.into(), len.into()), None, None),
        Window::Mmio { start, len } => (None, window(start, len), None),
        Window::Pci(place) => {
            let pci = PciPlan {
                address: format!("00:{:02x}.0", place.device),
                vectors: place.vectors,
                first_gsi: place.first_gsi,
            };
            (None, window(place.window, WINDOW_BYTES.into()), Some(pci))
        }
    };
    // The bus has its configuration spaces in memory beside its ports.
    let spaces = matches!(device.kind, DeviceKind::PciBus)
        .then(|| window(layout::PCI_ECAM, layout::PCI_ECAM_SIZE));
    let mmio = spaces.unwrap_or(mmio);
    let disk = match &device.kind {
        DeviceKind::VirtioBlock(disk) => Some(disk),
        _ => None,
    };
    DevicePlan {
        name: device.name.clone(),
        model: model(&device.kind).to_owned(),
        ports,
        mmio,
        pci,
        line: device.line,
        queues: device.kind.queues(),
        file: file(&device.kind),
        read_only: disk.map(|disk| disk.read_only),
        options: options(&device.kind),
        thread: match &device.kind {
            DeviceKind::I8042
            | DeviceKind::PowerManagement
            | DeviceKind::IoApic { .. }
            | DeviceKind::PciBus
            | DeviceKind::Pvpanic(_) => "vcpu-*".to_owned(),
            _ => IO_THREAD.to_owned(),
        },
    }
}

/// A port in the words of the command line.
fn port(port: &ConsolePortSpec) -> String {
    let console = if port.console { ",console" } else { "" };
    let backend = match &port.backend {
        PortBackend::Socket(path) => format!("socket={}", show(path)),
        PortBackend::File(path) => format!("file={}", show(path)),
        PortBackend::Pty => "pty".to_owned(),
    };
    format!("name={},{backend}{console}", port.name)
}

/// The limits of a device.
fn rates(limits: Limits) -> Vec<String> {
    named_rates(["bandwidth", "iops"], limits)
}

/// The limits of bytes and of operations, by their names.
fn named_rates([bytes, operations]: [&str; 2], limits: Limits) -> Vec<String> {
    let buckets = [(bytes, limits.bytes), (operations, limits.operations)];
    let text = |(name, bucket): (&str, Option<BucketSpec>)| {
        let BucketSpec {
            size,
            burst,
            refill,
        } = bucket?;
        let ms = refill.as_millis();
        Some(format!("{name}={size} in {ms} ms, {burst} once"))
    };
    buckets.into_iter().filter_map(text).collect()
}

/// How a disk is used. The built-in guest's own is always used the same way.
fn disk_options(disk: &DiskBlueprint) -> Vec<String> {
    let format = match &disk.source {
        DiskSource::BuiltIn => return Vec::new(),
        DiskSource::User { format, .. } => *format,
    };
    let mut options = vec![format!("format={format}")];
    if format == DiskFormat::Raw {
        options.push(format!("engine={}", disk.engine));
    }
    options.push(format!("cache={}", disk.cache));
    if disk.direct {
        options.push("direct=on".to_owned());
    }
    options.extend(rates(disk.limits));
    options
}

/// What was chosen for a device, in the words of the command line.
fn options(kind: &DeviceKind) -> Vec<String> {
    match kind {
        DeviceKind::Pvpanic(action) => vec![action.to_string()],
        DeviceKind::Watchdog(action) => vec![action.to_string()],
        DeviceKind::VirtioRng(limits) => rates(*limits),
        DeviceKind::VirtioNet(_, net) => net::options(net),
        DeviceKind::VirtioBlock(disk) => disk_options(disk),
        DeviceKind::ConsolePorts(ports) => ports.iter().map(port).collect(),
        DeviceKind::VirtioBalloon(settings) => {
            let words = [
                (settings.deflate_on_oom, "deflate-on-oom"),
                (settings.reporting, "reporting"),
                (settings.hinting, "hinting"),
            ];
            let numbers = [
                format!("size={}", settings.target_bytes),
                format!("stats={}", settings.statistics_every.as_secs()),
            ];
            let words = words.into_iter().filter(|(chosen, _)| *chosen);
            let words = words.map(|(_, word)| word.to_owned());
            numbers.into_iter().chain(words).collect()
        }
        _ => Vec::new(),
    }
}

/// The host's file behind a device.
fn file(kind: &DeviceKind) -> Option<String> {
    match kind {
        DeviceKind::VirtioVsock(vsock) => Some(show(&vsock.path)),
        DeviceKind::VirtioNet(_, net) => net::file(net),
        DeviceKind::VirtioBlock(disk) => Some(match &disk.source {
            DiskSource::BuiltIn => BUILT_IN.to_owned(),
            DiskSource::User { path, .. } => show(path),
        }),
        _ => None,
    }
}

fn model(kind: &DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Serial { .. } => "16550",
        DeviceKind::I8042 => "i8042",
        DeviceKind::PowerManagement => "pm",
        DeviceKind::IoApic { .. } => "ioapic",
        DeviceKind::PciBus => "pci",
        DeviceKind::Pvpanic(_) => "pvpanic",
        DeviceKind::Watchdog(_) => "ib700",
        DeviceKind::VirtioConsole => "virtio-console",
        DeviceKind::ConsolePorts(_) => "virtio-console",
        DeviceKind::VirtioRng(_) => "virtio-rng",
        DeviceKind::VirtioBalloon(_) => "virtio-balloon",
        DeviceKind::VirtioVsock(_) => "virtio-vsock",
        DeviceKind::VirtioNet(..) => "virtio-net",
        DeviceKind::VirtioBlock(_) => "virtio-blk",
    }
}
