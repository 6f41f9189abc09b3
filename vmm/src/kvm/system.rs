//! /dev/kvm: opening it with errors that help, its capabilities, the creation of machines.

use std::path::{Path, PathBuf};

use arch::cpuid::Leaf;
use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Cap;

use super::{Attempt, KvmError, Vm};
use crate::host::KvmCaps;

/// How often the creation of a machine is tried again after EINTR, which loaded hosts return.
const CREATE_ATTEMPTS: u32 = 5;

/// The open KVM device.
#[derive(Debug)]
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
}

/// Why KVM could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such device.
    #[error("{} does not exist: this kernel offers no KVM", path.display())]
    Missing {
        /// The device.
        path: PathBuf,
    },
    /// The device is there, but not for this user.
    #[error("no permission to open {} for reading and writing", path.display())]
    Denied {
        /// The device.
        path: PathBuf,
    },
    /// Something else is at that path.
    #[error("{} is not a KVM device", path.display())]
    NotKvm {
        /// The path.
        path: PathBuf,
    },
    /// A KVM of another API than the one fixed since Linux 2.6.20.
    #[error("{} speaks KVM API version {found}, version 12 is needed", path.display())]
    Version {
        /// The device.
        path: PathBuf,
        /// What KVM_GET_API_VERSION answered.
        found: i32,
    },
    /// Any other failure of open(2).
    #[error("opening {} failed", path.display())]
    Failed {
        /// The device.
        path: PathBuf,
        /// The host's reason.
        #[source]
        cause: std::io::Error,
    },
}

impl OpenError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "load it with `modprobe kvm_intel` or `modprobe kvm_amd`; in a virtual machine, \
                 nested virtualisation must be enabled from outside; `coracle doctor` tells more"
            }
            Self::Denied { .. } => {
                "join the group that owns it, `sudo usermod -aG kvm $USER`, and log in again"
            }
            Self::NotKvm { .. } | Self::Version { .. } => "name the KVM device, usually /dev/kvm",
            Self::Failed { .. } => "`coracle doctor` tells more",
        }
    }
}

/// Extensions that kvm-ioctls does not name (Documentation/virt/kvm/api.rst).
const CAP_EXIT_ON_EMULATION_FAILURE: u64 = 204;
const CAP_DIRTY_LOG_RING: u64 = 192;

/// The leaves of the processor's name.
const BRAND_LEAVES: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;

impl Kvm {
    /// Opens the KVM device at `path` and checks its API version.
    ///
    /// # Errors
    /// [`OpenError`] tells the cases that a user can do something about apart.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| OpenError::NotKvm { path: path.into() })?;
        let fd = kvm_ioctls::Kvm::new_with_path(text).map_err(|cause| match cause.errno() {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => OpenError::Missing { path: path.into() },
            libc::EACCES | libc::EPERM => OpenError::Denied { path: path.into() },
            other => OpenError::Failed {
                path: path.into(),
                cause: std::io::Error::from_raw_os_error(other),
            },
        })?;
        match fd.get_api_version() {
            version if u32::try_from(version) == Ok(KVM_API_VERSION) => Ok(Self { fd }),
            version if version < 0 => Err(OpenError::NotKvm { path: path.into() }),
            found => Err(OpenError::Version {
                path: path.into(),
                found,
            }),
        }
    }

    /// Asks for each capability that Coracle uses, a short system call each.
    #[must_use]
    pub fn capabilities(&self) -> KvmCaps {
        let has = |cap: Cap| self.fd.check_extension(cap);
        let raw = |cap: u64| self.fd.check_extension_raw(cap) > 0;
        KvmCaps {
            max_vcpus: u32::try_from(self.fd.get_max_vcpus()).unwrap_or(u32::MAX),
            user_memory: has(Cap::UserMemory),
            split_irqchip: has(Cap::SplitIrqchip),
            irqfd: has(Cap::Irqfd),
            ioeventfd: has(Cap::Ioeventfd),
            irq_routing: has(Cap::IrqRouting),
            signal_msi: has(Cap::SignalMsi),
            immediate_exit: has(Cap::ImmediateExit),
            tsc_deadline: has(Cap::TscDeadlineTimer),
            set_cpuid: has(Cap::ExtCpuid),
            adjust_clock: has(Cap::AdjustClock),
            readonly_memory: has(Cap::ReadonlyMem),
            xsave2: has(Cap::Xsave2),
            dirty_ring: raw(CAP_DIRTY_LOG_RING),
            emulation_failure_exit: raw(CAP_EXIT_ON_EMULATION_FAILURE),
            guest_debug: has(Cap::SetGuestDebug),
            msr_filter: has(Cap::X86UserSpaceMsr) && has(Cap::X86MsrFilter),
        }
    }

    /// Creates an empty machine.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason, after a few tries where that is EINTR.
    pub fn create_vm(&self) -> Result<Vm, KvmError> {
        let mut attempt = 1;
        loop {
            match self.fd.create_vm() {
                Err(cause) if cause.errno() == libc::EINTR && attempt < CREATE_ATTEMPTS => {
                    attempt += 1;
                }
                result => return result.attempt(|| "creating a machine".into()).map(Vm::new),
            }
        }
    }

    /// The CPUID leaves that this host's KVM can give to a guest.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn supported_cpuid(&self) -> Result<Vec<Leaf>, KvmError> {
        let cpuid = self
            .fd
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .attempt(|| "asking for the CPUID leaves that a guest can have".into())?;
        let leaves = cpuid.as_slice().iter().map(super::regs::leaf_from_kvm);
        Ok(leaves.map(with_brand).collect())
    }

    /// The descriptor, for the probes of [`super::assist`].
    pub(crate) fn raw(&self) -> &kvm_ioctls::Kvm {
        &self.fd
    }
}

/// The processor's name, which KVM leaves empty for user space to fill: the host's.
fn with_brand(leaf: Leaf) -> Leaf {
    let empty = [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx] == [0; 4];
    if !empty || !BRAND_LEAVES.contains(&leaf.function) {
        return leaf;
    }
    let host = std::arch::x86_64::__cpuid(leaf.function);
    Leaf {
        eax: host.eax,
        ebx: host.ebx,
        ecx: host.ecx,
        edx: host.edx,
        ..leaf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_and_a_plain_file_are_told_apart() {
        let missing = Kvm::open(Path::new("/nonexistent/kvm")).unwrap_err();
        assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
        let other = Kvm::open(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(other, OpenError::NotKvm { .. }), "{other}");
    }
}
