//! Finds out whether this host's KVM is the weak kind: CPUID, and tiny guests when asked.

use arch::cpuid::Hide;
use kvm_ioctls::Kvm;

use super::{AssistError, probe};

/// What this host's KVM leaves undone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    emulated_kernel: bool,
}

/// What [`Needs::probe_thoroughly`] saw.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ProbeReport {
    /// One line for each thing tried: its name and whether the host did it right.
    pub tried: Vec<(&'static str, bool)>,
}

impl Needs {
    /// A host that runs guests as hardware would.
    pub const fn none() -> Needs {
        Needs {
            emulated_kernel: false,
        }
    }

    /// A host that emulates the guest's kernel; for tests.
    pub const fn all() -> Needs {
        Needs {
            emulated_kernel: true,
        }
    }

    /// Tells the kind of host from its CPUID: KVM without VMX and SVM can only be an emulating
    /// one. Costs two CPUID instructions. The argument proves that KVM works at all.
    pub fn detect(_kvm: &Kvm) -> Needs {
        // Leaf 1 ECX bit 5: VMX. Leaf 0x8000_0001 ECX bit 2: SVM.
        let vmx = std::arch::x86_64::__cpuid(1).ecx & (1 << 5) != 0;
        let extended = std::arch::x86_64::__cpuid(0x8000_0000).eax;
        let svm =
            extended >= 0x8000_0001 && std::arch::x86_64::__cpuid(0x8000_0001).ecx & (1 << 2) != 0;
        Needs {
            emulated_kernel: !vmx && !svm,
        }
    }

    /// Runs tiny guests that execute each instruction in question, and `syscall`.
    ///
    /// # Errors
    /// When a guest cannot be made or run.
    pub fn probe_thoroughly(kvm: &Kvm) -> Result<ProbeReport, AssistError> {
        let tried = probe::all(kvm, &Needs::none())?;
        Ok(ProbeReport { tried })
    }

    /// Whether anything has to be completed.
    pub const fn any(&self) -> bool {
        self.emulated_kernel
    }

    /// What the guest's CPUID must not show.
    pub const fn hide(&self) -> Hide {
        if self.emulated_kernel {
            Hide::emulated_kernel()
        } else {
            Hide::none()
        }
    }

    /// What the guest kernel's command line needs so that it does not use what CPUID cannot
    /// hide on such a host.
    pub const fn kernel_arguments(&self) -> &'static [&'static str] {
        if self.emulated_kernel {
            // Missing in kernel mode: 129 PCLMULQDQ, 137 SSSE3, 148 SSE4.2, 151 POPCNT, 153 AES,
            // 308 SMAP, 317 SHA. Slower than without: 297 ERMS, 580 FSRM. Not there: 295 SMEP,
            // and what 32-bit programs enter the kernel with: 110 SYSCALL32, 111 SYSENTER32.
            &[
                "noxsave",
                "clearcpuid=110,111,129,137,148,151,153,295,297,308,317,580",
            ]
        } else {
            &[]
        }
    }
}
