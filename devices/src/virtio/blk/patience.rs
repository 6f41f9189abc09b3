//! Looking at a ring for a moment longer before asking its driver to ring again: an answer to a
//! request often brings the next one sooner than a sleeping thread wakes up.

use std::hint;
use std::time::{Duration, Instant};

use crate::virtio::Virtqueue;

/// How long an empty ring is looked at.
const LOOK: Duration = Duration::from_micros(20);
/// A ring that was rung later than this after it ran empty is not worth a look: most of it is
/// the time in which this thread wakes up.
const SOON: Duration = Duration::from_micros(200);
/// Looks in vain after which no more are taken until the driver is quick again.
const IN_VAIN: u32 = 3;
/// Rings without looks after that.
const PAUSE: u32 = 64;

/// Whether the driver has been quick of late.
#[derive(Debug, Default)]
pub(super) struct Patience {
    idle_since: Option<Instant>,
    quick: bool,
    in_vain: u32,
    pause: u32,
}

impl Patience {
    /// The doorbell rang.
    pub(super) fn rung(&mut self) {
        let since = self.idle_since.take();
        self.quick = since.is_some_and(|since| since.elapsed() < SOON);
        self.pause = self.pause.saturating_sub(1);
    }

    /// Looks at an empty ring until something comes, for as long as that is worth it.
    pub(super) fn wait(&mut self, queue: &Virtqueue) {
        if !self.quick || self.pause > 0 {
            return;
        }
        let start = Instant::now();
        while start.elapsed() < LOOK {
            // The clock costs more than a look.
            for _ in 0..16 {
                if queue.has_more() {
                    self.in_vain = 0;
                    return;
                }
                hint::spin_loop();
            }
        }
        self.in_vain = self.in_vain.saturating_add(1);
        if self.in_vain >= IN_VAIN {
            (self.in_vain, self.pause) = (0, PAUSE);
        }
    }

    /// The ring is left to its doorbell.
    pub(super) fn idle(&mut self) {
        self.idle_since = Some(Instant::now());
    }
}
