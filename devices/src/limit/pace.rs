//! Token buckets that run: what finds too few tokens waits, touching nothing but the clock.

use std::time::{Duration, Instant};

use super::{BucketSpec, Limits};
use crate::state;
use crate::state::BadState;

state! {
    /// A bucket of tokens.
    pub struct BucketStateV1 {
        /// The tokens that it holds when full.
        pub size: u64,
        /// Tokens that were there once.
        pub burst: u64,
        /// How long an empty one takes to be full, in nanoseconds.
        pub refill_ns: u64,
        /// The tokens in it, below zero for what is owed.
        pub level: i64,
        /// What is left of the burst.
        pub burst_left: u64,
    }
}

state! {
    /// The limits of a device, as they stand.
    pub struct LimitsStateV1 {
        /// Bytes moved.
        pub bytes: Option<BucketStateV1>,
        /// Operations carried out.
        pub operations: Option<BucketStateV1>,
    }
}

/// A bucket of tokens.
#[derive(Clone, Debug)]
struct Bucket {
    spec: BucketSpec,
    /// Below zero after a request that was larger than the bucket.
    level: i128,
    burst: u64,
    filled: Instant,
}

impl Bucket {
    /// A full one; none where it would never hold or never get anything, which is no limit.
    fn new(spec: BucketSpec, now: Instant) -> Option<Self> {
        (spec.size > 0 && !spec.refill.is_zero()).then_some(Self {
            spec,
            level: spec.size.into(),
            burst: spec.burst,
            filled: now,
        })
    }

    /// Adds what has come since the last time. Parts of a token are not lost.
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_nanos();
        let refill = self.spec.refill.as_nanos().max(1);
        let size = u128::from(self.spec.size);
        let new = passed.saturating_mul(size) / refill;
        let came = i128::try_from(new).unwrap_or(i128::MAX);
        let level = self.level.saturating_add(came);
        if level >= self.spec.size.into() {
            (self.level, self.filled) = (self.spec.size.into(), now);
            return;
        }
        self.level = level;
        let used = new.saturating_mul(refill) / size.max(1);
        let used = Duration::from_nanos(u64::try_from(used).unwrap_or(u64::MAX));
        self.filled = self.filled.checked_add(used).unwrap_or(now);
    }

    /// Tokens that are there, or how long it takes until `worth` of them are.
    fn there(&mut self, worth: u64, now: Instant) -> Result<u64, Duration> {
        self.fill(now);
        let all = self.level.saturating_add(self.burst.into());
        let worth = i128::from(worth.min(self.spec.size));
        if all >= worth {
            return Ok(u64::try_from(all).unwrap_or(u64::MAX));
        }
        let missing = worth.saturating_sub(all).unsigned_abs();
        let refill = self.spec.refill.as_nanos();
        let wait = missing.saturating_mul(refill) / u128::from(self.spec.size).max(1);
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        Err(Duration::from_nanos(wait.saturating_add(1)))
    }

    fn save(&self, now: Instant) -> BucketStateV1 {
        let mut bucket = self.clone();
        bucket.fill(now);
        BucketStateV1 {
            size: bucket.spec.size,
            burst: bucket.spec.burst,
            refill_ns: u64::try_from(bucket.spec.refill.as_nanos()).unwrap_or(u64::MAX),
            level: i64::try_from(bucket.level).unwrap_or(if bucket.level < 0 {
                i64::MIN
            } else {
                i64::MAX
            }),
            burst_left: bucket.burst,
        }
    }

    fn restore(state: &BucketStateV1, now: Instant) -> Result<Self, BadState> {
        let spec = BucketSpec {
            size: state.size,
            burst: state.burst,
            refill: Duration::from_nanos(state.refill_ns),
        };
        let bad = BadState::value("the size of a bucket", state.size);
        let mut bucket = Self::new(spec, now).ok_or(bad)?;
        let possible = i128::from(state.level) <= state.size.into();
        let level = state.level.cast_unsigned();
        BadState::unless(possible, "the level of a bucket", level)?;
        let possible = state.burst_left <= state.burst;
        BadState::unless(possible, "the burst of a bucket", state.burst_left)?;
        (bucket.level, bucket.burst) = (state.level.into(), state.burst_left);
        Ok(bucket)
    }

    fn spend(&mut self, tokens: u64) {
        let once = tokens.min(self.burst);
        self.burst = self.burst.saturating_sub(once);
        let rest = tokens.saturating_sub(once);
        self.level = self.level.saturating_sub(rest.into());
    }
}

/// Both limits of a device, as they stand.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Pace {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        let bucket = |spec: Option<BucketSpec>| Bucket::new(spec?, now);
        Self {
            bytes: bucket(limits.bytes),
            operations: bucket(limits.operations),
        }
    }

    pub(super) fn save(&self, now: Instant) -> LimitsStateV1 {
        let save = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| bucket.save(now));
        LimitsStateV1 {
            bytes: save(&self.bytes),
            operations: save(&self.operations),
        }
    }

    pub(super) fn restore(state: &LimitsStateV1, now: Instant) -> Result<Self, BadState> {
        let restore = |state: &Option<BucketStateV1>| {
            let bucket = state.as_ref().map(|state| Bucket::restore(state, now));
            bucket.transpose()
        };
        Ok(Self {
            bytes: restore(&state.bytes)?,
            operations: restore(&state.operations)?,
        })
    }

    /// Whether there is any limit.
    pub(super) fn is_limited(&self) -> bool {
        self.bytes.is_some() || self.operations.is_some()
    }

    /// How many bytes a request may move now, or how long it has to wait until it may move
    /// `worth`. One that is larger than the bucket goes when that is full, and what it moves
    /// beyond is owed.
    pub(super) fn grant(&mut self, worth: u64, now: Instant) -> Result<u64, Duration> {
        let there = |bucket: &mut Option<Bucket>, worth| {
            bucket
                .as_mut()
                .map_or(Ok(u64::MAX), |bucket| bucket.there(worth, now))
        };
        let bytes = there(&mut self.bytes, worth);
        match (bytes, there(&mut self.operations, 1)) {
            (Ok(bytes), Ok(_)) => Ok(bytes),
            (Err(wait), Ok(_)) | (Ok(_), Err(wait)) => Err(wait),
            (Err(one), Err(other)) => Err(one.max(other)),
        }
    }

    /// Takes the tokens for so many bytes and operations.
    ///
    /// # Errors
    /// When they are not there: how long to wait. Nothing is taken then.
    pub(super) fn take(
        &mut self,
        bytes: u64,
        operations: u64,
        now: Instant,
    ) -> Result<(), Duration> {
        let uses = [(&mut self.bytes, bytes), (&mut self.operations, operations)];
        let mut wait = Duration::ZERO;
        for (bucket, tokens) in uses {
            if let Some(bucket) = bucket.as_mut().filter(|_| tokens > 0)
                && let Err(longer) = bucket.there(tokens, now)
            {
                wait = wait.max(longer);
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        for (bucket, tokens) in [(&mut self.bytes, bytes), (&mut self.operations, operations)] {
            if let Some(bucket) = bucket {
                bucket.spend(tokens);
            }
        }
        Ok(())
    }

    /// How many bytes should be taken at once: what is more is felt only afterwards.
    pub(super) fn portion(&self) -> u64 {
        self.bytes
            .as_ref()
            .map_or(u64::MAX, |bucket| bucket.spec.size)
    }

    /// A request moved so many bytes.
    pub(super) fn spend(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.spend(bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.spend(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(size: u64, burst: u64, ms: u64) -> Option<BucketSpec> {
        let refill = Duration::from_millis(ms);
        Some(BucketSpec {
            size,
            burst,
            refill,
        })
    }

    #[test]
    fn what_is_spent_comes_back_in_time() {
        let start = Instant::now();
        let limits = Limits {
            bytes: spec(1000, 500, 1000),
            operations: None,
        };
        let mut pace = Pace::new(limits, start);
        assert_eq!(pace.grant(64, start), Ok(1500));
        pace.spend(1500);
        let wait = pace.grant(64, start).unwrap_err();
        assert!(wait > Duration::from_millis(63) && wait < Duration::from_millis(65));
        assert_eq!(pace.grant(64, start + wait), Ok(64));
        assert_eq!(pace.grant(64, start + Duration::from_secs(9)), Ok(1000));
        // Small buckets, no buckets, and requests that count.
        let limits = Limits {
            bytes: spec(3, 0, 1000),
            operations: spec(1, 0, 10),
        };
        let mut pace = Pace::new(limits, start);
        assert_eq!(pace.grant(64, start), Ok(3));
        pace.spend(1);
        assert!(pace.grant(64, start).unwrap_err() > Duration::from_millis(300));
        for none in [spec(0, 7, 1), spec(7, 0, 0), None] {
            let bytes = none;
            let limits = Limits {
                bytes,
                operations: None,
            };
            assert_eq!(Pace::new(limits, start).grant(64, start), Ok(u64::MAX));
        }
    }

    #[test]
    fn both_limits_or_none_are_used() {
        let start = Instant::now();
        let limits = Limits {
            bytes: spec(100, 0, 1000),
            operations: spec(2, 0, 1000),
        };
        let mut pace = Pace::new(limits, start);
        assert_eq!(pace.portion(), 100);
        assert_eq!(pace.take(90, 1, start), Ok(()));
        assert!(pace.take(90, 1, start).is_err());
        assert_eq!(pace.take(10, 1, start), Ok(()), "nothing was taken");
        assert!(pace.take(0, 1, start).is_err(), "no operation is left");
        assert_eq!(pace.take(0, 0, start), Ok(()));
        let wait = pace.take(50, 0, start).unwrap_err();
        assert_eq!(pace.take(50, 0, start + wait), Ok(()));
        assert_eq!(Pace::default().portion(), u64::MAX);
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_owed() {
        let start = Instant::now();
        let limits = Limits {
            bytes: spec(1000, 0, 1000),
            operations: None,
        };
        let mut pace = Pace::new(limits, start);
        assert_eq!(pace.grant(5000, start), Ok(1000));
        pace.spend(5000);
        let wait = pace.grant(500, start).unwrap_err();
        assert!(wait > Duration::from_millis(4499) && wait < Duration::from_millis(4501));
        assert_eq!(pace.grant(500, start + wait), Ok(500));
    }

    #[test]
    fn what_is_used_up_outlives_a_restore() {
        let start = Instant::now();
        let limits = Limits {
            bytes: spec(1000, 500, 1000),
            operations: spec(7, 0, 10),
        };
        let mut pace = Pace::new(limits, start);
        pace.spend(3000);
        let state = pace.save(start);
        let bytes = state.bytes.clone().unwrap();
        assert_eq!((bytes.level, bytes.burst_left), (-1500, 0));
        let later = start + Duration::from_secs(60);
        let mut after = Pace::restore(&state, later).unwrap();
        assert_eq!(after.save(later), state);
        assert_eq!(after.grant(64, later), pace.grant(64, start));
        for (size, level, burst_left) in [(0, 0, 0), (1000, 1001, 0), (1000, 0, 501)] {
            let bucket = BucketStateV1 {
                size,
                level,
                burst_left,
                ..bytes.clone()
            };
            let bytes = Some(bucket);
            let state = LimitsStateV1 {
                bytes,
                operations: None,
            };
            assert!(Pace::restore(&state, start).is_err(), "{size} {level}");
        }
    }

    proptest! {
        /// Never more than a bucket, its burst and what came in the time.
        #[test]
        fn the_limit_holds(
            size in 1_u64..1_000_000, burst in 0_u64..1000, ms in 1_u64..10_000,
            looks in prop::collection::vec(0_u64..5_000_000, 1..200)
        ) {
            let start = Instant::now();
            let limits = Limits { bytes: spec(size, burst, ms), operations: None };
            let mut pace = Pace::new(limits, start);
            let (mut now, mut spent) = (start, 0_u128);
            for look in looks {
                now += Duration::from_nanos(look);
                if let Ok(bytes) = pace.grant(64, now) {
                    pace.spend(bytes);
                    spent += u128::from(bytes);
                }
                let came = (now - start).as_nanos() * u128::from(size) / u128::from(ms * 1_000_000);
                prop_assert!(spent <= u128::from(size + burst) + came + 1);
            }
        }
    }
}
