//! Every KVM ioctl and binding type; no type of `kvm_bindings` leaves this module.
//!
//! [`system`] is /dev/kvm itself, [`vm`] one virtual machine, [`vcpu`] one virtual CPU whose
//! exits are values ([`exit`]), [`irq`] the routing of interrupt lines, [`regs`] the translation
//! of register files, [`state`] what is saved of a vCPU. [`assist`] completes what the host's KVM
//! leaves undone, only where a probe asks for it.

pub mod assist;
pub mod exit;
pub mod irq;
pub mod regs;
pub mod state;
pub mod system;
pub mod vcpu;
pub mod vm;

pub use exit::Exit;
pub use irq::Routes;
pub use system::{Kvm, OpenError};
pub use vcpu::{Kicker, RunError, Vcpu};
pub use vm::Vm;

/// A KVM ioctl that failed: what was attempted, on what, and the host's reason.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} failed in KVM")]
pub struct KvmError {
    attempt: String,
    #[source]
    cause: std::io::Error,
}

impl KvmError {
    fn new(attempt: impl Into<String>, cause: kvm_ioctls::Error) -> Self {
        Self {
            attempt: attempt.into(),
            cause: std::io::Error::from_raw_os_error(cause.errno()),
        }
    }

    /// The host's error number, as errno(3) names them.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }
}

/// Wraps a KVM result with what was attempted.
trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, KvmError>;
}

impl<T> Attempt<T> for Result<T, kvm_ioctls::Error> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, KvmError> {
        self.map_err(|cause| KvmError::new(what(), cause))
    }
}
