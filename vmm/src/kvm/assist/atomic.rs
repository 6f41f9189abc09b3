//! One atomic step on sixteen bytes of guest memory, which vCPUs may race for.

#![expect(
    unsafe_code,
    reason = "no safe interface offers a sixteen-byte atomic on guest memory"
)]

use std::arch::asm;

use devices::GuestRam;
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Compares and exchanges the sixteen bytes at `at`; answers what was there. `None` when they
/// are unaligned, not in guest memory, or the host's processor lacks the instruction.
pub(super) fn compare_exchange16(ram: &GuestRam, at: u64, old: u128, new: u128) -> Option<u128> {
    if !std::arch::is_x86_feature_detected!("cmpxchg16b") {
        return None;
    }
    let slice = ram.memory().get_slice(GuestAddress(at), 16).ok()?;
    let guard = slice.ptr_guard_mut();
    let target: *mut u128 = guard.as_ptr().cast();
    if !target.is_aligned() {
        return None;
    }
    let [mut low, mut high] = halves(old);
    let [new_low, new_high] = halves(new);
    // The compiler keeps RBX for itself, so it is exchanged and put back.
    // SAFETY: `target` is aligned and its sixteen bytes belong to a live mapping of guest memory,
    // which `guard` keeps. Everyone else reaches them by atomic or volatile accesses only. The
    // processor has the instruction.
    unsafe {
        asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            in("rdi") target,
            inout("rsi") new_low => _,
            inout("rax") low,
            inout("rdx") high,
            in("rcx") new_high,
            options(nostack),
        );
    }
    Some(u128::from(high) << 64 | u128::from(low))
}

/// The low and the high half.
fn halves(value: u128) -> [u64; 2] {
    let mut halves = [0; 2];
    for (half, eight) in halves
        .iter_mut()
        .zip(value.to_le_bytes().as_chunks::<8>().0)
    {
        *half = u64::from_le_bytes(*eight);
    }
    halves
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::GuestMemoryMmap;

    use super::*;

    #[test]
    fn exchanges_on_equality_and_tells_what_was_there() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let ram = GuestRam::from(Arc::new(memory));
        let (first, second) = (7 << 64 | 1, 9 << 64 | 3);
        assert_eq!(compare_exchange16(&ram, 16, 0, first), Some(0));
        assert_eq!(compare_exchange16(&ram, 16, 0, second), Some(first));
        assert_eq!(compare_exchange16(&ram, 16, first, second), Some(first));
        assert_eq!(ram.read::<u64>(16), Ok(3));
        assert_eq!(ram.read::<u64>(24), Ok(9));
        assert_eq!(compare_exchange16(&ram, 8, 0, 1), None);
        assert_eq!(compare_exchange16(&ram, 0x1000, 0, 1), None);
    }
}
