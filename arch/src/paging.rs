//! Bytes of the first page tables: 4 GiB mapped to themselves with 2 MiB pages.

use crate::layout::{PAGE_DIRECTORIES, PDPT, PML4};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const ENTRIES: u64 = 512;
const DIRECTORIES: u64 = 4;
const LARGE_PAGE_SHIFT: u64 = 21;

/// The page tables as bytes, to be placed at [`PML4`] (the other levels follow it directly).
#[must_use]
pub fn identity_map() -> Vec<u8> {
    let table = PRESENT | WRITABLE;
    let pml4 = (0..ENTRIES).map(|i| if i == 0 { PDPT | table } else { 0 });
    let pdpt = (0..ENTRIES).map(|i| {
        if i < DIRECTORIES {
            (PAGE_DIRECTORIES + (i << 12)) | table
        } else {
            0
        }
    });
    let directories = (0..DIRECTORIES * ENTRIES).map(|i| (i << LARGE_PAGE_SHIFT) | table | LARGE);
    pml4.chain(pdpt)
        .chain(directories)
        .flat_map(u64::to_le_bytes)
        .collect()
}

const _: () = assert!(PDPT == PML4 + 0x1000 && PAGE_DIRECTORIES == PDPT + 0x1000);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::PAGE_TABLES_END;

    /// Walks the tables as the processor would (4-level paging, Intel SDM volume 3, 4.5).
    fn translate(tables: &[u8], address: u64) -> Option<u64> {
        let entry = |table: u64, index: u64| {
            let at = usize::try_from(table - PML4 + index * 8).unwrap();
            u64::from_le_bytes(tables[at..at + 8].try_into().unwrap())
        };
        let mut table = PML4;
        for shift in [39, 30] {
            let found = entry(table, address >> shift & 511);
            if found & PRESENT == 0 {
                return None;
            }
            table = found & !0xfff;
        }
        let found = entry(table, address >> 21 & 511);
        assert_eq!(
            found & (PRESENT | WRITABLE | LARGE),
            PRESENT | WRITABLE | LARGE
        );
        Some((found & !0x1f_ffff) | address & 0x1f_ffff)
    }

    #[test]
    fn maps_exactly_four_gibibytes_to_themselves() {
        let tables = identity_map();
        assert_eq!(tables.len() as u64, PAGE_TABLES_END - PML4);
        for address in [
            0,
            0x7000,
            0x1f_ffff,
            0x20_0000,
            0x4000_0000,
            0xbfff_ffff,
            0xffff_ffff,
        ] {
            assert_eq!(translate(&tables, address), Some(address));
        }
        for address in [1 << 32, 1 << 38, 1 << 39, 1 << 47] {
            assert_eq!(translate(&tables, address), None);
        }
    }
}
