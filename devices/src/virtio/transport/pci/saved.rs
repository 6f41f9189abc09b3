//! A device on the PCI bus, as it is saved and restored.

use super::super::core::CoreStateV1;
use super::{PciTransport, SpaceStateV1, VectorsStateV1};
use crate::state;
use crate::state::{BadState, NotSaved, Persist, Section};

state! {
    /// A function and the device behind it.
    pub struct PciStateV1: "virtio-pci", 1 {
        /// Which 32 features of the device are shown.
        pub device_features_select: u32,
        /// Which 32 features of the driver are set.
        pub driver_features_select: u32,
        /// Which queue is meant.
        pub queue_select: u16,
        /// Whether a driver was ever ready.
        pub wanted: bool,
        /// Its configuration space.
        pub space: SpaceStateV1,
        /// Its interrupts.
        pub vectors: VectorsStateV1,
        /// All else.
        pub core: CoreStateV1,
    }
}

impl Persist for PciTransport {
    fn save(&self) -> Result<Vec<u8>, NotSaved> {
        // Let go of before the device is waited for, which may lock them too.
        let vectors = self.vectors().save();
        let state = PciStateV1 {
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            queue_select: self.queue_select,
            wanted: self.wanted,
            space: self.space.save(),
            vectors,
            core: self.core.save()?,
        };
        Ok(state.to_tagged())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let state = PciStateV1::from_tagged(state)?;
        self.device_features_select = state.device_features_select;
        self.driver_features_select = state.driver_features_select;
        self.queue_select = state.queue_select;
        self.space.restore(&state.space)?;
        self.vectors().restore(&state.vectors)?;
        self.core.restore(state.core)?;
        self.place.set(self.space.window());
        self.wanted = state.wanted;
        self.bind();
        Ok(())
    }

    fn tell_again(&mut self) {
        self.core.tell_again();
    }
}
