//! Prepares a VM for the assists: two capabilities and a filter of MSR writes.

use kvm_bindings::{
    KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER,
    kvm_enable_cap,
};
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

use super::{AssistError, Needs};

/// `IA32_STAR`: the segments of `syscall` and `sysret`.
pub(super) const MSR_STAR: u32 = 0xc000_0081;
/// `IA32_LSTAR`: where `syscall` goes in 64-bit code.
pub(super) const MSR_LSTAR: u32 = 0xc000_0082;
/// `IA32_FMASK`: the flags that `syscall` clears.
pub(super) const MSR_FMASK: u32 = 0xc000_0084;

/// Makes the VM hand over what its KVM cannot do. Does nothing on a host without needs. Call it
/// before the first vCPU runs.
///
/// # Errors
/// When KVM lacks or refuses one of the capabilities.
pub fn prepare_vm(vm: &VmFd, needs: &Needs) -> Result<(), AssistError> {
    if !needs.any() {
        return Ok(());
    }
    let failures = kvm_enable_cap {
        cap: KVM_CAP_EXIT_ON_EMULATION_FAILURE,
        args: [1, 0, 0, 0],
        ..Default::default()
    };
    vm.enable_cap(&failures)
        .map_err(AssistError::kvm("KVM_CAP_EXIT_ON_EMULATION_FAILURE"))?;
    let msrs = kvm_enable_cap {
        cap: KVM_CAP_X86_USER_SPACE_MSR,
        args: [u64::from(KVM_MSR_EXIT_REASON_FILTER), 0, 0, 0],
        ..Default::default()
    };
    vm.enable_cap(&msrs)
        .map_err(AssistError::kvm("KVM_CAP_X86_USER_SPACE_MSR"))?;
    // A clear bit denies the write to KVM and brings it to us: STAR, LSTAR, FMASK; not CSTAR.
    // Reads stay with KVM, which holds the same values. KVM reads the bitmap in longs.
    let range = MsrFilterRange {
        flags: MsrFilterRangeFlags::WRITE,
        base: MSR_STAR,
        msr_count: 4,
        bitmap: &[0b0100, 0, 0, 0, 0, 0, 0, 0],
    };
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &[range])
        .map_err(AssistError::kvm(
            "the filter of MSR writes (KVM_X86_SET_MSR_FILTER)",
        ))
}
