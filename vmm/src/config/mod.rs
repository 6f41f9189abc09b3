//! The validated machine: what a user asked for, with every value judged once. Pure: opens
//! nothing and asks the host nothing (limits of the host are judged by [`crate::plan`]).

mod balloon;
mod console_port;
mod disk;
mod error;
mod metadata;
mod net;
mod size;
mod text;
mod vsock;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::spec::{
    ConsoleBackend, ConsoleDevice, ConsolePortSpec, KernelFormat, KernelProtocol, KernelSpec,
    MachineSpec, PanicAction, PlatformTables, Transport, WatchdogAction,
};

use devices::limit::Limits;
pub use devices::virtio::balloon::Settings as BalloonSettings;
pub(crate) use disk::access;
pub use disk::{DiskConfig, DiskId, Root};
pub use error::{ConfigError, Problem};
pub use metadata::MmdsConfig;
pub use net::{LinkConfig, MacAddress, NetConfig};
pub(crate) use size::HUGE_PAGE_BYTES;
pub use size::{MIN_MEMORY_BYTES, MemorySize, Size};
pub use text::CmdlineText;
pub(crate) use text::excerpt;
pub use vsock::VsockConfig;

/// Most virtual CPUs of a machine.
pub const MAX_CPUS: u8 = 64;

/// Memory of a machine with the built-in guest, when none is asked for.
pub const BUILT_IN_MEMORY_BYTES: u64 = 128 << 20;

/// Memory of any other machine, when none is asked for: distribution kernels with their initial
/// RAM disks don't unpack in less.
pub const OTHER_MEMORY_BYTES: u64 = 512 << 20;

/// Longest time that a guest can be given to stop.
const MAX_STOP_TIMEOUT_MS: u64 = 3_600_000;

/// A machine that makes sense in itself. Made by `TryFrom<&MachineSpec>` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The kernel, or `None` for the built-in guest.
    pub kernel: Option<KernelConfig>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The user's part of the command line.
    pub cmdline: CmdlineText,
    /// Whether Coracle's choice of a command line is put before it.
    pub default_cmdline: bool,
    /// How many virtual CPUs.
    pub cpus: CpuCount,
    /// How much memory.
    pub memory: MemorySize,
    /// The amount as the user wrote it, for messages.
    pub memory_text: String,
    /// Whether reserved 2 MiB pages back the memory.
    pub hugepages: bool,
    /// The user's disks.
    pub disks: Vec<DiskConfig>,
    /// The network interfaces.
    pub nets: Vec<NetConfig>,
    /// The host's side of the console.
    pub console: ConsoleBackend,
    /// The guest's side of the console.
    pub console_device: ConsoleDevice,
    /// Further ports of a console.
    pub console_ports: Vec<ConsolePortSpec>,
    /// Whether there is a virtio-rng.
    pub rng: bool,
    /// How many random numbers it gives in a time.
    pub rng_limits: Limits,
    /// The memory balloon.
    pub balloon: Option<BalloonSettings>,
    /// What the watchdog does, where there is one.
    pub watchdog: Option<WatchdogAction>,
    /// What follows a panic of the guest's kernel.
    pub panic: PanicAction,
    /// The socket device.
    pub vsock: Option<VsockConfig>,
    /// How the guest reaches its virtio devices.
    pub transport: Transport,
    /// Which tables describe the machine.
    pub platform: PlatformTables,
    /// How long a guest that was asked to stop may take.
    pub stop_timeout: Duration,
}

/// A kernel image of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// The image.
    pub path: PathBuf,
    /// What it must be.
    pub format: KernelFormat,
    /// How it is entered.
    pub protocol: KernelProtocol,
}

/// A number of virtual CPUs, from 1 to [`MAX_CPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuCount(u8);

impl CpuCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u64> for CpuCount {
    type Error = ConfigError;

    fn try_from(value: u64) -> Result<Self, ConfigError> {
        let refuse = |problem| ConfigError::new("cpus", &value, problem);
        match u8::try_from(value) {
            Ok(0) => Err(refuse(Problem::None)),
            Ok(count) if count <= MAX_CPUS => Ok(Self(count)),
            _ => Err(refuse(Problem::TooMany {
                most: MAX_CPUS.into(),
                of: "a machine",
            })),
        }
    }
}

impl TryFrom<&MachineSpec> for Config {
    type Error = ConfigError;

    fn try_from(spec: &MachineSpec) -> Result<Self, ConfigError> {
        let kernel = spec.kernel.as_ref().map(kernel_config).transpose()?;
        if kernel.is_none() && spec.transport == Transport::Pci {
            let problem = Problem::NotBuiltIn;
            return Err(ConfigError::new("transport", &spec.transport, problem));
        }
        if let Some(initrd) = &spec.initrd {
            check_path("initrd", initrd)?;
        }
        if let ConsoleBackend::File(path) = &spec.console.backend {
            check_path("console", path)?;
        }
        let memory = match &spec.memory {
            Some(size) => MemorySize::read(size, spec.hugepages)?,
            None if kernel.is_none() => MemorySize::constant(BUILT_IN_MEMORY_BYTES),
            None => MemorySize::constant(OTHER_MEMORY_BYTES),
        };
        let cpus: CpuCount = spec.cpus.try_into()?;
        let mut nets = net::read_all(spec)?;
        metadata::read(spec, &mut nets)?;
        Ok(Self {
            kernel,
            initrd: spec.initrd.clone(),
            cmdline: CmdlineText::try_from(spec.cmdline.as_str())?,
            default_cmdline: spec.default_cmdline,
            cpus,
            memory,
            memory_text: spec
                .memory
                .as_ref()
                .map_or_else(|| Size(memory.bytes()).to_string(), ToString::to_string),
            hugepages: spec.hugepages,
            nets,
            disks: disk::read_all(spec, cpus)?,
            console: spec.console.backend.clone(),
            console_device: spec.console.device,
            console_ports: console_port::read_all(&spec.console_ports)?,
            rng: spec.rng,
            rng_limits: Limits {
                bytes: disk::bucket("rng limit", spec.rng_bandwidth.as_ref())?,
                operations: disk::bucket("rng iops", spec.rng_iops.as_ref())?,
            },
            balloon: spec
                .balloon
                .as_ref()
                .map(|spec| balloon::read(spec, memory.bytes()))
                .transpose()?,
            watchdog: spec.watchdog,
            panic: spec.panic,
            vsock: spec.vsock.as_ref().map(VsockConfig::try_from).transpose()?,
            transport: spec.transport,
            platform: spec.platform,
            stop_timeout: stop_timeout(spec.stop_timeout_ms)?,
        })
    }
}

fn kernel_config(spec: &KernelSpec) -> Result<KernelConfig, ConfigError> {
    check_path("kernel", &spec.path)?;
    Ok(KernelConfig {
        path: spec.path.clone(),
        format: spec.format,
        protocol: spec.protocol,
    })
}

/// Paths are judged when they are opened; only what no open can explain well is refused here.
fn check_path(field: &'static str, path: &Path) -> Result<(), ConfigError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err(ConfigError::new(field, &"\"\"", Problem::Empty));
    }
    match bytes.contains(&0) {
        true => Err(ConfigError::new(
            field,
            &path.display(),
            Problem::Byte { name: "a NUL byte" },
        )),
        false => Ok(()),
    }
}

fn stop_timeout(ms: u64) -> Result<Duration, ConfigError> {
    if ms > MAX_STOP_TIMEOUT_MS {
        let problem = Problem::TooLong { most: "an hour" };
        return Err(ConfigError::new(
            "stop timeout",
            &format_args!("{ms} ms"),
            problem,
        ));
    }
    Ok(Duration::from_millis(ms))
}
