//! Pure x86-64 knowledge: boot protocols, tables, CPUID, registers, instructions; no I/O here.
#![forbid(unsafe_code)]

pub mod boot;
pub mod cpuid;
pub mod gdt;
pub mod insn;
pub mod layout;
pub mod msr;
pub mod paging;
pub mod regs;
pub mod tables;
