//! The few devices of a PC that a guest expects at fixed ports and addresses.

pub mod i8042;
pub mod ioapic;
pub mod pm;
pub mod serial;

pub use i8042::I8042;
pub use ioapic::{IoApic, MsiSink};
pub use pm::Pm;
pub use serial::{Serial, SerialInput};
