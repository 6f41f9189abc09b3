//! Guest memory as devices see it: copied in and out, never borrowed.
//!
//! The guest writes its memory while a device reads it, so no reference into it may exist.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{
    ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress, VolatileSlice,
};

use crate::sys;

/// An access outside the guest's memory, or one that runs over its end or a hole.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("guest address {at:#x}, {len} bytes: not in the guest's memory")]
pub struct OutOfRam {
    /// The guest-physical address.
    pub at: u64,
    /// How many bytes were wanted.
    pub len: u64,
}

/// A handle to the guest's memory, cheap to clone.
#[derive(Clone, Debug)]
pub struct GuestRam(Arc<GuestMemoryMmap>);

impl From<Arc<GuestMemoryMmap>> for GuestRam {
    fn from(memory: Arc<GuestMemoryMmap>) -> Self {
        Self(memory)
    }
}

impl GuestRam {
    /// Copies a value out of guest memory. It may be torn when the guest writes at the same time.
    ///
    /// # Errors
    /// When not all of it lies in guest memory.
    pub fn read<T: ByteValued>(&self, at: u64) -> Result<T, OutOfRam> {
        let value = match self.slice(at, size_of::<T>()) {
            Some(slice) => slice.read_obj(0).ok(),
            None => self.0.read_obj(GuestAddress(at)).ok(),
        };
        value.ok_or(out_of_ram(at, size_of::<T>()))
    }

    /// Two little-endian bytes, read at once, so that what was written before them is seen too
    /// when `order` says so.
    pub(crate) fn load(&self, at: u64, order: Ordering) -> Result<u16, OutOfRam> {
        let value = match self.slice(at, size_of::<u16>()) {
            Some(slice) => slice.load(0, order).ok(),
            None => self.0.load(GuestAddress(at), order).ok(),
        };
        value.map(u16::from_le).ok_or(out_of_ram(at, 2))
    }

    /// Writes two little-endian bytes at once.
    pub(crate) fn store(&self, at: u64, value: u16, order: Ordering) -> Result<(), OutOfRam> {
        let value = value.to_le();
        let done = match self.slice(at, size_of::<u16>()) {
            Some(slice) => slice.store(value, 0, order).is_ok(),
            None => self.0.store(value, GuestAddress(at), order).is_ok(),
        };
        if done { Ok(()) } else { Err(out_of_ram(at, 2)) }
    }

    /// A range that lies within one region, as nearly all do: what looks for pieces in several
    /// costs more than most of what is done with them.
    pub(crate) fn slice(&self, at: u64, len: usize) -> Option<VolatileSlice<'_>> {
        let region = self.0.find_region(GuestAddress(at))?;
        let offset = at.checked_sub(region.start_addr().0)?;
        region.get_slice(MemoryRegionAddress(offset), len).ok()
    }

    /// Lets what lies at an address come nearer, if it is memory: it is read soon.
    pub(crate) fn prefetch(&self, at: u64) {
        if let Some(slice) = self.slice(at, 1) {
            sys::prefetch(&slice);
        }
    }

    /// Copies a value into guest memory.
    ///
    /// # Errors
    /// When not all of it lies in guest memory; nothing is written then.
    pub fn write<T: ByteValued>(&self, at: u64, value: &T) -> Result<(), OutOfRam> {
        self.write_bytes(at, value.as_slice())
    }

    /// Fills `data` from guest memory.
    ///
    /// # Errors
    /// When not all of it lies in guest memory; `data` may be partly filled then.
    pub fn read_bytes(&self, at: u64, data: &mut [u8]) -> Result<(), OutOfRam> {
        let len = data.len();
        if let Some(slice) = self.slice(at, len) {
            return slice.read_slice(data, 0).map_err(|_| out_of_ram(at, len));
        }
        self.0
            .read_slice(data, GuestAddress(at))
            .map_err(|_| out_of_ram(at, len))
    }

    /// Copies `data` into guest memory.
    ///
    /// # Errors
    /// When not all of it lies in guest memory; nothing is written then.
    pub fn write_bytes(&self, at: u64, data: &[u8]) -> Result<(), OutOfRam> {
        let len = data.len();
        if let Some(slice) = self.slice(at, len) {
            return slice.write_slice(data, 0).map_err(|_| out_of_ram(at, len));
        }
        if !self.0.check_range(GuestAddress(at), data.len()) {
            return Err(out_of_ram(at, data.len()));
        }
        self.0
            .write_slice(data, GuestAddress(at))
            .map_err(|_| out_of_ram(at, data.len()))
    }

    /// Whether `len` bytes from `at` on are guest memory, without a hole.
    pub fn contains(&self, at: u64, len: u64) -> bool {
        let within =
            |len| self.slice(at, len).is_some() || self.0.check_range(GuestAddress(at), len);
        usize::try_from(len).is_ok_and(within)
    }

    /// The number of bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(GuestMemoryRegion::len).sum()
    }

    /// The size of the host's pages behind the byte at `at`; none where there is no memory.
    pub fn page_bytes(&self, at: u64) -> Option<u64> {
        let region = self.0.find_region(GuestAddress(at))?;
        Some(sys::page_bytes(region))
    }

    /// Gives the host back the memory behind `len` bytes from `at` on: it reads as zeroes then,
    /// and is there again as soon as somebody writes it. Only whole pages of the host are given
    /// back, so with large pages the range may come to nothing. What of it is not guest memory is
    /// left alone. Gives the number of bytes given back.
    ///
    /// # Errors
    /// What the host said when it refused; pages before that are gone already.
    pub fn discard(&self, at: u64, len: u64) -> io::Result<u64> {
        let end = at.saturating_add(len);
        let mut given = 0_u64;
        for region in self.0.iter() {
            let start = region.start_addr().0;
            let page = sys::page_bytes(region);
            let from = at.saturating_sub(start).min(region.len());
            let to = end.saturating_sub(start).min(region.len());
            let from = from.checked_next_multiple_of(page).unwrap_or(u64::MAX);
            let to = to.saturating_sub(to.checked_rem(page).unwrap_or(to));
            if from < to {
                sys::discard(region, from, to.saturating_sub(from))?;
                given = given.saturating_add(to.saturating_sub(from));
            }
        }
        Ok(given)
    }

    /// The memory itself, for the queue code.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.0
    }
}

fn out_of_ram(at: u64, len: usize) -> OutOfRam {
    OutOfRam {
        at,
        len: len as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::FileOffset;

    use super::*;

    /// Two ranges with a hole of one page between them.
    fn ram() -> GuestRam {
        let ranges = [(GuestAddress(0), 0x2000), (GuestAddress(0x3000), 0x1000)];
        Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap()).into()
    }

    #[test]
    fn values_and_bytes_come_back_as_written() {
        let ram = ram();
        ram.write(0x1ffc, &0x1234_5678_u32).unwrap();
        assert_eq!(ram.read::<u32>(0x1ffc), Ok(0x1234_5678));
        let mut two = [0; 2];
        ram.read_bytes(0x1ffd, &mut two).unwrap();
        assert_eq!(two, [0x56, 0x34]);
        ram.write_bytes(0x3fff, &[7]).unwrap();
        assert_eq!(ram.read::<u8>(0x3fff), Ok(7));
    }

    #[test]
    fn only_whole_pages_within_memory_are_given_back() {
        let whole = [(0, 0x2000), (0x3000, 0x1000)];
        for (at, len, given, gone) in [
            (0, 0x1000, 0x1000, vec![0]),
            (0, 0xfff, 0, vec![]),
            (1, 0x2000, 0x1000, vec![0x1000]),
            (0, 0x4000, 0x3000, vec![0, 0x1000, 0x3000]),
            (0, u64::MAX, 0x3000, vec![0, 0x1000, 0x3000]),
            (0x2000, 0x1000, 0, vec![]),
            (0x2fff, 0x1001, 0x1000, vec![0x3000]),
            (0x1800, 0x1000, 0, vec![]),
            (0x4000, 0x1000, 0, vec![]),
            (u64::MAX, u64::MAX, 0, vec![]),
        ] {
            let ram = ram();
            for (start, len) in whole {
                ram.write_bytes(start, &vec![0xaa; len]).unwrap();
            }
            assert_eq!(ram.discard(at, len).unwrap(), given, "{at:#x}+{len:#x}");
            for page in [0, 0x1000, 0x3000] {
                let expected = if gone.contains(&page) { 0 } else { 0xaa };
                assert_eq!(ram.read::<u8>(page), Ok(expected), "{at:#x}+{len:#x}");
                assert_eq!(ram.read::<u8>(page + 0xfff), Ok(expected));
            }
        }
        assert_eq!((ram().bytes(), ram().page_bytes(0x2000)), (0x3000, None));
        assert_eq!(ram().page_bytes(0x3fff), Some(4096));
    }

    /// A file that is shared with others gives its blocks back too.
    #[test]
    fn shared_files_are_punched() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x4000).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0x1000);
        let ranges = [(GuestAddress(0), 0x3000, Some(offset))];
        let memory = GuestMemoryMmap::<()>::from_ranges_with_files(ranges).unwrap();
        let ram = GuestRam::from(Arc::new(memory));
        ram.write_bytes(0, &[0xaa; 0x3000]).unwrap();
        assert_eq!(ram.discard(0x1000, 0x1000).unwrap(), 0x1000);
        for (page, expected) in [(0, 0xaa), (0x1000, 0), (0x2000, 0xaa)] {
            assert_eq!(ram.read::<u8>(page), Ok(expected), "{page:#x}");
        }
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0x2000).unwrap();
        assert_eq!(byte, [0]);
        file.read_exact_at(&mut byte, 0x3000).unwrap();
        assert_eq!(byte, [0xaa]);
    }

    #[test]
    fn what_leaves_memory_is_refused_and_changes_nothing() {
        let ram = ram();
        for (at, len) in [
            (0x1ffd, 4),
            (0x2000, 1),
            (0x4000, 1),
            (u64::MAX, 2),
            (0x3ffe, 3),
        ] {
            let error = OutOfRam { at, len };
            let len = usize::try_from(len).unwrap();
            assert_eq!(ram.write_bytes(at, &[0xff; 8][..len]), Err(error));
            assert_eq!(ram.read_bytes(at, &mut [0; 8][..len]), Err(error));
            assert!(!ram.contains(at, error.len));
        }
        assert_eq!(ram.read::<u8>(0x1ffd), Ok(0));
        assert_eq!(
            ram.read::<u32>(0x1ffe),
            Err(OutOfRam { at: 0x1ffe, len: 4 })
        );
        assert!(ram.contains(0x1000, 0x1000));
        assert!(!ram.contains(0, u64::MAX));
    }
}
