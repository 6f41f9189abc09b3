//! What a balloon is to be, and which queues that takes.

use std::time::Duration;

/// The guest's statistics are asked for through a queue of their own (5.5.3).
pub const F_STATS_VQ: u64 = 1 << 1;
/// The guest may take pages back by itself when it runs out of memory.
pub const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// The guest tells of its free pages when it is asked to.
pub const F_FREE_PAGE_HINT: u64 = 1 << 3;
/// The guest says what it fills free pages with.
pub const F_PAGE_POISON: u64 = 1 << 4;
/// The guest tells of its free pages all the time.
pub const F_PAGE_REPORTING: u64 = 1 << 5;

/// What a balloon is to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// The guest's memory.
    pub memory_bytes: u64,
    /// How much of it the guest is to give up to begin with, whole pages of 4 KiB.
    pub target_bytes: u64,
    /// Whether the guest may take it back when it runs out of memory.
    pub deflate_on_oom: bool,
    /// How often the guest is asked for its statistics; zero for never.
    pub statistics_every: Duration,
    /// Whether the guest reports free pages all the time.
    pub reporting: bool,
    /// Whether it can be asked for its free pages.
    pub hinting: bool,
}

impl Settings {
    /// The largest sizes of the queues of such a balloon.
    pub fn queue_sizes(&self) -> Vec<u16> {
        let all = [128, 128, 16, 128, 64];
        let count = match (self.reporting, self.hinting) {
            (true, _) => 5,
            (false, true) => 4,
            (false, false) => 3,
        };
        all.into_iter().take(count).collect()
    }

    /// Statistics are always offered, and hinting with reporting: drivers (Linux 6.1 is one)
    /// count only the queues that they use, the specification counts all that there could be,
    /// and so both come to the same numbers.
    pub(super) fn features(&self) -> u64 {
        let hinting = F_FREE_PAGE_HINT | F_PAGE_POISON;
        let mut features = F_STATS_VQ;
        if self.deflate_on_oom {
            features |= F_DEFLATE_ON_OOM;
        }
        if self.hinting || self.reporting {
            features |= hinting;
        }
        if self.reporting {
            features |= F_PAGE_REPORTING;
        }
        features
    }
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Inflate,
    Deflate,
    Statistics,
    Hints,
    Reports,
}

/// The roles in the order of their queues (5.5.2), each with the feature that it comes with.
const ROLES: [(Role, u64); 5] = [
    (Role::Inflate, 0),
    (Role::Deflate, 0),
    (Role::Statistics, F_STATS_VQ),
    (Role::Hints, F_FREE_PAGE_HINT),
    (Role::Reports, F_PAGE_REPORTING),
];

/// What each queue of a driver that accepted `features` is for. A driver that set up fewer queues
/// than the last of its numbers by the specification counts only those that it uses.
pub(super) fn roles(features: u64, set_up: &[bool]) -> [Option<Role>; 5] {
    let used = |(_, feature): &&(Role, u64)| features & feature == *feature;
    let missing = |(queue, (_, feature)): (usize, &(Role, u64))| {
        features & feature == *feature && !set_up.get(queue).copied().unwrap_or_default()
    };
    let by_specification = !ROLES.iter().enumerate().any(missing);
    let mut roles = [None; 5];
    if by_specification {
        for (place, role) in roles.iter_mut().zip(&ROLES) {
            *place = Some(role).filter(used).map(|(role, _)| *role);
        }
    } else {
        for (place, (role, _)) in roles.iter_mut().zip(ROLES.iter().filter(used)) {
            *place = Some(*role);
        }
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drivers number their queues by the specification, or count only those that they use.
    #[test]
    fn queues_are_found_by_either_count() {
        use Role::{Deflate, Hints, Inflate, Reports, Statistics};
        let all = F_STATS_VQ | F_FREE_PAGE_HINT | F_PAGE_REPORTING;
        let both = [Some(Inflate), Some(Deflate)];
        for (features, set_up, rest) in [
            (
                all,
                [true; 5],
                [Some(Statistics), Some(Hints), Some(Reports)],
            ),
            (0, [true, true, false, false, false], [None; 3]),
            (0, [true; 5], [None; 3]),
            (
                F_PAGE_REPORTING,
                [true, true, false, false, true],
                [None, None, Some(Reports)],
            ),
            (
                F_PAGE_REPORTING,
                [true, true, true, false, false],
                [Some(Reports), None, None],
            ),
            (
                F_PAGE_REPORTING | F_STATS_VQ,
                [true, true, true, true, false],
                [Some(Statistics), Some(Reports), None],
            ),
            (
                F_FREE_PAGE_HINT,
                [true, true, true, false, false],
                [Some(Hints), None, None],
            ),
        ] {
            let expected = [&both[..], &rest[..]].concat();
            assert_eq!(
                roles(features, &set_up)[..],
                expected,
                "{features:#x} {set_up:?}"
            );
        }
    }
}
