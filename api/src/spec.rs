//! The raw machine specification, as the command line or a file gives it. Only its shape is
//! checked here; `vmm::config` judges the values, once, for every way in.

mod balloon;
mod console;
mod console_port;
mod disk;
mod guard;
mod kernel;
mod machine;
mod mmds;
mod net;
mod size;
mod text;
mod vsock;

pub use balloon::BalloonSpec;
pub use console::{ConsoleBackend, ConsoleDevice, ConsoleSpec};
pub use console_port::{ConsolePortSpec, PortBackend};
pub use disk::{DiskCache, DiskEngine, DiskFormat, DiskSpec, RateSpec};
pub use guard::{PanicAction, WatchdogAction};
pub use kernel::{KernelFormat, KernelProtocol, KernelSpec};
pub use machine::{MachineSpec, PlatformTables, Transport};
pub use mmds::{MmdsSpec, MmdsVersion};
pub use net::{EgressSpec, FlowSpec, NetKind, NetSpec, SourceMac, UserNetSpec};
pub use size::{SizeError, SizeSpec};
pub use text::TextError;
pub use vsock::VsockSpec;

#[cfg(test)]
mod tests;
