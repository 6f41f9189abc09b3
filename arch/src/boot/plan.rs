//! Combines a kernel, an initrd, a command line and an amount of memory into a [`BootPlan`].

use super::pvh::{self, Told as PvhTold};
use super::zero_page::{self, Told as ZeroPageTold};
use super::{
    BootError, BootPlan, BootShape, CpuStart, Kernel, MemoryKind, MemoryRange, Placement, Protocol,
    Segment, Source, cpu,
};
use crate::gdt::{self, Mode};
use crate::layout::{
    self, ACPI_END, BOOT_STACK, CMDLINE, CMDLINE_AREA, CMDLINE_MAX, EBDA, GDT, HIGH_RAM,
    HOLE_START, MAX_MEMORY, MIN_MEMORY, PAGE_SIZE, PAGE_TABLES_END, PML4, PVH_START_INFO,
    ZERO_PAGE,
};
use crate::paging;

/// Where an initrd must end for a kernel that does not say: Linux's own value for x86-64.
const INITRD_MAX: u64 = 0x7fff_ffff;

/// What is at fixed places below 1 MiB, whether or not a protocol uses it.
const FIXED: [(&str, u64, u64); 7] = [
    ("the descriptor table", GDT, GDT + 0x100),
    ("the PVH start info", PVH_START_INFO, ZERO_PAGE),
    ("the zero page", ZERO_PAGE, ZERO_PAGE + PAGE_SIZE),
    ("the boot stack", BOOT_STACK, BOOT_STACK + PAGE_SIZE),
    ("the page tables", PML4, PAGE_TABLES_END),
    ("the command line", CMDLINE, CMDLINE + CMDLINE_AREA),
    ("the firmware area", EBDA, ACPI_END),
];

/// Says what to put into guest memory, and how the boot CPU starts.
///
/// # Errors
/// What in the kernel, the initrd, the command line or the memory size does not fit the rest.
pub fn plan(kernel: &Kernel, shape: &BootShape<'_>) -> Result<BootPlan, BootError> {
    check_memory(shape.memory_bytes)?;
    let protocol = choose(kernel, shape.protocol)?;
    check_cmdline(shape.cmdline, cmdline_limit(kernel))?;
    let low_end = shape.memory_bytes.min(HOLE_START);
    for segment in kernel.segments() {
        check_segment(segment, low_end)?;
    }
    let initrd = shape
        .initrd_bytes
        .map(|len| place_initrd(kernel, len, low_end))
        .transpose()?;
    let memory_map = memory_map(shape.memory_bytes);
    let (mut placements, cpu) = match protocol {
        Entry::Linux64(entry) => linux64(kernel, shape, entry, initrd, &memory_map),
        Entry::Pvh(entry) => pvh(shape, entry, initrd, &memory_map),
    };
    placements.push(cmdline(shape.cmdline));
    placements.extend(
        kernel
            .segments()
            .iter()
            .filter(|s| s.file_bytes > 0)
            .map(loaded),
    );
    placements.extend(initrd.map(|(address, len)| Placement {
        name: "initrd",
        address,
        source: Source::Initrd { len },
    }));
    Ok(BootPlan {
        placements,
        cpu,
        memory_map,
        protocol: protocol.protocol(),
    })
}

/// A protocol and where it enters the kernel.
#[derive(Clone, Copy)]
enum Entry {
    Linux64(u64),
    Pvh(u64),
}

impl Entry {
    fn protocol(self) -> Protocol {
        match self {
            Self::Linux64(_) => Protocol::Linux64,
            Self::Pvh(_) => Protocol::Pvh,
        }
    }
}

fn choose(kernel: &Kernel, wanted: Protocol) -> Result<Entry, BootError> {
    let linux64 = kernel.entry64().map(Entry::Linux64);
    let pvh = kernel.pvh_entry().map(Entry::Pvh);
    let (chosen, other) = match wanted {
        Protocol::Auto => (linux64.or(pvh), None),
        Protocol::Linux64 => (linux64, pvh),
        Protocol::Pvh => (pvh, linux64),
    };
    let offered = other.map_or(Protocol::Auto, Entry::protocol);
    chosen.ok_or(BootError::Protocol { wanted, offered })
}

fn check_memory(bytes: u64) -> Result<(), BootError> {
    if (MIN_MEMORY..=MAX_MEMORY).contains(&bytes) && bytes.is_multiple_of(PAGE_SIZE) {
        return Ok(());
    }
    Err(BootError::Memory {
        bytes,
        granule: PAGE_SIZE,
        min: MIN_MEMORY,
        max: MAX_MEMORY,
    })
}

/// Most bytes of command line that the kernel reads, the NUL not counted.
fn cmdline_limit(kernel: &Kernel) -> usize {
    let stated = kernel.setup.map(|setup| setup.cmdline_size);
    let stated = stated.and_then(|size| usize::try_from(size).ok());
    stated.map_or(CMDLINE_MAX, |size| size.min(CMDLINE_MAX))
}

fn check_cmdline(text: &str, limit: usize) -> Result<(), BootError> {
    let bytes = text.len();
    if bytes > limit {
        return Err(BootError::CmdlineTooLong { bytes, limit });
    }
    let control = text
        .char_indices()
        .find(|&(_, found)| found.is_control() && found != '\t');
    control.map_or(Ok(()), |(position, character)| {
        Err(BootError::CmdlineCharacter {
            position,
            character,
        })
    })
}

fn check_segment(segment: &Segment, low_end: u64) -> Result<(), BootError> {
    let (start, end) = (segment.address, segment.end());
    if end > HOLE_START {
        return Err(BootError::OverHole {
            start,
            end,
            limit: HOLE_START,
        });
    }
    if end > low_end {
        let needed_mib = end.div_ceil(1 << 20);
        return Err(BootError::OutsideRam {
            start,
            end,
            ram_end: low_end,
            needed_mib,
        });
    }
    for (with, with_start, with_end) in FIXED {
        if start < with_end && with_start < end {
            return Err(BootError::Collides {
                start,
                end,
                with,
                with_start,
                with_end,
            });
        }
    }
    Ok(())
}

/// Address and length of an initrd: page aligned, as high as RAM and the kernel allow.
fn place_initrd(kernel: &Kernel, len: u64, low_end: u64) -> Result<(u64, u64), BootError> {
    if len == 0 {
        return Err(BootError::InitrdEmpty);
    }
    let stated = kernel
        .setup
        .map_or(INITRD_MAX, |setup| setup.initrd_addr_max.into());
    let limit = low_end.min(stated.saturating_add(1));
    let mut top = limit;
    let mut room = 0;
    let floor = (0, HIGH_RAM);
    let below = kernel
        .segments()
        .iter()
        .rev()
        .map(|s| (s.address, s.end()))
        .chain([floor]);
    for (start, end) in below {
        // From the end of what is below, in whole pages, up to `top`.
        let from = end.max(HIGH_RAM).next_multiple_of(PAGE_SIZE);
        room = room.max(top.saturating_sub(from));
        if let Some(address) = top
            .checked_sub(len)
            .map(|address| address & !(PAGE_SIZE - 1))
            && address >= from
        {
            return Ok((address, len));
        }
        top = top.min(start);
    }
    Err(BootError::InitrdTooLarge {
        bytes: len,
        room,
        limit,
    })
}

/// RAM around the hole, without the EBDA and the firmware area.
fn memory_map(memory_bytes: u64) -> Vec<MemoryRange> {
    let mut map = vec![
        MemoryRange {
            start: 0,
            len: EBDA,
            kind: MemoryKind::Ram,
        },
        MemoryRange {
            start: EBDA,
            len: HIGH_RAM - EBDA,
            kind: MemoryKind::Reserved,
        },
    ];
    map.extend(
        layout::ram_ranges(memory_bytes)
            .into_iter()
            .map(|(start, len)| {
                let skipped = HIGH_RAM.saturating_sub(start);
                MemoryRange {
                    start: start + skipped,
                    len: len - skipped,
                    kind: MemoryKind::Ram,
                }
            }),
    );
    map
}

fn linux64(
    kernel: &Kernel,
    shape: &BootShape<'_>,
    entry: u64,
    initrd: Option<(u64, u64)>,
    memory_map: &[MemoryRange],
) -> (Vec<Placement>, CpuStart) {
    // Below 4 GiB, as place_initrd() saw to.
    let narrow = |(at, len): (u64, u64)| Some((u32::try_from(at).ok()?, u32::try_from(len).ok()?));
    let told = ZeroPageTold {
        memory_map,
        cmdline_len: u32::try_from(shape.cmdline.len()).unwrap_or(u32::MAX),
        initrd: initrd.and_then(narrow),
        rsdp: shape.rsdp,
    };
    let placements = vec![
        bytes("gdt", GDT, gdt::bytes(Mode::Long)),
        bytes("zero-page", ZERO_PAGE, zero_page::bytes(kernel, &told)),
        bytes("page-tables", PML4, paging::identity_map()),
    ];
    (placements, cpu::linux64(entry))
}

fn pvh(
    shape: &BootShape<'_>,
    entry: u64,
    initrd: Option<(u64, u64)>,
    memory_map: &[MemoryRange],
) -> (Vec<Placement>, CpuStart) {
    let told = PvhTold {
        memory_map,
        initrd,
        rsdp: shape.rsdp,
    };
    let placements = vec![
        bytes("gdt", GDT, gdt::bytes(Mode::Protected)),
        bytes("pvh-start-info", PVH_START_INFO, pvh::bytes(&told)),
    ];
    (placements, cpu::pvh(entry))
}

fn cmdline(text: &str) -> Placement {
    let mut terminated = text.as_bytes().to_vec();
    terminated.push(0);
    bytes("command-line", CMDLINE, terminated)
}

fn loaded(segment: &Segment) -> Placement {
    let source = Source::Kernel {
        offset: segment.offset,
        len: segment.file_bytes,
    };
    Placement {
        name: "kernel",
        address: segment.address,
        source,
    }
}

fn bytes(name: &'static str, address: u64, bytes: Vec<u8>) -> Placement {
    Placement {
        name,
        address,
        source: Source::Bytes(bytes),
    }
}

#[cfg(test)]
mod tests;
