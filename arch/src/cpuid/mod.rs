//! CPUID leaves as plain data and the policy that turns host leaves into guest leaves.
//!
//! The guest sees the host's processor without what only a host can use, with a topology of its
//! own (one package, one thread a core, APIC identity = vCPU number), as a guest that knows it is
//! one. References: Intel SDM 2A CPUID, AMD APM 3 appendix E, KVM's cpuid.rst for 0x4000_00xx.

mod hide;
mod topology;

pub use hide::{Feature, Hide};

/// One leaf: what `cpuid` answers for `function` in EAX and, if significant, `index` in ECX.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Leaf {
    /// EAX before.
    pub function: u32,
    /// ECX before.
    pub index: u32,
    /// Whether ECX matters for this function.
    pub significant_index: bool,
    /// EAX after.
    pub eax: u32,
    /// EBX after.
    pub ebx: u32,
    /// ECX after.
    pub ecx: u32,
    /// EDX after.
    pub edx: u32,
}

impl Leaf {
    fn clear(&mut self) {
        (self.eax, self.ebx, self.ecx, self.edx) = (0, 0, 0, 0);
    }
}

/// What the leaves of one vCPU depend on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CpuidPolicy {
    /// This vCPU, from 0; its APIC identity.
    pub vcpu: u32,
    /// How many vCPUs there are, at least 1.
    pub cpus: u32,
    /// Features to keep from the guest.
    pub hide: Hide,
    /// Whether the local APIC timer has the TSC deadline mode. KVM never says so itself.
    pub tsc_deadline: bool,
}

// Leaf 1, ECX.
const DTES64: u32 = 1 << 2;
const MONITOR: u32 = 1 << 3;
const DS_CPL: u32 = 1 << 4;
const VMX: u32 = 1 << 5;
const SMX: u32 = 1 << 6;
const SPEED_STEP: u32 = 1 << 7;
const THERMAL_2: u32 = 1 << 8;
const SILICON_DEBUG: u32 = 1 << 11;
const XTPR: u32 = 1 << 14;
const PDCM: u32 = 1 << 15;
const DCA: u32 = 1 << 18;
const TSC_DEADLINE: u32 = 1 << 24;
const OSXSAVE: u32 = 1 << 27;
const HYPERVISOR: u32 = 1 << 31;
/// What only a host can use, and OSXSAVE, which follows the guest's CR4.
const HOST_ONLY_1_ECX: u32 = DTES64
    | MONITOR
    | DS_CPL
    | VMX
    | SMX
    | SPEED_STEP
    | THERMAL_2
    | SILICON_DEBUG
    | XTPR
    | PDCM
    | DCA
    | OSXSAVE;

// Leaf 1, EDX.
const DEBUG_STORE: u32 = 1 << 21;
const ACPI_THERMAL: u32 = 1 << 22;
const THERMAL: u32 = 1 << 29;
const PENDING_BREAK: u32 = 1 << 31;
const HOST_ONLY_1_EDX: u32 = DEBUG_STORE | ACPI_THERMAL | THERMAL | PENDING_BREAK;

// Leaf 6, EAX: the APIC timer never stops.
const ARAT: u32 = 1 << 2;

// Leaf 7, subleaf 0: SGX, cache monitoring, MPX, cache allocation, processor trace.
const HOST_ONLY_7_EBX: u32 = 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 25;
// Memory encryption, SGX launch control.
const HOST_ONLY_7_ECX: u32 = 1 << 13 | 1 << 30;
// Hybrid processor, PCONFIG, last branch records.
const HOST_ONLY_7_EDX: u32 = 1 << 15 | 1 << 18 | 1 << 19;

// Leaf 0x8000_0001, ECX: SVM, IBS, SKINIT, watchdog, node identity, performance counters (3),
// MWAITX.
const HOST_ONLY_EXT_1_ECX: u32 =
    1 << 2 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 19 | 1 << 23 | 1 << 24 | 1 << 28 | 1 << 29;

// Leaf 0x8000_0007, EDX: the TSC runs at one rate.
const INVARIANT_TSC: u32 = 1 << 8;

/// Turns what KVM supports on this host into what one vCPU's guest sees.
#[must_use]
pub fn guest_leaves(host: &[Leaf], policy: &CpuidPolicy) -> Vec<Leaf> {
    let amd = is_amd(host);
    let mut leaves: Vec<Leaf> = host
        .iter()
        .filter(|leaf| !topology::replaces(leaf.function))
        .map(|leaf| {
            let mut leaf = *leaf;
            keep_from_guest(&mut leaf);
            tell_guest(&mut leaf, policy);
            topology::adjust(&mut leaf, policy, amd);
            policy.hide.apply(&mut leaf);
            leaf
        })
        .collect();
    leaves.extend(topology::leaves(host, policy));
    leaves
}

fn is_amd(host: &[Leaf]) -> bool {
    let vendor = host.iter().find(|leaf| leaf.function == 0);
    // The first four letters of "AuthenticAMD" and "HygonGenuine" are in EBX.
    vendor.is_some_and(|leaf| matches!(&leaf.ebx.to_le_bytes(), b"Auth" | b"Hygo"))
}

/// Takes away what only a host can use.
fn keep_from_guest(leaf: &mut Leaf) {
    match (leaf.function, leaf.index) {
        (0x1, _) => {
            leaf.ecx &= !HOST_ONLY_1_ECX;
            leaf.edx &= !HOST_ONLY_1_EDX;
        }
        (0x6, _) => {
            leaf.eax &= ARAT;
            (leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0);
        }
        (0x7, 0) => {
            leaf.ebx &= !HOST_ONLY_7_EBX;
            leaf.ecx &= !HOST_ONLY_7_ECX;
            leaf.edx &= !HOST_ONLY_7_EDX;
        }
        // Serial number, MWAIT, DCA, performance counters, cache monitoring and allocation, SGX,
        // processor trace, key locker, hybrid, last branch records, counters again.
        (0x3 | 0x5 | 0x9 | 0xa | 0xf | 0x10 | 0x12 | 0x14 | 0x19..=0x1c | 0x23, _) => leaf.clear(),
        (0x8000_0001, _) => leaf.ecx &= !HOST_ONLY_EXT_1_ECX,
        (0x8000_0007, _) => {
            leaf.edx &= INVARIANT_TSC;
            (leaf.eax, leaf.ebx, leaf.ecx) = (0, 0, 0);
        }
        // SVM, IBS, lightweight profiling, memory encryption, bandwidth, counters.
        (0x8000_000a | 0x8000_001b | 0x8000_001c | 0x8000_001f | 0x8000_0020 | 0x8000_0022, _) => {
            leaf.clear();
        }
        _ => {}
    }
}

/// Tells the guest that it is one and which timer it has.
fn tell_guest(leaf: &mut Leaf, policy: &CpuidPolicy) {
    if leaf.function == 1 {
        leaf.ecx |= HYPERVISOR;
        leaf.ecx &= !TSC_DEADLINE;
        if policy.tsc_deadline {
            leaf.ecx |= TSC_DEADLINE;
        }
    }
}

#[cfg(test)]
mod tests;
