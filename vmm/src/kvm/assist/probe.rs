//! What is tried in tiny guests: each class of instruction that a weak KVM is known to lack.

use std::arch::is_x86_feature_detected as has;

use kvm_bindings::kvm_regs;
use kvm_ioctls::Kvm;

use super::tiny::{Case, ENTRY, End, KERNEL_CODE, Seen, USER_CODE, run};
use super::{AssistError, Needs};

const AC: u64 = 1 << 18;
const ZF: u64 = 1 << 6;

/// One thing to try.
#[derive(Clone, Copy, Debug)]
struct Trial {
    name: &'static str,
    /// The processor has the instruction.
    there: bool,
    case: Case,
    right: fn(&Seen) -> bool,
}

/// Runs every trial that the processor can do: its name and whether the outcome was right.
pub(super) fn all(kvm: &Kvm, needs: &Needs) -> Result<Vec<(&'static str, bool)>, AssistError> {
    let mut told = Vec::new();
    for trial in trials().into_iter().filter(|trial| trial.there) {
        let seen = run(kvm, &trial.case, needs)?;
        told.push((trial.name, (trial.right)(&seen)));
    }
    Ok(told)
}

fn regs(rax: u64, rbx: u64, rcx: u64, rdx: u64) -> kvm_regs {
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        ..Default::default()
    }
}

fn kernel(code: &'static [u8], regs: kvm_regs, data: [u64; 4]) -> Case {
    Case {
        user: false,
        code,
        regs,
        data,
    }
}

fn user(code: &'static [u8]) -> Case {
    Case {
        user: true,
        code,
        regs: kvm_regs::default(),
        data: [0; 4],
    }
}

fn done(seen: &Seen) -> bool {
    seen.end == End::Done
}

fn trial(name: &'static str, there: bool, case: Case, right: fn(&Seen) -> bool) -> Trial {
    Trial {
        name,
        there,
        case,
        right,
    }
}

fn trials() -> Vec<Trial> {
    let none = kvm_regs::default;
    let mut all = vec![
        trial("int3", true, kernel(&[0xcc], none(), [0; 4]), |seen| {
            seen.end
                == End::Vector {
                    number: 3,
                    from: KERNEL_CODE + 1,
                }
        }),
        trial("fwait", true, kernel(&[0x9b], none(), [0; 4]), done),
        trial(
            "popcnt",
            has!("popcnt"),
            kernel(
                &[0xf3, 0x48, 0x0f, 0xb8, 0x06],
                regs(0, 0, 0, 0),
                [0xf0f1, 0, 0, 0],
            ),
            |seen| done(seen) && seen.regs.rax == 9,
        ),
        trial(
            "crc32",
            has!("sse4.2"),
            kernel(
                &[0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc3],
                regs(1, 0, 0, 0),
                [0; 4],
            ),
            |seen| done(seen) && seen.regs.rax == crc_of_one(),
        ),
        trial(
            "cmpxchg16b",
            has!("cmpxchg16b"),
            kernel(
                &[0xf0, 0x48, 0x0f, 0xc7, 0x0e],
                regs(1, 5, 6, 2),
                [1, 2, 0, 0],
            ),
            |seen| done(seen) && seen.regs.rflags & ZF != 0 && matches!(seen.data, [5, 6, ..]),
        ),
        trial(
            "lsl",
            true,
            kernel(&[0x48, 0x0f, 0x03, 0xc3], regs(0, 0x18, 0, 0), [0; 4]),
            |seen| done(seen) && seen.regs.rax == 0xffff_ffff && seen.regs.rflags & ZF != 0,
        ),
    ];
    all.extend(floating_point());
    all.extend(crossings());
    all
}

/// Control of the floating-point units.
fn floating_point() -> [Trial; 2] {
    let none = kvm_regs::default;
    [
        trial(
            "ldmxcsr and stmxcsr",
            true,
            kernel(
                &[0x0f, 0xae, 0x16, 0x0f, 0xae, 0x5e, 0x08],
                none(),
                [0x1fa0, 0, 0, 0],
            ),
            |seen| done(seen) && matches!(seen.data, [_, 0x1fa0, ..]),
        ),
        trial(
            "fnclex and fnstsw",
            true,
            kernel(
                &[0xdb, 0xe3, 0xdb, 0xe2, 0xdf, 0xe0],
                regs(0xffff, 0, 0, 0),
                [0; 4],
            ),
            |seen| done(seen) && seen.regs.rax == 0,
        ),
    ]
}

/// From user mode to the kernel and back.
fn crossings() -> [Trial; 3] {
    let trial = |name, case, right| trial(name, true, case, right);
    let back = kvm_regs {
        rcx: USER_CODE,
        r11: 2,
        ..Default::default()
    };
    [
        trial("syscall", user(&[0x0f, 0x05]), |seen| {
            done(seen)
                && seen.regs.rip.wrapping_sub(ENTRY) <= 2
                && seen.regs.rcx == USER_CODE + 2
                && seen.sregs.cs.selector == 0x10
                && seen.regs.rflags & AC == 0
        }),
        // Back to user mode, where `out` is not allowed: the page holds what is zero, `add`.
        trial(
            "sysret",
            kernel(&[0x48, 0x0f, 0x07], back, [0; 4]),
            |seen| matches!(seen.end, End::Vector { number: 14, from } if from == USER_CODE),
        ),
        trial("int 0x80 in user mode", user(&[0xcd, 0x80]), |seen| {
            seen.end
                == End::Vector {
                    number: 0x80,
                    from: USER_CODE + 2,
                }
        }),
    ]
}

/// CRC-32C, as the instruction computes it, of eight zero bytes on top of 1.
fn crc_of_one() -> u64 {
    let sum = (0..64).fold(1_u32, |sum, _| {
        (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
    });
    u64::from(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a stock host everything is right without help; on a weak one with it.
    #[test]
    fn everything_tried_comes_out_right_with_the_help_that_the_host_needs() {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("IGNORED: /dev/kvm cannot be opened, so no tiny guest ran");
            return;
        };
        let needs = Needs::detect(&kvm);
        let told = all(&kvm, &needs).unwrap();
        let wrong: Vec<_> = told.iter().filter(|(_, right)| !right).collect();
        assert!(wrong.is_empty(), "wrong with {needs:?}: {wrong:?}");
        assert!(told.len() >= 8);
    }

    fn here() -> Option<(Kvm, Needs)> {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("IGNORED: /dev/kvm cannot be opened, so no tiny guest ran");
            return None;
        };
        let needs = Needs::detect(&kvm);
        Some((kvm, needs))
    }

    /// User code jumps to the kernel's handlers. Its stack holds what a fault's frame would look
    /// like after `syscall` with an I/O privilege of 3, and after `int 0x80`.
    #[test]
    fn a_frame_that_user_code_forged_is_not_believed() {
        let Some((kvm, needs)) = here() else { return };
        // jmp over `syscall`; rcx: behind it; rsp: the frame; jmp to the handler.
        let page_fault: &[u8] = &[
            0xeb, 0x02, 0x0f, 0x05, 0x48, 0xc7, 0xc1, 0x04, 0x00, 0x04, 0x00, 0x48, 0xc7, 0xc4,
            0x20, 0x00, 0x04, 0x00, 0xb8, 0xe0, 0x40, 0x00, 0x00, 0xff, 0xe0, 0, 0, 0, 0, 0, 0, 0,
            0x14, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x10, 0x02, 0, 0, 0, 0, 0, 0x33, 0, 0, 0, 0, 0, 0, 0,
            0x02, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        // jmp over `int 0x80`; rsp: the frame; jmp to the handler.
        let undefined: &[u8] = &[
            0xeb, 0x02, 0xcd, 0x80, 0x48, 0xc7, 0xc4, 0x20, 0x00, 0x04, 0x00, 0xb8, 0x60, 0x40,
            0x00, 0x00, 0xff, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x00, 0x04, 0,
            0, 0, 0, 0, 0x33, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0,
        ];
        for (vector, code) in [(14, page_fault), (6, undefined)] {
            let seen = run(&kvm, &user(code), &needs).unwrap();
            let from = super::super::tiny::STUBS + 16 * vector;
            assert_eq!(seen.end, End::Vector { number: 14, from }, "{vector}");
        }
    }

    /// `popcnt` on a device's memory, which only the emulator could do: not with the rights of
    /// the kernel, and not the end of the machine.
    #[test]
    fn user_code_that_needs_the_emulator_gets_an_exception() {
        let Some((kvm, needs)) = here() else { return };
        if !needs.any() {
            return;
        }
        let popcnt = &[0xf3, 0x48, 0x0f, 0xb8, 0x04, 0x25, 0x00, 0x00, 0x05, 0x00];
        let seen = run(&kvm, &user(popcnt), &needs).unwrap();
        let end = End::Vector {
            number: 6,
            from: USER_CODE,
        };
        assert_eq!(seen.end, end);
    }

    /// A program that traces itself, and `int1`: the breakpoints of the assists take no #DB away
    /// from the guest.
    #[test]
    fn a_guests_own_debug_exceptions_are_its_own() {
        let Some((kvm, needs)) = here() else { return };
        // pushfq; or qword [rsp], 1 << 8; popfq; nop; nop
        let traced: &[u8] = &[
            0x9c, 0x48, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00, 0x9d, 0x90, 0x90,
        ];
        for (code, len) in [(traced, 11), (&[0xf1], 1)] {
            let seen = run(&kvm, &user(code), &needs).unwrap();
            let end = End::Vector {
                number: 1,
                from: USER_CODE + len,
            };
            assert_eq!(seen.end, end, "{code:x?}");
        }
    }
}
