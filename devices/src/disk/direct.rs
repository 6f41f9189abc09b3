//! Files that are open past the host's page cache (`O_DIRECT`): what the host wants of transfers,
//! and how others are made of such.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::spans;
use super::{SECTOR_BYTES, TransferError};
use crate::ram::{GuestRam, OutOfRam};
use crate::sys::Direction;
use crate::virtio::Span;

/// How much goes through a bounce buffer at once.
const BOUNCE_BYTES: u64 = 256 << 10;

/// What the host wants of transfers past its page cache, in bytes, powers of two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Alignment {
    /// Of addresses in memory.
    pub(super) memory: u64,
    /// Of offsets and lengths.
    pub(super) offset: u64,
}

impl Alignment {
    /// Whether a range can be moved.
    pub(super) fn fits(self, offset: u64, len: u64) -> bool {
        offset.is_multiple_of(self.offset) && len.is_multiple_of(self.offset)
    }

    /// Whether memory can be moved. Guest memory is mapped in whole pages, so that an address of
    /// the guest is aligned as the host's is. Where a region ends, a span becomes two pieces of
    /// other lengths.
    pub(super) fn fits_spans(self, ram: &GuestRam, spans: &[Span]) -> bool {
        spans.iter().all(|span| {
            let len = usize::try_from(span.len).unwrap_or(usize::MAX);
            span.at.is_multiple_of(self.memory)
                && u64::from(span.len).is_multiple_of(self.offset)
                && ram.slice(span.at, len).is_some()
        })
    }
}

/// Moves what does not fit through a buffer that does. Blocks of the host that are written in part
/// are read first.
pub(super) fn bounce(
    file: &File,
    alignment: Alignment,
    direction: Direction,
    offset: u64,
    ram: &GuestRam,
    list: &[Span],
) -> Result<(), TransferError> {
    let total = spans::total(list);
    let mut buffer = Buffer::new(alignment);
    let mut done = 0_u64;
    while done < total {
        let at = offset.saturating_add(done);
        let start = at.saturating_sub(at % alignment.offset);
        let end = at.saturating_add(total.saturating_sub(done));
        let end = end.min(start.saturating_add(BOUNCE_BYTES));
        let part = spans::cut(list, done, end.saturating_sub(at));
        let piece = Piece {
            block: start,
            blocks: end.saturating_sub(start).next_multiple_of(alignment.offset),
            before: at.saturating_sub(start),
            part: &part,
        };
        let moved = match direction {
            Direction::Read => piece.read(file, &mut buffer, ram),
            Direction::Write => piece.write(file, &mut buffer, ram),
        };
        moved.map_err(|error| TransferError { done, error })?;
        done = done.saturating_add(end.saturating_sub(at));
    }
    Ok(())
}

/// Whole blocks of the host, and the part of them that is meant.
struct Piece<'a> {
    block: u64,
    blocks: u64,
    before: u64,
    part: &'a [Span],
}

impl Piece<'_> {
    fn read(&self, file: &File, buffer: &mut Buffer, ram: &GuestRam) -> io::Result<()> {
        let bytes = buffer.bytes(self.blocks)?;
        file.read_exact_at(bytes, self.block)?;
        self.copy(bytes, |at, piece| ram.write_bytes(at, piece))
    }

    fn write(&self, file: &File, buffer: &mut Buffer, ram: &GuestRam) -> io::Result<()> {
        let bytes = buffer.bytes(self.blocks)?;
        if self.before != 0 || spans::total(self.part) != self.blocks {
            file.read_exact_at(bytes, self.block)?;
        }
        self.copy(bytes, |at, piece| ram.read_bytes(at, piece))?;
        file.write_all_at(bytes, self.block)
    }

    /// Moves the part between the blocks' bytes and guest memory, whichever way `each` does.
    fn copy(
        &self,
        bytes: &mut [u8],
        each: impl Fn(u64, &mut [u8]) -> Result<(), OutOfRam>,
    ) -> io::Result<()> {
        let mut at = usize::try_from(self.before).unwrap_or(usize::MAX);
        for span in self.part {
            let len = usize::try_from(span.len).unwrap_or(usize::MAX);
            let end = at.saturating_add(len);
            let piece = bytes.get_mut(at..end).ok_or(io::ErrorKind::InvalidInput)?;
            each(span.at, piece).map_err(|_| io::ErrorKind::InvalidInput)?;
            at = end;
        }
        Ok(())
    }
}

/// Memory as the host wants it.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new(alignment: Alignment) -> Self {
        let to = alignment.memory.max(alignment.offset).max(SECTOR_BYTES);
        let to = usize::try_from(to).unwrap_or(4096);
        let len = usize::try_from(BOUNCE_BYTES).unwrap_or(0);
        // A piece that begins within a block ends one block later.
        let memory = vec![0; len.saturating_add(to.saturating_mul(2))];
        let start = memory.as_ptr().align_offset(to);
        Self { memory, start }
    }

    fn bytes(&mut self, len: u64) -> io::Result<&mut [u8]> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let end = self.start.saturating_add(len);
        let bytes = self.memory.get_mut(self.start..end);
        bytes.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}
