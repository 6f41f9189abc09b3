//! `syscall` and `int n` from user code, and `sysret`.
//!
//! A weak KVM executes `syscall` as a jump to LSTAR that stays in user mode. The fetch there
//! faults, so the guest's own page-fault handler is about to run with a frame that shows it. A
//! hardware breakpoint on that handler hands the vCPU over, and the entry is done as the
//! processor would have done it. What is no system call goes on past the handler's first
//! instruction. `int n` is refused as undefined there, so the handler of #UD gets a breakpoint
//! too, and a frame that shows `int n` is handed to the gate that it names.

use devices::GuestRam;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, Msrs, kvm_guest_debug,
    kvm_guest_debug_arch, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::VcpuFd;

use super::AssistError;
use super::address_space::{AddressSpace, canonical};
use super::setup::{MSR_FMASK, MSR_LSTAR, MSR_STAR};

const RFLAGS_FIXED: u64 = 1 << 1;
const RFLAGS_RF: u64 = 1 << 16;
const RFLAGS_AC: u64 = 1 << 18;
/// The flags that `sysret` takes from R11.
const RFLAGS_RETURN: u64 = 0x003c_7fd7;
/// Of a page fault's error code: by user code (bit 2), by a fetch (bit 4).
const FAULT_USER_FETCH: u64 = 0x14;
/// DR7: G0 and G1, both for execution; bit 10 is always one.
const DR7_EXECUTE: u64 = 0x40a;
/// `syscall` and the first byte of `int n`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const INT: u8 = 0xcd;
const UNDEFINED: u8 = 6;
const PAGE_FAULT: u8 = 14;

/// What one vCPU's guest told it about system calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SystemCalls {
    star: u64,
    lstar: u64,
    fmask: u64,
    /// The interrupt table that `handlers` were read from.
    idt: u64,
    /// The breakpoints, once set.
    handlers: Option<Handlers>,
    /// Stepping over a handler's first instruction.
    stepping: bool,
}

/// The guest's handlers of #PF and #UD.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Handlers {
    page_fault: u64,
    undefined: u64,
}

/// What a breakpoint hit was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hit {
    /// A system call: the registers are those of its entry now.
    SystemCall {
        /// CS and SS had to be loaded too.
        segments: bool,
    },
    /// `int n`: the registers are those of its entry now.
    Interrupt,
    /// Any other fault, taken past the first instruction.
    Passed,
    /// Any other fault: single step first.
    Step,
}

impl SystemCalls {
    /// Reads what a vCPU that already ran elsewhere (a restored one) was told.
    pub(super) fn load(&mut self, vcpu: &VcpuFd) -> Result<(), AssistError> {
        let wanted = [MSR_STAR, MSR_LSTAR, MSR_FMASK];
        let entries = wanted.map(|index| kvm_msr_entry {
            index,
            ..Default::default()
        });
        let mut msrs = Msrs::from_entries(&entries).map_err(|_| AssistError::Msr {
            verb: "read",
            index: MSR_STAR,
        })?;
        let read = vcpu.get_msrs(&mut msrs).map_err(AssistError::kvm(
            "reading the system call MSRs (KVM_GET_MSRS)",
        ))?;
        if let Some(&index) = wanted.get(read) {
            return Err(AssistError::Msr {
                verb: "read",
                index,
            });
        }
        for entry in msrs.as_slice() {
            self.note(entry.index, entry.data);
        }
        Ok(())
    }

    /// Remembers an MSR's new value; false for one that does not matter here.
    pub(super) fn note(&mut self, index: u32, value: u64) -> bool {
        match index {
            MSR_STAR => self.star = value,
            MSR_LSTAR => {
                self.lstar = value;
                // A new kernel (kexec) writes LSTAR anew and has a handler of its own.
                self.handlers = None;
            }
            MSR_FMASK => self.fmask = value,
            _ => return false,
        }
        true
    }

    /// Whether the breakpoint has to be looked for.
    pub(super) fn wants_arming(&self, sregs: &kvm_sregs) -> bool {
        self.lstar != 0 && (self.handlers.is_none() || self.idt != sregs.idt.base)
    }

    /// Sets the breakpoint when the guest's interrupt table is there.
    pub(super) fn arm(
        &mut self,
        vcpu: &VcpuFd,
        ram: &GuestRam,
        sregs: &kvm_sregs,
    ) -> Result<(), AssistError> {
        let space = AddressSpace::new(ram, sregs);
        let handler = |vector| gate(&space, sregs, vector).map(|gate| gate.handler);
        let (Some(page_fault), Some(undefined)) = (handler(PAGE_FAULT), handler(UNDEFINED)) else {
            return Ok(());
        };
        let handlers = Handlers {
            page_fault,
            undefined,
        };
        self.idt = sregs.idt.base;
        if self.handlers != Some(handlers) {
            set_debug(vcpu, Debug::Breakpoints(handlers))?;
            self.handlers = Some(handlers);
            self.stepping = false;
        }
        Ok(())
    }

    /// Whether a debug exit at `rip` is this module's.
    pub(super) fn owns(&self, rip: u64) -> bool {
        let at = |handlers: Handlers| rip == handlers.page_fault || rip == handlers.undefined;
        self.stepping || self.handlers.is_some_and(at)
    }

    /// Ends a single step: sets the breakpoint again. False when none was under way.
    pub(super) fn end_step(&mut self, vcpu: &VcpuFd) -> Result<bool, AssistError> {
        let (true, Some(handlers)) = (self.stepping, self.handlers) else {
            return Ok(false);
        };
        set_debug(vcpu, Debug::Breakpoints(handlers))?;
        self.stepping = false;
        Ok(true)
    }

    /// Begins a single step past the breakpoint.
    pub(super) fn begin_step(&mut self, vcpu: &VcpuFd) -> Result<(), AssistError> {
        set_debug(vcpu, Debug::Step)?;
        self.stepping = true;
        Ok(())
    }

    /// Decides what a hit of the breakpoint was, and changes the registers accordingly.
    pub(super) fn hit(&self, ram: &GuestRam, regs: &mut kvm_regs, sregs: &mut kvm_sregs) -> Hit {
        let space = AddressSpace::new(ram, sregs);
        let undefined = self
            .handlers
            .is_some_and(|handlers| regs.rip == handlers.undefined);
        let done = if undefined {
            interrupt(&space, regs, sregs)
        } else {
            self.system_call(&space, regs, sregs)
        };
        done.unwrap_or_else(|| pass(&space, regs))
    }

    /// Enters a system call when the frame of a page fault shows one.
    fn system_call(
        &self,
        space: &AddressSpace<'_>,
        regs: &mut kvm_regs,
        sregs: &mut kvm_sregs,
    ) -> Option<Hit> {
        let [error, rip, cs, rflags, rsp] = frame(space, regs.rsp)?;
        let ours = rip == self.lstar
            && cs & 3 == 3
            && error & FAULT_USER_FETCH == FAULT_USER_FETCH
            && space.read_user_code(regs.rcx.wrapping_sub(2)) == Some(SYSCALL);
        if !ours {
            return None;
        }
        // R11 from the frame, not as the user left it: a jump to LSTAR must not smuggle flags
        // in. RF is what the fault set.
        regs.r11 = rflags & !RFLAGS_RF;
        regs.rip = self.lstar;
        regs.rsp = rsp;
        regs.rflags = (regs.r11 & !self.fmask) | RFLAGS_FIXED;
        let segments = load_kernel_segments(sregs, self.star);
        Some(Hit::SystemCall { segments })
    }

    /// `sysret`. False when the processor would raise #GP instead.
    pub(super) fn sysret(&self, wide: bool, regs: &mut kvm_regs, sregs: &mut kvm_sregs) -> bool {
        let shift = if sregs.cr4 & (1 << 12) != 0 { 57 } else { 48 };
        if sregs.cs.dpl != 0 || (wide && !canonical(regs.rcx, shift)) {
            return false;
        }
        let base = selector(self.star >> 48);
        let code = if wide { base.wrapping_add(16) } else { base };
        sregs.cs = code_segment(code | 3, 3, wide);
        sregs.ss = stack_segment(base.wrapping_add(8) | 3, 3);
        regs.rip = if wide {
            regs.rcx
        } else {
            regs.rcx & 0xffff_ffff
        };
        regs.rflags = (regs.r11 & RFLAGS_RETURN) | RFLAGS_FIXED;
        true
    }
}

fn selector(value: u64) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Five words of the frame that an exception pushed.
fn frame(space: &AddressSpace<'_>, rsp: u64) -> Option<[u64; 5]> {
    let mut bytes = [0; 40];
    space.read(rsp, &mut bytes).ok()?;
    let mut words = [0; 5];
    for (word, eight) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*eight);
    }
    Some(words)
}

/// Enters the gate of `int n` when the frame of an undefined instruction shows one that user
/// code may use. Both exceptions push the same frame, so only its return address changes.
fn interrupt(space: &AddressSpace<'_>, regs: &mut kvm_regs, sregs: &kvm_sregs) -> Option<Hit> {
    let [rip, cs, ..] = frame(space, regs.rsp)?;
    let [opcode, vector] = space.read_user_code(rip)?;
    if opcode != INT || cs & 3 != 3 {
        return None;
    }
    let gate = gate(space, sregs, vector).filter(|gate| gate.dpl == 3)?;
    let next = rip.wrapping_add(2).to_le_bytes();
    space.write(regs.rsp, &next).ok()?;
    regs.rip = gate.handler;
    Some(Hit::Interrupt)
}

/// Takes a fault of the guest's own past the breakpoint.
fn pass(space: &AddressSpace<'_>, regs: &mut kvm_regs) -> Hit {
    let (code, _) = space.read_code(regs.rip);
    let Some((len, clears_ac)) = harmless(&code) else {
        return Hit::Step;
    };
    regs.rip = regs.rip.wrapping_add(len);
    if clears_ac {
        regs.rflags &= !RFLAGS_AC;
    }
    Hit::Passed
}

/// The length of an instruction that does nothing that matters to a page-fault handler's start,
/// and whether it clears AC.
fn harmless(code: &[u8; 15]) -> Option<(u64, bool)> {
    match code {
        [0x0f, 0x01, 0xca, ..] => Some((3, true)),
        [0xf3, 0x0f, 0x1e, 0xfa, ..] => Some((4, false)),
        [0x0f, 0x1f, 0x00, ..] | [0x66, 0x66, 0x90, ..] => Some((3, false)),
        [0x66, 0x90, ..] => Some((2, false)),
        [0x90, ..] => Some((1, false)),
        _ => None,
    }
}

/// A gate of the interrupt table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Gate {
    handler: u64,
    dpl: u8,
}

/// The gate of `vector`, when it is there and present.
fn gate(space: &AddressSpace<'_>, sregs: &kvm_sregs, vector: u8) -> Option<Gate> {
    let offset = u64::from(vector) * 16;
    if u64::from(sregs.idt.limit) < offset + 15 {
        return None;
    }
    let mut gate = [0; 16];
    space
        .read(sregs.idt.base.wrapping_add(offset), &mut gate)
        .ok()?;
    let [b0, b1, _, _, _, attributes, b2, b3, b4, b5, b6, b7, ..] = gate;
    let handler = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
    let dpl = attributes >> 5 & 3;
    (attributes & 0x80 != 0 && handler != 0).then_some(Gate { handler, dpl })
}

/// Loads CS and SS as `syscall` does; false when CS is that already, as after a fault whose gate
/// names the same segment (SS is then null, which 64-bit kernel code does not notice).
fn load_kernel_segments(sregs: &mut kvm_sregs, star: u64) -> bool {
    let code = selector(star >> 32) & 0xfffc;
    if sregs.cs.selector == code {
        return false;
    }
    sregs.cs = code_segment(code, 0, true);
    sregs.ss = stack_segment(code.wrapping_add(8), 0);
    true
}

fn code_segment(selector: u16, dpl: u8, long: bool) -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_: 11,
        present: 1,
        dpl,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

fn stack_segment(selector: u16, dpl: u8) -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_: 3,
        present: 1,
        dpl,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

#[derive(Clone, Copy, Debug)]
enum Debug {
    Breakpoints(Handlers),
    Step,
}

fn set_debug(vcpu: &VcpuFd, what: Debug) -> Result<(), AssistError> {
    let mut arch = kvm_guest_debug_arch::default();
    let control = match what {
        Debug::Breakpoints(at) => {
            arch.debugreg = [at.page_fault, at.undefined, 0, 0, 0, 0, 0, DR7_EXECUTE];
            KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP
        }
        Debug::Step => KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
    };
    vcpu.set_guest_debug(&kvm_guest_debug {
        control,
        pad: 0,
        arch,
    })
    .map_err(AssistError::kvm(
        "the breakpoint for system calls (KVM_SET_GUEST_DEBUG)",
    ))
}

#[cfg(test)]
mod tests;
