//! The I/O APIC: turns interrupt lines into messages to the vCPUs' local APICs.
//!
//! It stands in user space while the local APICs are the hypervisor's. Lines are eventfds that
//! the hypervisor turns into messages by itself, so all this device does is to say which message
//! belongs to which pin, whenever that changes. Lines are pulsed, never held: a pin that the
//! guest programs as level-triggered delivers one message a pulse, marked as level.
//!
//! The registers are those of version 0x20 (with an EOI register), in the 82093AA's layout.

use std::fmt;

use crate::bus::{BadAccess, BusDevice, Width};
use crate::line::Msi;
use crate::state;
use crate::state::{BadState, NotSaved, Persist, Section};

/// Offsets in its window: which register, the register, end of interrupt.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

/// Register numbers behind the window.
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const FIRST_PIN: u8 = 0x10;

/// The version that has an EOI register.
const VERSION_WITH_EOI: u32 = 0x20;
/// The four bits of the identity in its register.
const ID_MASK: u32 = 0x0f00_0000;

/// Bits of a redirection entry.
const DELIVERY_SHIFT: u32 = 8;
const DELIVERY_MASK: u64 = 7;
const LOGICAL: u64 = 1 << 11;
const STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const DESTINATION_SHIFT: u32 = 56;
/// What the guest can write: not delivery status, not remote IRR, not the reserved bits.
const WRITABLE: u64 = 0xff00_0000_0001_ffff & !STATUS & !REMOTE_IRR;

/// Message-signalled interrupts: address and data bits (Intel SDM 3, 11.11).
const MSI_ADDRESS: u64 = 0xfee0_0000;
const MSI_DESTINATION_SHIFT: u32 = 12;
const MSI_LOGICAL: u64 = 1 << 2;
const MSI_ASSERT: u32 = 1 << 14;
const MSI_LEVEL: u32 = 1 << 15;

/// Is told a pin's message whenever it changes, `None` when the pin is masked.
pub type MsiSink = Box<dyn FnMut(u32, Option<Msi>) + Send>;

/// The I/O APIC.
pub struct IoApic {
    sink: MsiSink,
    id: u32,
    select: u8,
    pins: Vec<u64>,
}

impl fmt::Debug for IoApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sink: _,
            id,
            select,
            pins,
        } = self;
        f.debug_struct("IoApic")
            .field("id", id)
            .field("select", select)
            .field("pins", pins)
            .finish_non_exhaustive()
    }
}

impl IoApic {
    /// An I/O APIC of `pins` pins (1 to 120), all masked. `sink` is called from whichever vCPU
    /// thread programs a pin, and only when the message in effect changes.
    pub fn new(pins: u8, sink: MsiSink) -> Self {
        Self {
            sink,
            id: 0,
            select: 0,
            pins: vec![MASKED; usize::from(pins.clamp(1, 120))],
        }
    }

    /// The message that `pin` sends now.
    pub fn message(&self, pin: u32) -> Option<Msi> {
        let pin = usize::try_from(pin).ok()?;
        self.pins.get(pin).and_then(|entry| message(*entry))
    }

    /// Notes that the message of `pin` was sent, where the monitor sends it itself: a
    /// level-triggered pin shows it until the guest ends the interrupt.
    pub fn note_sent(&mut self, pin: u32) {
        let entry = usize::try_from(pin)
            .ok()
            .and_then(|pin| self.pins.get_mut(pin));
        if let Some(entry) = entry.filter(|entry| **entry & LEVEL != 0) {
            *entry |= REMOTE_IRR;
        }
    }

    /// A local APIC ended an interrupt that was marked as level.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for entry in &mut self.pins {
            let [of_pin, ..] = entry.to_le_bytes();
            if of_pin == vector && *entry & LEVEL != 0 {
                *entry &= !REMOTE_IRR;
            }
        }
    }

    fn read_register(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => self.id,
            VERSION => {
                let last = u32::try_from(self.pins.len().saturating_sub(1)).unwrap_or(0);
                VERSION_WITH_EOI | last << 16
            }
            _ => self.selected_pin().map_or(0, |(pin, shift)| {
                let entry = self.pins.get(pin).copied().unwrap_or(0);
                low_half(entry >> shift)
            }),
        }
    }

    fn write_register(&mut self, value: u32) {
        if self.select == ID {
            self.id = value & ID_MASK;
        } else if let Some((pin, shift)) = self.selected_pin() {
            self.write_pin(pin, shift, value);
        }
    }

    /// The pin that the select register points at and the shift of the half of its entry.
    fn selected_pin(&self) -> Option<(usize, u32)> {
        let register = self.select.checked_sub(FIRST_PIN)?;
        let pin = usize::from(register / 2);
        (pin < self.pins.len()).then_some((pin, u32::from(register % 2) * 32))
    }

    fn write_pin(&mut self, pin: usize, shift: u32, value: u32) {
        let Some(entry) = self.pins.get_mut(pin) else {
            return;
        };
        let before = *entry;
        let writable = WRITABLE & (u64::from(u32::MAX) << shift);
        let mut after = before & !writable | (u64::from(value) << shift) & writable;
        if after & LEVEL == 0 {
            // Making a pin edge-triggered and back is how drivers end its interrupt by hand.
            after &= !REMOTE_IRR;
        }
        *entry = after;
        let effective = message(after);
        if effective != message(before)
            && let Ok(pin) = u32::try_from(pin)
        {
            (self.sink)(pin, effective);
        }
    }
}

state! {
    /// The I/O APIC.
    pub struct IoApicStateV1: "ioapic", 1 {
        /// Its identity, as its register has it.
        pub id: u32,
        /// Which register is selected.
        pub select: u8,
        /// The redirection entries.
        pub pins: Vec<u64>,
    }
}

impl Persist for IoApic {
    fn save(&self) -> Result<Vec<u8>, NotSaved> {
        let state = IoApicStateV1 {
            id: self.id,
            select: self.select,
            pins: self.pins.clone(),
        };
        Ok(state.to_tagged())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let state = IoApicStateV1::from_tagged(state)?;
        BadState::unless_as_many("the number of pins", state.pins.len(), self.pins.len())?;
        BadState::unless(state.id & !ID_MASK == 0, "an I/O APIC's identity", state.id)?;
        let bad = |entry: &&u64| *entry & !(WRITABLE | REMOTE_IRR) != 0;
        if let Some(entry) = state.pins.iter().find(bad) {
            return Err(BadState::value("a pin of the I/O APIC", *entry));
        }
        (self.id, self.select) = (state.id, state.select);
        for (pin, (entry, saved)) in (0..).zip(self.pins.iter_mut().zip(state.pins)) {
            let (before, after) = (message(*entry), message(saved));
            *entry = saved;
            if after != before {
                (self.sink)(pin, after);
            }
        }
        Ok(())
    }
}

fn low_half(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The message of a redirection entry: none while it is masked or of a reserved delivery mode.
fn message(entry: u64) -> Option<Msi> {
    let delivery = entry >> DELIVERY_SHIFT & DELIVERY_MASK;
    if entry & MASKED != 0 || matches!(delivery, 3 | 6) {
        return None;
    }
    let mut address = MSI_ADDRESS | entry >> DESTINATION_SHIFT << MSI_DESTINATION_SHIFT;
    if entry & LOGICAL != 0 {
        address |= MSI_LOGICAL;
    }
    // Vector and delivery mode are in the same places in both.
    let mut data = low_half(entry & 0x7ff);
    if entry & LEVEL != 0 {
        data |= MSI_LEVEL | MSI_ASSERT;
    }
    Some(Msi { address, data })
}

impl BusDevice for IoApic {
    fn read(&mut self, offset: u64, _: Width) -> Result<u64, BadAccess> {
        match offset {
            SELECT => Ok(self.select.into()),
            WINDOW => Ok(self.read_register().into()),
            _ => Err(BadAccess),
        }
    }

    fn write(&mut self, offset: u64, _: Width, value: u64) -> Result<(), BadAccess> {
        let value = low_half(value);
        let [low, ..] = value.to_le_bytes();
        match offset {
            SELECT => self.select = low,
            WINDOW => self.write_register(value),
            EOI => self.end_of_interrupt(low),
            _ => return Err(BadAccess),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
