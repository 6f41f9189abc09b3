//! Small kernel images, made in memory, for the tests of this folder.

use super::{BootPlan, MemoryKind, Placement};

/// Where the segment of [`elf`] is loaded, and its 64-bit entry.
pub(super) const LOAD: u64 = 0x100_0000;
/// The PVH entry of [`elf`].
pub(super) const PVH: u64 = LOAD + 0x10;
/// Length of the program header table's entries.
pub(super) const PHENT: usize = 56;
/// Offset of the program headers of [`Elf::build`].
pub(super) const PHOFF: usize = 64;

/// A program header.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) kind: u32,
    pub(super) address: u64,
    pub(super) memory: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) align: u64,
}

impl Program {
    pub(super) fn load(address: u64, memory: u64, bytes: Vec<u8>) -> Self {
        Self {
            kind: 1,
            address,
            memory,
            bytes,
            align: 0x1000,
        }
    }

    pub(super) fn note(bytes: Vec<u8>) -> Self {
        Self {
            kind: 4,
            address: 0,
            memory: 0,
            bytes,
            align: 4,
        }
    }
}

/// An ELF to be built.
#[derive(Clone, Debug)]
pub(super) struct Elf {
    pub(super) entry: u64,
    pub(super) programs: Vec<Program>,
}

impl Elf {
    pub(super) fn build(&self) -> Vec<u8> {
        let mut image = Vec::new();
        image.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for half in [2u16, 62] {
            image.extend(half.to_le_bytes());
        }
        image.extend(1u32.to_le_bytes());
        for word in [self.entry, PHOFF as u64, 0] {
            image.extend(word.to_le_bytes());
        }
        image.extend(0u32.to_le_bytes());
        for half in [
            64u16,
            56,
            u16::try_from(self.programs.len()).unwrap(),
            64,
            0,
            0,
        ] {
            image.extend(half.to_le_bytes());
        }
        let mut offset = (image.len() + self.programs.len() * PHENT) as u64;
        for program in &self.programs {
            image.extend(program.kind.to_le_bytes());
            image.extend(7u32.to_le_bytes());
            let len = program.bytes.len() as u64;
            for word in [
                offset,
                program.address,
                program.address,
                len,
                program.memory,
                program.align,
            ] {
                image.extend(word.to_le_bytes());
            }
            offset += len;
        }
        for program in &self.programs {
            image.extend(&program.bytes);
        }
        image
    }
}

/// A note with `align`-padded name and value.
pub(super) fn note(name: &[u8], kind: u32, value: &[u8], align: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len(), value.len()] {
        bytes.extend(u32::try_from(word).unwrap().to_le_bytes());
    }
    bytes.extend(kind.to_le_bytes());
    for part in [name, value] {
        bytes.extend(part);
        bytes.resize(
            bytes.len() + part.len().next_multiple_of(align) - part.len(),
            0,
        );
    }
    bytes
}

/// A kernel with one segment, both entries, and a note before the PVH note.
pub(super) fn elf() -> Elf {
    let mut notes = note(b"GNU\0", 3, &[7; 20], 4);
    notes.extend(note(b"Xen\0", 18, &PVH.to_le_bytes(), 4));
    let code = (0..600u32).map(|i| (i * i / 7).to_le_bytes()[0]).collect();
    Elf {
        entry: LOAD,
        programs: vec![Program::note(notes), Program::load(LOAD, 0x3000, code)],
    }
}

/// Number of set-up sectors of [`bzimage`].
pub(super) const SETUP_SECTORS: usize = 2;
/// Offset of the payload of [`bzimage`] behind the set-up code.
pub(super) const PAYLOAD_OFFSET: usize = 0x40;

/// A bzImage around a packed payload, which has its size word already.
pub(super) fn bzimage(packed: &[u8]) -> Vec<u8> {
    let setup = (SETUP_SECTORS + 1) * 512;
    let code = (PAYLOAD_OFFSET + packed.len()).next_multiple_of(16);
    let mut image = vec![0; setup + code];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[u8::try_from(SETUP_SECTORS).unwrap()]);
    put(0x1f4, &u32::try_from(code / 16).unwrap().to_le_bytes());
    put(0x1fe, &0xaa55u16.to_le_bytes());
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x236, &0x3fu16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x248, &u32::try_from(PAYLOAD_OFFSET).unwrap().to_le_bytes());
    put(0x24c, &u32::try_from(packed.len()).unwrap().to_le_bytes());
    put(setup + PAYLOAD_OFFSET, packed);
    image
}

/// LZ4's legacy frame with its size word.
pub(super) fn lz4(raw: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
    for block in raw.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        packed.extend(block);
    }
    size_word(packed, raw)
}

/// Appends the unpacked size.
pub(super) fn size_word(mut packed: Vec<u8>, raw: &[u8]) -> Vec<u8> {
    packed.extend(u32::try_from(raw.len()).unwrap().to_le_bytes());
    packed
}

/// What must hold for every plan: all in RAM, nothing twice, the map ascending and inside memory.
pub(super) fn assert_sound(plan: &BootPlan, memory: u64) {
    let ram: Vec<_> = plan
        .memory_map
        .iter()
        .filter(|r| r.kind == MemoryKind::Ram)
        .collect();
    let mut end = 0;
    for range in &plan.memory_map {
        assert!(range.start >= end && range.len > 0, "{:?}", plan.memory_map);
        end = range.start + range.len;
    }
    let lost = crate::layout::HIGH_RAM - crate::layout::EBDA;
    assert_eq!(
        ram.iter().map(|range| range.len).sum::<u64>() + lost,
        memory
    );
    let mut placed: Vec<&Placement> = plan.placements.iter().collect();
    placed.sort_by_key(|placement| placement.address);
    let mut end = 0;
    for placement in placed {
        let (start, len) = (placement.address, placement.source.len());
        assert!(
            start >= end,
            "{} overlaps what is before it",
            placement.name
        );
        end = start + len;
        let inside = ram
            .iter()
            .any(|r| r.start <= start && end <= r.start + r.len);
        assert!(
            inside,
            "{} is outside of RAM: {start:#x}..{end:#x}",
            placement.name
        );
    }
}
