//! Bytes of the first descriptor table and the segment registers that agree with it.

use crate::layout::GDT;
use crate::regs::{Segment, Table};

/// Selector of the code segment.
pub const CODE: u16 = 0x10;
/// Selector of the data segment.
pub const DATA: u16 = 0x18;
/// Selector of the task register.
pub const TASK: u16 = 0x20;

/// Null, unused, code, data and the two halves of a 64-bit task descriptor.
const ENTRIES: u16 = 6;
/// A 32-bit and a 64-bit task state segment both are at least this long; Linux loads its own.
const TASK_LIMIT: u32 = 0x67;

/// Mode that the boot CPU starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit code.
    Long,
    /// 32-bit code, flat.
    Protected,
}

/// Code segment of a mode.
#[must_use]
pub fn code(mode: Mode) -> Segment {
    let long = u8::from(mode == Mode::Long);
    Segment {
        selector: CODE,
        kind: 0xb,
        db: 1 - long,
        l: long,
        ..flat()
    }
}

/// Data segment, for DS, ES, FS, GS and SS.
#[must_use]
pub fn data() -> Segment {
    Segment {
        selector: DATA,
        kind: 0x3,
        db: 1,
        ..flat()
    }
}

/// Task register: a busy task segment, without which no guest can be entered on Intel.
#[must_use]
pub fn task() -> Segment {
    Segment {
        limit: TASK_LIMIT,
        selector: TASK,
        kind: 0xb,
        present: 1,
        ..Segment::default()
    }
}

/// The GDT register for the table of [`bytes`].
#[must_use]
pub fn table() -> Table {
    Table {
        base: GDT,
        limit: ENTRIES * 8 - 1,
    }
}

/// The descriptor table, to be placed at [`GDT`].
#[must_use]
pub fn bytes(mode: Mode) -> Vec<u8> {
    let entries: [u64; ENTRIES as usize] = [
        0,
        0,
        descriptor(code(mode)),
        descriptor(data()),
        descriptor(task()),
        0,
    ];
    entries.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn flat() -> Segment {
    Segment {
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        g: 1,
        ..Segment::default()
    }
}

/// Packs a segment into a descriptor (Intel SDM volume 3, figure 3-8).
fn descriptor(segment: Segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let base = segment.base & 0xffff_ffff;
    let bit = |value: u8, at: u32| u64::from(value) << at;
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | bit(segment.kind, 40)
        | bit(segment.s, 44)
        | bit(segment.dpl, 45)
        | bit(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | bit(segment.avl, 52)
        | bit(segment.l, 53)
        | bit(segment.db, 54)
        | bit(segment.g, 55)
        | (base >> 24) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_flat_ones_of_the_manual() {
        assert_eq!(descriptor(code(Mode::Long)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(code(Mode::Protected)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(data()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(task()), 0x0000_8b00_0000_0067);
        let high = Segment {
            base: 0x1234_5678,
            limit: 0xf_ffff,
            ..Segment::default()
        };
        assert_eq!(descriptor(high), 0x120f_0034_5678_ffff);
    }

    #[test]
    fn selectors_name_their_entries() {
        for mode in [Mode::Long, Mode::Protected] {
            let bytes = bytes(mode);
            assert_eq!(bytes.len(), usize::from(table().limit) + 1);
            let entry = |selector: u16| {
                let at = usize::from(selector);
                u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
            };
            assert_eq!(entry(CODE), descriptor(code(mode)));
            assert_eq!(entry(DATA), descriptor(data()));
            assert_eq!(entry(TASK), descriptor(task()));
        }
    }
}
