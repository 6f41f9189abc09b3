//! The memory balloon.

use std::time::Duration;

use api::spec::BalloonSpec;
use arch::layout;
use devices::virtio::balloon::Settings;

use super::{ConfigError, Problem};

/// Longest time between two statistics.
const MAX_STATS_SECONDS: u64 = 24 * 3600;

/// Reads the balloon of a machine with so much memory.
pub(super) fn read(spec: &BalloonSpec, memory_bytes: u64) -> Result<Settings, ConfigError> {
    let target_bytes = match &spec.size {
        None => 0,
        Some(size) => {
            let refuse = |problem| ConfigError::new("balloon size", size, problem);
            let bytes = size.bytes().map_err(|why| refuse(Problem::NotASize(why)))?;
            if bytes >= memory_bytes {
                return Err(refuse(Problem::BeyondMemory { has: memory_bytes }));
            }
            if !bytes.is_multiple_of(layout::PAGE_SIZE) {
                let page = layout::PAGE_SIZE;
                return Err(refuse(Problem::Uneven { page }));
            }
            bytes
        }
    };
    if spec.stats_seconds > MAX_STATS_SECONDS {
        let problem = Problem::TooLong { most: "a day" };
        let value = format_args!("{} s", spec.stats_seconds);
        return Err(ConfigError::new("balloon stats", &value, problem));
    }
    Ok(Settings {
        memory_bytes,
        target_bytes,
        deflate_on_oom: spec.deflate_on_oom,
        statistics_every: Duration::from_secs(spec.stats_seconds),
        reporting: spec.reporting,
        hinting: spec.hinting,
    })
}
