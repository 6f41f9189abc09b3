//! How the vCPUs are arranged: one package, one core a vCPU, one thread a core.

use super::{CpuidPolicy, Leaf};

/// Intel's extended topology, and its second version.
const EXTENDED: u32 = 0xb;
const EXTENDED_2: u32 = 0x1f;

// Types of a level of the extended topology, at bit 8 of ECX.
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

// Leaf 1, EDX: there is more than one logical processor in the package.
const HYPER_THREADING: u32 = 1 << 28;
// Leaf 0x8000_0001, ECX: these are cores, not threads (AMD).
const CORES_NOT_THREADS: u32 = 1 << 1;

/// Whether [`leaves`] makes this function anew.
pub(super) fn replaces(function: u32) -> bool {
    matches!(function, EXTENDED | EXTENDED_2)
}

/// Bits of an APIC identity that number the cores.
fn core_bits(policy: &CpuidPolicy) -> u32 {
    policy.cpus.max(1).next_power_of_two().trailing_zeros()
}

/// Replaces the bits `shift..shift + bits` of `register`; a value too large is cut to fit.
fn put(register: &mut u32, shift: u32, bits: u32, value: u32) {
    let most = (1 << bits) - 1;
    *register = *register & !(most << shift) | value.min(most) << shift;
}

/// The extended topology, as far as the host's processor has it.
pub(super) fn leaves(host: &[Leaf], policy: &CpuidPolicy) -> Vec<Leaf> {
    let highest = host
        .iter()
        .find(|leaf| leaf.function == 0)
        .map_or(0, |leaf| leaf.eax);
    let functions = [EXTENDED, EXTENDED_2]
        .into_iter()
        .filter(|function| *function <= highest);
    functions
        .flat_map(|function| levels(function, policy))
        .collect()
}

fn levels(function: u32, policy: &CpuidPolicy) -> [Leaf; 3] {
    let level = |index: u32, shift: u32, processors: u32, kind: u32| Leaf {
        function,
        index,
        significant_index: true,
        eax: shift,
        ebx: processors,
        ecx: index | kind,
        edx: policy.vcpu,
    };
    [
        level(0, 0, 1, LEVEL_THREAD),
        level(1, core_bits(policy), policy.cpus, LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

/// Puts the topology into the leaves that hold other things too.
pub(super) fn adjust(leaf: &mut Leaf, policy: &CpuidPolicy, amd: bool) {
    let several = policy.cpus > 1;
    let last_core = (1 << core_bits(policy)) - 1;
    // Of a cache: its first two levels belong to a core.
    let sharing = if cache_level(leaf) >= 3 { last_core } else { 0 };
    match leaf.function {
        0x1 => {
            put(&mut leaf.ebx, 16, 8, last_core + 1);
            put(&mut leaf.ebx, 24, 8, policy.vcpu);
            put(
                &mut leaf.edx,
                HYPER_THREADING.trailing_zeros(),
                1,
                several.into(),
            );
        }
        0x4 if cache_kind(leaf) != 0 => {
            put(&mut leaf.eax, 14, 12, sharing);
            put(&mut leaf.eax, 26, 6, last_core);
        }
        0x8000_001d if cache_kind(leaf) != 0 => {
            put(&mut leaf.eax, 14, 12, sharing);
        }
        0x8000_0001 if amd => {
            put(
                &mut leaf.ecx,
                CORES_NOT_THREADS.trailing_zeros(),
                1,
                several.into(),
            );
        }
        0x8000_0008 if amd => {
            put(&mut leaf.ecx, 0, 8, policy.cpus.saturating_sub(1));
            put(&mut leaf.ecx, 12, 4, core_bits(policy));
        }
        0x8000_001e if amd => {
            (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (policy.vcpu, policy.vcpu & 0xff, 0, 0);
        }
        _ => {}
    }
}

fn cache_kind(leaf: &Leaf) -> u32 {
    leaf.eax & 0x1f
}

fn cache_level(leaf: &Leaf) -> u32 {
    leaf.eax >> 5 & 7
}
