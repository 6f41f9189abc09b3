//! All that KVM keeps of a vCPU and of its machine: read for a snapshot and put back.
//!
//! KVM's own structs are saved as their bytes: their layout is the kernel's promise. The order in
//! which they are put back matters, and is told where it does.
#![expect(
    unsafe_code,
    reason = "kvm-ioctls cannot tell how large the host's XSAVE area is"
)]

use devices::state;
use devices::state::BadState;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_clock_data, kvm_cpuid_entry2, kvm_xsave};
use kvm_ioctls::Cap;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::vcpu::msr_entries;
use super::{Attempt, Kvm, KvmError, Vcpu, Vm};

/// The largest XSAVE area that is saved: that of a process which asked for no dynamic feature.
const XSAVE_BYTES: usize = size_of::<kvm_xsave>();

/// How many registers KVM is given at once, below its own limit (KVM_MAX_MSR_ENTRIES).
const MSRS_AT_ONCE: usize = 128;

/// The saved state of a machine or of a vCPU that could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bytes make no sense.
    #[error("the saved {what} make no sense")]
    Bad {
        /// Which part of the state.
        what: &'static str,
        /// Why.
        #[source]
        cause: BadState,
    },
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

state! {
    /// A vCPU between two runs, every exit completed.
    pub struct VcpuStateV1: "vcpu", 1 {
        /// Its number, which is its APIC id too.
        pub id: u8,
        /// The rate of its time stamp counter, in kHz.
        pub tsc_khz: u32,
        /// `kvm_cpuid_entry2`, each.
        pub cpuid: Vec<Vec<u8>>,
        /// `kvm_mp_state`: whether it runs, or waits for an interrupt or for its start.
        pub mp_state: Vec<u8>,
        /// `kvm_regs`.
        pub regs: Vec<u8>,
        /// `kvm_sregs`.
        pub sregs: Vec<u8>,
        /// `kvm_xsave`.
        pub xsave: Vec<u8>,
        /// `kvm_xcrs`.
        pub xcrs: Vec<u8>,
        /// `kvm_debugregs`.
        pub debug_regs: Vec<u8>,
        /// `kvm_lapic_state`.
        pub lapic: Vec<u8>,
        /// Model-specific registers, index and value, in the order in which they are put back.
        pub msrs: Vec<(u32, u64)>,
        /// `kvm_vcpu_events`: what is about to be delivered.
        pub events: Vec<u8>,
    }
}

state! {
    /// What the machine has beside its vCPUs.
    pub struct VmStateV1: "vm", 1 {
        /// The guest's clock of KVM (kvmclock), in nanoseconds.
        pub clock_ns: u64,
    }
}

fn bytes<T: IntoBytes + Immutable>(value: &T) -> Vec<u8> {
    value.as_bytes().to_vec()
}

fn value<T: FromBytes>(what: &'static str, bytes: &[u8]) -> Result<T, RestoreError> {
    T::read_from_bytes(bytes).map_err(|_| {
        let cause = match bytes.len().checked_sub(size_of::<T>()) {
            Some(more) => BadState::Long(more),
            None => BadState::Short,
        };
        RestoreError::Bad { what, cause }
    })
}

impl Kvm {
    /// The model-specific registers that are saved with a vCPU.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn saved_msrs(&self) -> Result<Vec<u32>, KvmError> {
        let list = self.raw().get_msr_index_list();
        let list = list.attempt(|| "asking for the list of MSRs".into())?;
        Ok(arch::msr::saved_msrs(list.as_slice()))
    }
}

impl Vm {
    /// The machine's own state.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn save(&self) -> Result<VmStateV1, KvmError> {
        let clock = self.fd().get_clock();
        let clock = clock.attempt(|| "reading the guest's clock".into())?;
        Ok(VmStateV1 {
            clock_ns: clock.clock,
        })
    }

    /// Puts it back: the guest's clock goes on from where it was.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn restore(&self, state: &VmStateV1) -> Result<(), KvmError> {
        let clock = kvm_clock_data {
            clock: state.clock_ns,
            ..Default::default()
        };
        self.fd()
            .set_clock(&clock)
            .attempt(|| "setting the guest's clock".into())
    }

    /// Checks that the host's XSAVE area is one that fits what is saved.
    fn xsave_fits(&self) -> Result<(), KvmError> {
        let host = self.fd().check_extension_int(Cap::Xsave2);
        match usize::try_from(host) {
            Ok(host) if host > XSAVE_BYTES => Err(KvmError::new(
                format!("saving an XSAVE area of {host} bytes"),
                kvm_ioctls::Error::new(libc::E2BIG),
            )),
            _ => Ok(()),
        }
    }
}

impl Vcpu {
    /// All of the vCPU, which must have completed its last exit (a run with `immediate_exit` set
    /// does that). `msrs` are those of [`Kvm::saved_msrs`]; ones that this vCPU lacks are left out.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn save(&self, msrs: &[u32]) -> Result<VcpuStateV1, KvmError> {
        let fd = self.fd();
        let what = |part: &'static str| move || format!("reading {part} of vCPU {}", self.id());
        self.vm().xsave_fits()?;
        let cpuid = fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES);
        let cpuid = cpuid.attempt(what("the CPUID leaves"))?;
        // First: what the local APIC was told and has not acted on is acted on by this.
        let mp_state = fd.get_mp_state().attempt(what("the run state"))?;
        let msrs = self.read_msrs(msrs)?;
        Ok(VcpuStateV1 {
            id: self.id(),
            tsc_khz: fd.get_tsc_khz().attempt(what("the TSC's rate"))?,
            cpuid: cpuid.as_slice().iter().map(bytes).collect(),
            mp_state: bytes(&mp_state),
            regs: bytes(&fd.get_regs().attempt(what("the registers"))?),
            sregs: bytes(&fd.get_sregs().attempt(what("the system registers"))?),
            xsave: bytes(&fd.get_xsave().attempt(what("the vector registers"))?),
            xcrs: bytes(&fd.get_xcrs().attempt(what("XCR0"))?),
            debug_regs: bytes(&fd.get_debug_regs().attempt(what("the debug registers"))?),
            lapic: bytes(&fd.get_lapic().attempt(what("the local APIC"))?),
            msrs,
            events: bytes(&fd.get_vcpu_events().attempt(what("pending events"))?),
        })
    }

    /// Puts a saved state into a vCPU that has not run.
    ///
    /// # Errors
    /// [`RestoreError`]: the vCPU is in no state then, and must not run.
    pub fn restore(&self, state: &VcpuStateV1) -> Result<(), RestoreError> {
        let fd = self.fd();
        let what = |part: &'static str| move || format!("setting {part} of vCPU {}", self.id());
        self.vm().xsave_fits()?;
        // Leaves say which registers there are, so they come before all else.
        self.restore_cpuid(&state.cpuid)?;
        if fd.get_tsc_khz().ok() != Some(state.tsc_khz) {
            let rate = fd.set_tsc_khz(state.tsc_khz);
            rate.attempt(what("the TSC's rate"))?;
        }
        let mp_state = value("run state", &state.mp_state)?;
        fd.set_mp_state(mp_state).attempt(what("the run state"))?;
        let regs = value("registers", &state.regs)?;
        fd.set_regs(&regs).attempt(what("the registers"))?;
        let sregs = value("system registers", &state.sregs)?;
        fd.set_sregs(&sregs).attempt(what("the system registers"))?;
        // XCR0 says which parts of the area there are.
        let xcrs = value("XCR0", &state.xcrs)?;
        fd.set_xcrs(&xcrs).attempt(what("XCR0"))?;
        let xsave = value("vector registers", &state.xsave)?;
        // SAFETY: KVM reads as much as `xsave_fits` found to be no larger than this struct.
        let set = unsafe { fd.set_xsave(&xsave) };
        set.attempt(what("the vector registers"))?;
        let debug_regs = value("debug registers", &state.debug_regs)?;
        fd.set_debug_regs(&debug_regs)
            .attempt(what("the debug registers"))?;
        // The timer's mode is the APIC's; the deadline among the MSRs needs it.
        let lapic = value("local APIC", &state.lapic)?;
        fd.set_lapic(&lapic).attempt(what("the local APIC"))?;
        self.restore_msrs(&state.msrs)?;
        let events = value("pending events", &state.events)?;
        fd.set_vcpu_events(&events)
            .attempt(what("pending events"))?;
        Ok(())
    }

    fn restore_cpuid(&self, saved: &[Vec<u8>]) -> Result<(), RestoreError> {
        let what = "CPUID leaves";
        let entries = saved.iter().map(|entry| value(what, entry));
        let entries: Vec<kvm_cpuid_entry2> = entries.collect::<Result<_, _>>()?;
        let cpuid = CpuId::from_entries(&entries).map_err(|_| RestoreError::Bad {
            what,
            cause: BadState::Long(entries.len()),
        })?;
        let set = self.fd().set_cpuid2(&cpuid);
        Ok(set.attempt(|| format!("setting the CPUID leaves of vCPU {}", self.id()))?)
    }

    /// Reads those of `wanted` that this vCPU has. KVM stops at the first that it hasn't.
    fn read_msrs(&self, wanted: &[u32]) -> Result<Vec<(u32, u64)>, KvmError> {
        let mut found = Vec::with_capacity(wanted.len());
        let mut left = wanted;
        while !left.is_empty() {
            let (now, _) = left.split_at(left.len().min(MSRS_AT_ONCE));
            let mut msrs = msr_entries(now.iter().map(|&index| (index, 0)));
            let done = self.fd().get_msrs(&mut msrs);
            let done = done.attempt(|| format!("reading MSRs of vCPU {}", self.id()))?;
            let read = msrs.as_slice().iter().take(done);
            found.extend(read.map(|entry| (entry.index, entry.data)));
            let passed = if done < now.len() { done + 1 } else { done };
            left = left.get(passed..).unwrap_or_default();
        }
        Ok(found)
    }

    /// Sets saved registers. One that KVM refuses may be one that only it writes: it is no error if
    /// it has the saved value already.
    fn restore_msrs(&self, saved: &[(u32, u64)]) -> Result<(), KvmError> {
        let mut left = saved;
        while !left.is_empty() {
            let (now, _) = left.split_at(left.len().min(MSRS_AT_ONCE));
            let set = self.fd().set_msrs(&msr_entries(now.iter().copied()));
            let done = set.attempt(|| format!("setting MSRs of vCPU {}", self.id()))?;
            let Some(&(index, value)) = now.get(done) else {
                left = left.get(done..).unwrap_or_default();
                continue;
            };
            if self.read_msrs(&[index])? != [(index, value)] {
                return Err(self.refused_msr((index, value)));
            }
            left = left.get(done + 1..).unwrap_or_default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
