//! vCPUs of the host's own KVM, saved and put back into others.

use std::path::Path;

use arch::cpuid::{CpuidPolicy, guest_leaves};
use arch::msr;
use devices::state::{Decode as _, Encode as _};

use super::*;
use crate::kvm::Exit;
use crate::kvm::assist::Needs;
use crate::vcpu::tests::{CODE, flat_start, vm_with};

/// A machine of one vCPU whose code counts in `eax` and writes the count to port 0x10.
fn machine() -> (Kvm, Vm, Vcpu) {
    let kvm = Kvm::open(Path::new("/dev/kvm")).unwrap();
    let needs = Needs::detect(kvm.raw());
    // inc eax; out 0x10, al; jmp back
    let (vm, _) = vm_with(&kvm, &needs, &[0x40, 0xe6, 0x10, 0xeb, 0xfb]);
    let vcpu = vm.create_vcpu(0, &needs).unwrap();
    (kvm, vm, vcpu)
}

fn started() -> (Kvm, Vm, Vcpu) {
    let (kvm, vm, vcpu) = machine();
    let policy = CpuidPolicy {
        vcpu: 0,
        cpus: 1,
        hide: Needs::detect(kvm.raw()).hide(),
        tsc_deadline: true,
    };
    let leaves = guest_leaves(&kvm.supported_cpuid().unwrap(), &policy);
    vcpu.set_cpuid(&leaves).unwrap();
    vcpu.set_msrs(&msr::boot_msrs()).unwrap();
    vcpu.set_start(&flat_start(CODE)).unwrap();
    (kvm, vm, vcpu)
}

/// What the guest writes next.
fn next(vcpu: &mut Vcpu) -> u8 {
    loop {
        match vcpu.run().unwrap() {
            Exit::PortWrite { data, .. } => return data[0],
            Exit::Interrupted | Exit::Kicked => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Completes the last exit.
fn settle(vcpu: &mut Vcpu) {
    assert!(vcpu.finish().unwrap().is_none());
}

/// The saved state without what goes on by itself.
fn at_rest(mut state: VcpuStateV1) -> VcpuStateV1 {
    state.msrs.retain(|&(index, _)| index != msr::TSC);
    state
}

#[test]
fn a_guest_goes_on_in_another_machine() {
    if harness::skip::without_kvm() {
        return;
    }
    let (kvm, vm, mut vcpu) = started();
    vcpu.set_msrs(&[(0x2ff, 0xc06), (0xc000_0102, 77)]).unwrap();
    for count in 1..=5 {
        assert_eq!(next(&mut vcpu), count);
    }
    settle(&mut vcpu);
    let msrs = kvm.saved_msrs().unwrap();
    let (saved, machine_state) = (vcpu.save(&msrs).unwrap(), vm.save().unwrap());
    for expected in [(0x2ff, 0xc06), (0xc000_0102, 77), (0x1a0, 1)] {
        assert!(saved.msrs.contains(&expected), "{expected:x?}");
    }
    drop((vcpu, vm));

    let read = VcpuStateV1::from_bytes(&saved.to_bytes()).unwrap();
    let (_, other, mut clone) = machine();
    clone.restore(&read).unwrap();
    other.restore(&machine_state).unwrap();
    assert_eq!(at_rest(clone.save(&msrs).unwrap()), at_rest(saved));
    assert!(other.save().unwrap().clock_ns >= machine_state.clock_ns);
    assert_eq!(next(&mut clone), 6);
    assert_eq!(next(&mut clone), 7);
}

#[test]
fn what_no_kvm_wrote_is_refused() {
    if harness::skip::without_kvm() {
        return;
    }
    let (kvm, _vm, mut vcpu) = started();
    next(&mut vcpu);
    settle(&mut vcpu);
    let saved = vcpu.save(&kvm.saved_msrs().unwrap()).unwrap();
    let refused = |change: &dyn Fn(&mut VcpuStateV1)| {
        let mut state = saved.clone();
        change(&mut state);
        let (_, _vm, fresh) = machine();
        fresh.restore(&state).unwrap_err().to_string()
    };
    let cut = refused(&|state| state.sregs.truncate(8));
    assert_eq!(cut, "the saved system registers make no sense");
    let long = refused(&|state| state.lapic.push(0));
    assert_eq!(long, "the saved local APIC make no sense");
    let many = refused(&|state| state.cpuid = vec![state.cpuid[0].clone(); 9999]);
    assert_eq!(many, "the saved CPUID leaves make no sense");
    // CR0 with paging and without protection.
    let odd = refused(&|state| {
        let mut sregs: kvm_bindings::kvm_sregs = value("", &state.sregs).unwrap();
        sregs.cr0 = 1 << 31;
        state.sregs = bytes(&sregs);
    });
    assert_eq!(odd, "setting the system registers of vCPU 0 failed in KVM");
    let unknown = refused(&|state| state.msrs.push((0x1234_5678, 1)));
    assert_eq!(
        unknown,
        "setting MSR 0x12345678 of vCPU 0 to 0x1 failed in KVM"
    );
}
