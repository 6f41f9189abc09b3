//! Kernels that the structured targets describe: an ELF whose segments and entries are near each
//! other often enough to be accepted.

use arbitrary::Arbitrary;

/// An ELF with a PVH note.
#[derive(Arbitrary, Debug)]
pub struct Elf {
    /// Address, length in memory beyond the file's, length in the file.
    segments: Vec<(Place, u32, u8)>,
    /// Number of a segment, offset into it.
    entry: (u8, u8),
    /// The same for PVH.
    pvh: Option<(u8, u8)>,
}

/// An address or a size that is often near something.
#[derive(Arbitrary, Debug, Clone, Copy)]
pub enum Place {
    /// Near a multiple of 1 MiB.
    Mib(u16, i16),
    /// Near a multiple of 1 KiB.
    Kib(u16, i16),
    /// Anything.
    Any(u64),
}

impl Place {
    /// The number that is meant.
    #[must_use]
    pub fn value(self) -> u64 {
        match self {
            Self::Mib(unit, off) => (u64::from(unit) << 20).saturating_add_signed(off.into()),
            Self::Kib(unit, off) => (u64::from(unit) << 10).saturating_add_signed(off.into()),
            Self::Any(value) => value,
        }
    }
}

impl Elf {
    /// The image.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let start = |(which, into): (u8, u8)| {
            let place = self
                .segments
                .get(usize::from(which) % self.segments.len().max(1));
            place.map_or(0, |&(place, ..)| place.value().wrapping_add(into.into()))
        };
        let count = self.segments.len().min(64);
        let mut notes = Vec::new();
        if let Some(pvh) = self.pvh {
            for word in [4u32, 8, 18] {
                notes.extend(word.to_le_bytes());
            }
            notes.extend(b"Xen\0");
            notes.extend(start(pvh).to_le_bytes());
        }
        let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        for word in [start(self.entry), 64, 0] {
            image.extend(word.to_le_bytes());
        }
        image.extend(0u32.to_le_bytes());
        for half in [64, 56, count as u16 + 1, 64, 0, 0] {
            image.extend(half.to_le_bytes());
        }
        let data = (64 + 56 * (count + 1)) as u64;
        let mut header = |kind: u32, offset: u64, address: u64, file: u64, memory: u64| {
            image.extend(kind.to_le_bytes());
            image.extend(7u32.to_le_bytes());
            for word in [offset, address, address, file, memory, 4] {
                image.extend(word.to_le_bytes());
            }
        };
        header(4, data, 0, notes.len() as u64, 0);
        for &(place, memory, file) in self.segments.iter().take(count) {
            header(
                1,
                data,
                place.value(),
                file.into(),
                u64::from(memory) + u64::from(file),
            );
        }
        image.extend(&notes);
        image.resize(data as usize + 256, 0x90);
        image
    }
}
