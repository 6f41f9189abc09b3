//! Looking at rings for a moment longer before asking their driver to ring again: an answer to a
//! request often brings the next one sooner than a sleeping thread wakes up.

use std::hint;
use std::time::{Duration, Instant};

/// How long empty rings are looked at.
const LOOK: Duration = Duration::from_micros(20);
/// A ring that was rung later than this after it ran empty is not worth a look: most of it is
/// the time in which this thread wakes up.
const SOON: Duration = Duration::from_micros(200);
/// Looks in vain after which no more are taken until the driver is quick again.
const IN_VAIN: u32 = 3;
/// Pauses without looks after that.
const REST: u32 = 64;
/// The clock costs more than a look: it is read once in so many.
const LOOKS: u32 = 16;

/// Whether the driver has been quick of late.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When the rings ran empty.
    idle_since: Option<Instant>,
    /// Whether they are looked at, and not left to their doorbells.
    looking: bool,
    looks: u32,
    quick: bool,
    in_vain: u32,
    rest: u32,
}

impl Patience {
    /// There was something to do.
    pub(super) fn worked(&mut self) {
        let Some(since) = self.idle_since.take() else {
            return;
        };
        if self.looking {
            self.in_vain = 0;
            return;
        }
        self.quick = since.elapsed() < SOON;
        self.rest = self.rest.saturating_sub(1);
    }

    /// There was nothing to do: whether to look again at once.
    pub(super) fn look_again(&mut self) -> bool {
        let Some(since) = self.idle_since else {
            self.idle_since = Some(Instant::now());
            self.looking = self.quick && self.rest == 0;
            self.looks = 0;
            return self.looking;
        };
        if !self.looking {
            return false;
        }
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(LOOKS) && since.elapsed() > LOOK {
            self.looking = false;
            self.in_vain = self.in_vain.saturating_add(1);
            if self.in_vain >= IN_VAIN {
                (self.in_vain, self.rest) = (0, REST);
            }
            return false;
        }
        hint::spin_loop();
        true
    }

    /// The driver starts anew.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until it is enough: how often, at most a million times.
    fn looks(patience: &mut Patience) -> u32 {
        let count = (0..1_000_000).take_while(|_| patience.look_again()).count();
        u32::try_from(count).unwrap()
    }

    /// A pause that ends by the doorbell, so long after its beginning.
    fn rung_after(patience: &mut Patience, pause: Duration) {
        patience.idle_since = Instant::now().checked_sub(pause);
        patience.looking = false;
        patience.worked();
    }

    #[test]
    fn nobody_is_waited_for_who_was_not_quick() {
        let mut patience = Patience::default();
        assert_eq!(looks(&mut patience), 0);
        rung_after(&mut patience, SOON * 2);
        assert_eq!(looks(&mut patience), 0);
        rung_after(&mut patience, Duration::ZERO);
        assert!(looks(&mut patience) > 0);
        patience.reset();
        assert_eq!(looks(&mut patience), 0);
    }

    #[test]
    fn looks_in_vain_end_the_looking_for_a_while() {
        let mut patience = Patience::default();
        rung_after(&mut patience, Duration::ZERO);
        for _ in 0..IN_VAIN {
            assert!(looks(&mut patience) > 0);
            rung_after(&mut patience, Duration::ZERO);
        }
        for _ in 1..REST {
            assert_eq!(looks(&mut patience), 0);
            rung_after(&mut patience, Duration::ZERO);
        }
        assert!(looks(&mut patience) > 0);
        // One that comes while it is looked for makes up for the others.
        rung_after(&mut patience, Duration::ZERO);
        assert!(patience.look_again());
        patience.worked();
        assert_eq!(patience.in_vain, 0);
    }
}
