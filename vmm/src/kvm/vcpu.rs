//! One virtual CPU: its setup, and runs that return an [`Exit`].
#![expect(
    unsafe_code,
    reason = "the page shared with KVM is a C union behind a raw pointer"
)]

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr;

use arch::boot::CpuStart;
use arch::cpuid::Leaf;
use kvm_bindings::{CpuId, KVM_INTERNAL_ERROR_EMULATION, Msrs, kvm_debug_exit_arch, kvm_msr_entry};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

use super::assist::{Assist, AssistError, Counts, Outcome};
use super::exit::Unhandled;
use super::{Attempt, Exit, KvmError, Vm, regs};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs; null elsewhere.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// One virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    id: u8,
    fd: VcpuFd,
    /// Boxed: absent on a stock host, and large.
    assist: Option<Box<Assist>>,
    /// Keeps guest memory mapped for as long as this vCPU can run.
    vm: Vm,
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        // A late kick must not write to the mapping that goes away here.
        IMMEDIATE_EXIT.with(|cell| cell.set(ptr::null_mut()));
    }
}

/// A run that the host refused.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// KVM_RUN itself failed.
    #[error("running vCPU {id} failed")]
    Run {
        /// The vCPU.
        id: u8,
        /// The host's reason.
        #[source]
        cause: std::io::Error,
    },
    /// An assist of the weak host failed.
    #[error("completing an instruction of vCPU {id} failed")]
    Assist {
        /// The vCPU.
        id: u8,
        /// What went wrong.
        #[source]
        cause: AssistError,
    },
}

/// What KVM_RUN returned, freed from the borrow of the vCPU so that an assist can have it.
enum Raw {
    Port {
        port: u16,
        data: *mut u8,
        len: usize,
        write: bool,
    },
    MmioRead(u64, *mut u8, usize),
    MmioWrite(u64, *const u8, usize),
    EndOfInterrupt(u8),
    Shutdown,
    Interrupted,
    InternalError,
    Debug(kvm_debug_exit_arch),
    WriteMsr {
        index: u32,
        value: u64,
    },
    FailEntry(u64),
    Unexpected(String),
}

impl Vcpu {
    pub(super) fn new(id: u8, fd: VcpuFd, assist: Option<Assist>, vm: Vm) -> Self {
        Self {
            id,
            fd,
            assist: assist.map(Box::new),
            vm,
        }
    }

    /// Its number, which is its APIC id too.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.id
    }

    /// The descriptor, for reading and setting the vCPU's state.
    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The machine that it belongs to.
    pub(super) fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Gives the vCPU its CPUID leaves.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn set_cpuid(&self, leaves: &[Leaf]) -> Result<(), KvmError> {
        let entries: Vec<_> = leaves.iter().map(regs::leaf_to_kvm).collect();
        let what = || {
            let count = leaves.len();
            format!("setting the {count} CPUID leaves of vCPU {}", self.id)
        };
        let cpuid = CpuId::from_entries(&entries)
            .map_err(|_| KvmError::new(what(), kvm_ioctls::Error::new(libc::E2BIG)))?;
        self.fd.set_cpuid2(&cpuid).attempt(what)
    }

    /// Sets model specific registers, all or an error.
    ///
    /// # Errors
    /// [`KvmError`]; where KVM refused one of them it names that register.
    pub fn set_msrs(&self, values: &[(u32, u64)]) -> Result<(), KvmError> {
        let done = self
            .fd
            .set_msrs(&msr_entries(values.iter().copied()))
            .attempt(|| format!("setting MSRs of vCPU {}", self.id))?;
        match values.get(done) {
            None => Ok(()),
            Some(refused) => Err(self.refused_msr(*refused)),
        }
    }

    /// The error for a register that KVM does not take.
    pub(super) fn refused_msr(&self, (index, value): (u32, u64)) -> KvmError {
        KvmError::new(
            format!("setting MSR {index:#x} of vCPU {} to {value:#x}", self.id),
            kvm_ioctls::Error::new(libc::EINVAL),
        )
    }

    /// Puts the vCPU at the start of the kernel.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn set_start(&self, start: &CpuStart) -> Result<(), KvmError> {
        let what = || format!("setting the start of vCPU {}", self.id);
        let mut sregs = self.fd.get_sregs().attempt(what)?;
        regs::apply_start(&mut sregs, &start.sregs);
        self.fd.set_sregs(&sregs).attempt(what)?;
        self.fd
            .set_regs(&regs::regs_to_kvm(&start.regs))
            .attempt(what)
    }

    /// Where the CPU is, for messages; 0 when KVM won't tell.
    #[must_use]
    pub fn instruction_pointer(&self) -> u64 {
        self.fd.get_regs().map_or(0, |regs| regs.rip)
    }

    /// What was completed for it on a weak host; none on any other.
    #[must_use]
    pub fn assisted(&self) -> Option<Counts> {
        self.assist.as_ref().map(|assist| assist.counters().read())
    }

    /// Binds the vCPU to the calling thread, so that a [`Kicker`] reaches it.
    pub fn adopt(&mut self) {
        let flag = &raw mut self.fd.get_kvm_run().immediate_exit;
        IMMEDIATE_EXIT.with(|cell| cell.set(flag));
    }

    /// Runs the guest until it needs something. To be called again after each exit.
    ///
    /// # Errors
    /// [`RunError`] when the host refuses; the vCPU can't go on then.
    pub fn run(&mut self) -> Result<Exit<'_>, RunError> {
        if let Some(assist) = &mut self.assist {
            let id = self.id;
            assist
                .before_run(&mut self.fd)
                .map_err(|cause| RunError::Assist { id, cause })?;
        }
        let raw = self.enter()?;
        self.serve(raw)
    }

    /// Does what the last exit left open in KVM without running the guest: what that needs, or
    /// none once nothing is open and the vCPU's whole state is in KVM. To be called again after
    /// each exit.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn finish(&mut self) -> Result<Option<Exit<'_>>, RunError> {
        self.fd.set_kvm_immediate_exit(1);
        match self.enter()? {
            Raw::Interrupted => Ok(None),
            raw => self.serve(raw).map(Some),
        }
    }

    /// The guest has stood still for a while: its clock tells it, so that its watchdogs don't bark.
    pub fn tell_of_pause(&self) {
        // Refused where the guest has no clock of KVM's, or none yet.
        let _ = self.fd.kvmclock_ctrl();
    }

    fn serve(&mut self, raw: Raw) -> Result<Exit<'_>, RunError> {
        match raw {
            Raw::InternalError => self.internal_error(),
            Raw::Debug(hit) => match &mut self.assist {
                Some(assist) => {
                    let done = assist.on_debug(&mut self.fd, &hit);
                    self.outcome(done, "KVM_EXIT_DEBUG")
                }
                None => Ok(unexpected("KVM_EXIT_DEBUG")),
            },
            Raw::WriteMsr { index, value } => match &mut self.assist {
                Some(assist) => {
                    let done = assist.on_wrmsr(&mut self.fd, index, value);
                    self.outcome(done, "KVM_EXIT_X86_WRMSR")
                }
                None => Ok(unexpected("KVM_EXIT_X86_WRMSR")),
            },
            raw => Ok(self.lend(raw)),
        }
    }

    fn enter(&mut self) -> Result<Raw, RunError> {
        let raw = match self.fd.run() {
            Ok(exit) => raw_exit(exit),
            // EAGAIN: an application processor that waits for its start-up message was woken.
            Err(cause) if matches!(cause.errno(), libc::EINTR | libc::EAGAIN) => {
                self.fd.set_kvm_immediate_exit(0);
                Raw::Interrupted
            }
            Err(cause) => {
                let cause = std::io::Error::from_raw_os_error(cause.errno());
                return Err(RunError::Run { id: self.id, cause });
            }
        };
        Ok(raw)
    }

    fn lend(&mut self, raw: Raw) -> Exit<'_> {
        match raw {
            Raw::Port {
                port,
                data,
                len,
                write,
            } => {
                // SAFETY: the last exit was KVM_EXIT_IO, so `io` is the field that KVM filled.
                let io = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io };
                let width = usize::from(io.size).max(1);
                if write {
                    // SAFETY: KVM's data lies in the vCPU's mapping, which lives as long as
                    // `self` is borrowed, and nothing else refers to it.
                    let data = unsafe { std::slice::from_raw_parts(data, len) };
                    Exit::PortWrite { port, width, data }
                } else {
                    // SAFETY: as above; only this slice is handed out.
                    let data = unsafe { std::slice::from_raw_parts_mut(data, len) };
                    Exit::PortRead { port, width, data }
                }
            }
            Raw::MmioRead(address, data, len) => {
                // SAFETY: as for ports: inside the mapping, borrowed with `self`.
                let data = unsafe { std::slice::from_raw_parts_mut(data, len) };
                Exit::MmioRead { address, data }
            }
            Raw::MmioWrite(address, data, len) => {
                // SAFETY: as for ports: inside the mapping, borrowed with `self`.
                let data = unsafe { std::slice::from_raw_parts(data, len) };
                Exit::MmioWrite { address, data }
            }
            Raw::EndOfInterrupt(vector) => Exit::EndOfInterrupt { vector },
            Raw::Shutdown => Exit::Shutdown,
            Raw::FailEntry(reason) => Exit::Unhandled(Unhandled::FailEntry { reason }),
            Raw::Unexpected(text) => Exit::Unhandled(Unhandled::Unexpected(text)),
            Raw::Interrupted => Exit::Kicked,
            Raw::InternalError | Raw::Debug(_) | Raw::WriteMsr { .. } => Exit::Interrupted,
        }
    }

    fn internal_error(&mut self) -> Result<Exit<'_>, RunError> {
        // SAFETY: the last exit was KVM_EXIT_INTERNAL_ERROR, so `internal` is what KVM filled.
        let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
        if suberror != KVM_INTERNAL_ERROR_EMULATION {
            let rip = self.instruction_pointer();
            return Ok(Exit::Unhandled(Unhandled::Internal { suberror, rip }));
        }
        let Some(assist) = &mut self.assist else {
            let rip = self.instruction_pointer();
            return Ok(Exit::Unhandled(Unhandled::Instruction {
                rip,
                bytes: Vec::new(),
            }));
        };
        let done = assist.on_internal_error(&mut self.fd);
        self.outcome(done, "KVM_EXIT_INTERNAL_ERROR")
    }

    fn outcome(
        &self,
        done: Result<Outcome, AssistError>,
        exit: &str,
    ) -> Result<Exit<'_>, RunError> {
        match done.map_err(|cause| RunError::Assist { id: self.id, cause })? {
            Outcome::Resume => Ok(Exit::Interrupted),
            Outcome::NotMine => Ok(unexpected(exit)),
            Outcome::Unknown { rip, bytes, len } => {
                let bytes = bytes.iter().take(len.into()).copied().collect();
                Ok(Exit::Unhandled(Unhandled::Instruction { rip, bytes }))
            }
        }
    }
}

/// Registers as KVM takes them, which is fewer at once than [`kvm_bindings::KVM_MAX_MSR_ENTRIES`].
pub(super) fn msr_entries(msrs: impl Iterator<Item = (u32, u64)>) -> Msrs {
    let entry = |(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let entries: Vec<_> = msrs.map(entry).collect();
    Msrs::from_entries(&entries).expect("invariant: fewer registers than KVM takes at once")
}

fn unexpected<'a>(exit: &str) -> Exit<'a> {
    Exit::Unhandled(Unhandled::Unexpected(exit.into()))
}

fn raw_exit(exit: VcpuExit<'_>) -> Raw {
    match exit {
        VcpuExit::IoIn(port, data) => Raw::Port {
            port,
            data: data.as_mut_ptr(),
            len: data.len(),
            write: false,
        },
        VcpuExit::IoOut(port, data) => Raw::Port {
            port,
            data: data.as_ptr().cast_mut(),
            len: data.len(),
            write: true,
        },
        VcpuExit::MmioRead(address, data) => Raw::MmioRead(address, data.as_mut_ptr(), data.len()),
        VcpuExit::MmioWrite(address, data) => Raw::MmioWrite(address, data.as_ptr(), data.len()),
        VcpuExit::IoapicEoi(vector) => Raw::EndOfInterrupt(vector),
        VcpuExit::Shutdown => Raw::Shutdown,
        VcpuExit::SystemEvent(..) => Raw::Shutdown,
        VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::Hlt => Raw::Interrupted,
        VcpuExit::InternalError => Raw::InternalError,
        VcpuExit::Debug(hit) => Raw::Debug(hit),
        VcpuExit::X86Wrmsr(exit) => {
            // KVM raises #GP in the guest unless told that the write is dealt with.
            *exit.error = 0;
            Raw::WriteMsr {
                index: exit.index,
                value: exit.data,
            }
        }
        VcpuExit::FailEntry(reason, _) => Raw::FailEntry(reason),
        other => Raw::Unexpected(format!("{other:?}")),
    }
}

/// Makes a vCPU's thread leave the guest.
///
/// The signal's handler sets `immediate_exit`, so a kick that lands just before KVM_RUN is not
/// lost: KVM returns at once.
#[derive(Debug, Clone, Copy)]
pub struct Kicker;

impl Kicker {
    /// Installs the handler, once for the process, and lets the signal through to this thread
    /// and those that it starts: a mask is inherited from whatever started the monitor.
    ///
    /// # Errors
    /// The host's reason when sigaction(2) or the change of the mask fails.
    pub fn install() -> std::io::Result<()> {
        register_signal_handler(Self::signal(), on_kick)
            .map_err(|cause| std::io::Error::from_raw_os_error(cause.errno()))?;
        unblock_signal(Self::signal()).map_err(|cause| std::io::Error::other(cause.to_string()))
    }

    /// The signal that kicks.
    #[must_use]
    pub fn signal() -> c_int {
        SIGRTMIN()
    }
}

extern "C" fn on_kick(_: c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.with(Cell::get);
    if !flag.is_null() {
        // SAFETY: `adopt` stored the address of the flag in this thread's vCPU mapping, which
        // lives until the thread ends; KVM reads the byte as volatile too.
        unsafe { flag.write_volatile(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way in which KVM says that a CPU is at its end is a value, and so is what nobody
    /// asked for; none of them is a panic.
    #[test]
    fn ends_of_a_cpu_are_values() {
        let cases = [
            (VcpuExit::Shutdown, "shutdown"),
            (VcpuExit::SystemEvent(1, &[]), "shutdown"),
            (VcpuExit::InternalError, "internal error"),
            (VcpuExit::FailEntry(0x8000_0021, 3), "no entry 0x80000021"),
            (VcpuExit::Hlt, "interrupted"),
            (VcpuExit::Intr, "interrupted"),
            (VcpuExit::IrqWindowOpen, "interrupted"),
            (VcpuExit::Unknown, "unexpected Unknown"),
            (VcpuExit::Exception, "unexpected Exception"),
            (VcpuExit::Nmi, "unexpected Nmi"),
            (VcpuExit::Unsupported(99), "unexpected Unsupported(99)"),
        ];
        for (exit, expected) in cases {
            let text = match raw_exit(exit) {
                Raw::Shutdown => "shutdown".to_owned(),
                Raw::InternalError => "internal error".to_owned(),
                Raw::FailEntry(reason) => format!("no entry {reason:#x}"),
                Raw::Interrupted => "interrupted".to_owned(),
                Raw::Unexpected(what) => format!("unexpected {what}"),
                _ => "something else".to_owned(),
            };
            assert_eq!(text, expected);
        }
    }
}
