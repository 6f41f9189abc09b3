//! A read-only disk whose bytes are part of this program: the built-in guest's system image.

use std::io;

use super::{Disk, Geometry, SECTOR_BYTES, TransferError};
use crate::ram::GuestRam;
use crate::virtio::Span;

/// A read-only disk in memory. Nothing is copied but what the guest reads.
#[derive(Clone, Copy, Debug)]
pub struct MemoryDisk(&'static [u8]);

impl MemoryDisk {
    /// A disk of these bytes; those after the last whole sector are left out.
    #[must_use]
    pub fn new(bytes: &'static [u8]) -> Self {
        Self(bytes)
    }
}

impl Disk for MemoryDisk {
    fn geometry(&self) -> Geometry {
        let len = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
        Geometry {
            bytes: len - len % SECTOR_BYTES,
            read_only: true,
        }
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        let mut done = 0_u64;
        for span in into {
            let piece = offset
                .checked_add(done)
                .and_then(|from| usize::try_from(from).ok())
                .and_then(|from| self.0.get(from..))
                .and_then(|rest| rest.get(..usize::try_from(span.len).ok()?));
            let written = piece.map(|piece| ram.write_bytes(span.at, piece).is_ok());
            match written {
                Some(true) => done = done.saturating_add(span.len.into()),
                Some(false) => return Err(failed(done, io::ErrorKind::InvalidInput)),
                None => return Err(failed(done, io::ErrorKind::UnexpectedEof)),
            }
        }
        Ok(())
    }

    fn write(&mut self, _: u64, _: &GuestRam, _: &[Span]) -> Result<(), TransferError> {
        Err(failed(0, io::ErrorKind::ReadOnlyFilesystem))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

fn failed(done: u64, kind: io::ErrorKind) -> TransferError {
    TransferError {
        done,
        error: kind.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    fn ram() -> GuestRam {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        GuestRam::from(Arc::new(memory))
    }

    fn disk() -> MemoryDisk {
        let bytes: Vec<u8> = (0..=255).cycle().take(1100).collect();
        MemoryDisk::new(bytes.leak())
    }

    #[test]
    fn whole_sectors_are_its_capacity() {
        let expected = Geometry {
            bytes: 1024,
            read_only: true,
        };
        assert_eq!(disk().geometry(), expected);
    }

    #[test]
    fn reads_are_scattered_over_the_spans() {
        let ram = ram();
        let spans = [(0x1000, 100), (0x2000, 412)].map(|(at, len)| Span { at, len });
        disk().read(512, &ram, &spans).unwrap();
        let mut found = [0; 412];
        ram.read_bytes(0x2000, &mut found).unwrap();
        assert_eq!((found[0], found[411]), (100, 255));
    }

    #[test]
    fn reads_past_the_end_and_outside_of_memory_say_how_far_they_came() {
        let ram = ram();
        let spans = [(0x1000, 512), (0x2000, 1024)].map(|(at, len)| Span { at, len });
        let end = disk().read(512, &ram, &spans).unwrap_err();
        assert_eq!(
            (end.done, end.error.kind()),
            (512, io::ErrorKind::UnexpectedEof)
        );
        let outside = [Span {
            at: 0x1_0000,
            len: 512,
        }];
        let end = disk().read(0, &ram, &outside).unwrap_err();
        assert_eq!(
            (end.done, end.error.kind()),
            (0, io::ErrorKind::InvalidInput)
        );
    }

    #[test]
    fn nothing_changes_it() {
        let span = Span { at: 0, len: 512 };
        assert!(disk().write(0, &ram(), &[span]).is_err());
        assert!(disk().discard(0, 512).is_err());
        assert!(disk().write_zeroes(0, 512, true).is_err());
    }
}
