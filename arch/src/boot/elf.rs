//! ELF64 kernels: program headers to segments, entries from `e_entry` and the PVH note.

use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_EXEC, EV_CURRENT, Elf64_Ehdr,
    Elf64_Nhdr, Elf64_Phdr, PT_LOAD, PT_NOTE,
};
use vm_memory::ByteValued;

use super::kernel::{Compression, Kernel, KernelFormat, Payload, Segment};
use super::{KernelError, ReadAt, read};
use crate::layout::HOLE_END;

/// Most bytes of notes that are looked at; Linux has about a hundred.
const NOTES_MAX: u64 = 1 << 20;
/// Type of the note that holds the 32-bit physical entry (Xen, `elfnote.h`).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
const XEN_NOTE_NAME: &[u8] = b"Xen\0";
/// `e_phnum` when the real number is elsewhere (System V ABI, program header extension).
const PN_XNUM: u16 = 0xffff;

/// Parses an ELF whose segments are in `image` itself.
pub(super) fn open(image: &dyn ReadAt) -> Result<Kernel, KernelError> {
    let header = header(image)?;
    let table = program_headers(image, &header)?;
    let segments = segments(image, &table)?;
    let pvh_entry = pvh_entry(image, &table, &segments)?;
    // A bare PVH image names its 32-bit entry in both places: that is no 64-bit entry.
    let entry64 = Some(header.e_entry)
        .filter(|&entry| Some(entry) != pvh_entry && segments.iter().any(|s| s.holds(entry)));
    if entry64.is_none() && pvh_entry.is_none() {
        return Err(KernelError::NoEntry {
            entry: header.e_entry,
        });
    }
    Ok(Kernel {
        format: KernelFormat::Elf,
        compression: Compression::None,
        payload: Payload::File,
        segments,
        entry64,
        pvh_entry,
        setup: None,
    })
}

fn header(image: &dyn ReadAt) -> Result<Elf64_Ehdr, KernelError> {
    let mut header = Elf64_Ehdr::default();
    read::fill(image, header.as_mut_slice(), 0, "the ELF header")?;
    if !header.e_ident.starts_with(ELFMAG) {
        return Err(KernelError::Unknown {
            found: "no ELF (its magic number is missing)",
            remedy: "give the vmlinux or bzImage of an x86-64 kernel",
        });
    }
    check_header(&header)?;
    let sections = u64::from(header.e_shnum) * u64::from(header.e_shentsize);
    read::check(image, header.e_shoff, sections, "the section header table")?;
    Ok(header)
}

/// The fields that have one good value each.
fn check_header(header: &Elf64_Ehdr) -> Result<(), KernelError> {
    let ident = |at: usize| header.e_ident.get(at).copied().unwrap_or_default();
    let checks: [(&str, u64, u64, &str); 8] = [
        (
            "EI_CLASS",
            ident(EI_CLASS).into(),
            ELFCLASS64.into(),
            "it must be 2, use a 64-bit kernel (CONFIG_64BIT=y)",
        ),
        (
            "EI_DATA",
            ident(EI_DATA).into(),
            ELFDATA2LSB.into(),
            "it must be 1 (little-endian), use an x86-64 kernel",
        ),
        (
            "e_machine",
            header.e_machine.into(),
            EM_X86_64.into(),
            "it must be 62 (x86-64), use a kernel for this machine",
        ),
        (
            "e_type",
            header.e_type.into(),
            ET_EXEC.into(),
            "it must be 2 (executable with fixed addresses), give vmlinux and no program or module",
        ),
        (
            "e_version",
            header.e_version.into(),
            EV_CURRENT.into(),
            "it must be 1, the file is damaged",
        ),
        (
            "e_phentsize",
            header.e_phentsize.into(),
            size_of::<Elf64_Phdr>() as u64,
            "it must be 0x38, the file is damaged",
        ),
        (
            "e_ehsize",
            header.e_ehsize.into(),
            size_of::<Elf64_Ehdr>() as u64,
            "it must be 0x40, the file is damaged",
        ),
        (
            "e_phnum",
            u64::from(header.e_phnum == PN_XNUM),
            0,
            "at most 65534 are supported",
        ),
    ];
    for (field, value, expected, remedy) in checks {
        if value != expected {
            return Err(KernelError::Field {
                field,
                value,
                remedy,
            });
        }
    }
    Ok(())
}

fn program_headers(
    image: &dyn ReadAt,
    header: &Elf64_Ehdr,
) -> Result<Vec<Elf64_Phdr>, KernelError> {
    if header.e_phnum == 0 {
        let remedy = "there is nothing to load, give the linked vmlinux";
        return Err(KernelError::Field {
            field: "e_phnum",
            value: 0,
            remedy,
        });
    }
    let len = u64::from(header.e_phnum) * size_of::<Elf64_Phdr>() as u64;
    let bytes = read::bytes(image, header.e_phoff, len, "the program header table")?;
    let (chunks, _) = bytes.as_chunks::<{ size_of::<Elf64_Phdr>() }>();
    Ok(chunks
        .iter()
        .map(|chunk| {
            let mut entry = Elf64_Phdr::default();
            entry.as_mut_slice().copy_from_slice(chunk);
            entry
        })
        .collect())
}

fn segments(image: &dyn ReadAt, table: &[Elf64_Phdr]) -> Result<Vec<Segment>, KernelError> {
    let mut segments = Vec::new();
    for (index, entry) in table.iter().enumerate() {
        if entry.p_type == PT_LOAD && entry.p_memsz > 0 {
            segments.push(segment(image, index, entry)?);
        } else if entry.p_type == PT_LOAD && entry.p_filesz > 0 {
            return Err(larger_in_file(index, entry));
        }
    }
    if segments.is_empty() {
        let remedy = "none of them is a PT_LOAD with memory, give the linked vmlinux";
        return Err(KernelError::Field {
            field: "e_phnum",
            value: table.len() as u64,
            remedy,
        });
    }
    segments.sort_by_key(|segment| segment.address);
    for (low, high) in segments.iter().zip(segments.iter().skip(1)) {
        if low.end() > high.address {
            let (first, second) = (low.index.min(high.index), low.index.max(high.index));
            return Err(KernelError::Overlap {
                first,
                second,
                address: high.address,
            });
        }
    }
    Ok(segments)
}

fn segment(image: &dyn ReadAt, index: usize, entry: &Elf64_Phdr) -> Result<Segment, KernelError> {
    if entry.p_filesz > entry.p_memsz {
        return Err(larger_in_file(index, entry));
    }
    if entry.p_paddr.checked_add(entry.p_memsz).is_none() {
        let remedy = "p_paddr + p_memsz is beyond 64 bits, relink it";
        return Err(program_header(index, "p_memsz", entry.p_memsz, remedy));
    }
    read::check(image, entry.p_offset, entry.p_filesz, "a segment")?;
    Ok(Segment {
        index,
        address: entry.p_paddr,
        memory_bytes: entry.p_memsz,
        offset: entry.p_offset,
        file_bytes: entry.p_filesz,
    })
}

fn larger_in_file(index: usize, entry: &Elf64_Phdr) -> KernelError {
    let remedy = "it must not be larger than p_memsz, the file is damaged";
    program_header(index, "p_filesz", entry.p_filesz, remedy)
}

fn program_header(
    index: usize,
    field: &'static str,
    value: u64,
    remedy: &'static str,
) -> KernelError {
    KernelError::ProgramHeader {
        index,
        field,
        value,
        remedy,
    }
}

/// Looks for the PVH entry in all notes, of which at most [`NOTES_MAX`] bytes are read.
fn pvh_entry(
    image: &dyn ReadAt,
    table: &[Elf64_Phdr],
    segments: &[Segment],
) -> Result<Option<u64>, KernelError> {
    let mut budget = NOTES_MAX;
    for (index, entry) in table
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.p_type == PT_NOTE)
    {
        budget = budget.checked_sub(entry.p_filesz).ok_or_else(|| {
            let remedy = "at most 1 MiB of notes is looked at, strip them";
            program_header(index, "p_filesz", entry.p_filesz, remedy)
        })?;
        let notes = read::bytes(image, entry.p_offset, entry.p_filesz, "a note segment")?;
        let align = if entry.p_align == 8 { 8 } else { 4 };
        let Some(found) = find_pvh(&notes, align) else {
            let remedy = "a note reaches beyond the end of this segment, the file is damaged";
            return Err(program_header(index, "p_filesz", entry.p_filesz, remedy));
        };
        if let Some(entry) = found {
            return check_pvh(entry, segments).map(Some);
        }
    }
    Ok(None)
}

fn check_pvh(entry: u64, segments: &[Segment]) -> Result<u64, KernelError> {
    if entry < HOLE_END && segments.iter().any(|segment| segment.holds(entry)) {
        return Ok(entry);
    }
    let remedy = "it is in no loaded segment below 4 GiB, relink it";
    Err(KernelError::Field {
        field: "XEN_ELFNOTE_PHYS32_ENTRY",
        value: entry,
        remedy,
    })
}

/// The PVH entry in `notes`; `None` when a note is longer than what holds it.
fn find_pvh(notes: &[u8], align: usize) -> Option<Option<u64>> {
    let mut rest = notes;
    // Every round takes at least the 12 bytes of a note's header, so this ends.
    while !rest.is_empty() {
        let mut header = Elf64_Nhdr::default();
        let (head, tail) = rest.split_at_checked(size_of::<Elf64_Nhdr>())?;
        header.as_mut_slice().copy_from_slice(head);
        let (name, tail) = split_padded(tail, header.n_namesz, align)?;
        let (value, tail) = split_padded(tail, header.n_descsz, align)?;
        if header.n_type == XEN_ELFNOTE_PHYS32_ENTRY && name == XEN_NOTE_NAME {
            return Some(Some(pvh_value(value)?));
        }
        rest = tail;
    }
    Some(None)
}

/// The entry of a PVH note: 4 or 8 bytes, little-endian.
fn pvh_value(value: &[u8]) -> Option<u64> {
    if let Ok(wide) = <[u8; 8]>::try_from(value) {
        return Some(u64::from_le_bytes(wide));
    }
    <[u8; 4]>::try_from(value)
        .ok()
        .map(|narrow| u32::from_le_bytes(narrow).into())
}

/// Takes `len` bytes; the padding behind them may be missing at the very end.
fn split_padded(bytes: &[u8], len: u32, align: usize) -> Option<(&[u8], &[u8])> {
    let len = usize::try_from(len).ok()?;
    let (taken, _) = bytes.split_at_checked(len)?;
    let padded = len.checked_next_multiple_of(align)?;
    Some((taken, bytes.get(padded..).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
