//! Amounts of memory.

use api::spec::SizeSpec;
use arch::layout;

use super::{ConfigError, Problem};

/// Least memory that a Linux guest is given: smaller kernels exist, and none gets to user space.
pub const MIN_MEMORY_BYTES: u64 = 16 << 20;

/// Size of a huge page.
pub(crate) const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// An amount of guest memory: whole pages, at least 16 MiB, at most what the layout has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

impl MemorySize {
    /// The amount in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// One of the defaults.
    pub(super) const fn constant(bytes: u64) -> Self {
        assert!(bytes >= MIN_MEMORY_BYTES && bytes.is_multiple_of(HUGE_PAGE_BYTES));
        Self(bytes)
    }

    pub(super) fn read(size: &SizeSpec, huge: bool) -> Result<Self, ConfigError> {
        let refuse = |problem| ConfigError::new("memory", size, problem);
        let bytes = size.bytes().map_err(|why| refuse(Problem::NotASize(why)))?;
        let page = if huge {
            HUGE_PAGE_BYTES
        } else {
            layout::PAGE_SIZE
        };
        if bytes < MIN_MEMORY_BYTES {
            return Err(refuse(Problem::TooSmall {
                least: MIN_MEMORY_BYTES,
            }));
        }
        if bytes > layout::MAX_MEMORY {
            return Err(refuse(Problem::BeyondLimit {
                most: layout::MAX_MEMORY,
            }));
        }
        if !bytes.is_multiple_of(page) {
            return Err(refuse(Problem::Uneven { page }));
        }
        Ok(Self(bytes))
    }
}

/// Bytes, printed in the largest unit that keeps them readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (shift, unit) = match self.0 {
            0..0x400 => return write!(f, "{} bytes", self.0),
            0x400..0x10_0000 => (10, "KiB"),
            0x10_0000..0x4000_0000 => (20, "MiB"),
            0x4000_0000..0x100_0000_0000 => (30, "GiB"),
            _ => (40, "TiB"),
        };
        let whole = self.0 >> shift;
        // Tenths, cut and not rounded: a host is never shown larger than it is.
        let rest = self.0 - (whole << shift);
        let tenths = (u128::from(rest) * 10) >> shift;
        match tenths {
            0 => write!(f, "{whole} {unit}"),
            _ => write!(f, "{whole}.{tenths} {unit}"),
        }
    }
}
