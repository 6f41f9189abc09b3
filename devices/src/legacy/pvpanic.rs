//! The port on which a guest's kernel tells of its panic (QEMU's pvpanic).
//!
//! Attach it at port 0x505, one port long. Reading gives the events that are understood, writing
//! tells of them:
//!
//! | bit | event |
//! |---|---|
//! | 0 | the kernel panicked and does nothing about it |
//! | 1 | the kernel panicked and starts its crash kernel, which the machine has to live for |

use crate::bus::{BadAccess, BusDevice, Width};
use crate::inspect::Report;
use crate::line::{PowerEvent, PowerLine};
use crate::log::RateLimit;
use crate::state;
use crate::state::{BadState, NotSaved, Persist, Section};

const PANICKED: u64 = 1 << 0;
const CRASH_LOADED: u64 = 1 << 1;

/// What happens when the guest's kernel tells of a panic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PanicAction {
    /// The machine ends at once.
    End,
    /// It is logged and counted, and the kernel does what it was told to do in a panic.
    Report,
}

/// The port.
#[derive(Debug)]
pub struct Pvpanic {
    action: PanicAction,
    power: PowerLine,
    limit: RateLimit,
    panics: u64,
    crashes: u64,
    unknown: u64,
}

impl Pvpanic {
    /// A port that reports ends on `power`.
    pub fn new(action: PanicAction, power: PowerLine) -> Self {
        Self {
            action,
            power,
            limit: RateLimit::new(),
            panics: 0,
            crashes: 0,
            unknown: 0,
        }
    }

    /// What it is and did.
    pub fn inspect(&self) -> Report {
        Report::new()
            .with("kind", "pvpanic")
            .with("panics", self.panics)
            .with("crash_kernels", self.crashes)
            .with("unknown_events", self.unknown)
    }
}

impl BusDevice for Pvpanic {
    fn read(&mut self, _offset: u64, width: Width) -> Result<u64, BadAccess> {
        match width {
            Width::Byte => Ok(PANICKED | CRASH_LOADED),
            _ => Err(BadAccess),
        }
    }

    fn write(&mut self, _offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        if width != Width::Byte {
            return Err(BadAccess);
        }
        if value & !(PANICKED | CRASH_LOADED) != 0 {
            self.unknown = self.unknown.saturating_add(1);
            self.limit
                .debug(format_args!("pvpanic: unknown events {value:#x} ignored"));
        }
        if value & CRASH_LOADED != 0 {
            self.crashes = self.crashes.saturating_add(1);
            self.limit.warn(format_args!(
                "pvpanic: the guest's kernel panicked and starts its crash kernel"
            ));
        }
        if value & PANICKED != 0 {
            self.panics = self.panics.saturating_add(1);
            self.limit
                .warn(format_args!("pvpanic: the guest's kernel panicked"));
            match self.action {
                PanicAction::End => self.power.report(PowerEvent::Panicked),
                // Once, so that nothing else has no room on the line.
                PanicAction::Report if self.panics == 1 => {
                    self.power.report(PowerEvent::PanicReported);
                }
                PanicAction::Report => {}
            }
        }
        Ok(())
    }
}

state! {
    /// The port, which reports a first panic only.
    pub struct PvpanicStateV1: "pvpanic", 1 {
        /// The panics that it was told of.
        pub panics: u64,
        /// The starts of crash kernels.
        pub crashes: u64,
        /// What nobody understood.
        pub unknown: u64,
    }
}

impl Persist for Pvpanic {
    fn save(&self) -> Result<Vec<u8>, NotSaved> {
        let state = PvpanicStateV1 {
            panics: self.panics,
            crashes: self.crashes,
            unknown: self.unknown,
        };
        Ok(state.to_tagged())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let state = PvpanicStateV1::from_tagged(state)?;
        (self.panics, self.crashes) = (state.panics, state.crashes);
        self.unknown = state.unknown;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Value;
    use crate::line::power_line;

    #[test]
    fn a_panic_is_not_reported_again_after_a_restore() {
        let (power, events) = power_line().unwrap();
        let mut before = Pvpanic::new(PanicAction::Report, power.clone());
        before.write(0, Width::Byte, 1).unwrap();
        assert_eq!(events.take(), Some(PowerEvent::PanicReported));
        let state = before.save().unwrap();
        let mut after = Pvpanic::new(PanicAction::Report, power);
        after.restore(&state).unwrap();
        assert_eq!(after.save().unwrap(), state);
        after.write(0, Width::Byte, 1).unwrap();
        assert_eq!(events.take(), None);
        crate::testing::persistence::cuts_are_refused(&mut after, &state);
    }

    #[test]
    fn only_a_panic_without_a_crash_kernel_ends_the_machine() {
        for action in [PanicAction::End, PanicAction::Report] {
            let (power, events) = power_line().unwrap();
            let mut port = Pvpanic::new(action, power);
            assert_eq!(port.read(0, Width::Byte), Ok(3));
            for value in 0..=255_u64 {
                port.write(0, Width::Byte, value).unwrap();
                let told = match action {
                    PanicAction::End if value & 1 != 0 => Some(PowerEvent::Panicked),
                    PanicAction::Report if value == 1 => Some(PowerEvent::PanicReported),
                    _ => None,
                };
                assert_eq!(events.take(), told, "{value}");
            }
            let report = port.inspect();
            for (name, count) in [
                ("panics", 128),
                ("crash_kernels", 128),
                ("unknown_events", 252),
            ] {
                assert_eq!(report.find(name), Some(&Value::Number(count)), "{name}");
            }
            for width in [Width::Word, Width::Dword, Width::Qword] {
                assert_eq!(port.read(0, width), Err(BadAccess));
                assert_eq!(port.write(0, width, 1), Err(BadAccess));
            }
            assert_eq!(events.take(), None);
        }
    }
}
