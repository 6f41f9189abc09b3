//! The whole machine as a user asks for it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::text::words;
use super::{
    BalloonSpec, ConsolePortSpec, ConsoleSpec, DiskSpec, KernelSpec, MmdsSpec, NetSpec,
    PanicAction, RateSpec, SizeSpec, VsockSpec, WatchdogAction,
};
use crate::strict;

/// A machine as a user asks for it. Every field has a default; `{}` is the built-in guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MachineSpec {
    /// The kernel; without one, the built-in guest with its system image as first disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelSpec>,
    /// The initial RAM disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub initrd: Option<PathBuf>,
    /// Text for the kernel's command line, put after what Coracle chooses, so that it wins.
    pub cmdline: String,
    /// Whether Coracle puts its own choice before `cmdline`.
    pub default_cmdline: bool,
    /// The number of virtual CPUs.
    pub cpus: u64,
    /// The guest's memory; without it, 128 MiB for the built-in guest and 512 MiB for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<SizeSpec>,
    /// Back the guest's memory with 2 MiB pages from the host's reserved pool.
    pub hugepages: bool,
    /// The disks, in the order in which the guest names them.
    pub disks: Vec<DiskSpec>,
    /// The network interfaces, in the order in which the guest names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<NetSpec>,
    /// The metadata service, where there is one on a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mmds: Option<MmdsSpec>,
    /// The console.
    pub console: ConsoleSpec,
    /// Further ports: named channels between programs of the host and of the guest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub console_ports: Vec<ConsolePortSpec>,
    /// Whether the guest gets a source of random numbers (virtio-rng).
    pub rng: bool,
    /// How many bytes of them it gives in a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng_bandwidth: Option<RateSpec>,
    /// How many times in a time it gives some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng_iops: Option<RateSpec>,
    /// The memory balloon, where there is to be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonSpec>,
    /// The watchdog, where there is to be one: what it does when the guest hangs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogAction>,
    /// What follows when the guest's kernel tells of its panic.
    pub panic: PanicAction,
    /// Streams between programs of the guest and of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockSpec>,
    /// How the guest reaches its virtio devices.
    pub transport: Transport,
    /// Which tables describe the machine to the guest.
    pub platform: PlatformTables,
    /// How long a guest may take to stop after it was asked to, in milliseconds.
    pub stop_timeout_ms: u64,
}

impl MachineSpec {
    /// The specification as a text that [`from_json`](Self::from_json) reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        // It fails only for a path that is no UTF-8, which nobody can have given.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a specification.
    ///
    /// # Errors
    /// What is wrong with the text, one sentence.
    pub fn from_json(text: &str) -> Result<Self, String> {
        strict::from_slice(text.as_bytes()).map_err(|error| error.to_string())
    }
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            kernel: None,
            initrd: None,
            cmdline: String::new(),
            default_cmdline: true,
            cpus: 1,
            memory: None,
            hugepages: false,
            disks: Vec::new(),
            nets: Vec::new(),
            mmds: None,
            console: ConsoleSpec::default(),
            console_ports: Vec::new(),
            rng: true,
            rng_bandwidth: None,
            rng_iops: None,
            balloon: None,
            watchdog: None,
            panic: PanicAction::End,
            vsock: None,
            transport: Transport::Mmio,
            platform: PlatformTables::Auto,
            stop_timeout_ms: 10_000,
        }
    }
}

impl MachineSpec {
    /// The name by which the API knows a disk: its own, else the one that its device has in the
    /// machine, where the built-in guest's system image comes first.
    #[must_use]
    pub fn disk_name(&self, index: usize) -> String {
        let own = self.disks.get(index).and_then(|disk| disk.id.clone());
        let place = index.saturating_add(usize::from(self.kernel.is_none()));
        own.unwrap_or_else(|| format!("disk{place}"))
    }

    /// The name by which the API knows a network interface.
    #[must_use]
    pub fn net_name(&self, index: usize) -> String {
        let own = self.nets.get(index).and_then(|net| net.id.clone());
        own.unwrap_or_else(|| format!("net{index}"))
    }
}

/// Which tables describe the machine to the guest. Where there are ACPI tables, they tell of the
/// virtio devices; without them the command line does (`virtio_mmio.device=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PlatformTables {
    /// Both, or only the MP table where the kernel is known to have no ACPI.
    #[default]
    Auto,
    /// ACPI tables only.
    Acpi,
    /// The MP table only.
    Mptable,
    /// Both.
    Both,
}

/// How the guest reaches its virtio devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A window in memory for each, told by ACPI or the command line: virtio-mmio.
    #[default]
    Mmio,
    /// Functions on a PCI bus: virtio-pci.
    Pci,
}

words!(Transport, "transport", "mmio, pci", {
    "mmio" => Transport::Mmio,
    "pci" => Transport::Pci,
});

words!(PlatformTables, "platform", "auto, acpi, mptable, both", {
    "auto" => PlatformTables::Auto,
    "acpi" => PlatformTables::Acpi,
    "mptable" => PlatformTables::Mptable,
    "both" => PlatformTables::Both,
});
