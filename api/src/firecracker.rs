//! Bodies as Firecracker writes them, one file for each object, and what they mean: each becomes
//! a piece of [`crate::spec`] and is made of one again when it is read back. Facts of its wire
//! format; unknown fields are refused as there.

mod action;
mod balloon;
mod boot_source;
mod config;
mod cpu_config;
mod drive;
mod entropy;
mod instance;
mod limiter;
mod logger;
mod machine_config;
mod metrics;
mod network;
mod serial;
mod snapshot;
mod vsock;

pub use action::{Action, ActionType, VmPatch, VmState};
pub(crate) use balloon::mebibytes;
pub use balloon::{
    Balloon, BalloonPatch, BalloonStatisticsPatch, HintingStart, HintingStatus, Nothing,
};
pub use boot_source::BootSource;
pub use config::VmConfig;
pub use cpu_config::CpuConfig;
pub use drive::{CacheType, Drive, DrivePatch, IoEngine};
pub use entropy::Entropy;
pub use instance::{InstanceInfo, Version};
pub use limiter::{RateLimiter, TokenBucket};
pub use logger::{LogLevel, Logger};
pub use machine_config::{CpuTemplate, HugePages, MachineConfig, MachineConfigPatch, Words};
pub use metrics::{COUNTERS, Counter, Counts, Metrics, counts_line, groups};
pub use network::{NetworkInterface, NetworkInterfacePatch};
pub use serial::Serial;
pub use snapshot::{
    MemoryBackend, MemoryBackendType, NetworkOverride, SnapshotCreate, SnapshotLoad, SnapshotType,
    VsockOverride,
};
pub use vsock::Vsock;

/// The release of Firecracker whose API is spoken.
pub const COMPATIBLE_VERSION: &str = "1.17.0";

/// What `GET /` calls the program.
pub const APP_NAME: &str = "Coracle";

/// What a machine that was given no name is called.
pub const NAMELESS: &str = "anonymous-instance";

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1 << 20;
