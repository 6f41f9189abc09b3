//! The state of a device's set-up, as it is saved and restored with the device.

use super::{Core, Queue, is_in_order, status};
use crate::state;
use crate::state::{BadState, NotSaved};
use crate::virtio::features;
use crate::virtio::interrupt::{CONFIG_CHANGED, USED_BUFFERS};
use crate::virtio::queue::QueueSetup;
use crate::virtio::slot::{Activation, SlotStateV1};

state! {
    /// The registers of a queue.
    pub struct QueueRegistersV1 {
        /// The number of descriptors.
        pub size: u32,
        /// The guest-physical address of the descriptor table.
        pub descriptors: u64,
        /// The guest-physical address of the available ring.
        pub available: u64,
        /// The guest-physical address of the used ring.
        pub used: u64,
        /// Whether the device may use it.
        pub ready: bool,
    }
}

state! {
    /// A device and how its driver has set it up.
    pub struct CoreStateV1 {
        /// The virtio ID of the device.
        pub device_id: u32,
        /// The device status.
        pub status: u32,
        /// The features that the driver accepted.
        pub features: u64,
        /// Whether it accepted any that no device has.
        pub alien_features: bool,
        /// The queues, by number.
        pub queues: Vec<QueueRegistersV1>,
        /// What the driver was interrupted for and has not acknowledged.
        pub interrupt_status: u32,
        /// Whether the device waits for its reset.
        pub needs_reset: bool,
        /// The device.
        pub device: SlotStateV1,
    }
}

impl Core {
    /// The set-up, and the device, which is at rest.
    ///
    /// # Errors
    /// When it is not.
    pub(in super::super) fn save(&self) -> Result<CoreStateV1, NotSaved> {
        let registers = |queue: &Queue| QueueRegistersV1 {
            size: queue.setup.size,
            descriptors: queue.setup.descriptors,
            available: queue.setup.available,
            used: queue.setup.used,
            ready: queue.ready,
        };
        Ok(CoreStateV1 {
            device_id: self.identity.device_id,
            status: self.status,
            features: self.driver_features,
            alien_features: self.alien_features,
            queues: self.queues.iter().map(registers).collect(),
            interrupt_status: self.interrupt.status(),
            needs_reset: self.interrupt.needs_reset(),
            device: self.slot.save()?,
        })
    }

    /// Puts a fresh set-up and its fresh device into a saved state.
    ///
    /// # Errors
    /// When they cannot have it here.
    pub(in super::super) fn restore(&mut self, state: CoreStateV1) -> Result<(), BadState> {
        self.check(&state)?;
        self.status = state.status;
        self.driver_features = state.features;
        self.alien_features = state.alien_features;
        for (queue, saved) in self.queues.iter_mut().zip(&state.queues) {
            queue.setup = saved.setup();
            queue.ready = saved.ready;
        }
        self.active = state.status & status::DRIVER_OK != 0;
        let activation = self.active.then(|| Activation {
            features: self.driver_features,
            queues: self.queues.iter().map(|q| Some(q.hand_over())).collect(),
        });
        let same = self.slot.restore(state.device, activation)?;
        if self.active {
            let news = if same { 0 } else { CONFIG_CHANGED };
            let status = state.interrupt_status | news;
            self.interrupt.restore(status, state.needs_reset);
        }
        Ok(())
    }

    /// Whether the device here can have what was saved of one.
    fn check(&self, state: &CoreStateV1) -> Result<(), BadState> {
        let same = state.device_id == self.identity.device_id;
        BadState::unless(same, "the ID of this virtio device", state.device_id)?;
        BadState::unless_as_many(
            "the number of queues",
            state.queues.len(),
            self.queues.len(),
        )?;
        let bits = state.status & !status::FAILED;
        let possible = bits == 0 || is_in_order(bits);
        BadState::unless(possible, "a device status", state.status)?;
        let broken = if state.needs_reset { CONFIG_CHANGED } else { 0 };
        let told = state.interrupt_status | broken;
        let running = bits & status::DRIVER_OK != 0;
        let possible = told & !(USED_BUFFERS | CONFIG_CHANGED) == 0 && (running || told == 0);
        BadState::unless(possible, "an interrupt status", told)?;
        if bits & status::FEATURES_OK != 0 {
            let missing = state.features & !(self.identity.features | features::OFFERED);
            if missing != 0 {
                return Err(BadState::Features(missing));
            }
            let possible = state.features & features::VERSION_1 != 0 && !state.alien_features;
            BadState::unless(possible, "the features of a driver", state.features)?;
        }
        for (number, (saved, queue)) in state.queues.iter().zip(&self.queues).enumerate() {
            if saved.ready {
                let checked = saved.setup().check(queue.max, &self.ram);
                let refused = |bad| BadState::Refused(format!("of queue {number}, {bad}"));
                checked.map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Tells the driver again of all that it may not have heard.
    pub(in super::super) fn tell_again(&self) {
        for (number, queue) in (0..).zip(&self.queues) {
            if queue.ready {
                self.interrupt.used_buffers(number);
            }
        }
        if self.interrupt.status() & CONFIG_CHANGED != 0 {
            self.interrupt.config_changed();
        }
    }
}

impl QueueRegistersV1 {
    fn setup(&self) -> QueueSetup {
        QueueSetup {
            size: self.size,
            descriptors: self.descriptors,
            available: self.available,
            used: self.used,
        }
    }
}
