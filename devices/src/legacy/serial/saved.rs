//! The serial port, as it is saved and restored.

use std::io;

use vm_superio::serial::{NoEvents, SerialState};

use super::{Listener, Serial};
use crate::state;
use crate::state::{BadState, NotSaved, Persist, Section};

/// Bits of the identification register: room for output, input.
const INTERRUPTS: u8 = 0b110;

state! {
    /// The registers of the port, and what tells whether its guest listens.
    pub struct SerialStateV1: "serial", 1 {
        /// The low byte of the divisor.
        pub divisor_low: u8,
        /// The high byte of it.
        pub divisor_high: u8,
        /// The interrupt enable register.
        pub interrupt_enable: u8,
        /// The interrupt identification register.
        pub interrupt_identification: u8,
        /// The line control register.
        pub line_control: u8,
        /// The line status register.
        pub line_status: u8,
        /// The modem control register.
        pub modem_control: u8,
        /// The modem status register.
        pub modem_status: u8,
        /// The scratch register.
        pub scratch: u8,
        /// Input that the guest has not read.
        pub fifo: Vec<u8>,
        /// How many reads in a row looked for input.
        pub polls: u8,
        /// Whether the guest has enabled the interrupt for input.
        pub listens: bool,
        /// Whether the divisor is in the first two places.
        pub divisor: bool,
        /// Whether the port is connected to itself.
        pub loopback: bool,
    }
}

impl Persist for Serial {
    fn save(&self) -> Result<Vec<u8>, NotSaved> {
        let uart = self.uart.state();
        let state = SerialStateV1 {
            divisor_low: uart.baud_divisor_low,
            divisor_high: uart.baud_divisor_high,
            interrupt_enable: uart.interrupt_enable,
            interrupt_identification: uart.interrupt_identification,
            line_control: uart.line_control,
            line_status: uart.line_status,
            modem_control: uart.modem_control,
            modem_status: uart.modem_status,
            scratch: uart.scratch,
            fifo: uart.in_buffer,
            polls: self.listener.polls,
            listens: self.listener.interrupt,
            divisor: self.listener.divisor,
            loopback: self.listener.loopback,
        };
        Ok(state.to_tagged())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        let state = SerialStateV1::from_tagged(state)?;
        let bytes = state.fifo.len();
        let uart = SerialState {
            baud_divisor_low: state.divisor_low,
            baud_divisor_high: state.divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.fifo,
        };
        let refused = |error: io::Error| BadState::Refused(error.to_string());
        let line = || self.uart.interrupt_evt().try_clone().map_err(refused);
        let (line, own) = (line()?, line()?);
        // The output is in the port that goes.
        let stand_in = vm_superio::Serial::new(own, Box::new(io::sink()) as _);
        let out = std::mem::replace(&mut self.uart, stand_in).into_writer();
        let made = vm_superio::Serial::from_state(&uart, line, NoEvents, out);
        self.uart = made.map_err(|_| BadState::value("the length of a FIFO", bytes as u64))?;
        self.listener = Listener {
            interrupt: state.listens,
            polls: state.polls,
            divisor: state.divisor,
            loopback: state.loopback,
        };
        // Whoever feeds the port looks again.
        self.awaited = true;
        self.tell_of_room();
        Ok(())
    }

    /// A driver that waits for an interrupt which was lost would wait for ever.
    fn tell_again(&mut self) {
        if self.uart.state().interrupt_identification & INTERRUPTS != 0 {
            self.uart.interrupt_evt().pulse();
        }
    }
}
