//! The keyboard controller, of which only the reset line is left.
//!
//! Attach it at ports 0x60 to 0x64. It has no keyboard: its status always says that a byte
//! waits to be read, which makes Linux give up its search within a millisecond (an idle or a
//! missing controller costs it half a second of timeouts), while a reboot, which only waits for
//! the input buffer to be empty, is never held up.

use std::convert::Infallible;

use vm_superio::{I8042Device, Trigger};

use crate::bus::{BadAccess, BusDevice, Width};
use crate::line::{PowerEvent, PowerLine};

/// The data port, from 0x60.
const DATA: u64 = 0;
/// The status and command port, from 0x60.
const COMMAND: u64 = 4;
/// Status: the output buffer holds a byte, the input buffer is empty.
const OUTPUT_FULL: u64 = 1;

#[derive(Debug)]
struct ResetLine(PowerLine);

impl Trigger for ResetLine {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.report(PowerEvent::Reset);
        Ok(())
    }
}

/// A keyboard controller without a keyboard.
#[derive(Debug)]
pub struct I8042(I8042Device<ResetLine>);

impl I8042 {
    /// A controller that reports resets on `power`.
    pub fn new(power: PowerLine) -> Self {
        Self(I8042Device::new(ResetLine(power)))
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BadAccess> {
        match (offset, width) {
            (DATA, Width::Byte) => Ok(0),
            (COMMAND, Width::Byte) => Ok(OUTPUT_FULL),
            _ => Err(BadAccess),
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        let (DATA | COMMAND, Width::Byte) = (offset, width) else {
            return Err(BadAccess);
        };
        let [value, ..] = value.to_le_bytes();
        let [offset, ..] = offset.to_le_bytes();
        let Ok(()) = self.0.write(offset, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::power_line;

    #[test]
    fn only_the_reset_command_resets() {
        let (power, events) = power_line().unwrap();
        let mut controller = I8042::new(power);
        for value in 0..=255 {
            controller.write(DATA, Width::Byte, value).unwrap();
        }
        for value in (0..=255).filter(|value| *value != 0xfe) {
            controller.write(COMMAND, Width::Byte, value).unwrap();
        }
        assert_eq!(events.take(), None);
        controller.write(COMMAND, Width::Byte, 0xfe).unwrap();
        assert_eq!(events.take(), Some(PowerEvent::Reset));
    }

    #[test]
    fn it_looks_busy_to_a_driver_and_free_to_a_reboot() {
        let (power, _events) = power_line().unwrap();
        let mut controller = I8042::new(power);
        let status = controller.read(COMMAND, Width::Byte).unwrap();
        assert_eq!(status & 1, 1, "a driver flushes in vain and gives up");
        assert_eq!(status & 2, 0, "a reboot sees an empty input buffer");
        controller.read(DATA, Width::Byte).unwrap();
        assert_eq!(controller.read(COMMAND, Width::Byte), Ok(status));
        assert_eq!(
            controller.read(1, Width::Byte),
            Err(BadAccess),
            "the speaker's port"
        );
        assert_eq!(controller.write(COMMAND, Width::Word, 0xfe), Err(BadAccess));
    }
}
