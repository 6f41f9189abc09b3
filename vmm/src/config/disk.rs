//! Disks: their paths and the names that the guest reads.

use std::path::PathBuf;

use api::spec::{DiskFormat, MachineSpec, Transport};
use arch::layout;

use super::{ConfigError, Problem, check_path};

/// Slots that every machine keeps: for the console, the random numbers and the built-in guest's
/// system image.
const KEPT_SLOTS: usize = 3;

/// A disk of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The image or block device.
    pub path: PathBuf,
    /// What the image is.
    pub format: DiskFormat,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// The serial number that the guest reads.
    pub id: Option<DiskId>,
}

/// A disk's serial number: 1 to 20 bytes, which is all that virtio-blk has room for.
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
        match (1..=20).contains(&id.len()) && id.bytes().all(good) {
            true => Ok(Self(id.to_owned())),
            false => Err(ConfigError::new(
                "disk id",
                &super::excerpt(id),
                Problem::BadName,
            )),
        }
    }
}

pub(super) fn read_all(spec: &MachineSpec) -> Result<Vec<DiskConfig>, ConfigError> {
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
    let most = slots - KEPT_SLOTS - others.map(usize::from).iter().sum::<usize>();
    if specs.len() > most {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let problem = Problem::TooMany {
            most,
            of: "a machine",
        };
        return Err(ConfigError::new("disks", &specs.len(), problem));
    }
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
        });
    }
    Ok(disks)
}
