//! One atomic step on sixteen bytes of guest memory, which vCPUs may race for.

#![expect(
    unsafe_code,
    reason = "no safe interface offers a sixteen-byte atomic on guest memory"
)]

use devices::GuestRam;
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Compares and exchanges the sixteen bytes at `at`; answers what was there. `None` when they
/// are unaligned, not in guest memory, or the host's processor lacks the instruction.
pub(super) fn compare_exchange16(ram: &GuestRam, at: u64, old: u128, new: u128) -> Option<u128> {
    if at % 16 != 0 || !std::arch::is_x86_feature_detected!("cmpxchg16b") {
        return None;
    }
    let slice = ram.memory().get_slice(GuestAddress(at), 16).ok()?;
    let guard = slice.ptr_guard_mut();
    let target: *mut u128 = guard.as_ptr().cast();
    if !target.is_aligned() {
        return None;
    }
    // SAFETY: `target` is aligned and its sixteen bytes belong to a live mapping of guest memory,
    // which `guard` keeps. Everyone else reaches them by atomic or volatile accesses only. The
    // processor has the instruction.
    Some(unsafe { compare_exchange_unchecked(target, old, new) })
}

/// # Safety
/// `target` must be aligned, valid for reads and writes, and the processor must have
/// `cmpxchg16b`.
#[target_feature(enable = "cmpxchg16b")]
unsafe fn compare_exchange_unchecked(target: *mut u128, old: u128, new: u128) -> u128 {
    use std::arch::x86_64::cmpxchg16b;
    use std::sync::atomic::Ordering::SeqCst;
    // SAFETY: passed on from the caller.
    unsafe { cmpxchg16b(target, old, new, SeqCst, SeqCst) }
}
