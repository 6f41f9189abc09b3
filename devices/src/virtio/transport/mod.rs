//! How a driver finds and sets up a device: the state behind the registers, and the registers.

pub(crate) mod core;
pub mod mmio;
pub mod pci;
