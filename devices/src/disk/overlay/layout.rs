//! Where the parts of a delta lie: computed from its capacity and cluster size alone.

use super::header::{COPIES, HEADER_BYTES, HeaderError, field};
use crate::disk::SECTOR_BYTES;

/// The bytes of a map block.
pub(super) const BLOCK_BYTES: usize = 4096;
/// The clusters that a map block tells of: its bytes without its head, as bits.
pub(super) const BLOCK_CLUSTERS: u64 = 504 * 64;
/// Copies of each map block.
pub(super) const SLOTS: u64 = 2;

/// The smallest cluster. File systems write whole pages, so that it is seldom copied in part.
pub const LEAST_CLUSTER_BYTES: u32 = 4096;
/// The largest cluster.
pub const MOST_CLUSTER_BYTES: u32 = 1 << 20;
/// The most clusters of a delta, which bounds its map to 8 MiB.
pub const MOST_CLUSTERS: u64 = 1 << 26;
/// Data starts at a multiple of this, which suits huge pages and direct I/O.
const DATA_ALIGNMENT: u64 = 1 << 20;

/// Where things are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Layout {
    pub(super) cluster_bytes: u64,
    pub(super) clusters: u64,
    pub(super) map_offset: u64,
    pub(super) map_blocks: u64,
    pub(super) data_offset: u64,
    /// The length of the whole file.
    pub(super) file_bytes: u64,
}

impl Layout {
    pub(super) fn new(capacity: u64, cluster_bytes: u32) -> Result<Self, HeaderError> {
        let range = LEAST_CLUSTER_BYTES..=MOST_CLUSTER_BYTES;
        if !cluster_bytes.is_power_of_two() || !range.contains(&cluster_bytes) {
            let must = "a power of two from 4096 to 1048576";
            return Err(field("cluster_bytes", cluster_bytes, must));
        }
        let cluster_bytes = u64::from(cluster_bytes);
        let clusters = capacity.div_ceil(cluster_bytes);
        let whole = capacity.is_multiple_of(SECTOR_BYTES);
        if !whole || !(1..=MOST_CLUSTERS).contains(&clusters) {
            let must = "a multiple of 512, with 1 to 67108864 clusters";
            return Err(field("capacity", capacity, must));
        }
        // With so few clusters nothing below can overflow; saturation satisfies the lint.
        let map_offset = (HEADER_BYTES as u64).saturating_mul(COPIES as u64);
        let map_blocks = clusters.div_ceil(BLOCK_CLUSTERS);
        let map_bytes = map_blocks.saturating_mul(SLOTS * BLOCK_BYTES as u64);
        let data_offset = map_offset
            .saturating_add(map_bytes)
            .next_multiple_of(DATA_ALIGNMENT);
        Ok(Self {
            cluster_bytes,
            clusters,
            map_offset,
            map_blocks,
            data_offset,
            file_bytes: data_offset.saturating_add(clusters.saturating_mul(cluster_bytes)),
        })
    }

    /// The cluster size for a disk of this capacity: the smallest whose map is small.
    pub(super) fn cluster_for(capacity: u64) -> u32 {
        let mut cluster_bytes = LEAST_CLUSTER_BYTES;
        while cluster_bytes < MOST_CLUSTER_BYTES
            && capacity.div_ceil(cluster_bytes.into()) > MOST_CLUSTERS
        {
            cluster_bytes = cluster_bytes.saturating_mul(2);
        }
        cluster_bytes
    }

    /// Where a copy of a map block is.
    pub(super) fn slot(&self, block: u64, slot: u64) -> u64 {
        let number = block.saturating_mul(SLOTS).saturating_add(slot);
        let bytes = number.saturating_mul(BLOCK_BYTES as u64);
        self.map_offset.saturating_add(bytes)
    }

    /// Where the disk's byte `offset` is, if the delta has it.
    pub(super) fn data(&self, offset: u64) -> u64 {
        self.data_offset.saturating_add(offset)
    }

    pub(super) fn cluster_of(&self, offset: u64) -> u64 {
        offset.checked_div(self.cluster_bytes).unwrap_or_default()
    }

    pub(super) fn start_of(&self, cluster: u64) -> u64 {
        cluster.saturating_mul(self.cluster_bytes)
    }
}
