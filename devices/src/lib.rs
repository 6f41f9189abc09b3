//! Device models and their backends: what the guest sees behind ports, windows and queues.
//!
//! Nothing here knows KVM or the boot code. A device raises an interrupt by writing an eventfd
//! ([`line::IrqLine`]) and is rung through one ([`line::Doorbell`]); the monitor binds both to
//! whatever runs the guest. What the guest writes is data: a device answers it as its
//! specification says, counts it and logs it sparingly, and never fails or panics because of it.

pub mod bus;
pub mod disk;
pub mod event;
pub mod host;
pub mod inspect;
pub mod legacy;
pub mod limit;
pub mod line;
pub mod log;
pub mod net;
pub mod new_file;
pub mod pci;
pub mod ram;
pub mod state;
mod sys;
pub mod testing;
pub mod timer;
pub mod tty;
pub mod virtio;

pub use bus::{AddressRange, BadAccess, Bus, BusBuilder, BusDevice, Overlap, Place, Width};
pub use line::{Doorbell, IrqLine, PowerEvent, PowerEvents, PowerLine};
pub use ram::{GuestRam, OutOfRam};
