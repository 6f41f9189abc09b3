//! Tiny guests: a few instructions in kernel or user mode, and what became of them. They show
//! what a host's KVM does by itself, and, with an [`Assist`], that the assists complete the rest.

#![expect(unsafe_code, reason = "giving a VM its memory")]

use std::sync::Arc;

use devices::GuestRam;
use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::setup::{MSR_FMASK, MSR_LSTAR, MSR_STAR};
use super::{Assist, AssistError, Needs, Outcome, prepare_vm};

const SIZE: usize = 0x10_0000;
const GDT: u64 = 0x500;
const TSS: u64 = 0x1000;
const IDT: u64 = 0x2000;
/// One stub for each vector, 16 bytes apart.
pub(super) const STUBS: u64 = 0x4000;
const KERNEL_STACK: u64 = 0x8000;
/// Root, then one table a level; the last maps the first MiB.
const TABLES: u64 = 0xa000;
/// Where the instructions of a kernel case are.
pub(super) const KERNEL_CODE: u64 = 0x2_0000;
/// Where `syscall` goes.
pub(super) const ENTRY: u64 = 0x2_1000;
/// Operands; RSI points here.
pub(super) const DATA: u64 = 0x3_0000;
/// The only memory that user mode may use: its code.
pub(super) const USER_CODE: u64 = 0x4_0000;
/// User mode may use this page too, but no memory is behind it.
const USER_DEVICE: u64 = 0x5_0000;
const USER_STACK: u64 = 0x4_1000;
const PORT_VECTOR: u16 = 0x10;
const PORT_DONE: u16 = 0x11;
/// `out 0x11, al; hlt`: the end of the tested code.
pub(super) const DONE: [u8; 3] = [0xe6, 0x11, 0xf4];
/// Exits that one case may need.
const LIMIT: usize = 64;

/// What one case runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) user: bool,
    pub(super) code: &'static [u8],
    pub(super) regs: kvm_regs,
    /// Written at [`DATA`].
    pub(super) data: [u64; 4],
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    /// It reached [`DONE`], behind the instructions or at the system call entry.
    Done,
    /// An exception or interrupt arrived, with this return address.
    Vector { number: u8, from: u64 },
    /// The host gave up, or the guest went astray.
    Lost,
}

/// The state at the end of a case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) end: End,
    pub(super) regs: kvm_regs,
    pub(super) sregs: kvm_sregs,
    pub(super) data: [u64; 4],
}

/// Runs one case in a guest of its own. With `needs`, the assists complete what they can.
pub(super) fn run(kvm: &Kvm, case: &Case, needs: &Needs) -> Result<Seen, AssistError> {
    let (vm, ram) = machine(kvm)?;
    prepare_vm(&vm, &Needs::all())?;
    fill(&ram, case);
    let mut vcpu = vm.create_vcpu(0).map_err(AssistError::kvm(
        "a vCPU for a test guest (KVM_CREATE_VCPU)",
    ))?;
    set_up(kvm, &vcpu, case)?;
    let mut assist = Assist::new(needs, ram.clone());
    let end = follow(&mut vcpu, &mut assist, &ram)?;
    let mut data = [0; 4];
    for (at, word) in (DATA..).step_by(8).zip(&mut data) {
        *word = ram.read(at).unwrap_or(0);
    }
    let regs = vcpu
        .get_regs()
        .map_err(AssistError::kvm("a test guest's registers (KVM_GET_REGS)"))?;
    let sregs = vcpu
        .get_sregs()
        .map_err(AssistError::kvm("a test guest's state (KVM_GET_SREGS)"))?;
    Ok(Seen {
        end,
        regs,
        sregs,
        data,
    })
}

fn machine(kvm: &Kvm) -> Result<(VmFd, GuestRam), AssistError> {
    let vm = kvm
        .create_vm()
        .map_err(AssistError::kvm("a test guest (KVM_CREATE_VM)"))?;
    vm.set_tss_address(0xfffb_d000).map_err(AssistError::kvm(
        "a test guest's task page (KVM_SET_TSS_ADDR)",
    ))?;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), SIZE)])
        .map_err(|_| AssistError::Memory { bytes: SIZE })?;
    let host = memory
        .get_host_address(GuestAddress(0))
        .map_err(|_| AssistError::Memory { bytes: SIZE })?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: SIZE as u64,
        userspace_addr: host as u64,
    };
    let memory = Arc::new(memory);
    // SAFETY: the region is the whole mapping, and `memory` goes to the caller with the VM, who
    // drops both together; a VM whose memory is gone is never run.
    unsafe { vm.set_user_memory_region(region) }.map_err(AssistError::kvm(
        "a test guest's memory (KVM_SET_USER_MEMORY_REGION)",
    ))?;
    Ok((vm, memory.into()))
}

/// Writes tables and code. All addresses are constants inside the memory, so writes succeed.
fn fill(ram: &GuestRam, case: &Case) {
    let word = |at: u64, value: u64| {
        let _ = ram.write(at, &value);
    };
    for (level, flags) in [(0, 7), (1, 7), (2, 7)] {
        let table = TABLES + 0x1000 * level;
        word(table, (table + 0x1000) | flags);
    }
    for page in 0..(SIZE as u64 / 4096) {
        let address = page * 4096;
        let user = if address == USER_CODE { 4 } else { 0 };
        word(TABLES + 0x3000 + page * 8, address | 3 | user);
    }
    word(TABLES + 0x3000 + USER_DEVICE / 4096 * 8, 0x1000_0000 | 7);
    let tss_low = 0x0000_8b00_0000_0067 | TSS << 16;
    let descriptors = [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        tss_low,
        0,
    ];
    for (at, descriptor) in (GDT..).step_by(8).zip(descriptors) {
        word(at, descriptor);
    }
    word(TSS + 4, KERNEL_STACK);
    for vector in 0..256 {
        let stub = STUBS + 16 * vector;
        // Interrupt gate, DPL 3, selector 0x10; stubs are below 64 KiB.
        word(IDT + 16 * vector, stub | 0x10 << 16 | 0xee00 << 32);
        let _ = ram.write_bytes(stub, &[0xe6, 0x10, 0xf4]);
    }
    let code = if case.user { USER_CODE } else { KERNEL_CODE };
    let _ = ram.write_bytes(code, case.code);
    let _ = ram.write_bytes(code + case.code.len() as u64, &DONE);
    let _ = ram.write_bytes(ENTRY, &DONE);
    for (at, value) in (DATA..).step_by(8).zip(case.data) {
        word(at, value);
    }
}

fn segment(selector: u16, type_: u8, dpl: u8, long: u8) -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        ..Default::default()
    }
}

fn set_up(kvm: &Kvm, vcpu: &VcpuFd, case: &Case) -> Result<(), AssistError> {
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(AssistError::kvm(
            "the host's features (KVM_GET_SUPPORTED_CPUID)",
        ))?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(AssistError::kvm("a test guest's features (KVM_SET_CPUID2)"))?;
    let mut sregs = vcpu
        .get_sregs()
        .map_err(AssistError::kvm("a test guest's state (KVM_GET_SREGS)"))?;
    let (code, data, dpl) = if case.user {
        (0x33, 0x2b, 3)
    } else {
        (0x10, 0x18, 0)
    };
    sregs.cs = segment(code, 11, dpl, 1);
    let data = segment(data, 3, dpl, 0);
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = kvm_segment {
        base: TSS,
        limit: 0x67,
        selector: 0x38,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 9 * 8 - 1;
    sregs.idt.base = IDT;
    sregs.idt.limit = 0xfff;
    sregs.cr0 = 0x8005_0033;
    sregs.cr3 = TABLES;
    // PAE, OSFXSR, OSXMMEXCPT.
    sregs.cr4 = 0x620;
    // SCE, LME, LMA, NXE.
    sregs.efer = 0xd01;
    vcpu.set_sregs(&sregs)
        .map_err(AssistError::kvm("a test guest's state (KVM_SET_SREGS)"))?;
    let mut regs = case.regs;
    regs.rip = if case.user { USER_CODE } else { KERNEL_CODE };
    regs.rsp = if case.user { USER_STACK } else { KERNEL_STACK };
    regs.rsi = DATA;
    regs.rflags |= 2;
    vcpu.set_regs(&regs)
        .map_err(AssistError::kvm("a test guest's registers (KVM_SET_REGS)"))?;
    let msr = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let list = [
        msr(MSR_STAR, 0x10 << 32 | 0x23 << 48),
        msr(MSR_LSTAR, ENTRY),
        msr(MSR_FMASK, 0x4_0700),
    ];
    let list = Msrs::from_entries(&list).map_err(|_| AssistError::Msr {
        verb: "write",
        index: MSR_STAR,
    })?;
    vcpu.set_msrs(&list)
        .map_err(AssistError::kvm("a test guest's MSRs (KVM_SET_MSRS)"))?;
    Ok(())
}

fn follow(
    vcpu: &mut VcpuFd,
    assist: &mut Option<Assist>,
    ram: &GuestRam,
) -> Result<End, AssistError> {
    for _ in 0..LIMIT {
        if let Some(assist) = assist {
            assist.before_run(vcpu)?;
        }
        let exit = match vcpu.run() {
            Ok(exit) => exit,
            Err(cause) if matches!(cause.errno(), libc::EINTR | libc::EAGAIN) => continue,
            Err(cause) => return Err(AssistError::kvm("a test guest (KVM_RUN)")(cause)),
        };
        let outcome = match exit {
            VcpuExit::IoOut(PORT_DONE, _) => return Ok(End::Done),
            VcpuExit::IoOut(PORT_VECTOR, _) => return Ok(vector(vcpu, ram)),
            VcpuExit::InternalError => assist.as_mut().map(|a| a.on_internal_error(vcpu)),
            VcpuExit::Debug(hit) => assist.as_mut().map(|a| a.on_debug(vcpu, &hit)),
            _ => return Ok(End::Lost),
        };
        match outcome.transpose()? {
            Some(Outcome::Resume) => {}
            _ => return Ok(End::Lost),
        }
    }
    Ok(End::Lost)
}

/// The vector from the stub that runs, and the return address from its frame.
fn vector(vcpu: &VcpuFd, ram: &GuestRam) -> End {
    let Ok(regs) = vcpu.get_regs() else {
        return End::Lost;
    };
    let Ok(number) = u8::try_from(regs.rip.wrapping_sub(STUBS) / 16) else {
        return End::Lost;
    };
    let has_error_code = matches!(number, 8 | 10..=14 | 17 | 21);
    let at = regs.rsp.wrapping_add(if has_error_code { 8 } else { 0 });
    ram.read(at)
        .map_or(End::Lost, |from| End::Vector { number, from })
}
