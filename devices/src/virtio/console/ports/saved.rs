//! Ports, as they are saved and restored.
//!
//! The programs on the host's side are not saved: the driver is told of ports that are open or not
//! otherwise than it knows, and what the host sent and the guest did not take is gone with them.

use super::super::queues::{self, CHUNK, Queues, StreamStateV1};
use super::{Port, Ports, Untold};
use crate::state;
use crate::state::BadState;

state! {
    /// What the driver is still to be told of a port.
    pub struct UntoldStateV1 {
        /// That it exists.
        pub exists: bool,
        /// That it is a console.
        pub console: bool,
        /// Its name.
        pub name: bool,
        /// Its size.
        pub size: bool,
    }
}

state! {
    /// A port.
    pub struct PortStateV1 {
        /// Its name.
        pub name: String,
        /// Columns and rows, if anybody knows.
        pub size: Option<(u16, u16)>,
        /// Taken from the guest and not yet by the host's program.
        pub unsent: Vec<u8>,
        /// What the driver does not know yet.
        pub untold: UntoldStateV1,
        /// Whether the driver has the port.
        pub ready: bool,
        /// Whether a program of the guest has it open.
        pub guest_open: bool,
        /// What the driver was told of the host's side.
        pub told_open: bool,
        /// Its queues, if the driver has set them up.
        pub stream: Option<StreamStateV1>,
    }
}

state! {
    /// A device of ports.
    pub struct PortsStateV1: "console-ports", 1 {
        /// Whether the driver has asked for the ports, if the device was started.
        pub introduced: Option<bool>,
        /// The ports.
        pub ports: Vec<PortStateV1>,
    }
}

impl Port {
    fn state(&self) -> PortStateV1 {
        let Untold {
            exists,
            console,
            name,
            size,
        } = self.untold;
        PortStateV1 {
            name: self.name.clone(),
            size: self.size,
            unsent: self.unsent.clone(),
            untold: UntoldStateV1 {
                exists,
                console,
                name,
                size,
            },
            ready: self.ready,
            guest_open: self.guest_open,
            told_open: self.told_open,
            stream: self.queues.as_ref().map(Queues::save),
        }
    }

    fn take_state(&mut self, state: PortStateV1) -> Result<(), BadState> {
        if state.name != self.name {
            let text = format!("port {} is called {:?} there", self.id, state.name);
            return Err(BadState::Refused(text));
        }
        queues::restore(&mut self.queues, state.stream.as_ref())?;
        let waiting = state.unsent.len();
        BadState::unless(
            waiting <= CHUNK,
            "the length of a port's output",
            waiting as u64,
        )?;
        let UntoldStateV1 {
            exists,
            console,
            name,
            size,
        } = state.untold;
        self.untold = Untold {
            exists,
            console,
            name,
            size,
        };
        self.size = state.size;
        self.unsent = state.unsent;
        self.ready = state.ready;
        self.guest_open = state.guest_open;
        self.told_open = state.told_open;
        Ok(())
    }
}

impl Ports {
    pub(super) fn state(&self) -> PortsStateV1 {
        PortsStateV1 {
            introduced: self.running.as_ref().map(|running| running.introduced),
            ports: self.ports.iter().map(Port::state).collect(),
        }
    }

    pub(super) fn take_state(&mut self, state: PortsStateV1) -> Result<(), BadState> {
        BadState::unless_as_many("the number of ports", state.ports.len(), self.ports.len())?;
        match (&mut self.running, state.introduced) {
            (Some(running), Some(introduced)) => running.introduced = introduced,
            (None, None) => {}
            (running, _) => {
                let found = u64::from(running.is_none());
                return Err(BadState::value("ports with a driver", found));
            }
        }
        for (port, saved) in self.ports.iter_mut().zip(state.ports) {
            port.take_state(saved)?;
        }
        Ok(())
    }
}
