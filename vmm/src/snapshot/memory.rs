//! The file of a machine's memory: the bytes of all ranges one after the other, as they are, and
//! one page at the end by which the state knows it again. What is zero takes no room.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use devices::GuestRam;
use devices::new_file::Id;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::error::MemoryProblem;

/// How much has a checksum of its own.
pub(super) const PIECE_BYTES: usize = 2 << 20;

const PAGE_BYTES: usize = 4096;

/// What the page at the end begins with.
const MAGIC: [u8; 8] = *b"CORAMEMO";

/// Writes all of `ram`, which nobody changes meanwhile, and gives the checksums of its pieces.
pub(super) fn write(ram: &GuestRam, file: &File, id: Id) -> io::Result<Vec<u32>> {
    let mut sums = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    let resident = Resident::open();
    let mut end = 0_u64;
    // A piece does not run over from one range into the next.
    for region in ram.memory().iter() {
        let start = region.start_addr().0;
        let mut done = 0_u64;
        while done < region.len() {
            let left = usize::try_from(region.len() - done).unwrap_or(usize::MAX);
            let len = left.min(PIECE_BYTES);
            let piece = piece.get_mut(..len).unwrap_or_default();
            let host = region.as_ptr() as u64 + done;
            // Pages of a file that nobody has touched hold what the file holds.
            let fresh = region.file_offset().is_none();
            if fresh && resident.as_ref().is_some_and(|one| one.has_none(host, len)) {
                piece.fill(0);
            } else {
                let outside = |_| io::Error::from(io::ErrorKind::InvalidInput);
                ram.read_bytes(start + done, piece).map_err(outside)?;
                write_sparsely(file, end, piece)?;
            }
            sums.push(crc32fast::hash(piece));
            done += len as u64;
            end += len as u64;
        }
    }
    file.write_all_at(&trailer(id), end)?;
    Ok(sums)
}

/// Which pages of this process are there.
struct Resident(File);

impl Resident {
    /// None where the host does not tell: all of them may be, then.
    fn open() -> Option<Self> {
        File::open("/proc/self/pagemap").ok().map(Self)
    }

    /// Whether of `len` bytes from `address` on nothing was ever touched.
    fn has_none(&self, address: u64, len: usize) -> bool {
        // One word a page; present is bit 63, swapped out is bit 62.
        let mut words = vec![0; len.div_ceil(PAGE_BYTES) * 8];
        let at = address / PAGE_BYTES as u64 * 8;
        let read = self.0.read_exact_at(&mut words, at);
        read.is_ok() && words.chunks_exact(8).all(|word| word[7] >> 6 == 0)
    }
}

/// Writes the pages of `bytes` that are not zero.
fn write_sparsely(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut run = 0..0;
    for page in bytes.chunks(PAGE_BYTES) {
        let zero = page.iter().fold(0, |all, &byte| all | byte) == 0;
        if zero {
            flush(file, at, bytes, &run)?;
            run = run.end + page.len()..run.end + page.len();
        } else {
            run.end += page.len();
        }
    }
    flush(file, at, bytes, &run)
}

fn flush(file: &File, at: u64, bytes: &[u8], run: &std::ops::Range<usize>) -> io::Result<()> {
    match bytes.get(run.clone()) {
        Some(bytes) if !bytes.is_empty() => file.write_all_at(bytes, at + run.start as u64),
        _ => Ok(()),
    }
}

fn trailer(id: Id) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    page[..8].copy_from_slice(&MAGIC);
    page[8..24].copy_from_slice(&id);
    page
}

/// Whether `file` is the memory of `bytes` bytes that was saved with `id`.
pub(super) fn check(file: &File, bytes: u64, id: Id) -> io::Result<Result<(), MemoryProblem>> {
    let found = file.metadata()?.len();
    let expected = bytes + PAGE_BYTES as u64;
    if found != expected {
        return Ok(Err(MemoryProblem::Length { found, expected }));
    }
    let mut page = [0; PAGE_BYTES];
    file.read_exact_at(&mut page, bytes)?;
    Ok(match page == trailer(id) {
        true => Ok(()),
        false => Err(MemoryProblem::Other),
    })
}

/// Compares the checksums of all pieces of `ranges`.
pub(super) fn verify(
    file: &File,
    ranges: &[(u64, u64)],
    sums: &[u32],
) -> io::Result<Result<(), MemoryProblem>> {
    let mut sums = sums.iter();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    for &(_, bytes) in ranges {
        let end = at + bytes;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = piece.get_mut(..len.min(PIECE_BYTES)).unwrap_or_default();
            file.read_exact_at(piece, at)?;
            if sums.next() != Some(&crc32fast::hash(piece)) {
                return Ok(Err(MemoryProblem::Checksum { at }));
            }
            at += piece.len() as u64;
        }
    }
    Ok(Ok(()))
}
