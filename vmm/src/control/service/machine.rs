//! What the API knows of its machine: the plan, the devices' handles, and what requests have
//! changed since.

use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use api::error::{ApiError, Code};
use api::limits::{BucketSpec, LimitsSpec};
use api::machine::{MachineState, MachineView};
use api::plan::MachinePlan;
use api::spec::{DiskFormat, MachineSpec, RateSpec, SizeSpec};
use devices::disk::Access;
use devices::limit::{self, Limits};
use devices::virtio::SlotHandle;
use devices::virtio::balloon::Settings;

use super::super::description::{Description, VERSION};
use crate::blueprint::{DeviceKind, DiskBlueprint, DiskSource};
use crate::snapshot::Subject;

/// The models of devices that have paths of their own.
pub(super) const ENTROPY: &str = "virtio-rng";
pub(super) const BALLOON: &str = "virtio-balloon";

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    plan: MachinePlan,
    devices: Vec<Device>,
    /// What the virtual CPUs may use of the host's, in hundredths of one.
    pub(super) cpu_quota: Option<NonZeroU32>,
    /// What it is saved from. None in tests that have no machine.
    subject: Option<Subject>,
}

/// A virtio device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) model: String,
    pub(super) handle: SlotHandle,
    pub(super) limits: LimitsSpec,
    pub(super) drive: Option<Drive>,
    pub(super) net: Option<Net>,
    pub(super) balloon: BalloonWish,
}

/// What is known of a network device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net {
    /// Its place in the specification.
    index: usize,
    pub(super) rx: LimitsSpec,
    pub(super) tx: LimitsSpec,
}

/// What is known of a block device.
#[derive(Clone, Debug)]
pub(super) struct Drive {
    /// Its place in the specification.
    index: Option<usize>,
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
}

impl BalloonWish {
    fn of(settings: &Settings) -> Self {
        let seconds = settings.statistics_every.as_secs();
        Self {
            bytes: settings.target_bytes,
            statistics_interval_s: u16::try_from(seconds).unwrap_or(u16::MAX),
        }
    }
}

/// What a change that was made means for later requests.
#[derive(Debug)]
pub(super) enum Effect {
    Nothing,
    Limits(LimitsSpec),
    Flows { rx: LimitsSpec, tx: LimitsSpec },
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
        let (index, image) = match &disk.source {
            DiskSource::BuiltIn => (None, None),
            DiskSource::User {
                index,
                path,
                format,
            } => (Some(*index), Some(Image::at(path, *format))),
        };
        Self {
            index,
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
            index: Some(0),
            id: None,
            image: Some(Image::at(image, format)),
            access: Access::default(),
        }
    }
}

impl Device {
    /// The name by which clients know it.
    pub(super) fn called(&self, spec: &MachineSpec) -> String {
        match (self.drive.as_ref().and_then(|drive| drive.index), self.net) {
            (Some(index), _) => spec.disk_name(index),
            (None, Some(net)) => spec.net_name(net.index),
            (None, None) => self.name.clone(),
        }
    }

    /// Brings the part of the specification that the device is made of up to date.
    fn note(&self, effect: &Effect, spec: &mut MachineSpec) {
        let index = self.drive.as_ref().and_then(|drive| drive.index);
        let disk = index.and_then(|index| spec.disks.get_mut(index));
        match effect {
            Effect::Nothing => {}
            Effect::Limits(limits) => {
                let (bandwidth, iops) = (limits.bandwidth.map(rate), limits.iops.map(rate));
                match disk {
                    Some(disk) => (disk.bandwidth, disk.iops) = (bandwidth, iops),
                    None if self.model == ENTROPY => {
                        (spec.rng_bandwidth, spec.rng_iops) = (bandwidth, iops);
                    }
                    None => {}
                }
            }
            Effect::Flows { rx, tx } => {
                let index = self.net.map(|net| net.index);
                if let Some(net) = index.and_then(|index| spec.nets.get_mut(index)) {
                    for (flow, limits) in [(&mut net.rx, rx), (&mut net.tx, tx)] {
                        flow.bandwidth = limits.bandwidth.map(rate);
                        flow.packets = limits.iops.map(rate);
                    }
                }
            }
            Effect::Image(image) => {
                if let Some(disk) = disk {
                    disk.path.clone_from(&image.path);
                }
            }
            Effect::BalloonBytes(bytes) => {
                if let Some(balloon) = &mut spec.balloon {
                    balloon.size = Some(SizeSpec::Bytes(*bytes));
                }
            }
            Effect::StatisticsInterval(seconds) => {
                if let Some(balloon) = &mut spec.balloon {
                    balloon.stats_seconds = (*seconds).into();
                }
            }
        }
    }
}

fn rate(bucket: BucketSpec) -> RateSpec {
    RateSpec {
        size: SizeSpec::Bytes(bucket.size),
        burst: Some(SizeSpec::Bytes(bucket.burst)),
        refill_ms: bucket.refill_ms,
    }
}

#[cfg(test)]
impl Machine {
    pub(super) fn for_tests(plan: MachinePlan, devices: Vec<Device>) -> Self {
        Self {
            plan,
            devices,
            cpu_quota: None,
            subject: None,
        }
    }
}

impl Machine {
    pub(super) fn new(subject: Subject, handles: Vec<(String, SlotHandle)>) -> Self {
        let blueprint = &subject.blueprint;
        let plan = blueprint.describe();
        let model = |name: &str| {
            let found = plan.devices.iter().find(|one| one.name == name);
            found.map(|one| one.model.clone()).unwrap_or_default()
        };
        let device = |(name, handle): (String, SlotHandle)| {
            let planned = blueprint.devices.iter().find(|one| one.name == name);
            let mut device = Device {
                model: model(&name),
                name,
                handle,
                limits: LimitsSpec::default(),
                drive: None,
                net: None,
                balloon: BalloonWish::default(),
            };
            match planned.map(|one| &one.kind) {
                Some(DeviceKind::VirtioBlock(disk)) => {
                    device.drive = Some(Drive::of(disk));
                    device.limits = spec_of(disk.limits);
                }
                Some(DeviceKind::VirtioNet(index, net)) => {
                    device.net = Some(Net {
                        index: *index,
                        rx: spec_of(net.rx),
                        tx: spec_of(net.tx),
                    });
                }
                Some(DeviceKind::VirtioRng(limits)) => device.limits = spec_of(*limits),
                Some(DeviceKind::VirtioBalloon(settings)) => {
                    device.balloon = BalloonWish::of(settings);
                }
                _ => {}
            }
            device
        };
        Self {
            devices: handles.into_iter().map(device).collect(),
            plan,
            cpu_quota: None,
            subject: Some(subject),
        }
    }

    /// What it is saved from.
    pub(super) fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
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

    /// The place of the network interface that `id` names in the specification.
    pub(super) fn net(&self, id: &str, spec: &MachineSpec) -> Result<usize, ApiError> {
        let called = |net: Net| spec.net_name(net.index) == id;
        let found = self
            .devices
            .iter()
            .position(|one| one.net.is_some_and(called));
        found.ok_or_else(|| {
            let nets = self.devices.iter().filter_map(|one| one.net);
            let names: Vec<_> = nets.map(|net| spec.net_name(net.index)).collect();
            let hint = match names.as_slice() {
                [] => "the machine has none; give some with --net".to_owned(),
                names => format!("use one of these: {}", names.join(", ")),
            };
            let message = format!("there is no network interface {id}");
            ApiError::new(Code::UnknownDevice, message, hint)
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

    /// Refuses to tell a balloon's statistics that nobody wanted.
    pub(super) fn has_statistics(&self, place: usize) -> Result<(), ApiError> {
        match self.devices.get(place) {
            Some(device) if device.balloon.statistics_interval_s == 0 => Err(ApiError::new(
                Code::NotSupported,
                "Statistics for the balloon device are not enabled.",
                "give the balloon a stats_polling_interval_s",
            )),
            _ => Ok(()),
        }
    }

    /// Remembers what was changed, and notes it where the machine is described.
    pub(super) fn apply(
        &mut self,
        place: usize,
        effects: Vec<Effect>,
        description: &mut Description,
    ) {
        let Some(device) = self.devices.get_mut(place) else {
            return;
        };
        for effect in effects {
            device.note(&effect, &mut description.spec);
            match effect {
                Effect::Nothing => {}
                Effect::Limits(limits) => device.limits = limits,
                Effect::Flows { rx, tx } => {
                    if let Some(net) = &mut device.net {
                        (net.rx, net.tx) = (rx, tx);
                    }
                }
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

    pub(super) fn view(&self, state: MachineState) -> MachineView {
        let mut devices = self.plan.devices.clone();
        for planned in &mut devices {
            let device = self.devices.iter().find(|one| one.name == planned.name);
            let drive = device.and_then(|one| one.drive.as_ref());
            if let Some(image) = drive.and_then(|drive| drive.image.as_ref()) {
                planned.file = Some(image.path.display().to_string());
            }
        }
        MachineView {
            state,
            pid: std::process::id(),
            version: VERSION,
            kernel: self.plan.kernel.image.clone(),
            cmdline: self.plan.cmdline.clone(),
            vcpus: self.plan.vcpus,
            cpu_quota: self.cpu_quota,
            memory_bytes: self.plan.memory.bytes,
            devices,
        }
    }
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
