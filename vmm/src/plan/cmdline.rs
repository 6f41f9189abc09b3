//! The kernel's command line: Coracle's choice first, then the devices that only the command
//! line tells of, then the user's text. The last word on a parameter wins in Linux, so the
//! user's does; and nothing of ours comes after a `--` of the user's.

use api::spec::{ConsoleDevice, NetKind, Transport};
use arch::layout;

use crate::blueprint::{DeviceBlueprint, Window};
use crate::config::{Config, ConfigError, Problem, Root, excerpt};
use crate::host::HostCaps;

use super::Told;
use super::devices::carries_console;

/// For every kernel: no messages below errors; a panic and a reboot both end the machine at once
/// and by the one register that each kernel knows, a panic with the warm-boot flag so that the
/// monitor tells the two apart.
const ALWAYS: [&str; 3] = ["quiet", "reboot=k,panic_warm", "panic=-1"];

/// For kernels that weren't built for this machine: the CPU's random numbers count.
const FOREIGN: [&str; 1] = ["random.trust_cpu=on"];

/// For such kernels where there is no PCI bus to look for.
const FOREIGN_WITHOUT_PCI: [&str; 1] = ["pci=off"];

/// For such kernels without ACPI, which would say that there is no keyboard: each of these
/// saves a search with its time-outs.
const FOREIGN_WITHOUT_ACPI: [&str; 3] = ["i8042.noaux", "i8042.nomux", "i8042.dumbkbd"];

/// The built-in guest's root, its system image.
const BUILT_IN_ROOT: [&str; 3] = ["root=/dev/vda", "ro", "rootfstype=erofs"];

/// A user-mode network answers at once, so that the built-in guest waits for its address.
const BUILT_IN_DHCP: &str = "ip=dhcp";

/// Where the built-in guest's console is virtio's, its kernel's first words go to the serial
/// port, which the monitor shows too: a panic before the console is there is seen.
const BUILT_IN_EARLY: [&str; 1] = ["earlycon=uart8250,io,0x3f8"];

/// With one CPU: don't patch the lock prefixes out (3 million instructions to save none that
/// matters), and don't keep books of a 2 MiB area per CPU (1 million).
const BUILT_IN_ONE_CPU: [&str; 2] = ["noreplace-smp", "percpu_alloc=page"];

/// Where the host emulates the kernel: its text stays writable to itself, which saves a million
/// instructions, a second there. The boundary is the machine, not the guest's page tables.
const BUILT_IN_EMULATED: [&str; 1] = ["rodata=off"];

/// The whole command line.
pub(super) fn compose(
    config: &Config,
    host: &HostCaps,
    devices: &[DeviceBlueprint],
    told: Told,
) -> Result<String, ConfigError> {
    let mut words: Vec<String> = Vec::new();
    if config.default_cmdline {
        choose(config, host, told, &mut words);
    } else {
        words.extend(host.kernel_arguments.iter().map(ToString::to_string));
    }
    words.extend(foreign_root(config));
    if told.devices_by_cmdline {
        words.extend(devices.iter().filter_map(announcement));
    }
    if !config.cmdline.as_str().is_empty() {
        words.push(config.cmdline.as_str().to_owned());
    }
    let line = words.join(" ");
    if line.len() > layout::CMDLINE_MAX {
        let problem = Problem::TooLong {
            most: "2047 bytes with what Coracle puts before it",
        };
        return Err(ConfigError::new(
            "cmdline",
            &excerpt(config.cmdline.as_str()),
            problem,
        ));
    }
    Ok(line)
}

fn choose(config: &Config, host: &HostCaps, told: Told, words: &mut Vec<String>) {
    words.push(match carries_console(config) {
        ConsoleDevice::Virtio => "console=hvc0".to_owned(),
        _ => "console=ttyS0".to_owned(),
    });
    let mut add = |more: &[&str]| words.extend(more.iter().map(ToString::to_string));
    add(&ALWAYS);
    if config.kernel.is_some() {
        add(&FOREIGN);
        if config.transport == Transport::Mmio {
            add(&FOREIGN_WITHOUT_PCI);
        }
        if told.devices_by_cmdline {
            add(&FOREIGN_WITHOUT_ACPI);
        }
    }
    add(&host.kernel_arguments);
    if config.kernel.is_none() {
        if carries_console(config) == ConsoleDevice::Virtio {
            add(&BUILT_IN_EARLY);
        }
        add(&BUILT_IN_ROOT);
        if let Some(net) = config.nets.first()
            && net.link.kind() != NetKind::Tap
        {
            add(&[BUILT_IN_DHCP]);
        }
        if config.cpus.get() == 1 {
            add(&BUILT_IN_ONE_CPU);
        }
        if !host.kernel_arguments.is_empty() {
            add(&BUILT_IN_EMULATED);
        }
    }
}

/// The root of the user's kernel: on the disk that the user says, else on the first one where
/// Coracle chooses and there is nothing else that it could be.
fn foreign_root(config: &Config) -> Vec<String> {
    let mut words = config.cmdline.as_str().split_whitespace();
    if config.kernel.is_none() || words.any(|word| word.starts_with("root=")) {
        return Vec::new();
    }
    let chosen = config.disks.iter().position(|disk| disk.root.is_some());
    let first = config.default_cmdline && config.initrd.is_none();
    let place = chosen.or(first.then_some(0));
    let Some((place, disk)) = place.and_then(|place| Some((place, config.disks.get(place)?)))
    else {
        return Vec::new();
    };
    let root = match &disk.root {
        Some(Root::Partition(uuid)) => format!("root=PARTUUID={uuid}"),
        Some(Root::Disk) | None => format!("root=/dev/vd{}", letters(place)),
    };
    let access = if disk.read_only { "ro" } else { "rw" };
    vec![root, access.to_owned()]
}

/// How Linux counts disks: a to z, then aa.
fn letters(place: usize) -> String {
    let letter =
        |number: usize| u8::try_from(number).map_or('?', |number| char::from(b'a' + number));
    match place {
        0..26 => letter(place).to_string(),
        _ => format!("{}{}", letter(place / 26 - 1), letter(place % 26)),
    }
}

/// What tells a kernel without ACPI of a virtio device.
fn announcement(device: &DeviceBlueprint) -> Option<String> {
    match (device.at, device.line) {
        (Window::Mmio { start, len }, Some(line)) => Some(format!(
            "virtio_mmio.device={}K@{start:#x}:{line}",
            len >> 10
        )),
        _ => None,
    }
}
