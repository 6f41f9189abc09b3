//! Bodies as Firecracker writes them. Facts of its wire format; unknown fields are refused as
//! there.

use serde::{Deserialize, Serialize};

use crate::limits::BucketSpec;

/// The release of Firecracker whose API is spoken.
pub const COMPATIBLE_VERSION: &str = "1.17.0";

/// What `GET /` calls the program.
pub const APP_NAME: &str = "Coracle";

/// `GET /`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceInfo {
    /// The machine's name.
    pub id: String,
    /// `Not started`, `Running` or `Paused`.
    pub state: &'static str,
    /// As in [`Version`].
    pub vmm_version: &'static str,
    /// The program.
    pub app_name: &'static str,
    /// Coracle's own version.
    pub coracle_version: &'static str,
}

/// `GET /version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The release whose API is spoken.
    pub firecracker_version: &'static str,
}

/// `GET /machine-config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineConfig {
    /// Virtual CPUs.
    pub vcpu_count: u32,
    /// Memory in MiB.
    pub mem_size_mib: u64,
    /// Whether two vCPUs share a core; never here.
    pub smt: bool,
    /// Whether KVM notes which pages the guest writes.
    pub track_dirty_pages: bool,
    /// `None` or `2M`.
    pub huge_pages: &'static str,
}

/// `GET /vm/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VmConfig {
    /// The balloon, where there is one.
    pub balloon: Option<Balloon>,
    /// The user's disks.
    pub drives: Vec<Drive>,
    /// What is started.
    #[serde(rename = "boot-source")]
    pub boot_source: BootSource,
    /// The size of the machine.
    #[serde(rename = "machine-config")]
    pub machine_config: MachineConfig,
    /// The source of random numbers, where there is one.
    pub entropy: Option<Entropy>,
    /// Network interfaces.
    #[serde(rename = "network-interfaces")]
    pub network_interfaces: Vec<NetworkInterface>,
}

/// A network interface in [`VmConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkInterface {
    /// Its name.
    pub iface_id: String,
    /// The tap; empty for what has no name on the host.
    pub host_dev_name: String,
    /// The guest's Ethernet address.
    pub guest_mac: Option<String>,
    /// What the guest may receive.
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What the guest may send.
    pub tx_rate_limiter: Option<RateLimiter>,
    /// The largest packet, where it was said.
    pub mtu: Option<u16>,
}

/// The source of random numbers in [`VmConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entropy {
    /// Its limits.
    pub rate_limiter: Option<RateLimiter>,
}

/// What is started, in [`VmConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootSource {
    /// The kernel, or `built-in`.
    pub kernel_image_path: String,
    /// The initial RAM disk.
    pub initrd_path: Option<String>,
    /// The command line.
    pub boot_args: String,
}

/// A drive in [`VmConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// The name that changes it.
    pub drive_id: String,
    /// The image.
    pub path_on_host: String,
    /// Whether it is the root of the guest, which is for the kernel's command line to say.
    pub is_root_device: bool,
    /// Whether the guest may only read.
    pub is_read_only: bool,
    /// Its limits.
    pub rate_limiter: Option<RateLimiter>,
}

/// `PATCH /drives/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrivePatch {
    /// The name in the path once more.
    pub drive_id: String,
    /// Another image.
    pub path_on_host: Option<String>,
    /// Other limits.
    pub rate_limiter: Option<RateLimiter>,
}

/// Limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Of bytes.
    pub bandwidth: Option<TokenBucket>,
    /// Of operations.
    pub ops: Option<TokenBucket>,
}

/// A token bucket. One of size or refill time zero is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// The tokens of a full bucket.
    pub size: u64,
    /// Tokens that are there once.
    pub one_time_burst: Option<u64>,
    /// How long an empty bucket takes to be full, in milliseconds.
    pub refill_time: u64,
}

impl TokenBucket {
    /// The limit that it is, if it is one.
    #[must_use]
    pub fn spec(self) -> Option<BucketSpec> {
        let limits = self.size != 0 && self.refill_time != 0;
        limits.then_some(BucketSpec {
            size: self.size,
            refill_ms: self.refill_time,
            burst: self.one_time_burst.unwrap_or_default(),
        })
    }
}

impl From<BucketSpec> for TokenBucket {
    fn from(spec: BucketSpec) -> Self {
        Self {
            size: spec.size,
            one_time_burst: Some(spec.burst),
            refill_time: spec.refill_ms,
        }
    }
}

/// `GET /balloon`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balloon {
    /// How much the guest is to give up, in MiB.
    pub amount_mib: u64,
    /// Whether the guest may take it back rather than run out of memory.
    pub deflate_on_oom: bool,
    /// How often the guest gives its statistics, in seconds; zero for never.
    pub stats_polling_interval_s: u64,
    /// Whether the guest can be asked for its free pages.
    pub free_page_hinting: bool,
    /// Whether the guest tells of free pages by itself.
    pub free_page_reporting: bool,
}

/// `PATCH /balloon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonPatch {
    /// How much the guest is to give up, in MiB.
    pub amount_mib: u32,
}

/// `PATCH /balloon/statistics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonStatisticsPatch {
    /// How often the guest gives its statistics, in seconds; zero for never.
    pub stats_polling_interval_s: u16,
}

/// `PUT /actions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Which.
    pub action_type: ActionType,
}

/// What `PUT /actions` can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ActionType {
    /// Start the guest.
    InstanceStart,
    /// Ask the guest to stop: the power button here.
    SendCtrlAltDel,
    /// Write the metrics.
    FlushMetrics,
}
