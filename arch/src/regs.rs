//! Registers of a virtual CPU as plain data, independent of any hypervisor's structures.

/// General registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regs {
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// RSP.
    pub rsp: u64,
    /// RBP.
    pub rbp: u64,
    /// R8.
    pub r8: u64,
    /// R9.
    pub r9: u64,
    /// R10.
    pub r10: u64,
    /// R11.
    pub r11: u64,
    /// R12.
    pub r12: u64,
    /// R13.
    pub r13: u64,
    /// R14.
    pub r14: u64,
    /// R15.
    pub r15: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Flags; bit 1 is always set on a processor.
    pub rflags: u64,
}

/// A segment register with its hidden part (Intel SDM volume 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, already scaled when `g` is set.
    pub limit: u32,
    /// Visible selector.
    pub selector: u16,
    /// Type field of the descriptor (4 bits).
    pub kind: u8,
    /// Present bit.
    pub present: u8,
    /// Privilege level, 0 to 3.
    pub dpl: u8,
    /// Default operation size.
    pub db: u8,
    /// 1 for code and data, 0 for a system descriptor.
    pub s: u8,
    /// 64-bit code.
    pub l: u8,
    /// Granularity: 1 when the descriptor's limit counts pages.
    pub g: u8,
    /// Bit for software's use.
    pub avl: u8,
}

/// A descriptor table register (GDTR, IDTR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Linear base address.
    pub base: u64,
    /// Offset of the last byte.
    pub limit: u16,
}

/// Segment, control and table registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sregs {
    /// Code segment.
    pub cs: Segment,
    /// Data segment.
    pub ds: Segment,
    /// Extra segment.
    pub es: Segment,
    /// FS.
    pub fs: Segment,
    /// GS.
    pub gs: Segment,
    /// Stack segment.
    pub ss: Segment,
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table register.
    pub ldt: Segment,
    /// Global descriptor table.
    pub gdt: Table,
    /// Interrupt descriptor table.
    pub idt: Table,
    /// CR0.
    pub cr0: u64,
    /// CR2, the address of the last page fault.
    pub cr2: u64,
    /// CR3, the root of the page tables.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8, the task priority.
    pub cr8: u64,
    /// EFER.
    pub efer: u64,
    /// Base and flags of the local APIC.
    pub apic_base: u64,
}

/// The registers of [`Sregs`] that a boot protocol sets; the others keep their reset values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartSregs {
    /// Code segment.
    pub cs: Segment,
    /// What DS, ES, FS, GS and SS are loaded with.
    pub data: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdt: Table,
    /// Interrupt descriptor table.
    pub idt: Table,
    /// CR0.
    pub cr0: u64,
    /// CR3, the root of the page tables.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

/// CR0: protection enable.
pub const CR0_PE: u64 = 1;
/// CR0: monitor coprocessor.
pub const CR0_MP: u64 = 1 << 1;
/// CR0: extension type, always set.
pub const CR0_ET: u64 = 1 << 4;
/// CR0: numeric errors as exceptions.
pub const CR0_NE: u64 = 1 << 5;
/// CR0: write protection also for the kernel.
pub const CR0_WP: u64 = 1 << 16;
/// CR0: alignment mask.
pub const CR0_AM: u64 = 1 << 18;
/// CR0: paging.
pub const CR0_PG: u64 = 1 << 31;
/// CR4: physical address extension.
pub const CR4_PAE: u64 = 1 << 5;
/// EFER: long mode enabled.
pub const EFER_LME: u64 = 1 << 8;
/// EFER: long mode active.
pub const EFER_LMA: u64 = 1 << 10;
/// RFLAGS: the bit that is always set.
pub const RFLAGS_RESERVED: u64 = 1 << 1;
