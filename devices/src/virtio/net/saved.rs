//! A network device, as it is saved and restored.
//!
//! Frames that are on their way are not saved: those of the guest are sent once more from its
//! memory, and one of the host's that waits for a larger buffer is lost, as frames may be.

use super::{Net, wire};
use crate::limit::LimitsStateV1;
use crate::state;
use crate::state::BadState;

state! {
    /// What a driver has asked for with commands.
    pub struct NetDriverStateV1 {
        /// How many pairs of queues it uses.
        pub active: u16,
        /// What it takes unfinished, by its features.
        pub offloads: u64,
    }
}

state! {
    /// A network device.
    pub struct NetStateV1: "net", 1 {
        /// Whether the host has not taken the link down.
        pub up: bool,
        /// How much the guest may receive.
        pub receive: LimitsStateV1,
        /// How much it may send.
        pub transmit: LimitsStateV1,
        /// Its driver, if the device was started.
        pub driver: Option<NetDriverStateV1>,
    }
}

impl Net {
    pub(super) fn state(&self) -> NetStateV1 {
        let driver = self.running.as_ref().map(|running| NetDriverStateV1 {
            active: running.active,
            offloads: wire::TO_GUEST.features(running.to_guest),
        });
        NetStateV1 {
            up: self.up,
            receive: self.receive_limit.save(),
            transmit: self.transmit_limit.save(),
            driver,
        }
    }

    pub(super) fn take_state(&mut self, state: &NetStateV1) -> Result<(), BadState> {
        self.receive_limit.restore(&state.receive)?;
        self.transmit_limit.restore(&state.transmit)?;
        self.up = state.up;
        self.tell_status();
        let started = self.running.is_some();
        BadState::unless(
            state.driver.is_some() == started,
            "a driver",
            u64::from(!started),
        )?;
        let Some(driver) = &state.driver else {
            return Ok(());
        };
        // A device begins with one pair, and with all that its driver can take.
        let pairs = driver.active;
        BadState::unless(
            pairs == 1 || self.use_pairs(pairs),
            "pairs of queues",
            pairs,
        )?;
        self.restore_offloads(driver.offloads)
    }

    fn restore_offloads(&mut self, bits: u64) -> Result<(), BadState> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let possible = bits & !(running.features & wire::TO_GUEST.all()) == 0;
        BadState::unless(possible, "offloads", bits)?;
        let offloads = wire::TO_GUEST.offloads(bits);
        if offloads != running.to_guest {
            // Otherwise frames came in a way that the guest does not take.
            let refused =
                |error| BadState::Refused(format!("the host keeps its offloads: {error}"));
            self.link.set_offloads(offloads).map_err(refused)?;
            running.to_guest = offloads;
        }
        Ok(())
    }
}
