//! The whole machine as it is printed before it starts (`--print-plan`). The order of the fields
//! is the order of the output and is held by golden tests.

use serde::{Serialize, Serializer};

/// A machine: everything that it will have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachinePlan {
    /// The kernel and where the first CPU enters it.
    pub kernel: KernelPlan,
    /// The kernel's command line, as the guest reads it.
    pub cmdline: String,
    /// How many virtual CPUs there are; their local APIC ids count from 0.
    pub vcpus: u32,
    /// The guest's memory.
    pub memory: MemoryPlan,
    /// What is put into the guest's memory before it starts.
    pub placements: Vec<PlacementPlan>,
    /// Where the guest's characters go and come from.
    pub console: ConsolePlan,
    /// The tables that describe the machine.
    pub tables: Vec<String>,
    /// The devices, in the order of their creation.
    pub devices: Vec<DevicePlan>,
    /// Which device raises which line of the I/O APIC.
    pub interrupts: Vec<InterruptPlan>,
    /// The threads of the monitor.
    pub threads: Vec<ThreadPlan>,
    /// What the host has to give.
    pub host: HostNeeds,
    /// How long a guest that was asked to stop may take, in milliseconds.
    pub stop_timeout_ms: u64,
}

/// The kernel and where the first CPU enters it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelPlan {
    /// The image, or `built-in`.
    pub image: String,
    /// `elf` or `bzimage`.
    pub format: String,
    /// `linux64` or `pvh`.
    pub protocol: String,
    /// The address of the first instruction.
    pub entry: Hex,
}

/// The guest's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// All of it.
    pub bytes: u64,
    /// Whether the host backs it with reserved 2 MiB pages.
    pub hugepages: bool,
    /// The ranges as KVM maps them.
    pub slots: Vec<SlotPlan>,
    /// The ranges as the guest is told of them.
    pub map: Vec<RangePlan>,
}

/// A range of memory as KVM maps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotPlan {
    /// KVM's number for it.
    pub slot: u32,
    /// The guest's address of the first byte.
    pub start: Hex,
    /// The length.
    pub bytes: u64,
}

/// A range of memory as the guest is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RangePlan {
    /// The guest's address of the first byte.
    pub start: Hex,
    /// The length.
    pub bytes: u64,
    /// `ram`, `reserved` or `acpi`.
    pub kind: String,
}

/// Something that is put into the guest's memory before it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlacementPlan {
    /// What it is.
    pub name: String,
    /// The guest's address of the first byte.
    pub start: Hex,
    /// The length.
    pub bytes: u64,
    /// Where it comes from: `kernel`, `initrd` or `monitor`.
    pub source: String,
}

/// Where the guest's characters go and come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsolePlan {
    /// The host's side: `stdio`, `pty`, `file:PATH` or `none`.
    pub backend: String,
    /// The name of the device that carries them.
    pub device: String,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct DevicePlan {
    /// Its name, unique in the machine.
    pub name: String,
    /// What it is.
    pub model: String,
    /// Its ports, where it has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<WindowPlan>,
    /// Its window in the guest's memory, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mmio: Option<WindowPlan>,
    /// Its place on the PCI bus, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciPlan>,
    /// Its line of the I/O APIC, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The largest sizes of its queues, for a virtio device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<u16>,
    /// The host's file behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether the guest may only read it, for a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// What was chosen for it, in the words of the command line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// The thread that serves it.
    pub thread: String,
}

/// A device's place on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct PciPlan {
    /// Bus, device and function, as lspci writes them.
    pub address: String,
    /// How many messages it interrupts with.
    pub vectors: u16,
    /// The first of their numbers among KVM's interrupts (GSI).
    pub first_gsi: u32,
}

/// A range of ports or addresses that a device answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct WindowPlan {
    /// The first.
    pub start: Hex,
    /// How many.
    pub bytes: u64,
}

/// Which device raises a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterruptPlan {
    /// The pin of the I/O APIC.
    pub line: u32,
    /// The device's name.
    pub device: String,
}

/// A thread of the monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadPlan {
    /// Its name, as the host shows it.
    pub name: String,
    /// What it does.
    pub role: String,
}

/// What the host has to give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostNeeds {
    /// The files that are opened.
    pub files: Vec<FileNeed>,
    /// The features of KVM that are used.
    pub kvm: Vec<String>,
    /// Memory for the guest, at most.
    pub memory_bytes: u64,
    /// Reserved pages of 2 MiB.
    pub hugepages: u64,
    /// Whether this host's KVM leaves work to the monitor.
    pub assisted: bool,
}

/// A file that is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileNeed {
    /// Its path.
    pub path: String,
    /// `read` or `read-write`.
    pub access: String,
}

/// A number that is printed in hexadecimal, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex(pub u64);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
