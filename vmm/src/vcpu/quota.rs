//! How much of the host's CPU time the vCPUs may use: a pool that all of them draw from and that
//! fills each period. Pure.
//!
//! A thread says what it has used and is told how long it may go on. What it uses beyond the pool
//! is a debt that the next periods pay, so that the mean is exact however coarse the clock is that
//! interrupts a guest.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// How often the pool fills.
const PERIOD: Duration = Duration::from_millis(50);

/// The least and the most that a thread is given at once: often enough asked that a debt stays
/// small, seldom enough that asking costs nothing.
const SLICES: (i64, i64) = (1_000_000, 10_000_000);

/// The most periods that are paid or waited for at once.
const MOST_PERIODS: u128 = 1 << 20;

/// What a thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on, and ask again after so much CPU time.
    Go(Duration),
    /// Stand still until then.
    Wait(Instant),
}

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    /// What comes in each period, in nanoseconds.
    income: i64,
    /// What is there; less than nothing for a debt.
    left: i64,
    filled: Instant,
}

impl Pool {
    /// For so many hundredths of one of the host's CPUs.
    pub(super) fn new(percent: NonZeroU32, now: Instant) -> Self {
        let income = PERIOD.as_nanos() * u128::from(percent.get()) / 100;
        let income = i64::try_from(income).unwrap_or(i64::MAX).max(1);
        Self {
            income,
            left: income,
            filled: now,
        }
    }

    /// A thread has used `used` since it asked last.
    pub(super) fn charge(&mut self, used: Duration, now: Instant) -> Verdict {
        self.fill(now);
        let used = i64::try_from(used.as_nanos()).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(used);
        if self.left > 0 {
            let slice = self.left.clamp(SLICES.0, SLICES.1);
            return Verdict::Go(Duration::from_nanos(slice.unsigned_abs()));
        }
        let missing = u128::from(self.left.unsigned_abs()) + 1;
        let periods = missing.div_ceil(u128::from(self.income.unsigned_abs()));
        let wait = PERIOD.saturating_mul(u32::try_from(periods.min(MOST_PERIODS)).unwrap_or(1));
        Verdict::Wait(self.filled.checked_add(wait).unwrap_or(now))
    }

    /// Adds what has come in; what is not used is not saved.
    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled);
        let periods = (since.as_nanos() / PERIOD.as_nanos()).min(MOST_PERIODS);
        let periods = u32::try_from(periods).unwrap_or(0);
        if periods == 0 {
            return;
        }
        let income = self.income.saturating_mul(periods.into());
        self.left = self.left.saturating_add(income).min(self.income);
        // What is left of a time longer than that is paid when it is asked for again.
        self.filled = self
            .filled
            .checked_add(PERIOD.saturating_mul(periods))
            .unwrap_or(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(percent: u32) -> (Pool, Instant) {
        let now = Instant::now();
        (Pool::new(NonZeroU32::new(percent).unwrap(), now), now)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_thread_goes_on_until_the_pool_is_empty() {
        // 25 ms in each 50.
        let (mut pool, now) = pool(50);
        assert_eq!(pool.charge(ms(0), now), Verdict::Go(ms(10)));
        assert_eq!(pool.charge(ms(10), now + ms(10)), Verdict::Go(ms(10)));
        assert_eq!(pool.charge(ms(10), now + ms(20)), Verdict::Go(ms(5)));
        let next = Verdict::Wait(now + ms(50));
        assert_eq!(pool.charge(ms(5), now + ms(25)), next);
        assert_eq!(pool.charge(ms(0), now + ms(49)), next);
        assert_eq!(pool.charge(ms(0), now + ms(50)), Verdict::Go(ms(10)));
    }

    #[test]
    fn a_debt_is_paid_and_nothing_is_saved() {
        let (mut pool, now) = pool(10);
        // 5 ms come in each period; 17 were used.
        assert_eq!(
            pool.charge(ms(17), now + ms(17)),
            Verdict::Wait(now + ms(150))
        );
        assert_eq!(
            pool.charge(ms(0), now + ms(100)),
            Verdict::Wait(now + ms(150))
        );
        assert_eq!(pool.charge(ms(0), now + ms(150)), Verdict::Go(ms(3)));
        assert_eq!(pool.charge(ms(0), now + ms(9000)), Verdict::Go(ms(5)));
        assert_eq!(
            pool.charge(ms(5), now + ms(9000)),
            Verdict::Wait(now + ms(9050))
        );
    }

    #[test]
    fn threads_share_it() {
        let (mut pool, mut now) = pool(150);
        let mut used = Duration::ZERO;
        let (mut waits, begun) = (0, now);
        // Three threads that never rest, in turns of 4 ms of the clock.
        while waits < 3000 {
            for _ in 0..3 {
                match pool.charge(Duration::ZERO, now) {
                    Verdict::Go(_) => {
                        used += ms(4);
                        pool.charge(ms(4), now);
                    }
                    Verdict::Wait(_) => waits += 1,
                }
            }
            now += ms(4);
        }
        let share = used.as_secs_f64() / (now - begun).as_secs_f64();
        assert!((1.45..1.55).contains(&share), "{share}");
    }

    #[test]
    fn any_quota_and_time_is_no_overflow() {
        for (percent, waits) in [(1, true), (u32::MAX, false)] {
            let (mut pool, now) = pool(percent);
            pool.charge(Duration::MAX, now);
            pool.charge(Duration::MAX, now);
            let far = now + Duration::from_secs(1 << 33);
            pool.charge(Duration::ZERO, far);
            let verdict = pool.charge(Duration::ZERO, far);
            assert_eq!(matches!(verdict, Verdict::Wait(_)), waits, "{verdict:?}");
        }
    }
}
