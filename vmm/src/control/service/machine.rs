//! What the API knows of its machine: the plan, the devices' handles, and what requests have
//! changed since.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use api::error::{ApiError, Code};
use api::firecracker::{
    APP_NAME, Balloon, BootSource, COMPATIBLE_VERSION, Drive as DriveConfig, Entropy, InstanceInfo,
    MachineConfig, NetworkInterface, RateLimiter, VmConfig,
};
use api::limits::{BucketSpec, LimitsSpec};
use api::machine::{MachineState, MachineView};
use api::plan::MachinePlan;
use api::spec::DiskFormat;
use devices::disk::Access;
use devices::limit::{self, Limits};
use devices::virtio::SlotHandle;
use devices::virtio::balloon::Settings;

use crate::blueprint::{Blueprint, DeviceBlueprint, DeviceKind, DiskBlueprint, DiskSource};
use crate::config::LinkConfig;

/// The models of devices that have paths of their own.
pub(super) const ENTROPY: &str = "virtio-rng";
pub(super) const BALLOON: &str = "virtio-balloon";

/// What a machine that was given no name is called, as in Firecracker.
const NAMELESS: &str = "anonymous-instance";

/// Coracle's own version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const MIB: u64 = 1 << 20;

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    plan: MachinePlan,
    initrd: Option<String>,
    devices: Vec<Device>,
    networks: Vec<NetworkInterface>,
}

/// A virtio device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) model: String,
    pub(super) handle: SlotHandle,
    pub(super) limits: LimitsSpec,
    pub(super) drive: Option<Drive>,
    pub(super) balloon: BalloonWish,
}

/// What is known of a block device.
#[derive(Clone, Debug)]
pub(super) struct Drive {
    id: Option<String>,
    /// None for the built-in guest's system image.
    pub(super) image: Option<Image>,
    /// How its image is opened.
    pub(super) access: Access,
}

/// A file or block device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) format: DiskFormat,
    /// Device and inode, by which it is known again.
    pub(super) file: Option<(u64, u64)>,
}

/// What the balloon is to be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BalloonWish {
    pub(super) bytes: u64,
    pub(super) statistics_interval_s: u16,
    deflate_on_oom: bool,
    reporting: bool,
    hinting: bool,
}

impl BalloonWish {
    fn of(settings: &Settings) -> Self {
        let seconds = settings.statistics_every.as_secs();
        Self {
            bytes: settings.target_bytes,
            statistics_interval_s: u16::try_from(seconds).unwrap_or(u16::MAX),
            deflate_on_oom: settings.deflate_on_oom,
            reporting: settings.reporting,
            hinting: settings.hinting,
        }
    }

    /// In Firecracker's words.
    pub(super) fn view(self) -> Balloon {
        Balloon {
            amount_mib: self.bytes / MIB,
            deflate_on_oom: self.deflate_on_oom,
            stats_polling_interval_s: self.statistics_interval_s.into(),
            free_page_hinting: self.hinting,
            free_page_reporting: self.reporting,
        }
    }
}

/// What a change that was made means for later requests.
#[derive(Debug)]
pub(super) enum Effect {
    Nothing,
    Limits(LimitsSpec),
    Image(Image),
    BalloonBytes(u64),
    StatisticsInterval(u16),
}

impl Image {
    pub(super) fn at(path: &Path, format: DiskFormat) -> Self {
        let file = std::fs::metadata(path).ok();
        Self {
            path: path.to_owned(),
            format,
            file: file.map(|one| (one.dev(), one.ino())),
        }
    }
}

impl Drive {
    fn of(disk: &DiskBlueprint) -> Self {
        let image = match &disk.source {
            DiskSource::BuiltIn => None,
            DiskSource::User { path, format, .. } => Some(Image::at(path, *format)),
        };
        Self {
            id: disk.id.as_ref().map(|id| id.as_str().to_owned()),
            image,
            access: disk.access(),
        }
    }
}

#[cfg(test)]
impl Drive {
    pub(super) fn new(image: &Path, format: DiskFormat) -> Self {
        Self {
            id: None,
            image: Some(Image::at(image, format)),
            access: Access::default(),
        }
    }
}

#[cfg(test)]
impl Machine {
    pub(super) fn for_tests(plan: MachinePlan, devices: Vec<Device>) -> Self {
        Self {
            plan,
            initrd: None,
            devices,
            networks: Vec::new(),
        }
    }
}

impl Machine {
    pub(super) fn new(blueprint: &Blueprint, handles: Vec<(String, SlotHandle)>) -> Self {
        let plan = blueprint.describe();
        let model = |name: &str| {
            let found = plan.devices.iter().find(|one| one.name == name);
            found.map(|one| one.model.clone()).unwrap_or_default()
        };
        let drive = |name: &str| {
            let found = blueprint.devices.iter().find(|one| one.name == name)?;
            match &found.kind {
                DeviceKind::VirtioBlock(disk) => Some(Drive::of(disk)),
                _ => None,
            }
        };
        let balloon = |name: &str| {
            let found = blueprint.devices.iter().find(|one| one.name == name)?;
            match &found.kind {
                DeviceKind::VirtioBalloon(settings) => Some(BalloonWish::of(settings)),
                _ => None,
            }
        };
        let limits = |name: &str| {
            let found = blueprint.devices.iter().find(|one| one.name == name)?;
            match &found.kind {
                DeviceKind::VirtioRng(limits) => Some(spec_of(*limits)),
                DeviceKind::VirtioBlock(disk) => Some(spec_of(disk.limits)),
                _ => None,
            }
        };
        let devices = handles.into_iter().map(|(name, handle)| Device {
            model: model(&name),
            drive: drive(&name),
            balloon: balloon(&name).unwrap_or_default(),
            limits: limits(&name).unwrap_or_default(),
            name,
            handle,
        });
        let devices = devices.collect();
        let initrd = blueprint.initrd.as_deref();
        Self {
            initrd: initrd.map(|path| path.display().to_string()),
            devices,
            networks: blueprint.devices.iter().filter_map(network).collect(),
            plan,
        }
    }

    pub(super) fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The place of the drive that `id` names: its serial number, else the device's name.
    pub(super) fn drive(&self, id: &str) -> Result<usize, ApiError> {
        let place = |named: &dyn Fn(&Device, &Drive) -> bool| {
            let is_it = |one: &Device| one.drive.as_ref().is_some_and(|drive| named(one, drive));
            self.devices.iter().position(is_it)
        };
        let by_id = place(&|_, drive| drive.id.as_deref() == Some(id));
        let found = by_id.or_else(|| place(&|device, _| device.name == id));
        found.ok_or_else(|| {
            let drives = self.devices.iter().filter(|one| one.drive.is_some());
            let names: Vec<_> = drives.map(|one| one.name.as_str()).collect();
            let hint = match names.as_slice() {
                [] => "the machine has no drives; give some with --disk".to_owned(),
                names => format!(
                    "use a disk's id= or one of these device names: {}",
                    names.join(", ")
                ),
            };
            ApiError::new(Code::UnknownDevice, format!("there is no drive {id}"), hint)
        })
    }

    /// The place of the only device of a model.
    pub(super) fn of_model(&self, model: &str) -> Result<usize, ApiError> {
        let found = self.devices.iter().position(|one| one.model == model);
        found.ok_or_else(|| {
            ApiError::new(
                Code::UnknownDevice,
                format!("the machine has no {model}"),
                "GET /coracle/v1/machine tells what it has",
            )
        })
    }

    /// Remembers what was changed.
    pub(super) fn apply(&mut self, place: usize, effects: Vec<Effect>) {
        let Some(device) = self.devices.get_mut(place) else {
            return;
        };
        for effect in effects {
            match effect {
                Effect::Nothing => {}
                Effect::Limits(limits) => device.limits = limits,
                Effect::Image(image) => {
                    if let Some(drive) = &mut device.drive {
                        drive.image = Some(image);
                    }
                }
                Effect::BalloonBytes(bytes) => device.balloon.bytes = bytes,
                Effect::StatisticsInterval(seconds) => {
                    device.balloon.statistics_interval_s = seconds;
                }
            }
        }
    }

    /// The balloon's set-up.
    pub(super) fn balloon(&self) -> Result<Balloon, ApiError> {
        let place = self.of_model(BALLOON)?;
        let device = self.devices.get(place).ok_or_else(super::gone)?;
        Ok(device.balloon.view())
    }

    pub(super) fn instance(&self) -> InstanceInfo {
        InstanceInfo {
            id: NAMELESS.to_owned(),
            state: "Running",
            vmm_version: COMPATIBLE_VERSION,
            app_name: APP_NAME,
            coracle_version: VERSION,
        }
    }

    pub(super) fn config(&self) -> MachineConfig {
        MachineConfig {
            vcpu_count: self.plan.vcpus,
            mem_size_mib: self.plan.memory.bytes / MIB,
            smt: false,
            track_dirty_pages: false,
            huge_pages: if self.plan.memory.hugepages {
                "2M"
            } else {
                "None"
            },
        }
    }

    pub(super) fn vm_config(&self) -> VmConfig {
        let entropy = self.devices.iter().find(|one| one.model == ENTROPY);
        let balloon = self.devices.iter().find(|one| one.model == BALLOON);
        VmConfig {
            balloon: balloon.map(|device| device.balloon.view()),
            drives: self.devices.iter().filter_map(drive_config).collect(),
            boot_source: BootSource {
                kernel_image_path: self.plan.kernel.image.clone(),
                initrd_path: self.initrd.clone(),
                boot_args: self.plan.cmdline.clone(),
            },
            machine_config: self.config(),
            entropy: entropy.map(|device| Entropy {
                rate_limiter: rate_limiter(device.limits),
            }),
            network_interfaces: self.networks.clone(),
        }
    }

    pub(super) fn view(&self) -> MachineView {
        let mut devices = self.plan.devices.clone();
        for planned in &mut devices {
            let device = self.devices.iter().find(|one| one.name == planned.name);
            let drive = device.and_then(|one| one.drive.as_ref());
            if let Some(image) = drive.and_then(|drive| drive.image.as_ref()) {
                planned.file = Some(image.path.display().to_string());
            }
        }
        MachineView {
            state: MachineState::Running,
            pid: std::process::id(),
            version: VERSION,
            kernel: self.plan.kernel.image.clone(),
            cmdline: self.plan.cmdline.clone(),
            vcpus: self.plan.vcpus,
            memory_bytes: self.plan.memory.bytes,
            devices,
        }
    }
}

/// A drive as Firecracker's clients see it; none for the built-in guest's system image.
fn drive_config(device: &Device) -> Option<DriveConfig> {
    let drive = device.drive.as_ref()?;
    let image = drive.image.as_ref()?;
    Some(DriveConfig {
        drive_id: drive.id.clone().unwrap_or_else(|| device.name.clone()),
        path_on_host: image.path.display().to_string(),
        is_root_device: false,
        is_read_only: drive.access.read_only,
        rate_limiter: rate_limiter(device.limits),
    })
}

/// A network interface as Firecracker's clients see it.
fn network(device: &DeviceBlueprint) -> Option<NetworkInterface> {
    let DeviceKind::VirtioNet(_, net) = &device.kind else {
        return None;
    };
    let tap = match &net.link {
        LinkConfig::Tap(tap) => tap.name.clone(),
        LinkConfig::User { .. } | LinkConfig::Passt { .. } => None,
    };
    Some(NetworkInterface {
        iface_id: device.name.clone(),
        host_dev_name: tap.unwrap_or_default(),
        guest_mac: Some(net.mac.to_string()),
        rx_rate_limiter: rate_limiter(spec_of(net.rx)),
        tx_rate_limiter: rate_limiter(spec_of(net.tx)),
        mtu: net.link.mtu(),
    })
}

/// The limits that a device was built with.
fn spec_of(limits: Limits) -> LimitsSpec {
    let bucket = |bucket: limit::BucketSpec| BucketSpec {
        size: bucket.size,
        refill_ms: u64::try_from(bucket.refill.as_millis()).unwrap_or(u64::MAX),
        burst: bucket.burst,
    };
    LimitsSpec {
        bandwidth: limits.bytes.map(bucket),
        iops: limits.operations.map(bucket),
    }
}

fn rate_limiter(limits: LimitsSpec) -> Option<RateLimiter> {
    (limits != LimitsSpec::default()).then_some(RateLimiter {
        bandwidth: limits.bandwidth.map(Into::into),
        ops: limits.iops.map(Into::into),
    })
}
