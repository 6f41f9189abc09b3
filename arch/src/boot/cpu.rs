//! State of the boot CPU for each boot protocol.

use super::CpuStart;
use crate::gdt::{self, Mode};
use crate::layout::{BOOT_STACK_TOP, PML4, PVH_START_INFO, ZERO_PAGE};
use crate::regs::{
    CR0_AM, CR0_ET, CR0_MP, CR0_NE, CR0_PE, CR0_PG, CR0_WP, CR4_PAE, EFER_LMA, EFER_LME,
    RFLAGS_RESERVED, Regs, StartSregs,
};

/// Linux's 64-bit boot protocol (`Documentation/x86/boot.rst`): paging on, RSI = zero page.
pub(super) fn linux64(entry: u64) -> CpuStart {
    let regs = Regs {
        rip: entry,
        rsi: ZERO_PAGE,
        rsp: BOOT_STACK_TOP,
        rbp: BOOT_STACK_TOP,
        rflags: RFLAGS_RESERVED,
        ..Regs::default()
    };
    let sregs = StartSregs {
        cr0: CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG,
        cr3: PML4,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
        ..segments(Mode::Long)
    };
    CpuStart { regs, sregs }
}

/// Xen's PVH entry (`docs/misc/pvh.pandoc`): flat 32-bit mode, paging off, RBX = start info.
pub(super) fn pvh(entry: u64) -> CpuStart {
    let regs = Regs {
        rip: entry,
        rbx: PVH_START_INFO,
        rflags: RFLAGS_RESERVED,
        ..Regs::default()
    };
    let sregs = StartSregs {
        cr0: CR0_PE | CR0_ET,
        ..segments(Mode::Protected)
    };
    CpuStart { regs, sregs }
}

fn segments(mode: Mode) -> StartSregs {
    StartSregs {
        cs: gdt::code(mode),
        data: gdt::data(),
        tr: gdt::task(),
        gdt: gdt::table(),
        ..StartSregs::default()
    }
}
