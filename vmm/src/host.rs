//! What this host offers, as plain data: filled by `kvm` and by [`HostCaps::gather`], judged by
//! [`crate::plan`] and by [`doctor`]. No ioctl is made here.

pub mod doctor;
pub mod net;

use std::fs;
use std::path::Path;

use api::doctor::HostKind;

use crate::kvm::Kvm;
use crate::kvm::assist::Needs;

/// What this host offers to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCaps {
    /// What its KVM can do.
    pub kvm: KvmCaps,
    /// All of its memory, in bytes.
    pub memory_bytes: u64,
    /// Free reserved pages of 2 MiB. Zero where nobody asked.
    pub free_hugepages: u64,
    /// Whether its KVM leaves work to the monitor (`kvm::assist`).
    pub assisted: bool,
    /// What a Linux kernel must be told to run on it.
    pub kernel_arguments: Vec<&'static str>,
}

/// What a KVM can do. `kvm::system` fills it; the numbers of the capabilities stay there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvmCaps {
    /// Most virtual CPUs of a machine.
    pub max_vcpus: u32,
    /// Memory slots (`KVM_CAP_USER_MEMORY`).
    pub user_memory: bool,
    /// Local APICs in the kernel, the I/O APIC in the monitor (`KVM_CAP_SPLIT_IRQCHIP`).
    pub split_irqchip: bool,
    /// Interrupts from eventfds (`KVM_CAP_IRQFD`).
    pub irqfd: bool,
    /// Doorbells to eventfds (`KVM_CAP_IOEVENTFD`).
    pub ioeventfd: bool,
    /// Routes of interrupts (`KVM_CAP_IRQ_ROUTING`).
    pub irq_routing: bool,
    /// Message-signalled interrupts by a call (`KVM_CAP_SIGNAL_MSI`).
    pub signal_msi: bool,
    /// Kicks of a virtual CPU without a race (`KVM_CAP_IMMEDIATE_EXIT`).
    pub immediate_exit: bool,
    /// The deadline mode of the APIC's timer (`KVM_CAP_TSC_DEADLINE_TIMER`).
    pub tsc_deadline: bool,
    /// The guest's CPUID can be set (`KVM_CAP_EXT_CPUID`).
    pub set_cpuid: bool,
    /// The KVM clock can be adjusted (`KVM_CAP_ADJUST_CLOCK`).
    pub adjust_clock: bool,
    /// Read-only memory slots (`KVM_CAP_READONLY_MEM`).
    pub readonly_memory: bool,
    /// Large register states (`KVM_CAP_XSAVE2`).
    pub xsave2: bool,
    /// Dirty pages as a ring (`KVM_CAP_DIRTY_LOG_RING`).
    pub dirty_ring: bool,
    /// Exits where emulation failed (`KVM_CAP_EXIT_ON_EMULATION_FAILURE`).
    pub emulation_failure_exit: bool,
    /// Breakpoints and single steps (`KVM_CAP_SET_GUEST_DEBUG`).
    pub guest_debug: bool,
    /// Exits on chosen MSRs (`KVM_CAP_X86_MSR_FILTER` and `KVM_CAP_X86_USER_SPACE_MSR`).
    pub msr_filter: bool,
}

/// A feature of KVM by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvmFeature {
    /// The name of the capability, as the kernel's documentation has it.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether no machine starts without it.
    pub required: bool,
    /// Whether it is there.
    pub found: bool,
}

impl KvmCaps {
    /// The KVM of any stock kernel of the last years; what a plan assumes where there is no KVM.
    #[must_use]
    pub fn stock() -> Self {
        Self {
            max_vcpus: 1024,
            user_memory: true,
            split_irqchip: true,
            irqfd: true,
            ioeventfd: true,
            irq_routing: true,
            signal_msi: true,
            immediate_exit: true,
            tsc_deadline: true,
            set_cpuid: true,
            adjust_clock: true,
            readonly_memory: true,
            xsave2: true,
            dirty_ring: true,
            emulation_failure_exit: true,
            guest_debug: true,
            msr_filter: true,
        }
    }

    /// Every feature with its name, those that a machine needs first.
    #[must_use]
    pub fn features(&self) -> [KvmFeature; 16] {
        let one = |required, name, purpose, found| KvmFeature {
            name,
            purpose,
            required,
            found,
        };
        let needed = |name, purpose, found| one(true, name, purpose, found);
        let useful = |name, purpose, found| one(false, name, purpose, found);
        let c = self;
        [
            needed("KVM_CAP_USER_MEMORY", "guest memory", c.user_memory),
            needed(
                "KVM_CAP_SPLIT_IRQCHIP",
                "interrupt controllers",
                c.split_irqchip,
            ),
            needed("KVM_CAP_IRQ_ROUTING", "interrupt routes", c.irq_routing),
            needed("KVM_CAP_IRQFD", "interrupts of devices", c.irqfd),
            needed("KVM_CAP_SIGNAL_MSI", "interrupts by message", c.signal_msi),
            needed(
                "KVM_CAP_IMMEDIATE_EXIT",
                "stopping a virtual CPU",
                c.immediate_exit,
            ),
            needed(
                "KVM_CAP_EXT_CPUID",
                "the guest's view of the CPU",
                c.set_cpuid,
            ),
            useful(
                "KVM_CAP_IOEVENTFD",
                "fast doorbells of devices",
                c.ioeventfd,
            ),
            useful(
                "KVM_CAP_TSC_DEADLINE_TIMER",
                "the guest's timer",
                c.tsc_deadline,
            ),
            useful(
                "KVM_CAP_ADJUST_CLOCK",
                "the guest's clock after a pause",
                c.adjust_clock,
            ),
            useful(
                "KVM_CAP_READONLY_MEM",
                "read-only memory",
                c.readonly_memory,
            ),
            useful("KVM_CAP_XSAVE2", "saving wide registers", c.xsave2),
            useful(
                "KVM_CAP_DIRTY_LOG_RING",
                "tracking changed memory",
                c.dirty_ring,
            ),
            useful(
                EMULATION_FAILURE,
                "completing instructions",
                c.emulation_failure_exit,
            ),
            useful("KVM_CAP_SET_GUEST_DEBUG", "breakpoints", c.guest_debug),
            useful(
                "KVM_CAP_X86_MSR_FILTER",
                "watching model-specific registers",
                c.msr_filter,
            ),
        ]
    }
}

const EMULATION_FAILURE: &str = "KVM_CAP_EXIT_ON_EMULATION_FAILURE";

impl HostCaps {
    /// What this host offers, given what its KVM said. Costs one system call, and one small read
    /// when `hugepages` asks for the pool.
    #[must_use]
    pub fn gather(kvm: KvmCaps, needs: &Needs, hugepages: bool) -> Self {
        let root = Path::new("/");
        Self {
            kvm,
            memory_bytes: memory_bytes(),
            free_hugepages: if hugepages { free_hugepages(root) } else { 0 },
            assisted: needs.any(),
            kernel_arguments: needs.kernel_arguments().to_vec(),
        }
    }
}

/// What this host's KVM leaves undone, told from the processor.
#[must_use]
pub fn needs(kvm: &Kvm) -> Needs {
    Needs::detect(kvm.raw())
}

/// What kind of host a processor makes, told by its CPUID: no VMX and no SVM, and /dev/kvm works
/// none the less, means that KVM emulates.
#[must_use]
pub fn kind(vmx: bool, svm: bool) -> HostKind {
    match (vmx, svm) {
        (true, _) => HostKind::StockIntel,
        (_, true) => HostKind::StockAmd,
        (false, false) => HostKind::Emulating,
    }
}

/// All memory of the host (`sysinfo`, not `/proc/meminfo`, which costs the kernel a walk).
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

fn free_hugepages(root: &Path) -> u64 {
    fs::read_to_string(root.join("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_memory() {
        assert!(memory_bytes() > 64 << 20);
    }

    #[test]
    fn stock_lacks_nothing() {
        assert!(
            KvmCaps::stock()
                .features()
                .iter()
                .all(|feature| feature.found)
        );
        assert!(
            KvmCaps::default()
                .features()
                .iter()
                .all(|feature| !feature.found)
        );
    }

    #[test]
    fn kinds() {
        assert_eq!(kind(true, false), HostKind::StockIntel);
        assert_eq!(kind(false, true), HostKind::StockAmd);
        assert_eq!(kind(false, false), HostKind::Emulating);
    }
}
