//! Where a queue stands, as it is saved.
//!
//! One number is enough. What a device at rest has answered comes before what it has not, in the
//! order in which it took all of them; what it took and did not answer is put back, and taken once
//! more after the restore. So the used index is the place of both rings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use virtio_queue::QueueT;

use super::{QueueBroken, Virtqueue};
use crate::state;

state! {
    /// A queue of a device at rest.
    pub struct QueueStateV1 {
        /// How many requests were answered, modulo 2^16.
        pub position: u16,
        /// Whether the driver broke a rule.
        pub broken: bool,
    }
}

/// Where a queue stands, for the owner of the device that has the queue.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    position: AtomicU16,
    broken: AtomicBool,
}

impl Standing {
    pub(super) fn note(&self, position: u16) {
        self.position.store(position, Ordering::Relaxed);
    }

    pub(super) fn note_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// The state of the queue. Its device is at rest.
    pub(crate) fn save(&self) -> QueueStateV1 {
        QueueStateV1 {
            position: self.position.load(Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
        }
    }
}

impl Virtqueue {
    /// Tells where the queue stands from now on.
    pub(crate) fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// The same queue in a saved state.
    #[must_use]
    pub(crate) fn restored(mut self, state: &QueueStateV1) -> Self {
        self.queue.set_next_avail(state.position);
        self.queue.set_next_used(state.position);
        self.seen = state.position;
        self.published = state.position;
        self.announced = state.position;
        self.standing.note(state.position);
        if state.broken {
            self.broken = Some(QueueBroken::Earlier);
            self.standing.note_broken();
        }
        self
    }
}
