//! The PCI bus: one root bus, its functions' configuration spaces, base addresses, MSI-X.
//!
//! Nothing here knows what a function does. There are no bridges, no I/O ports of functions and no
//! interrupt pins: a function has windows in memory and interrupts by message.

pub mod bar;
pub mod header;
pub mod msix;
pub mod root;

pub use bar::Bar;
pub use header::{FunctionId, Header};
pub use msix::{MessageRoute, Msix};
pub use root::{ConfigPorts, Ecam, PciFunction, PciRoot, Taken};
