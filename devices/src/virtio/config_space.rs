//! The device's configuration fields, which vCPU threads access without entering the device's loop.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::state;
use crate::state::BadState;

state! {
    /// The fields as the driver knows them.
    pub struct ConfigStateV1 {
        /// All bytes.
        pub bytes: Vec<u8>,
        /// The generation of them.
        pub generation: u32,
    }
}

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    generation: u32,
    writable: Vec<Range<usize>>,
}

/// Configuration bytes with the generation that a driver compares to see that nothing changed
/// between two reads (virtio 1.2, 2.5 and 4.2.2.1).
#[derive(Debug)]
pub struct ConfigSpace(Mutex<Inner>);

impl ConfigSpace {
    /// A space that holds `bytes`, in the layout of the device's specification; a driver can
    /// write none of them.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::with_writable(bytes, Vec::new())
    }

    /// The same, with the fields that a driver may write.
    pub fn with_writable(bytes: Vec<u8>, writable: Vec<Range<usize>>) -> Self {
        Self(Mutex::new(Inner {
            bytes,
            generation: 0,
            writable,
        }))
    }

    /// A driver's write of the `len` low bytes of `value` at `offset`: whether they lie within
    /// one writable field and were taken. The generation stays, since the device changed nothing.
    pub fn write(&self, offset: u64, len: u64, value: u64) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        let within = |field: &Range<usize>| field.start <= start && end <= field.end;
        if !inner.writable.iter().any(within) {
            return false;
        }
        let places = inner.bytes.get_mut(start..end);
        for (to, from) in places.into_iter().flatten().zip(value.to_le_bytes()) {
            *to = from;
        }
        true
    }

    /// Up to eight bytes from `offset` on, little-endian; bytes beyond the end read as zero.
    pub fn read(&self, offset: u64, len: u64) -> u64 {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut value = [0; 8];
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let present = inner.bytes.get(start..).unwrap_or_default();
        for (to, from) in value.iter_mut().take(len).zip(present) {
            *to = *from;
        }
        u64::from_le_bytes(value)
    }

    /// Replaces the bytes from `offset` on, as one change; what lies beyond the end is dropped.
    /// Whether anything differs from before: then the generation has changed too.
    pub fn update(&self, offset: usize, bytes: &[u8]) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        let places = inner.bytes.iter_mut().skip(offset);
        for (to, from) in places.zip(bytes) {
            changed |= *to != *from;
            *to = *from;
        }
        if changed {
            inner.generation = inner.generation.wrapping_add(1);
        }
        changed
    }

    /// The fields as the driver knows them.
    pub(crate) fn save(&self) -> ConfigStateV1 {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ConfigStateV1 {
            bytes: inner.bytes.clone(),
            generation: inner.generation,
        }
    }

    /// Takes what a driver wrote from a saved state. All else is what it is here: whether it is
    /// also what the driver knows. Otherwise there is another generation.
    ///
    /// # Errors
    /// When the state has other fields.
    pub(crate) fn restore(&self, state: &ConfigStateV1) -> Result<bool, BadState> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner {
            bytes,
            generation,
            writable,
        } = &mut *inner;
        let len = state.bytes.len();
        BadState::unless(
            len == bytes.len(),
            "the length of a configuration",
            len as u64,
        )?;
        let is_driver_s = |at: &usize| writable.iter().any(|field| field.contains(at));
        let mut same = true;
        for (at, (own, saved)) in bytes.iter_mut().zip(&state.bytes).enumerate() {
            if is_driver_s(&at) {
                *own = *saved;
            }
            same &= own == saved;
        }
        *generation = state.generation.wrapping_add((!same).into());
        Ok(same)
    }

    /// The generation: it differs after every change.
    pub fn generation(&self) -> u32 {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_any_width_stop_at_the_end() {
        let space = ConfigSpace::new(vec![1, 2, 3, 4, 5]);
        for (offset, len, value) in [
            (0, 1, 0x01),
            (1, 2, 0x0302),
            (0, 4, 0x0403_0201),
            (4, 4, 0x05),
            (0, 8, 0x0005_0403_0201),
            (5, 4, 0),
            (u64::MAX, 8, 0),
        ] {
            assert_eq!(space.read(offset, len), value, "{offset}+{len}");
        }
    }

    #[test]
    fn a_driver_writes_its_own_fields_only() {
        let space = ConfigSpace::with_writable(vec![0; 12], vec![2..3, 4..8]);
        for (offset, len, value, taken) in [
            (2, 1, 0x11, true),
            (2, 2, 0x2222, false),
            (4, 4, 0x4433_2211, true),
            (6, 2, 0x7766, true),
            (0, 4, 1, false),
            (8, 4, 1, false),
            (6, 4, 1, false),
            (4, 8, 1, false),
            (u64::MAX, 8, 1, false),
        ] {
            assert_eq!(space.write(offset, len, value), taken, "{offset}+{len}");
        }
        assert_eq!(space.read(0, 8), 0x7766_2211_0011_0000);
        assert_eq!(space.generation(), 0);
    }

    #[test]
    fn only_a_real_change_makes_a_new_generation() {
        let space = ConfigSpace::new(vec![0; 4]);
        assert!(!space.update(0, &[0, 0]));
        assert_eq!(space.generation(), 0);
        assert!(space.update(2, &[7, 8, 9]));
        assert_eq!(space.generation(), 1);
        assert_eq!(space.read(0, 4), 0x0807_0000);
        assert!(!space.update(9, &[1]));
    }
}
