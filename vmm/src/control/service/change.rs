//! From what a request wants changed to commands for the device. Files are opened and judged
//! here, before anything changes.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use api::error::{ApiError, Code};
use api::limits::{BucketSpec, LimitsSpec};
use api::request::{BalloonChange, DriveChange, Hinting, LimitsChange, NetChange};
use api::spec::{DiskFormat, SizeSpec};
use devices::disk::{Access, Disk, OverlayDisk, Qcow2Disk, RawDisk, SECTOR_BYTES};
use devices::host;
use devices::limit;
use devices::virtio::{BalloonCommand, DeviceCommand, NetCommand};
use rustix::fs::OFlags;

use super::job::Step;
use super::machine::{Device, Drive, Effect, Image};

/// The unit of the balloon (virtio 1.2, 5.5).
const BALLOON_PAGE: u64 = 4096;

/// What a request wants changed of a device.
#[derive(Debug)]
pub(super) enum Change {
    Drive(DriveChange),
    Limits(LimitsChange),
    Net(NetChange),
    Balloon(BalloonChange),
}

impl Change {
    /// The commands that make the change.
    ///
    /// # Errors
    /// When it makes no sense or the host cannot do its part; nothing has changed then.
    pub(super) fn prepare(&self, device: &Device) -> Result<Vec<Step>, ApiError> {
        match self {
            Self::Limits(change) => Ok(limits(device, *change).into_iter().collect()),
            Self::Net(change) => Ok(net(device, *change).into_iter().collect()),
            Self::Drive(change) => drive(device, change),
            Self::Balloon(change) => balloon(device, change),
        }
    }
}

fn step(command: DeviceCommand, effect: Effect) -> Step {
    Step {
        command,
        undo: None,
        grown: None,
        effect,
    }
}

fn limits(device: &Device, change: LimitsChange) -> Option<Step> {
    let after = change.apply(device.limits);
    let command = |spec| DeviceCommand::Limit(buckets(spec));
    change.is_any().then(|| Step {
        undo: Some(command(device.limits)),
        ..step(command(after), Effect::Limits(after))
    })
}

fn net(device: &Device, change: NetChange) -> Option<Step> {
    let before = device.net?;
    let (rx, tx) = (change.rx.apply(before.rx), change.tx.apply(before.tx));
    let changed = |change: LimitsChange, after| change.is_any().then(|| buckets(after));
    let command = NetCommand::Limits {
        receive: changed(change.rx, rx),
        transmit: changed(change.tx, tx),
    };
    let any = change.rx.is_any() || change.tx.is_any();
    any.then(|| step(DeviceCommand::Net(command), Effect::Flows { rx, tx }))
}

fn buckets(spec: LimitsSpec) -> limit::Limits {
    let bucket = |spec: BucketSpec| limit::BucketSpec {
        size: spec.size,
        burst: spec.burst,
        refill: Duration::from_millis(spec.refill_ms),
    };
    limit::Limits {
        bytes: spec.bandwidth.map(bucket),
        operations: spec.iops.map(bucket),
    }
}

fn drive(device: &Device, change: &DriveChange) -> Result<Vec<Step>, ApiError> {
    let drive = device.drive.as_ref().ok_or_else(super::gone)?;
    // Limits first: they can be taken back if the image is refused.
    let mut steps: Vec<_> = limits(device, change.limits).into_iter().collect();
    let resizes = change.size.is_some() || change.rescan;
    match &change.path {
        Some(_) if resizes => {
            return Err(ApiError::new(
                Code::InvalidValue,
                "path comes with size or rescan",
                "give another path alone: its size is read when it is opened",
            )
            .of_field("path"));
        }
        Some(path) => steps.push(replace(drive, path)?),
        None if resizes => steps.push(resize(drive, change.size.as_ref())?),
        None => {}
    }
    Ok(steps)
}

/// Opens another image. The one that is there already is only measured again.
fn replace(drive: &Drive, path: &Path) -> Result<Step, ApiError> {
    let old = image(drive)?;
    let new = Image::at(path, old.format);
    if new.file.is_some() && new.file == old.file {
        return Ok(step(DeviceCommand::Rescan, Effect::Image(new)));
    }
    let disk = open(&new, drive.access);
    let disk = disk.map_err(|error| unusable(error.as_ref()).of_field("path"))?;
    Ok(step(DeviceCommand::ReplaceDisk(disk), Effect::Image(new)))
}

fn open(image: &Image, access: Access) -> Result<Box<dyn Disk>, Box<dyn Error>> {
    let path = &image.path;
    Ok(match image.format {
        DiskFormat::Raw => Box::new(RawDisk::open_with(path, access)?),
        DiskFormat::Cow => Box::new(OverlayDisk::open(path, access.read_only)?),
        DiskFormat::Qcow2 => {
            let file = open_file(path, false)
                .map_err(|error| format!("disk {}: can't be opened: {error}", path.display()))?;
            Box::new(Qcow2Disk::from_file(file, path)?)
        }
    })
}

/// The image of a drive, which the built-in guest's system image is not.
fn image(drive: &Drive) -> Result<&Image, ApiError> {
    drive.image.as_ref().ok_or_else(|| {
        ApiError::new(
            Code::NotSupported,
            "the drive is the built-in guest's own and has no file on the host",
            "change one that was given with --disk",
        )
    })
}

/// Makes the device look at the size of its image, which is grown to `size` before, if given.
fn resize(drive: &Drive, size: Option<&SizeSpec>) -> Result<Step, ApiError> {
    let image = image(drive)?;
    let mut rescan = step(DeviceCommand::Rescan, Effect::Nothing);
    if let Some(size) = size {
        rescan.grown = grow(image, drive.access.read_only, size)?;
    }
    Ok(rescan)
}

/// An image that was grown, as long as its device does not know.
#[derive(Debug)]
pub(super) struct Grown {
    file: File,
    before: u64,
}

impl Grown {
    /// Takes the growth back: no guest has seen what is beyond the old end.
    pub(super) fn shrink(self) {
        if let Err(error) = self.file.set_len(self.before) {
            log::warn!("api: an image that was grown in vain stays so: {error}");
        }
    }
}

fn grow(image: &Image, read_only: bool, size: &SizeSpec) -> Result<Option<Grown>, ApiError> {
    let invalid = |message: String, hint: &str| {
        ApiError::new(Code::InvalidValue, message, hint).of_field("size")
    };
    let bytes = size
        .bytes()
        .map_err(|error| invalid(format!("size {size}: {error}"), "give bytes, or 2G"))?;
    if image.format != DiskFormat::Raw {
        let message = format!("the image is {}, not raw", image.format);
        return Err(invalid(message, "grow it with the tools of its format"));
    }
    if read_only {
        return Err(invalid(
            "the drive is read-only".to_owned(),
            "grow its file on the host and give rescan instead",
        ));
    }
    if !bytes.is_multiple_of(SECTOR_BYTES) {
        let message = format!("size {bytes} is not a multiple of {SECTOR_BYTES}");
        return Err(invalid(message, "round it up"));
    }
    let path = image.path.display();
    let bad_file = |message: String, hint: &str| ApiError::new(Code::BadFile, message, hint);
    let file = open_file(&image.path, true).map_err(|error| {
        bad_file(
            format!("disk {path}: can't be opened: {error}"),
            "check the file",
        )
    })?;
    let cannot_look = |error: io::Error| {
        bad_file(
            format!("disk {path}: can't be looked at: {error}"),
            "check the file",
        )
    };
    let there = file.metadata().map_err(cannot_look)?;
    if Some((there.dev(), there.ino())) != image.file {
        return Err(bad_file(
            format!("disk {path}: is another file now than the one that the guest uses"),
            "give the path of the other file to change to it",
        ));
    }
    if there.file_type().is_block_device() {
        return Err(invalid(
            format!("disk {path}: is a block device"),
            "grow it with the host's tools and give rescan instead",
        ));
    }
    let before = there.len();
    if bytes < before {
        let message = format!("size {bytes} is less than the {before} bytes that the disk has");
        return Err(invalid(message, "a disk in use only grows"));
    }
    if bytes == before {
        return Ok(None);
    }
    file.set_len(bytes).map_err(|error| {
        let message = format!("disk {path}: can't be grown: {error}");
        ApiError::new(
            Code::HostFailure,
            message,
            "check the file system's space and limits",
        )
    })?;
    Ok(Some(Grown { file, before }))
}

fn open_file(path: &Path, write: bool) -> io::Result<File> {
    let rights = if write { OFlags::RDWR } else { OFlags::RDONLY };
    Ok(host::open(path, rights)?.into())
}

/// An image that cannot be used, whose text says what to do after a semicolon.
fn unusable(error: &dyn Error) -> ApiError {
    let text = error.to_string();
    let (message, hint) = text.split_once("; ").unwrap_or((&text, ""));
    let cause = error.source().map(|cause| format!(": {cause}"));
    let message = format!("{message}{}", cause.unwrap_or_default());
    ApiError::new(Code::BadFile, message, hint)
}

fn balloon(device: &Device, change: &BalloonChange) -> Result<Vec<Step>, ApiError> {
    let command = DeviceCommand::Balloon;
    let before = device.balloon;
    let mut steps = Vec::new();
    if let Some(seconds) = change.statistics_interval_s {
        if change.as_firecracker && (seconds == 0) != (before.statistics_interval_s == 0) {
            return Err(ApiError::new(
                Code::NotSupported,
                "Cannot enable/disable the statistics after boot.",
                "PATCH /coracle/v1/balloon can",
            ));
        }
        let every = |seconds: u16| {
            let interval = Duration::from_secs(seconds.into());
            command(BalloonCommand::StatisticsEvery(interval))
        };
        steps.push(Step {
            undo: Some(every(before.statistics_interval_s)),
            ..step(every(seconds), Effect::StatisticsInterval(seconds))
        });
    }
    if let Some(size) = &change.size {
        let wrong = |message: String| {
            let hint = "give a multiple of 4096 bytes, such as 64M";
            ApiError::new(Code::InvalidValue, message, hint).of_field("size")
        };
        let bytes = size
            .bytes()
            .map_err(|error| wrong(format!("size {size}: {error}")))?;
        if !bytes.is_multiple_of(BALLOON_PAGE) {
            return Err(wrong(format!("size {size} is not a whole number of pages")));
        }
        if change.as_firecracker {
            steps.push(step(command(BalloonCommand::NeedDriver), Effect::Nothing));
        }
        let target = |bytes| command(BalloonCommand::Target { bytes });
        steps.push(Step {
            undo: Some(target(before.bytes)),
            ..step(target(bytes), Effect::BalloonBytes(bytes))
        });
    }
    if let Some(hinting) = change.hinting {
        let hinting = match hinting {
            Hinting::Start | Hinting::StartAndKeep => BalloonCommand::StartHinting {
                acknowledge_on_stop: hinting == Hinting::Start,
            },
            Hinting::Stop => BalloonCommand::StopHinting,
        };
        steps.push(step(command(hinting), Effect::Nothing));
    }
    Ok(steps)
}
