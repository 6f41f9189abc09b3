//! The file of a machine's memory, as it is written, looked at and damaged. Whole machines are
//! saved and restored in tests/boot.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use devices::GuestRam;

use super::error::MemoryProblem;
use super::memory::{PIECE_BYTES, check, verify, write};
use crate::memory;

const MIB: u64 = 1 << 20;

/// Two ranges, neither of which is a whole number of pieces.
const RANGES: [(u64, u64); 2] = [(0, 5 * MIB), (16 * MIB, 3 * MIB)];

fn filled(ram: &GuestRam) {
    for at in [0, 5 * MIB - 4096, 16 * MIB + 2 * MIB, 19 * MIB - 1] {
        ram.write_bytes(at, &[0xa5]).unwrap();
    }
}

fn bytes(ram: &GuestRam) -> Vec<u8> {
    let mut all = Vec::new();
    for (start, len) in RANGES {
        let mut range = vec![0; usize::try_from(len).unwrap()];
        ram.read_bytes(start, &mut range).unwrap();
        all.extend(range);
    }
    all
}

#[test]
fn memory_is_mapped_as_it_was_written() {
    let ram = memory::map(&RANGES, false).unwrap();
    filled(&ram);
    let file = tempfile::tempfile().unwrap();
    let sums = write(&ram, &file, [7; 16]).unwrap();
    assert_eq!(sums.len(), 5, "two whole pieces and a rest, one and a rest");
    let kept = file.metadata().unwrap().blocks() * 512;
    assert!(kept <= 12 * 4096, "zeroes take room: {kept}");
    assert_eq!(check(&file, 8 * MIB, [7; 16]).unwrap(), Ok(()));
    assert_eq!(verify(&file, &RANGES, &sums).unwrap(), Ok(()));

    let file = Arc::new(file);
    let again = memory::map_file(&RANGES, &file).unwrap();
    assert_eq!(bytes(&again), bytes(&ram));
    // What is changed is the process's own; what is not is written as well.
    again.write_bytes(4096, &[1]).unwrap();
    assert_eq!(verify(&file, &RANGES, &sums).unwrap(), Ok(()));
    let second = tempfile::tempfile().unwrap();
    write(&again, &second, [8; 16]).unwrap();
    let second = memory::map_file(&RANGES, &Arc::new(second)).unwrap();
    assert_eq!(bytes(&second), bytes(&again));
}

#[test]
fn other_and_damaged_memory_is_told() {
    let ram = memory::map(&RANGES, false).unwrap();
    filled(&ram);
    let file = tempfile::tempfile().unwrap();
    let sums = write(&ram, &file, [7; 16]).unwrap();
    let expected = 8 * MIB + 4096;
    let other = check(&file, 8 * MIB, [9; 16]).unwrap();
    assert_eq!(other, Err(MemoryProblem::Other));
    let piece = PIECE_BYTES as u64;
    for (at, begins) in [(0, 0), (piece + 5, piece), (7 * MIB + 9, 7 * MIB)] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let problem = MemoryProblem::Checksum { at: begins };
        assert_eq!(verify(&file, &RANGES, &sums).unwrap(), Err(problem));
        file.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(verify(&file, &RANGES, &sums).unwrap(), Ok(()));
    for found in [0, expected - 1, expected + 1] {
        file.set_len(found).unwrap();
        let problem = MemoryProblem::Length { found, expected };
        assert_eq!(check(&file, 8 * MIB, [7; 16]).unwrap(), Err(problem));
    }
}
