//! From configuration to blueprint: a pure, deterministic function. It opens nothing, asks the
//! host nothing and reads no clock, so that a plan can be printed, compared and tested.

mod cmdline;
mod describe;
mod devices;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use api::spec::{KernelProtocol, PlatformTables};
use arch::boot::{self, BootError, BootShape, Kernel, Protocol};
use arch::layout;
use arch::tables::{self, PciBus, Platform, VirtioMmio};

use crate::blueprint::{
    Blueprint, DeviceBlueprint, DeviceKind, KernelBlueprint, MemoryBlueprint, MemorySlot, Window,
};
use crate::config::{Config, ConfigError, HUGE_PAGE_BYTES, Problem};
use crate::host::HostCaps;

/// All that a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What the user asked for.
    pub config: &'a Config,
    /// What the host offers.
    pub host: &'a HostCaps,
    /// The parsed kernel.
    pub kernel: &'a Kernel,
    /// Whether the kernel reads ACPI tables ([`crate::files::reads_acpi`]). Only asked where
    /// [`depends_on_acpi`] says so.
    pub kernel_reads_acpi: bool,
    /// The length of the initial RAM disk.
    pub initrd_bytes: Option<u64>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A value that this host or this kernel doesn't allow.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host's KVM lacks something without which no machine starts.
    #[error("this host's KVM lacks {name}, which is needed for {purpose}")]
    Kvm {
        /// The capability.
        name: &'static str,
        /// What it is for.
        purpose: &'static str,
    },
    /// The kernel, its initial RAM disk and the memory don't fit together.
    #[error("{}: {}", image(path.as_ref()), halves(&reason.to_string()).0)]
    Boot {
        /// The image, or `None` for the built-in guest.
        path: Option<PathBuf>,
        /// The reason.
        reason: BootError,
    },
}

fn image(path: Option<&PathBuf>) -> String {
    path.map_or_else(
        || "the built-in guest".into(),
        |path| format!("kernel {}", path.display()),
    )
}

/// What is wrong and what to do: the errors of `arch` say both, with a colon between them.
#[must_use]
pub fn halves(text: &str) -> (&str, &str) {
    text.rsplit_once(": ").unwrap_or((text, ""))
}

impl PlanError {
    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Config(error) => error.remedy(),
            Self::Kvm { .. } => {
                "run a newer kernel on this host; `coracle doctor` lists all".into()
            }
            Self::Boot { reason, .. } => halves(&reason.to_string()).1.to_owned(),
        }
    }
}

/// Whether a plan for this configuration depends on what the kernel knows of ACPI. Finding out
/// means reading the whole image, so it is not done where the answer is given.
#[must_use]
pub fn depends_on_acpi(config: &Config) -> bool {
    config.kernel.is_some()
        && matches!(config.platform, PlatformTables::Auto | PlatformTables::Both)
}

/// Plans a machine.
///
/// # Errors
/// When the host lacks memory, CPUs or a feature, or kernel, initrd, command line and memory
/// don't fit together.
pub fn plan(inputs: &Inputs<'_>) -> Result<Blueprint, PlanError> {
    let config = inputs.config;
    check_host(config, inputs.host)?;
    let told = Told::choose(inputs);
    let devices = devices::list(config);
    let cmdline = cmdline::compose(config, inputs.host, &devices, told)?;
    let platform = platform(config, &devices);

    let mut placements = Vec::new();
    let mut rsdp = None;
    if told.acpi {
        let acpi = tables::acpi(&platform);
        placements.push(acpi.placement);
        rsdp = Some(acpi.rsdp);
    }
    if told.mptable {
        placements.push(tables::mptable(&platform));
    }
    let shape = BootShape {
        memory_bytes: config.memory.bytes(),
        initrd_bytes: inputs.initrd_bytes,
        cmdline: &cmdline,
        protocol: protocol(config),
        rsdp,
    };
    let path = config.kernel.as_ref().map(|kernel| kernel.path.clone());
    let boot = boot::plan(inputs.kernel, &shape).map_err(|reason| PlanError::Boot {
        path: path.clone(),
        reason,
    })?;
    Ok(Blueprint {
        cpus: config.cpus.get(),
        memory: memory(config),
        kernel: KernelBlueprint {
            path,
            format: Some(inputs.kernel.format()),
        },
        boot: Some(boot),
        cmdline,
        platform,
        tables: placements,
        devices,
        console: config.console.clone(),
        initrd: config.initrd.clone(),
        assisted: inputs.host.assisted,
        stop_timeout: config.stop_timeout,
    })
}

/// Plans the machine that goes on with what a snapshot holds, whose kernel was started with
/// `cmdline`. There is nothing to place: its memory has all of it.
///
/// # Errors
/// When the host lacks memory, CPUs or a feature.
pub fn plan_restored(
    config: &Config,
    host: &HostCaps,
    cmdline: String,
) -> Result<Blueprint, PlanError> {
    check_host(config, host)?;
    let devices = devices::list(config);
    let path = config.kernel.as_ref().map(|kernel| kernel.path.clone());
    Ok(Blueprint {
        cpus: config.cpus.get(),
        memory: memory(config),
        kernel: KernelBlueprint { path, format: None },
        boot: None,
        cmdline,
        platform: platform(config, &devices),
        tables: Vec::new(),
        devices,
        console: config.console.clone(),
        initrd: None,
        assisted: host.assisted,
        stop_timeout: config.stop_timeout,
    })
}

/// How the guest is told of the machine. The virtio devices are told of once, by ACPI or by the
/// command line: a kernel that heard of them twice would register each device twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    acpi: bool,
    mptable: bool,
    devices_by_cmdline: bool,
}

impl Told {
    fn choose(inputs: &Inputs<'_>) -> Self {
        let config = inputs.config;
        // The built-in kernel has no ACPI code, which saves it a third of its start.
        let reads_acpi = config.kernel.is_some()
            && inputs.kernel_reads_acpi
            && !config
                .cmdline
                .as_str()
                .split_whitespace()
                .any(|word| word == "acpi=off");
        let (acpi, mptable) = match config.platform {
            PlatformTables::Auto => (reads_acpi, true),
            PlatformTables::Acpi => (true, false),
            PlatformTables::Mptable => (false, true),
            PlatformTables::Both => (true, true),
        };
        let devices_by_cmdline = match config.platform {
            PlatformTables::Acpi => false,
            PlatformTables::Mptable => true,
            PlatformTables::Auto | PlatformTables::Both => !reads_acpi,
        };
        Self {
            acpi,
            mptable,
            devices_by_cmdline,
        }
    }
}

fn check_host(config: &Config, host: &HostCaps) -> Result<(), PlanError> {
    if let Some(missing) = host
        .kvm
        .features()
        .iter()
        .find(|one| one.required && !one.found)
    {
        return Err(PlanError::Kvm {
            name: missing.name,
            purpose: missing.purpose,
        });
    }
    let cpus = config.cpus.get();
    if u32::from(cpus) > host.kvm.max_vcpus {
        let most = host.kvm.max_vcpus.into();
        let problem = Problem::TooMany {
            most,
            of: "this host's KVM",
        };
        return Err(ConfigError::new("cpus", &cpus, problem).into());
    }
    let bytes = config.memory.bytes();
    if bytes > host.memory_bytes {
        let problem = Problem::BeyondHost {
            has: host.memory_bytes,
        };
        return Err(ConfigError::new("memory", &config.memory_text, problem).into());
    }
    let needed = bytes / HUGE_PAGE_BYTES;
    if config.hugepages && needed > host.free_hugepages {
        let problem = Problem::FewHugepages {
            needed,
            free: host.free_hugepages,
        };
        return Err(ConfigError::new("memory", &config.memory_text, problem).into());
    }
    Ok(())
}

fn protocol(config: &Config) -> Protocol {
    match config.kernel.as_ref().map(|kernel| kernel.protocol) {
        None | Some(KernelProtocol::Auto) => Protocol::Auto,
        Some(KernelProtocol::Linux64) => Protocol::Linux64,
        Some(KernelProtocol::Pvh) => Protocol::Pvh,
    }
}

fn memory(config: &Config) -> MemoryBlueprint {
    let bytes = config.memory.bytes();
    let slots = (0..)
        .zip(layout::ram_ranges(bytes))
        .map(|(slot, (start, len))| MemorySlot { slot, start, len })
        .collect();
    MemoryBlueprint {
        bytes,
        hugepages: config.hugepages,
        slots,
    }
}

fn platform(config: &Config, devices: &[DeviceBlueprint]) -> Platform {
    // What has both a window of memory and a line is a virtio device.
    let virtio = devices
        .iter()
        .filter_map(|device| match (device.at, device.line) {
            (Window::Mmio { start, len }, Some(line)) => Some(VirtioMmio {
                address: start,
                size: len,
                line,
            }),
            _ => None,
        });
    let pci = devices
        .iter()
        .any(|device| device.kind == DeviceKind::PciBus)
        .then_some(PciBus {
            ecam: layout::PCI_ECAM,
            memory: (layout::PCI_MEMORY, layout::PCI_MEMORY_SIZE),
        });
    Platform {
        cpus: config.cpus.get(),
        ram: layout::ram_ranges(config.memory.bytes()),
        virtio: virtio.collect(),
        pci,
        serial: true,
    }
}
