//! Guest memory as devices see it: copied in and out, never borrowed.
//!
//! The guest writes its memory while a device reads it, so no reference into it may exist.

use std::sync::Arc;

use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

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
        self.0
            .read_obj(GuestAddress(at))
            .map_err(|_| out_of_ram(at, size_of::<T>()))
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
        self.0
            .read_slice(data, GuestAddress(at))
            .map_err(|_| out_of_ram(at, len))
    }

    /// Copies `data` into guest memory.
    ///
    /// # Errors
    /// When not all of it lies in guest memory; nothing is written then.
    pub fn write_bytes(&self, at: u64, data: &[u8]) -> Result<(), OutOfRam> {
        if !self.0.check_range(GuestAddress(at), data.len()) {
            return Err(out_of_ram(at, data.len()));
        }
        self.0
            .write_slice(data, GuestAddress(at))
            .map_err(|_| out_of_ram(at, data.len()))
    }

    /// Whether `len` bytes from `at` on are guest memory, without a hole.
    pub fn contains(&self, at: u64, len: u64) -> bool {
        usize::try_from(len).is_ok_and(|len| self.0.check_range(GuestAddress(at), len))
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
