//! Any machine that a user may ask for: it is refused or planned without windows, lines or memory
//! that overlap.
#![no_main]

use api::spec::{ConsoleDevice, DiskSpec, KernelProtocol, KernelSpec, MachineSpec, NetKind};
use api::spec::{NetSpec, PlatformTables, SizeSpec, Transport};
use arbitrary::Arbitrary;
use arch::boot::Kernel;
use arch::layout;
use coracle_fuzz::image::{Elf, Place};
use coracle_fuzz::{Watched, check_plan};
use devices::virtio::transport::pci::WINDOW_BYTES;
use libfuzzer_sys::fuzz_target;
use vmm::blueprint::{Blueprint, Window};
use vmm::config::Config;
use vmm::host::{HostCaps, KvmCaps};
use vmm::plan::{Inputs, plan};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    image: Elf,
    kernel: Option<(&'a str, u8)>,
    cmdline: &'a str,
    switches: u8,
    cpus: u8,
    memory: Option<Result<Place, &'a str>>,
    disks: Vec<(&'a str, bool, Option<&'a str>)>,
    console: &'a str,
    console_device: u8,
    platform: u8,
    stop_timeout_ms: Option<u64>,
    host: (u8, Place, u8),
    initrd: Option<(&'a str, Place)>,
    nets: Vec<(Option<&'a str>, Option<&'a str>, Option<u64>, Option<u64>)>,
}

impl Input<'_> {
    fn switch(&self, bit: u8) -> bool {
        self.switches >> bit & 1 == 1
    }

    fn spec(&self) -> MachineSpec {
        let pick = |value: u8, of: usize| usize::from(value) % of;
        MachineSpec {
            kernel: self.kernel.map(|(path, protocol)| KernelSpec {
                path: path.into(),
                format: Default::default(),
                protocol: [
                    KernelProtocol::Auto,
                    KernelProtocol::Linux64,
                    KernelProtocol::Pvh,
                ][pick(protocol, 3)],
            }),
            initrd: self.initrd.map(|(path, _)| path.into()),
            cmdline: self.cmdline.into(),
            default_cmdline: self.switch(0),
            cpus: (self.cpus % 80).into(),
            memory: self.memory.map(|memory| match memory {
                Ok(bytes) => SizeSpec::Bytes(bytes.value()),
                Err(text) => SizeSpec::Text(text.into()),
            }),
            hugepages: self.switch(1),
            disks: self
                .disks
                .iter()
                .map(|&(path, read_only, id)| DiskSpec {
                    path: path.into(),
                    read_only,
                    id: id.map(Into::into),
                    ..DiskSpec::default()
                })
                .collect(),
            nets: self
                .nets
                .iter()
                .map(|&(tap, mac, mtu, queues)| NetSpec {
                    kind: tap.map_or(NetKind::User, |_| NetKind::Tap),
                    name: tap.map(Into::into),
                    mac: mac.map(Into::into),
                    mtu,
                    queues,
                    ..NetSpec::default()
                })
                .collect(),
            console: api::spec::ConsoleSpec {
                backend: self.console.parse().unwrap_or_default(),
                device: [
                    ConsoleDevice::default(),
                    ConsoleDevice::Serial,
                    ConsoleDevice::Virtio,
                ][pick(self.console_device, 3)],
            },
            rng: self.switch(2),
            platform: [
                PlatformTables::Auto,
                PlatformTables::Acpi,
                PlatformTables::Mptable,
                PlatformTables::Both,
            ][pick(self.platform, 4)],
            stop_timeout_ms: self.stop_timeout_ms.unwrap_or(10_000),
            transport: if self.switch(6) {
                Transport::Pci
            } else {
                Transport::Mmio
            },
            ..MachineSpec::default()
        }
    }

    fn host(&self) -> HostCaps {
        let (max_vcpus, memory, hugepages) = match self.switch(5) {
            true => self.host,
            // A host that is no reason to refuse a machine.
            false => (255, Place::Mib(u16::MAX, 0), 255),
        };
        HostCaps {
            kvm: KvmCaps {
                max_vcpus: max_vcpus.into(),
                ..KvmCaps::stock()
            },
            memory_bytes: memory.value(),
            free_hugepages: hugepages.into(),
            assisted: self.switch(3),
            kernel_arguments: if self.switch(3) {
                vec!["noxsave"]
            } else {
                Vec::new()
            },
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let Ok(config) = Config::try_from(&input.spec()) else {
        return;
    };
    let image = input.image.build();
    let Ok(kernel) = Kernel::open(&Watched::new(&image)) else {
        return;
    };
    let host = input.host();
    let inputs = Inputs {
        config: &config,
        host: &host,
        kernel: &kernel,
        kernel_reads_acpi: input.switch(4),
        initrd_bytes: input.initrd.map(|(_, bytes)| bytes.value()),
    };
    match plan(&inputs) {
        Ok(blueprint) => check(&blueprint, &kernel),
        // The program makes one line of it, whatever a path has in it.
        Err(error) => assert!(!error.to_string().is_empty() && !error.remedy().is_empty()),
    }
});

fn check(blueprint: &Blueprint, kernel: &Kernel) {
    let memory = blueprint.memory.bytes;
    check_plan(&blueprint.boot, kernel, memory);
    let mut end = layout::EBDA;
    let mut tables: Vec<_> = blueprint.tables.iter().collect();
    tables.sort_by_key(|table| table.address);
    for table in tables {
        assert!(
            table.address >= end,
            "{} overlaps what is before it",
            table.name
        );
        end = table.address + table.source.len();
        assert!(
            end <= layout::ACPI_END,
            "{} is outside of the firmware area",
            table.name
        );
    }
    let slots: u64 = blueprint.memory.slots.iter().map(|slot| slot.len).sum();
    assert_eq!(slots, memory);
    let mut windows = Vec::new();
    let mut lines = Vec::new();
    let mut names = Vec::new();
    for device in &blueprint.devices {
        let window = match device.at {
            Window::Ports { start, len } => (0, u64::from(start), u64::from(len)),
            Window::Mmio { start, len } => {
                assert!(start >= layout::HOLE_START);
                assert!(start + len <= layout::HOLE_END);
                (1, start, len)
            }
            Window::Pci(place) => {
                let len = u64::from(WINDOW_BYTES);
                assert!(place.window >= layout::PCI_MEMORY);
                assert!(place.window + len <= layout::PCI_MEMORY + layout::PCI_MEMORY_SIZE);
                (1, place.window, len)
            }
        };
        windows.push(window);
        lines.extend(device.line);
        names.push(&device.name);
    }
    windows.sort_unstable();
    for pair in windows.windows(2) {
        let [(space, start, len), next] = pair else {
            continue;
        };
        assert!(*space != next.0 || start + len <= next.1, "{pair:?}");
    }
    let (lines_before, names_before) = (lines.len(), names.len());
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), lines_before);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), names_before);
}
