//! The few devices of a PC that a guest expects at fixed ports and addresses.

pub mod i8042;
pub mod ioapic;
pub mod pm;
pub mod pvpanic;
pub mod serial;
pub mod watchdog;

pub use i8042::I8042;
pub use ioapic::{IoApic, MsiSink};
pub use pm::Pm;
pub use pvpanic::{PanicAction, Pvpanic};
pub use serial::{Serial, SerialInput};
pub use watchdog::{Watchdog, WatchdogAction, WatchdogPause, WatchdogTimer, watchdog};
