//! A balloon, as it is saved and restored.
//!
//! What it was at is put back and done once more: pages that were given up are given up once, and
//! the statistics that the device keeps are read again.

use std::time::Duration;

use super::pages::Pages;
use super::statistics::Statistics;
use super::{Balloon, HINT_COMMAND, Hinting, TARGET, page_count};
use crate::state;
use crate::state::BadState;

/// Statistics are never asked for more often: whoever sets the interval does it in seconds.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

state! {
    /// How hinting stands.
    pub struct HintingStateV1 {
        /// The command in the configuration.
        pub host: u32,
        /// The one that the guest is at.
        pub guest: Option<u32>,
        /// The last one that began hinting.
        pub last: u32,
        /// Whether the guest may use hinted pages as soon as it told of all.
        pub acknowledge: bool,
    }
}

state! {
    /// A balloon.
    pub struct BalloonStateV1: "balloon", 1 {
        /// How much the guest is to give up.
        pub target_bytes: u64,
        /// How often it is asked for statistics, in nanoseconds; zero for never.
        pub statistics_every_ns: u64,
        /// What it fills free pages with, if it said so.
        pub poison: u32,
        /// Hinting.
        pub hinting: HintingStateV1,
        /// The pages that it has given up: numbers of blocks of 2 MiB, and a bit for each page.
        pub pages: Vec<(u64, [u64; 8])>,
        /// Its statistics, by tag.
        pub statistics: Vec<Option<u64>>,
    }
}

impl Balloon {
    pub(super) fn state(&self) -> BalloonStateV1 {
        let Hinting {
            host,
            guest,
            last,
            acknowledge,
        } = self.hinting;
        let every = self.settings.statistics_every.as_nanos();
        BalloonStateV1 {
            target_bytes: self.settings.target_bytes,
            statistics_every_ns: u64::try_from(every).unwrap_or(u64::MAX),
            poison: self.running.as_ref().map_or(0, |running| running.poison),
            hinting: HintingStateV1 {
                host,
                guest,
                last,
                acknowledge,
            },
            pages: self.pages.save(),
            statistics: self.statistics.save(),
        }
    }

    pub(super) fn take_state(&mut self, state: &BalloonStateV1) -> Result<(), BadState> {
        let target = state.target_bytes;
        self.set_target(target)
            .map_err(|_| BadState::value("the target of a balloon", target))?;
        let every = Duration::from_nanos(state.statistics_every_ns);
        let possible = every.is_zero() || every >= LEAST_INTERVAL;
        BadState::unless(possible, "a balloon's interval", state.statistics_every_ns)?;
        self.settings.statistics_every = every;
        self.set_timer();
        let most = page_count(self.settings.memory_bytes);
        self.pages = Pages::restore(&state.pages, most)?;
        self.statistics = Statistics::restore(&state.statistics)?;
        let HintingStateV1 {
            host,
            guest,
            last,
            acknowledge,
        } = state.hinting;
        self.hinting = Hinting {
            host,
            guest,
            last,
            acknowledge,
        };
        if let Some(running) = &mut self.running {
            running.poison = state.poison;
        }
        self.tell(TARGET, page_count(target));
        self.tell(HINT_COMMAND, host);
        Ok(())
    }
}
