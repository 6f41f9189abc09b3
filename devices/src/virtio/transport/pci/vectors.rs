//! Which vector carries which of a device's interrupts, and the way of an interrupt to it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::pci::Msix;
use crate::pci::msix::MsixStateV1;
use crate::state;
use crate::state::BadState;
use crate::virtio::Signal;

/// What a driver writes for no vector, and reads where a vector was refused (4.1.4.3).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// A device's vectors and what they are for.
#[derive(Debug)]
pub(super) struct Vectors {
    pub(super) msix: Msix,
    config: u16,
    queues: Vec<u16>,
}

state! {
    /// A device's vectors and what they are for.
    pub struct VectorsStateV1 {
        /// The vector of the configuration.
        pub config: u16,
        /// Those of the queues.
        pub queues: Vec<u16>,
        /// The vectors.
        pub msix: MsixStateV1,
    }
}

impl Vectors {
    pub(super) fn save(&self) -> VectorsStateV1 {
        VectorsStateV1 {
            config: self.config,
            queues: self.queues.clone(),
            msix: self.msix.save(),
        }
    }

    pub(super) fn restore(&mut self, state: &VectorsStateV1) -> Result<(), BadState> {
        BadState::unless_as_many(
            "the number of queues",
            state.queues.len(),
            self.queues.len(),
        )?;
        for vector in state.queues.iter().chain([&state.config]) {
            let usable = self.usable(*vector) == *vector;
            BadState::unless(usable, "the vector of an interrupt", *vector)?;
        }
        self.config = state.config;
        self.queues.clone_from(&state.queues);
        self.msix.restore(&state.msix)
    }

    pub(super) fn new(msix: Msix, queues: usize) -> Self {
        Self {
            msix,
            config: NO_VECTOR,
            queues: vec![NO_VECTOR; queues],
        }
    }

    /// The configuration's vector.
    pub(super) fn config(&self) -> u16 {
        self.config
    }

    /// The vector of a queue, none for one that does not exist.
    pub(super) fn queue(&self, queue: u16) -> u16 {
        let vector = self.queues.get(usize::from(queue));
        vector.copied().unwrap_or(NO_VECTOR)
    }

    pub(super) fn set_config(&mut self, vector: u16) {
        self.config = self.usable(vector);
    }

    pub(super) fn set_queue(&mut self, queue: u16, vector: u16) {
        let vector = self.usable(vector);
        if let Some(place) = self.queues.get_mut(usize::from(queue)) {
            *place = vector;
        }
    }

    /// As after a reset of the device; the table and its masks are the function's and stay.
    pub(super) fn reset(&mut self) {
        self.config = NO_VECTOR;
        self.queues.fill(NO_VECTOR);
        self.msix.forget_pending();
    }

    fn usable(&self, vector: u16) -> u16 {
        if vector < self.msix.vectors() {
            vector
        } else {
            NO_VECTOR
        }
    }
}

/// A device's interrupts as messages. Without MSI-X there are none: there is no interrupt pin.
#[derive(Debug)]
pub(super) struct Messages(Arc<Mutex<Vectors>>);

impl Messages {
    pub(super) fn new(vectors: Arc<Mutex<Vectors>>) -> Self {
        Self(vectors)
    }

    fn send(&self, which: impl FnOnce(&Vectors) -> u16) {
        let mut vectors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let vector = which(&vectors);
        vectors.msix.send(vector);
    }
}

impl Signal for Messages {
    fn used_buffers(&self, queue: u16) {
        self.send(|vectors| vectors.queue(queue));
    }

    fn config_changed(&self) {
        self.send(Vectors::config);
    }
}
