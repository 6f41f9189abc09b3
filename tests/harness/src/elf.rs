//! Writes small ELF64 executables for x86-64: one segment of code and a note with the PVH entry.
//! Every field can be spoilt, for the tests of bad input.

/// Where the code of a test guest lies and starts, in guest-physical memory.
pub const ENTRY: u64 = 0x10_0000;

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const CODE_OFFSET: usize = 0x1000;

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Elf {
    /// Code and data, loaded at `address`.
    pub code: Vec<u8>,
    /// Physical address of the segment.
    pub address: u64,
    /// Size of the segment in memory; at least the code's.
    pub memory_size: u64,
    /// Start in 64-bit mode.
    pub entry: u64,
    /// Start in 32-bit protected mode, in a note of type 18 of the name Xen; none without.
    pub pvh_entry: Option<u64>,
}

impl Elf {
    /// An image that starts at the first byte of `code` whichever way it is entered.
    #[must_use]
    pub fn of(code: Vec<u8>) -> Elf {
        let memory_size = code.len() as u64;
        Elf {
            code,
            address: ENTRY,
            memory_size,
            entry: ENTRY,
            pvh_entry: Some(ENTRY),
        }
    }

    /// The file's bytes.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let notes = self.notes();
        let note_offset = HEADER_SIZE + 2 * PROGRAM_HEADER_SIZE;
        let mut image = self.header();
        image.extend(segment(&Segment {
            kind: 1, // PT_LOAD
            flags: 7,
            offset: CODE_OFFSET as u64,
            address: self.address,
            file_size: self.code.len() as u64,
            memory_size: self.memory_size,
            align: 0x1000,
        }));
        image.extend(segment(&Segment {
            kind: 4, // PT_NOTE
            flags: 4,
            offset: note_offset as u64,
            address: 0,
            file_size: notes.len() as u64,
            memory_size: notes.len() as u64,
            align: 4,
        }));
        image.extend(notes);
        image.resize(CODE_OFFSET, 0);
        image.extend(&self.code);
        image
    }

    fn header(&self) -> Vec<u8> {
        let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1]; // 64 bits, little endian, version 1
        header.resize(16, 0);
        header.extend(2u16.to_le_bytes()); // executable
        header.extend(62u16.to_le_bytes()); // x86-64
        header.extend(1u32.to_le_bytes());
        header.extend(self.entry.to_le_bytes());
        header.extend((HEADER_SIZE as u64).to_le_bytes()); // program headers follow
        header.extend(0u64.to_le_bytes()); // no section headers
        header.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 2, 64, 0, 0] {
            header.extend(half.to_le_bytes());
        }
        header
    }

    fn notes(&self) -> Vec<u8> {
        let Some(entry) = self.pvh_entry else {
            return Vec::new();
        };
        let mut note = Vec::new();
        // Size of the name, size of the value, XEN_ELFNOTE_PHYS32_ENTRY.
        for word in [4u32, 8, 18] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Xen\0");
        note.extend(entry.to_le_bytes());
        note
    }
}

struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

fn segment(segment: &Segment) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(segment.kind.to_le_bytes());
    header.extend(segment.flags.to_le_bytes());
    for field in [
        segment.offset,
        segment.address,
        segment.address,
        segment.file_size,
        segment.memory_size,
        segment.align,
    ] {
        header.extend(field.to_le_bytes());
    }
    header
}
