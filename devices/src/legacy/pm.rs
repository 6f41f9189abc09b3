//! The power registers that the ACPI tables announce: sleep, reset and the event byte.
//!
//! Attach it at port 0x600, eight ports long:
//!
//! | offset | register | access |
//! |---|---|---|
//! | 0 | sleep control (ACPI 6.5, 4.8.3.7) | write 0x34, which is S5 with enable: power off |
//! | 1 | sleep status | nothing ever woke up: reads 0 |
//! | 2 | reset | write 1: reset |
//! | 4 | events since the last read | read clears; bit 0: the power button was pressed |

use crate::bus::{BadAccess, BusDevice, Width};
use crate::line::{IrqLine, PowerEvent, PowerLine};
use crate::state;
use crate::state::{BadState, NotSaved, Persist, Section};

const SLEEP_CONTROL: u64 = 0;
const SLEEP_STATUS: u64 = 1;
const RESET: u64 = 2;
const EVENTS: u64 = 4;

/// The sleep type that the DSDT gives S5, in its place of the sleep control register.
const SLEEP_TYPE_S5: u64 = 5 << 2;
const SLEEP_TYPE_MASK: u64 = 7 << 2;
const SLEEP_ENABLE: u64 = 1 << 5;
const RESET_VALUE: u64 = 1;

const POWER_BUTTON: u8 = 1;

/// The power registers.
#[derive(Debug)]
pub struct Pm {
    line: IrqLine,
    power: PowerLine,
    events: u8,
}

impl Pm {
    /// Registers that announce events on `line` (the generic event device's) and report what
    /// the guest asks for on `power`.
    pub fn new(line: IrqLine, power: PowerLine) -> Self {
        Self {
            line,
            power,
            events: 0,
        }
    }

    /// Presses the power button: the guest is told, and shuts down if it listens.
    pub fn press_power_button(&mut self) {
        self.events |= POWER_BUTTON;
        self.line.pulse();
    }
}

impl BusDevice for Pm {
    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BadAccess> {
        match (offset, width) {
            (SLEEP_CONTROL | SLEEP_STATUS | RESET, Width::Byte) => Ok(0),
            (EVENTS, Width::Byte) => Ok(std::mem::take(&mut self.events).into()),
            _ => Err(BadAccess),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        match (offset, width) {
            (SLEEP_CONTROL, Width::Byte) => {
                let wanted = value & (SLEEP_TYPE_MASK | SLEEP_ENABLE);
                if wanted == SLEEP_TYPE_S5 | SLEEP_ENABLE {
                    self.power.report(PowerEvent::PowerOff);
                }
            }
            (RESET, Width::Byte) if value == RESET_VALUE => self.power.report(PowerEvent::Reset),
            // Clearing the wake status, which is clear.
            (SLEEP_STATUS | RESET, Width::Byte) => {}
            _ => return Err(BadAccess),
        }
        Ok(())
    }
}

state! {
    /// The power registers.
    pub struct PmStateV1: "pm", 1 {
        /// Events since the last read.
        pub events: u8,
    }
}

impl Persist for Pm {
    fn save(&self) -> Result<Vec<u8>, NotSaved> {
        let events = self.events;
        Ok(PmStateV1 { events }.to_tagged())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let PmStateV1 { events } = PmStateV1::from_tagged(state)?;
        BadState::unless(events & !POWER_BUTTON == 0, "the power events", events)?;
        self.events = events;
        Ok(())
    }

    fn tell_again(&mut self) {
        if self.events != 0 {
            self.line.pulse();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{PowerEvents, power_line};

    fn pm() -> (Pm, IrqLine, PowerEvents) {
        let line = IrqLine::new().unwrap();
        let (power, events) = power_line().unwrap();
        (Pm::new(line.try_clone().unwrap(), power), line, events)
    }

    #[test]
    fn only_s5_with_enable_powers_off() {
        let (mut pm, _, events) = pm();
        for value in 0..=255 {
            pm.write(SLEEP_CONTROL, Width::Byte, value).unwrap();
            let off = value & 0x3c == 0x34;
            assert_eq!(
                events.take(),
                off.then_some(PowerEvent::PowerOff),
                "{value:#x}"
            );
        }
    }

    #[test]
    fn only_one_resets() {
        let (mut pm, _, events) = pm();
        for value in 0..=255 {
            pm.write(RESET, Width::Byte, value).unwrap();
            assert_eq!(
                events.take(),
                (value == 1).then_some(PowerEvent::Reset),
                "{value:#x}"
            );
        }
    }

    #[test]
    fn the_power_button_latches_until_it_is_read() {
        let (mut pm, line, _) = pm();
        assert_eq!(pm.read(EVENTS, Width::Byte), Ok(0));
        pm.press_power_button();
        pm.press_power_button();
        assert!(line.take());
        assert_eq!(pm.read(EVENTS, Width::Byte), Ok(1));
        assert_eq!(pm.read(EVENTS, Width::Byte), Ok(0));
        assert!(!line.take());
    }

    #[test]
    fn a_press_outlives_a_restore() {
        let (mut before, ..) = pm();
        before.press_power_button();
        let state = before.save().unwrap();
        let (mut after, line, _) = pm();
        after.restore(&state).unwrap();
        assert_eq!(after.save().unwrap(), state);
        assert!(!line.take());
        after.tell_again();
        assert!(line.take());
        assert_eq!(after.read(EVENTS, Width::Byte), Ok(1));
        after.tell_again();
        assert!(!line.take());
        crate::testing::persistence::cuts_are_refused(&mut after, &state);
    }

    #[test]
    fn other_ports_and_widths_have_no_answer() {
        let (mut pm, _, events) = pm();
        assert_eq!(pm.read(3, Width::Byte), Err(BadAccess));
        assert_eq!(pm.read(EVENTS, Width::Word), Err(BadAccess));
        assert_eq!(pm.write(EVENTS, Width::Byte, 1), Err(BadAccess));
        assert_eq!(pm.write(SLEEP_CONTROL, Width::Dword, 0x34), Err(BadAccess));
        assert_eq!(pm.write(SLEEP_STATUS, Width::Byte, 0x80), Ok(()));
        assert_eq!(events.take(), None);
    }
}
