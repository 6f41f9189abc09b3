//! Completes what a weak KVM leaves undone, so that a stock kernel runs on it.
//!
//! Some hosts offer `/dev/kvm` without VMX or SVM: they run the guest's user code natively and
//! its kernel code through an instruction emulator with gaps. This module fills the gaps from
//! the outside with KVM's own interfaces. On every other host [`Needs::any`] is false, nothing
//! here runs, and a monitor without this folder works the same. It touches one vCPU's registers
//! and the guest's memory, nothing else. `docs/adr/0002-weak-kvm-assists.md` has the reasons and
//! the costs.
//!
//! How a vCPU thread uses it: [`prepare_vm`] once for the VM, one [`Assist`] for each vCPU,
//! [`Assist::before_run`] before each `KVM_RUN`, and one of the `on_…` functions for the exits
//! that it names. Register changes travel with the next `KVM_RUN` (synchronised registers): who
//! wants the vCPU's state first runs it once with `immediate_exit` set, as for unfinished I/O.

mod address_space;
mod atomic;
mod counters;
mod error;
mod fpu;
mod needs;
mod perform;
mod probe;
mod segments;
mod setup;
mod syscall;
mod tiny;
mod xsave;

pub use counters::{Counters, Counts};
pub use error::{AssistError, Outcome};
pub use needs::{Needs, ProbeReport};
pub use setup::prepare_vm;

use std::sync::Arc;

use arch::insn::{self, Effect};
use devices::GuestRam;
use kvm_bindings::{Msrs, kvm_debug_exit_arch, kvm_msr_entry, kvm_regs, kvm_sregs};
use kvm_ioctls::{SyncReg, VcpuFd};

use address_space::AddressSpace;
use counters::count;
use perform::{End, Exception, Work};
use syscall::{Hit, SystemCalls};

const CR0_PE: u64 = 1;

/// What one vCPU needs to have its exits completed. Lives on the vCPU's thread.
#[derive(Debug)]
pub struct Assist {
    ram: GuestRam,
    counters: Arc<Counters>,
    calls: SystemCalls,
    /// Synchronised registers are on, and what an earlier life of the vCPU left is known.
    ready: bool,
}

impl Assist {
    /// The helper of one vCPU, or `None` on a host that needs none.
    pub fn new(needs: &Needs, ram: GuestRam) -> Option<Assist> {
        needs.any().then(|| Assist {
            ram,
            counters: Arc::default(),
            calls: SystemCalls::default(),
            ready: false,
        })
    }

    /// What was completed so far; the counters can be read from any thread.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// To be called before each `KVM_RUN`. Compares two numbers once the breakpoint is set.
    ///
    /// # Errors
    /// When KVM refuses to set the breakpoint or to read the registers.
    pub fn before_run(&mut self, vcpu: &mut VcpuFd) -> Result<(), AssistError> {
        if !self.ready {
            self.ready = true;
            vcpu.set_sync_valid_reg(SyncReg::Register);
            vcpu.set_sync_valid_reg(SyncReg::SystemRegister);
            self.calls.load(vcpu)?;
            let sregs = vcpu
                .get_sregs()
                .map_err(AssistError::kvm("reading a vCPU's state (KVM_GET_SREGS)"))?;
            vcpu.sync_regs_mut().sregs = sregs;
        }
        let sregs = &vcpu.sync_regs_mut().sregs;
        if self.calls.wants_arming(sregs) {
            let sregs = *sregs;
            self.calls.arm(vcpu, &self.ram, &sregs)?;
        }
        Ok(())
    }

    /// Completes the instruction of a `KVM_EXIT_INTERNAL_ERROR`.
    ///
    /// # Errors
    /// When an ioctl fails. An instruction that it does not know is [`Outcome::Unknown`].
    pub fn on_internal_error(&mut self, vcpu: &mut VcpuFd) -> Result<Outcome, AssistError> {
        let (mut regs, mut sregs) = taken(vcpu);
        if in_user_mode(&sregs) {
            // Here everything is done with the kernel's rights. KVM by itself would say #UD too:
            // such code runs natively, so only an access to a device's memory comes here.
            count(&self.counters.faults);
            inject(vcpu, &regs, &mut sregs, Exception::UNDEFINED)?;
            return Ok(Outcome::Resume);
        }
        let space = AddressSpace::new(&self.ram, &sregs);
        let rip = sregs.cs.base.wrapping_add(regs.rip);
        let (bytes, len) = space.read_code(rip);
        let known = bytes
            .get(..usize::from(len))
            .filter(|_| sregs.cs.l != 0)
            .and_then(insn::decode);
        let unknown = Outcome::Unknown { rip, bytes, len };
        let Some(insn) = known else {
            count(&self.counters.unknown);
            return Ok(unknown);
        };
        if let Effect::SystemReturn { wide } = insn.effect {
            if self.calls.sysret(wide, &mut regs, &mut sregs) {
                count(&self.counters.system_returns);
                put_back(vcpu, &regs, Some(&sregs));
            } else {
                count(&self.counters.faults);
                inject(vcpu, &regs, &mut sregs, Exception::PROTECTION)?;
            }
            return Ok(Outcome::Resume);
        }
        let mut work = Work {
            vcpu,
            space,
            regs: &mut regs,
            sregs: &sregs,
        };
        let end = perform::perform(&mut work, &insn)?;
        let next = regs.rip.wrapping_add(u64::from(insn.len));
        match end {
            End::Next => {
                count(&self.counters.instructions);
                regs.rip = next;
                put_back(vcpu, &regs, None);
            }
            End::Trap(exception) => {
                count(&self.counters.faults);
                regs.rip = next;
                inject(vcpu, &regs, &mut sregs, exception)?;
            }
            End::Fault(exception) => {
                count(&self.counters.faults);
                inject(vcpu, &regs, &mut sregs, exception)?;
            }
            End::Unknown => {
                count(&self.counters.unknown);
                return Ok(unknown);
            }
        }
        Ok(Outcome::Resume)
    }

    /// Handles a `KVM_EXIT_DEBUG`.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn on_debug(
        &mut self,
        vcpu: &mut VcpuFd,
        hit: &kvm_debug_exit_arch,
    ) -> Result<Outcome, AssistError> {
        if !self.calls.owns(hit.pc) {
            return Ok(Outcome::NotMine);
        }
        if self.calls.end_step(vcpu)? {
            return Ok(Outcome::Resume);
        }
        let (mut regs, mut sregs) = taken(vcpu);
        let hit = if in_user_mode(&sregs) {
            // User code jumped to the handler with a stack of its own making: no fault's frame.
            Hit::Step
        } else {
            self.calls.hit(&self.ram, &mut regs, &mut sregs)
        };
        match hit {
            Hit::SystemCall { segments } => {
                count(&self.counters.system_calls);
                put_back(vcpu, &regs, segments.then_some(&sregs));
            }
            Hit::Interrupt => {
                count(&self.counters.software_interrupts);
                put_back(vcpu, &regs, None);
            }
            Hit::Passed => {
                count(&self.counters.faults_passed);
                put_back(vcpu, &regs, None);
            }
            Hit::Step => {
                count(&self.counters.faults_passed);
                count(&self.counters.single_steps);
                self.calls.begin_step(vcpu)?;
            }
        }
        Ok(Outcome::Resume)
    }

    /// Handles a `KVM_EXIT_X86_WRMSR` that the filter of [`prepare_vm`] caused, and answers it:
    /// the value goes to KVM, and an invalid one becomes the guest's #GP.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn on_wrmsr(
        &mut self,
        vcpu: &mut VcpuFd,
        index: u32,
        value: u64,
    ) -> Result<Outcome, AssistError> {
        let mut known = self.calls;
        if !known.note(index, value) {
            return Ok(Outcome::NotMine);
        }
        let entry = kvm_msr_entry {
            index,
            data: value,
            ..Default::default()
        };
        let list = Msrs::from_entries(&[entry]).map_err(|_| AssistError::Msr {
            verb: "write",
            index,
        })?;
        let written = vcpu
            .set_msrs(&list)
            .map_err(AssistError::kvm("writing a system call MSR (KVM_SET_MSRS)"))?;
        let refused = written == 0;
        if !refused {
            self.calls = known;
        }
        vcpu.get_kvm_run().__bindgen_anon_1.msr.error = u8::from(refused);
        Ok(Outcome::Resume)
    }
}

/// Whether the vCPU runs user code: the privilege level is that of CS, in protected mode.
fn in_user_mode(sregs: &kvm_sregs) -> bool {
    sregs.cr0 & CR0_PE != 0 && sregs.cs.selector & 3 != 0
}

/// The registers that came with the exit.
fn taken(vcpu: &mut VcpuFd) -> (kvm_regs, kvm_sregs) {
    let synced = vcpu.sync_regs_mut();
    (synced.regs, synced.sregs)
}

/// Lets the next `KVM_RUN` load changed registers.
fn put_back(vcpu: &mut VcpuFd, regs: &kvm_regs, sregs: Option<&kvm_sregs>) {
    let synced = vcpu.sync_regs_mut();
    synced.regs = *regs;
    if let Some(sregs) = sregs {
        synced.sregs = *sregs;
        vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
    }
    vcpu.set_sync_dirty_reg(SyncReg::Register);
}

/// Gives the guest an exception. Rare, so with plain ioctls: setting registers later would drop
/// the exception again.
fn inject(
    vcpu: &mut VcpuFd,
    regs: &kvm_regs,
    sregs: &mut kvm_sregs,
    exception: Exception,
) -> Result<(), AssistError> {
    vcpu.set_regs(regs).map_err(AssistError::kvm(
        "writing a vCPU's registers (KVM_SET_REGS)",
    ))?;
    if let Some(address) = exception.address {
        sregs.cr2 = address;
        vcpu.set_sregs(sregs)
            .map_err(AssistError::kvm("writing a vCPU's state (KVM_SET_SREGS)"))?;
    }
    let mut events = vcpu.get_vcpu_events().map_err(AssistError::kvm(
        "reading pending events (KVM_GET_VCPU_EVENTS)",
    ))?;
    events.exception.injected = 1;
    events.exception.pending = 0;
    events.exception.nr = exception.vector;
    events.exception.has_error_code = u8::from(exception.error_code.is_some());
    events.exception.error_code = exception.error_code.unwrap_or(0);
    vcpu.set_vcpu_events(&events).map_err(AssistError::kvm(
        "giving the guest an exception (KVM_SET_VCPU_EVENTS)",
    ))
}
