//! Decisions about breakpoint hits, on a machine without paging: linear is physical.

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;

const LSTAR: u64 = 0x5000;
const HANDLER: u64 = 0x1000;
const UNDEFINED_HANDLER: u64 = 0x1100;
const STACK: u64 = 0x2000;
const USER: u64 = 0x3000;
const IDT: u64 = 0x4000;

fn calls() -> SystemCalls {
    SystemCalls {
        star: 0x10 << 32 | 0x23 << 48,
        lstar: LSTAR,
        fmask: 0x4_0700,
        handlers: Some(Handlers {
            page_fault: HANDLER,
            undefined: UNDEFINED_HANDLER,
        }),
        ..SystemCalls::default()
    }
}

/// Handlers that begin with a no-op, user code `syscall; int 0x80`, and the frame given.
fn machine(frame: &[u64], rip: u64) -> (GuestRam, kvm_regs, kvm_sregs) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let ram = GuestRam::from(Arc::new(memory));
    for handler in [HANDLER, UNDEFINED_HANDLER] {
        ram.write_bytes(handler, &[0x0f, 0x1f, 0x00]).unwrap();
    }
    ram.write_bytes(USER, &[0x0f, 0x05, 0xcd, 0x80]).unwrap();
    ram.write(IDT + 0x80 * 16, &(0xee00 << 32 | 0x10_6000_u64))
        .unwrap();
    for (at, word) in (STACK..).step_by(8).zip(frame) {
        ram.write(at, word).unwrap();
    }
    let regs = kvm_regs {
        rip,
        rsp: STACK,
        rcx: USER + 2,
        r11: 0x3202,
        rflags: 2,
        ..Default::default()
    };
    let mut sregs = kvm_sregs::default();
    sregs.cs.selector = 0x10;
    sregs.idt.base = IDT;
    sregs.idt.limit = 0xfff;
    (ram, regs, sregs)
}

#[test]
fn a_system_call_is_entered_with_the_flags_of_the_frame() {
    let frame = [0x14, LSTAR, 0x33, 0x1_0246, 0x7fff_0000, 0x2b];
    let (ram, mut regs, mut sregs) = machine(&frame, HANDLER);
    let hit = calls().hit(&ram, &mut regs, &mut sregs);
    assert_eq!(hit, Hit::SystemCall { segments: false });
    assert_eq!((regs.rip, regs.rsp), (LSTAR, 0x7fff_0000));
    // IOPL 3 in R11 was the program's own idea.
    assert_eq!((regs.r11, regs.rflags), (0x246, 0x046));
}

#[test]
fn segments_are_loaded_when_the_gate_had_others() {
    let frame = [0x15, LSTAR, 0x33, 0x202, 0x7fff_0000, 0x2b];
    let (ram, mut regs, mut sregs) = machine(&frame, HANDLER);
    sregs.cs.selector = 0x60;
    let hit = calls().hit(&ram, &mut regs, &mut sregs);
    assert_eq!(hit, Hit::SystemCall { segments: true });
    assert_eq!((sregs.cs.selector, sregs.ss.selector), (0x10, 0x18));
    assert_eq!((sregs.cs.dpl, sregs.cs.l, sregs.ss.dpl), (0, 1, 0));
}

#[test]
fn other_page_faults_are_the_guests_own() {
    let frames = [
        // Elsewhere, from the kernel, no fetch.
        [0x14, LSTAR + 1, 0x33, 0x202, 0, 0],
        [0x14, LSTAR, 0x10, 0x202, 0, 0],
        [0x04, LSTAR, 0x33, 0x202, 0, 0],
    ];
    for frame in frames {
        let (ram, mut regs, mut sregs) = machine(&frame, HANDLER);
        let before = regs;
        assert_eq!(calls().hit(&ram, &mut regs, &mut sregs), Hit::Passed);
        assert_eq!(
            regs,
            kvm_regs {
                rip: HANDLER + 3,
                ..before
            }
        );
    }
    // A jump to LSTAR: nothing before RCX is `syscall`.
    let frame = [0x14, LSTAR, 0x33, 0x202, 0, 0];
    let (ram, mut regs, mut sregs) = machine(&frame, HANDLER);
    regs.rcx = USER + 1;
    assert_eq!(calls().hit(&ram, &mut regs, &mut sregs), Hit::Passed);
    // A handler whose first instruction does something.
    let (ram, mut regs, mut sregs) = machine(&[0; 6], HANDLER);
    ram.write_bytes(HANDLER, &[0x50]).unwrap();
    let before = regs;
    assert_eq!(calls().hit(&ram, &mut regs, &mut sregs), Hit::Step);
    assert_eq!(regs, before);
}

#[test]
fn software_interrupts_go_to_gates_that_user_code_may_use() {
    let frame = [USER + 2, 0x33, 0x202, 0x7fff_0000, 0x2b];
    let (ram, mut regs, mut sregs) = machine(&frame, UNDEFINED_HANDLER);
    let hit = calls().hit(&ram, &mut regs, &mut sregs);
    assert_eq!(hit, Hit::Interrupt);
    assert_eq!((regs.rip, regs.rsp), (0x6000, STACK));
    assert_eq!(ram.read::<u64>(STACK), Ok(USER + 4));
    // DPL 0, and from the kernel.
    for (attributes, cs) in [(0x8e00, 0x33), (0xee00, 0x10_u64)] {
        let frame = [USER + 2, cs, 0x202, 0x7fff_0000, 0x2b];
        let (ram, mut regs, mut sregs) = machine(&frame, UNDEFINED_HANDLER);
        ram.write(IDT + 0x80 * 16, &(attributes << 32 | 0x10_6000_u64))
            .unwrap();
        assert_eq!(calls().hit(&ram, &mut regs, &mut sregs), Hit::Passed);
        assert_eq!(ram.read::<u64>(STACK), Ok(USER + 2));
    }
}

#[test]
fn sysret_loads_user_segments_and_refuses_what_the_processor_refuses() {
    let (_, mut regs, mut sregs) = machine(&[], 0);
    regs.r11 = u64::MAX;
    assert!(calls().sysret(true, &mut regs, &mut sregs));
    assert_eq!(
        (sregs.cs.selector, sregs.ss.selector, sregs.cs.dpl),
        (0x33, 0x2b, 3)
    );
    assert_eq!((regs.rip, regs.rflags), (USER + 2, RFLAGS_RETURN | 2));
    let (_, mut regs, mut sregs) = machine(&[], 0);
    assert!(calls().sysret(false, &mut regs, &mut sregs));
    assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db), (0x23, 0, 1));
    let (_, mut regs, mut sregs) = machine(&[], 0);
    regs.rcx = 0x8000_0000_0000;
    assert!(!calls().sysret(true, &mut regs, &mut sregs));
    sregs.cs.dpl = 3;
    assert!(!calls().sysret(false, &mut regs, &mut sregs));
}
