//! What the monitor and the guest's init agree on: plain constants, no code that runs, no I/O.
#![forbid(unsafe_code)]

/// The version of everything in this crate. Monitor and guest image are built together; a
/// snapshot made by another generation is refused instead of misread.
pub const GENERATION: u32 = 1;

/// The power-management block of the machine, for guests without ACPI.
///
/// The registers are those that ACPI's fixed hardware (hardware-reduced, ACPI 6.5 section 4.8.3)
/// describes, at fixed ports.
pub mod power {
    /// I/O port of the sleep control register, one byte, write only.
    pub const SLEEP_CONTROL_PORT: u16 = 0x600;
    /// I/O port of the reset register, one byte, write only.
    pub const RESET_PORT: u16 = 0x602;
    /// The sleep type that means soft off (S5).
    pub const SLEEP_TYPE_OFF: u8 = 5;
    /// Bit of the sleep control register that starts the transition.
    pub const SLEEP_ENABLE: u8 = 1 << 5;
    /// What to write to [`SLEEP_CONTROL_PORT`] to switch the machine off.
    pub const POWER_OFF: u8 = (SLEEP_TYPE_OFF << 2) | SLEEP_ENABLE;
    /// What to write to [`RESET_PORT`] to restart the machine.
    pub const RESET: u8 = 1;
    /// What the monitor sends to the guest's first serial port, where that is not the console,
    /// when the power button is pressed: without ACPI there is no other way to tell.
    pub const BUTTON_PRESSED: &[u8] = b"\n";
    /// The serial port that [`BUTTON_PRESSED`] comes from.
    pub const BUTTON_TERMINAL: &str = "/dev/ttyS0";
}

#[cfg(test)]
mod tests {
    use super::power;

    #[test]
    fn power_off_value_is_type_five_with_enable() {
        // Sleep type in bits 2..=4, enable in bit 5; the rest is reserved and stays clear.
        assert_eq!(power::POWER_OFF >> 2 & 7, 5);
        assert_eq!(power::POWER_OFF & !0b0011_1100, 0);
        assert_ne!(power::POWER_OFF & 0x20, 0);
    }
}
