//! What the guest says of its memory (virtio 1.2, 5.5.6.3).

use crate::inspect::Report;
use crate::state::BadState;

/// The bytes of one value: a tag of two and a number of eight.
const ENTRY_BYTES: usize = 10;
/// How much of a report is read at most; the specification has ten tags and Linux sixteen.
pub(super) const MOST_BYTES: usize = 64 * ENTRY_BYTES;

/// The tags, by number, under the names that Firecracker gives them.
const NAMES: [&str; 16] = [
    "swap_in",
    "swap_out",
    "major_faults",
    "minor_faults",
    "free_memory",
    "total_memory",
    "available_memory",
    "disk_caches",
    "hugetlb_allocations",
    "hugetlb_failures",
    "oom_kill",
    "alloc_stall",
    "async_scan",
    "direct_scan",
    "async_reclaim",
    "direct_reclaim",
];

/// The guest's latest statistics.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Statistics {
    values: [Option<u64>; NAMES.len()],
    /// How many reports came.
    reports: u64,
    /// Values with a tag that nobody knows, which are ignored (5.5.6.3.2).
    unknown: u64,
}

impl Statistics {
    /// Takes a report; what is left of it after its last whole value is ignored.
    pub(super) fn take(&mut self, report: &[u8]) {
        self.values = Default::default();
        self.reports = self.reports.saturating_add(1);
        for entry in report.chunks_exact(ENTRY_BYTES) {
            let Some(([low, high], value)) = entry.split_first_chunk() else {
                continue;
            };
            let tag = usize::from(u16::from_le_bytes([*low, *high]));
            let value = value.first_chunk().copied().map(u64::from_le_bytes);
            match self.values.get_mut(tag) {
                Some(place) => *place = value,
                None => self.unknown = self.unknown.saturating_add(1),
            }
        }
    }

    /// A driver that starts anew has said nothing yet.
    pub(super) fn forget(&mut self) {
        self.values = Default::default();
    }

    /// The values, by tag.
    pub(super) fn save(&self) -> Vec<Option<u64>> {
        self.values.to_vec()
    }

    /// Such values, of which nobody has counted the reports.
    pub(super) fn restore(saved: &[Option<u64>]) -> Result<Self, BadState> {
        let bad = BadState::value("the number of statistics", saved.len() as u64);
        Ok(Self {
            values: saved.try_into().map_err(|_| bad)?,
            ..Self::default()
        })
    }

    /// The values that are known, and how many reports came.
    pub(super) fn report(&self) -> Report {
        let counts = Report::new()
            .with("reports", self.reports)
            .with("unknown_values", self.unknown);
        let known = NAMES.iter().zip(self.values);
        known.fold(counts, |report, (name, value)| match value {
            Some(value) => report.with(*name, value),
            None => report,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Value;

    fn entry(tag: u16, value: u64) -> Vec<u8> {
        [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
    }

    #[test]
    fn known_tags_are_kept_and_others_counted() {
        let mut statistics = Statistics::default();
        let report = [
            entry(4, 7),
            entry(16, 1),
            entry(0xffff, 2),
            entry(15, u64::MAX),
        ];
        statistics.take(&[report.concat(), vec![5, 0, 1]].concat());
        let told = statistics.report();
        for (name, value) in [
            ("reports", 1),
            ("unknown_values", 2),
            ("free_memory", 7),
            ("direct_reclaim", u64::MAX),
        ] {
            assert_eq!(told.find(name), Some(&Value::Number(value)), "{name}");
        }
        assert_eq!(told.find("total_memory"), None);
        // A new report replaces the old one as a whole.
        statistics.take(&entry(5, 9));
        let told = statistics.report();
        assert_eq!(told.find("free_memory"), None);
        assert_eq!(told.find("total_memory"), Some(&Value::Number(9)));
        statistics.take(&[]);
        assert_eq!(statistics.report().entries().len(), 2);
    }
}
