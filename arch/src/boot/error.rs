//! What can be wrong with a kernel file or with a machine that is to run it; one sentence each.

use super::{Compression, KernelFormat, Protocol};

/// Why a file cannot be used as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The host failed to deliver bytes.
    #[error("cannot read {len} bytes at offset {offset} of the kernel: check the file's disk")]
    Read {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// What the host said.
        source: std::io::Error,
    },
    /// No bytes at all.
    #[error("the kernel has 0 bytes: give an ELF vmlinux or a bzImage")]
    Empty,
    /// Something that the headers promise is behind the end of the file.
    #[error("the kernel is truncated, {what} ends at byte {end} of {size}: copy or build it again")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// First byte behind it.
        end: u64,
        /// Length of the file.
        size: u64,
    },
    /// Neither an ELF nor a bzImage.
    #[error("the kernel is {found}: {remedy}")]
    Unknown {
        /// What it looks like.
        found: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The other known format than the one that was claimed.
    #[error("the kernel is claimed to be {claimed} and is {found}: correct the claim or the file")]
    OtherFormat {
        /// What the caller said.
        claimed: KernelFormat,
        /// What the file is.
        found: KernelFormat,
    },
    /// A header field has a value that cannot be used.
    #[error("{field} of the kernel is {value:#x}: {remedy}")]
    Field {
        /// The header and its field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed, what to do.
        remedy: &'static str,
    },
    /// A program header has a value that cannot be used.
    #[error("{field} of the kernel's program header {index} is {value:#x}: {remedy}")]
    ProgramHeader {
        /// Number of the program header, from 0.
        index: usize,
        /// Its field.
        field: &'static str,
        /// The field's value.
        value: u64,
        /// What is allowed, what to do.
        remedy: &'static str,
    },
    /// Two segments want the same memory.
    #[error("program headers {first} and {second} of the kernel both load {address:#x}: relink it")]
    Overlap {
        /// Number of the one.
        first: usize,
        /// Number of the other.
        second: usize,
        /// First address that both claim.
        address: u64,
    },
    /// No usable entry.
    #[error(
        "e_entry {entry:#x} of the kernel is in no loaded segment and there is no PVH note: \
         link it with physical addresses or enable CONFIG_PVH"
    )]
    NoEntry {
        /// The ELF header's entry.
        entry: u64,
    },
    /// The payload is packed in a way that is unknown here.
    #[error(
        "the payload of the bzImage starts with {magic:02x?}, {name}: rebuild the kernel with \
         CONFIG_KERNEL_ZSTD=y"
    )]
    Compression {
        /// First bytes of the payload.
        magic: [u8; 6],
        /// What it is, as far as known.
        name: &'static str,
    },
    /// The payload cannot be unpacked or is no kernel.
    #[error(
        "the {compression} payload of the bzImage is unusable, {reason}: copy or build it again"
    )]
    Payload {
        /// How it is packed.
        compression: Compression,
        /// What was found.
        reason: String,
    },
    /// The payload expands without end.
    #[error(
        "the {compression} payload of the bzImage expands to {size} bytes, at most {limit} are \
         unpacked: use a smaller kernel"
    )]
    TooBig {
        /// How it is packed.
        compression: Compression,
        /// What its size word says.
        size: u32,
        /// Most bytes that are unpacked.
        limit: u64,
    },
}

/// Why a kernel cannot be booted in a machine of this shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The amount of memory makes no machine.
    #[error("memory is {bytes} bytes: give a multiple of {granule} from {min} to {max}")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
        /// What the size must be a multiple of.
        granule: u64,
        /// Least size.
        min: u64,
        /// Largest size.
        max: u64,
    },
    /// A segment of the kernel is behind the end of RAM.
    #[error(
        "the kernel loads {start:#x}..{end:#x}, memory ends at {ram_end:#x}: \
         give the guest {needed_mib} MiB or more"
    )]
    OutsideRam {
        /// First byte of the segment.
        start: u64,
        /// First byte behind the segment.
        end: u64,
        /// End of low RAM.
        ram_end: u64,
        /// Least memory that holds it, in MiB.
        needed_mib: u64,
    },
    /// A segment of the kernel reaches into the hole for devices or beyond.
    #[error(
        "the kernel loads {start:#x}..{end:#x}, only addresses below {limit:#x} can hold it: \
         link it lower"
    )]
    OverHole {
        /// First byte of the segment.
        start: u64,
        /// First byte behind the segment.
        end: u64,
        /// First address that cannot hold a kernel.
        limit: u64,
    },
    /// A segment of the kernel is where the boot structures are.
    #[error(
        "the kernel loads {start:#x}..{end:#x}, where {with} is ({with_start:#x}..{with_end:#x}): \
         link it at 1 MiB or above"
    )]
    Collides {
        /// First byte of the segment.
        start: u64,
        /// First byte behind the segment.
        end: u64,
        /// What is there.
        with: &'static str,
        /// First byte of that.
        with_start: u64,
        /// First byte behind that.
        with_end: u64,
    },
    /// The kernel lacks the entry that was asked for.
    #[error("the kernel has no {wanted} entry: use protocol {offered}")]
    Protocol {
        /// What was asked for.
        wanted: Protocol,
        /// What the kernel has.
        offered: Protocol,
    },
    /// An initrd without a byte.
    #[error("the initrd has 0 bytes: give a cpio archive or leave it out")]
    InitrdEmpty,
    /// No room for the initrd.
    #[error(
        "the initrd has {bytes} bytes, at most {room} are free below {limit:#x}: \
         give the guest more memory or a smaller initrd"
    )]
    InitrdTooLarge {
        /// Its length.
        bytes: u64,
        /// Largest free range.
        room: u64,
        /// First address that cannot hold an initrd.
        limit: u64,
    },
    /// More text than the kernel reads.
    #[error("the command line has {bytes} bytes, the kernel reads {limit}: shorten it")]
    CmdlineTooLong {
        /// Its length.
        bytes: usize,
        /// Most that the kernel takes.
        limit: usize,
    },
    /// A character that ends or splits a command line.
    #[error(
        "byte {position} of the command line is the control character {character:?}: remove it"
    )]
    CmdlineCharacter {
        /// Offset in bytes.
        position: usize,
        /// The character.
        character: char,
    },
}
