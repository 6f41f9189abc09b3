//! Disks: their paths, the names that the guest reads, how they are used and their limits.

use std::path::PathBuf;
use std::time::Duration;

use api::spec::{
    DiskCache, DiskEngine, DiskFormat, DiskSpec, MachineSpec, RateSpec, SizeSpec, Transport,
};
use arch::layout;
use devices::disk::{Access, EngineChoice};
use devices::limit::{BucketSpec, Limits};
use devices::virtio::blk::MOST_QUEUES;

use super::{ConfigError, CpuCount, Problem, check_path};

/// Slots that every machine keeps: for the console, the random numbers and the built-in guest's
/// system image.
const KEPT_SLOTS: usize = 3;
/// Most queues that a disk gets by itself: more do not help one I/O thread.
const OWN_QUEUES: u16 = 4;
/// Longest time that a limit may take to be full again, a day.
const MAX_REFILL_MS: u64 = 86_400_000;

/// A disk of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The image or block device.
    pub path: PathBuf,
    /// What the image is.
    pub format: DiskFormat,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// Its name, which the guest reads as serial number.
    pub id: Option<DiskId>,
    /// The guest's root, where it is on this disk.
    pub root: Option<Root>,
    /// How the host reads and writes it.
    pub engine: DiskEngine,
    /// What the guest is told of the host's cache.
    pub cache: DiskCache,
    /// Whether the host's page cache is passed by.
    pub direct: bool,
    /// How many queues the guest gets.
    pub queues: u16,
    /// How much it may do in a time.
    pub limits: Limits,
}

/// Where on a disk the guest's root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// It is the whole disk.
    Disk,
    /// It is the partition of this UUID.
    Partition(String),
}

impl DiskConfig {
    /// How its image is opened.
    #[must_use]
    pub fn access(&self) -> Access {
        access(self.read_only, self.direct, self.engine)
    }
}

/// How an image is opened.
pub(crate) fn access(read_only: bool, direct: bool, engine: DiskEngine) -> Access {
    Access {
        read_only,
        direct,
        engine: match engine {
            DiskEngine::Auto => EngineChoice::Auto,
            DiskEngine::Sync => EngineChoice::Sync,
            DiskEngine::IoUring => EngineChoice::IoUring,
        },
    }
}

/// A disk's name: 1 to 64 bytes, of which virtio-blk has room for 20 in its serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskId(String);

impl DiskId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for DiskId {
    type Error = ConfigError;

    fn try_from(id: &str) -> Result<Self, ConfigError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        match (1..=64).contains(&id.len()) && id.bytes().all(good) {
            true => Ok(Self(id.to_owned())),
            false => Err(ConfigError::new(
                "disk id",
                &super::excerpt(id),
                Problem::BadName,
            )),
        }
    }
}

pub(super) fn read_all(spec: &MachineSpec, cpus: CpuCount) -> Result<Vec<DiskConfig>, ConfigError> {
    let specs = &spec.disks;
    let others = [
        spec.balloon.is_some(),
        spec.vsock.is_some(),
        !spec.console_ports.is_empty(),
    ];
    let slots = match spec.transport {
        Transport::Mmio => layout::VIRTIO_MMIO_SLOTS,
        // Never with the built-in guest.
        Transport::Pci => layout::PCI_SLOTS + 1,
    };
    let others = others.map(usize::from).iter().sum::<usize>() + spec.nets.len();
    let most = slots - KEPT_SLOTS - others;
    if specs.len() > most {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let problem = Problem::TooMany {
            most,
            of: "a machine",
        };
        return Err(ConfigError::new("disks", &specs.len(), problem));
    }
    check_roots(spec)?;
    let mut disks: Vec<DiskConfig> = Vec::with_capacity(specs.len());
    for spec in specs {
        check_path("disk", &spec.path)?;
        let id = spec.id.as_deref().map(DiskId::try_from).transpose()?;
        // Read-only disks may share a file; the lock on it judges the rest when it is opened.
        if let Some(id) = &id
            && disks.iter().any(|disk| disk.id.as_ref() == Some(id))
        {
            return Err(ConfigError::new("disk id", &id.as_str(), Problem::Twice));
        }
        if spec.format == DiskFormat::Qcow2 && !spec.read_only {
            let (path, problem) = (spec.path.display(), Problem::OnlyRead);
            return Err(ConfigError::new("disk", &path, problem));
        }
        disks.push(DiskConfig {
            path: spec.path.clone(),
            format: spec.format,
            read_only: spec.read_only,
            id,
            root: root(spec)?,
            engine: engine(spec)?,
            cache: spec.cache,
            direct: spec.direct,
            queues: queues(spec.queues, cpus)?,
            limits: Limits {
                bytes: bucket("disk bandwidth", spec.bandwidth.as_ref())?,
                operations: bucket("disk iops", spec.iops.as_ref())?,
            },
        });
    }
    Ok(disks)
}

/// Only one disk has the root, and only of a kernel that has none of its own.
fn check_roots(spec: &MachineSpec) -> Result<(), ConfigError> {
    let mut roots = spec.disks.iter().filter(|disk| disk.root);
    let refuse = |disk: &DiskSpec, problem| {
        let path = disk.path.display();
        Err(ConfigError::new("root disk", &path, problem))
    };
    match (roots.next(), roots.next()) {
        (Some(disk), _) if spec.kernel.is_none() => refuse(disk, Problem::RootBuiltIn),
        (_, Some(second)) => refuse(second, Problem::Twice),
        _ => Ok(()),
    }
}

/// A partition's UUID becomes a word of the command line.
fn root(spec: &DiskSpec) -> Result<Option<Root>, ConfigError> {
    let Some(uuid) = &spec.partuuid else {
        return Ok(spec.root.then_some(Root::Disk));
    };
    let good = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    match (1..=64).contains(&uuid.len()) && uuid.bytes().all(good) {
        true => Ok(spec.root.then(|| Root::Partition(uuid.clone()))),
        false => {
            let uuid = super::excerpt(uuid);
            Err(ConfigError::new("partuuid", &uuid, Problem::NotAUuid))
        }
    }
}

/// Engines and the way past the page cache are for raw images.
fn engine(spec: &DiskSpec) -> Result<DiskEngine, ConfigError> {
    let chosen = spec.direct || spec.engine != DiskEngine::Auto;
    if chosen && spec.format != DiskFormat::Raw {
        let path = spec.path.display();
        return Err(ConfigError::new("disk", &path, Problem::OnlyRaw));
    }
    Ok(spec.engine)
}

fn queues(given: Option<u64>, cpus: CpuCount) -> Result<u16, ConfigError> {
    let Some(given) = given else {
        return Ok(u16::from(cpus.get()).min(OWN_QUEUES));
    };
    match u16::try_from(given) {
        Ok(count) if (1..=MOST_QUEUES).contains(&count) => Ok(count),
        _ => {
            let (least, most) = (1, MOST_QUEUES.into());
            let problem = Problem::Outside { least, most };
            Err(ConfigError::new("disk queues", &given, problem))
        }
    }
}

pub(super) fn bucket(
    field: &'static str,
    rate: Option<&RateSpec>,
) -> Result<Option<BucketSpec>, ConfigError> {
    let Some(rate) = rate else {
        return Ok(None);
    };
    let tokens = |size: &SizeSpec| {
        let read = size.bytes();
        read.map_err(|error| ConfigError::new(field, size, Problem::NotASize(error)))
    };
    let size = tokens(&rate.size)?;
    if size == 0 {
        return Err(ConfigError::new(field, &rate.size, Problem::NoLimit));
    }
    if !(1..=MAX_REFILL_MS).contains(&rate.refill_ms) {
        let (least, most) = (1, MAX_REFILL_MS);
        let problem = Problem::Outside { least, most };
        return Err(ConfigError::new(
            "refill time in milliseconds",
            &rate.refill_ms,
            problem,
        ));
    }
    Ok(Some(BucketSpec {
        size,
        burst: rate.burst.as_ref().map(tokens).transpose()?.unwrap_or(0),
        refill: Duration::from_millis(rate.refill_ms),
    }))
}
