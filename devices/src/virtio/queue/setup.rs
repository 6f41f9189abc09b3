//! Where a driver put a queue, and what is wrong with that.

use crate::ram::GuestRam;

/// Where a driver put a queue: what it wrote to the queue's registers, unchecked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueSetup {
    /// The number of descriptors.
    pub size: u32,
    /// The guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// The guest-physical address of the available ring.
    pub available: u64,
    /// The guest-physical address of the used ring.
    pub used: u64,
}

/// A queue set up against the rules of virtio 1.2, 2.7 (or an area outside guest memory).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSetup {
    /// Zero, no power of two, or more than the device allows.
    #[error("queue size {size} is not a power of two up to {max}")]
    Size {
        /// The size.
        size: u32,
        /// The largest size allowed.
        max: u16,
    },
    /// An area that is not where its alignment puts it.
    #[error("the {area} at {at:#x} is not aligned to {to} bytes")]
    Alignment {
        /// The name of the area.
        area: &'static str,
        /// Its address.
        at: u64,
        /// The alignment.
        to: u64,
    },
    /// An area that is not, or not wholly, guest memory; address zero is taken as never set.
    #[error("the {area} at {at:#x}, {len} bytes, is not guest memory")]
    NotInRam {
        /// The name of the area.
        area: &'static str,
        /// Its address.
        at: u64,
        /// Its length.
        len: u64,
    },
    /// Two areas share memory.
    #[error("the {first} and the {second} overlap")]
    Overlap {
        /// The one.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
}

impl QueueSetup {
    /// Checks everything that can be checked before the first request, and gives the size.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, max: u16, ram: &GuestRam) -> Result<u16, BadSetup> {
        let wrong_size = BadSetup::Size {
            size: self.size,
            max,
        };
        let size = u16::try_from(self.size).map_err(|_| wrong_size)?;
        if !size.is_power_of_two() || size > max {
            return Err(wrong_size);
        }
        let entries = u64::from(size);
        // Lengths with the event index fields at the rings' ends (2.7).
        let areas = [
            ("descriptor table", self.descriptors, 16, entries * 16),
            ("available ring", self.available, 2, entries * 2 + 6),
            ("used ring", self.used, 4, entries * 8 + 6),
        ];
        for (area, at, to, len) in areas {
            if !at.is_multiple_of(to) {
                return Err(BadSetup::Alignment { area, at, to });
            }
            if at == 0 || !ram.contains(at, len) {
                return Err(BadSetup::NotInRam { area, at, len });
            }
        }
        let [table, available, used] = areas;
        for ((first, a, _, a_len), (second, b, _, b_len)) in
            [(table, available), (table, used), (available, used)]
        {
            if a < b + b_len && b < a + a_len {
                return Err(BadSetup::Overlap { first, second });
            }
        }
        Ok(size)
    }
}
