//! From a kernel file and a machine's shape to bytes in guest memory and a first CPU state.
//!
//! [`Kernel::open`] parses an ELF vmlinux or a bzImage, [`plan()`] says what goes where. Both only
//! compute: the caller reads the files and writes the guest's memory.

mod bzimage;
mod cpu;
mod elf;
mod error;
mod kernel;
mod plan;
mod pvh;
mod read;
#[cfg(test)]
mod testing;
mod unpack;
mod zero_page;

pub use self::error::{BootError, KernelError};
pub use self::kernel::{Compression, Kernel, KernelFormat, Payload, Segment};
pub use self::plan::plan;

use crate::regs::{Regs, StartSregs};

/// Random access to a kernel image.
pub trait ReadAt {
    /// Length in bytes.
    fn size(&self) -> u64;
    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// What the host reports, and `UnexpectedEof` when the image ends before `buf` is full.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()>;
}

impl ReadAt for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..at.checked_add(buf.len())?))
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

/// How the kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The 64-bit entry when the kernel has one, PVH otherwise.
    #[default]
    Auto,
    /// Linux's 64-bit boot protocol: long mode, RSI holds the zero page.
    Linux64,
    /// Xen's PVH entry: 32-bit protected mode, RBX holds `hvm_start_info`.
    Pvh,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Linux64 => "linux64",
            Self::Pvh => "pvh",
        })
    }
}

/// What [`plan()`] needs to know of the machine.
#[derive(Clone, Copy, Debug)]
pub struct BootShape<'a> {
    /// All guest memory, in bytes; a multiple of 4096.
    pub memory_bytes: u64,
    /// Length of the initrd, in bytes.
    pub initrd_bytes: Option<u64>,
    /// Kernel command line without a closing NUL.
    pub cmdline: &'a str,
    /// Protocol that is asked for.
    pub protocol: Protocol,
    /// Guest-physical address of ACPI's RSDP.
    pub rsdp: Option<u64>,
}

/// Everything that makes guest memory and the first CPU ready to run a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlan {
    /// What goes where; no two overlap, all are inside RAM, which is zero elsewhere.
    pub placements: Vec<Placement>,
    /// Registers of the boot CPU.
    pub cpu: CpuStart,
    /// Memory map as the guest is told, ascending; ranges do not overlap.
    pub memory_map: Vec<MemoryRange>,
    /// The protocol that was chosen, never [`Protocol::Auto`].
    pub protocol: Protocol,
}

/// Something to put at a guest-physical address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// What it is, for people.
    pub name: &'static str,
    /// Guest-physical address of the first byte.
    pub address: u64,
    /// Where the bytes come from.
    pub source: Source,
}

/// Where a placement's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A range of the kernel file, or of its unpacked payload when [`Payload::Unpacked`].
    Kernel {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The whole initrd.
    Initrd {
        /// Length in bytes.
        len: u64,
    },
}

impl Source {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Kernel { len, .. } | Self::Initrd { len } => *len,
        }
    }

    /// Whether there is nothing to place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Registers of the boot CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStart {
    /// General registers.
    pub regs: Regs,
    /// Segment and control registers.
    pub sregs: StartSregs,
}

/// A range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Guest-physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What the guest may do with it.
    pub kind: MemoryKind,
}

/// Kind of a range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Usable memory.
    Ram,
    /// Not to be used.
    Reserved,
}
