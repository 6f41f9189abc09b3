//! A device at rest, as it is saved and restored.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use super::{Activation, DeviceSlot, Message, Pause, SlotHandle};
use crate::state;
use crate::state::{BadState, NotSaved};
use crate::virtio::config_space::ConfigStateV1;
use crate::virtio::queue::{QueueStateV1, Standing};

state! {
    /// A device at rest.
    pub struct SlotStateV1 {
        /// Whether it was started. One that could not work with its driver was not.
        pub active: bool,
        /// The queues that it was started with, by number.
        pub queues: Vec<Option<QueueStateV1>>,
        /// Its configuration, as the driver knows it.
        pub config: ConfigStateV1,
        /// Its own part.
        pub device: Vec<u8>,
    }
}

/// What a fresh device is to be like.
#[derive(Debug)]
pub(super) struct Restored {
    state: SlotStateV1,
    /// What its driver has agreed on, if it had come so far.
    activation: Option<Activation>,
}

impl SlotHandle {
    /// The state of a device at rest.
    ///
    /// # Errors
    /// When it is not at rest, or gone.
    pub(crate) fn save(&self) -> Result<SlotStateV1, NotSaved> {
        let (answer, saved) = mpsc::channel();
        let posted = self.post(Message::Save(answer));
        let saved = posted.and_then(|()| self.receive(&saved));
        saved.map_err(|_| NotSaved::Gone)?
    }

    /// Puts a fresh device into a saved state, in which it rests: whether its configuration is
    /// what the driver knows.
    ///
    /// # Errors
    /// When it cannot have this state.
    pub(crate) fn restore(
        &self,
        state: SlotStateV1,
        activation: Option<Activation>,
    ) -> Result<bool, BadState> {
        let (answer, done) = mpsc::channel();
        let restored = Restored { state, activation };
        let posted = self.post(Message::Restore(restored, answer));
        let done = posted.and_then(|()| self.receive(&done));
        done.map_err(|gone| BadState::Refused(gone.to_string()))?
    }
}

impl DeviceSlot {
    pub(super) fn save(&self) -> Result<SlotStateV1, NotSaved> {
        if !self.is_at_rest() {
            return Err(NotSaved::Running);
        }
        let state = |standing: &Option<Arc<Standing>>| standing.as_deref().map(Standing::save);
        Ok(SlotStateV1 {
            active: self.active,
            queues: self.standings.iter().map(state).collect(),
            config: self.device.config_space().save(),
            device: self.device.save(),
        })
    }

    pub(super) fn restore(&mut self, restored: Restored) -> Result<bool, BadState> {
        let Restored { state, activation } = restored;
        self.held.store(true, Ordering::Release);
        self.pause = Pause::AtRest;
        let config = self.device.config_space();
        // What the driver wrote is there before the device starts with it.
        config.restore(&state.config)?;
        if state.active {
            let nobody = || BadState::Refused("a device was started without a driver".into());
            let activation = activation.ok_or_else(nobody)?;
            self.start_again(activation, &state.queues)?;
        }
        self.device.restore(&state.device)?;
        // It has nothing in hand, so this ends at once.
        self.device.pause();
        config.restore(&state.config)
    }

    /// Starts the device with just the queues that it had.
    fn start_again(
        &mut self,
        mut activation: Activation,
        stood: &[Option<QueueStateV1>],
    ) -> Result<(), BadState> {
        let queues = activation.queues.len();
        let same = stood.len() == queues;
        BadState::unless(same, "the number of queues", stood.len() as u64)?;
        for (set, stood) in activation.queues.iter_mut().zip(stood) {
            if stood.is_none() {
                *set = None;
            }
        }
        let started = self.start(activation, stood);
        started.map_err(|error| BadState::Refused(error.to_string()))?;
        let there = self.standings.iter().map(Option::is_some);
        match there.eq(stood.iter().map(Option::is_some)) {
            true => Ok(()),
            false => Err(BadState::Refused("a queue is where it cannot be".into())),
        }
    }
}
