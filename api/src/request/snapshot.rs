//! Saving a machine, and making one of what was saved.

use std::path::PathBuf;

use super::{Asked, Call};
use crate::error::{ApiError, Code};
use crate::firecracker::{
    MemoryBackendType, NetworkOverride, SnapshotCreate, SnapshotLoad, SnapshotType,
};
use crate::spec::{MachineSpec, NetKind};

/// The files of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// That of the machine's state.
    pub state: PathBuf,
    /// That of its memory.
    pub memory: PathBuf,
}

/// What to make a machine of, and how it is to differ from what was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// What was saved.
    pub files: SnapshotFiles,
    /// Whether its guest goes on at once, or stands still until it is told to.
    pub resume: bool,
    /// Other taps for network interfaces.
    pub taps: Vec<NetworkOverride>,
    /// Another socket for the socket device.
    pub vsock: Option<PathBuf>,
}

impl Restoration {
    /// Changes the machine that was saved into the one that is made of it.
    ///
    /// # Errors
    /// When it has no device of a name.
    pub fn change(&self, spec: &mut MachineSpec) -> Result<(), ApiError> {
        let missing = |what: String| {
            ApiError::new(
                Code::UnknownDevice,
                what,
                "override what the saved machine has",
            )
        };
        for over in &self.taps {
            let place = (0..spec.nets.len()).find(|&at| spec.net_name(at) == over.iface_id);
            let net = place.and_then(|at| spec.nets.get_mut(at));
            let message = format!("the saved machine has no network {}", over.iface_id);
            let net = net.ok_or_else(|| missing(message))?;
            net.kind = NetKind::Tap;
            net.name = Some(over.host_dev_name.clone());
            net.fds.clear();
            net.path = None;
        }
        if let Some(path) = &self.vsock {
            let vsock = spec.vsock.as_mut();
            let vsock = vsock.ok_or_else(|| missing("the saved machine has no vsock".into()))?;
            vsock.path.clone_from(path);
        }
        Ok(())
    }
}

/// `PUT /snapshot/create`
pub(crate) fn create(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let wanted: SnapshotCreate = asked.body()?;
    if wanted.snapshot_type == SnapshotType::Diff {
        return Err(unsupported(
            "snapshot_type",
            "snapshots of the kind Diff",
            "write a Full one",
        ));
    }
    Ok(Call::Save(SnapshotFiles {
        state: wanted.snapshot_path,
        memory: wanted.mem_file_path,
    }))
}

/// `PUT /snapshot/load`
pub(crate) fn load(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let wanted: SnapshotLoad = asked.body()?;
    if wanted.track_dirty_pages || wanted.enable_diff_snapshots {
        return Err(unsupported(
            "track_dirty_pages",
            "snapshots of the kind Diff",
            "leave it out, and write Full ones",
        ));
    }
    let memory = match (wanted.mem_backend, wanted.mem_file_path) {
        (Some(backend), None) => match backend.backend_type {
            MemoryBackendType::File => backend.backend_path,
            MemoryBackendType::Uffd => {
                return Err(unsupported(
                    "mem_backend",
                    "memory from a page fault handler",
                    "give the file with backend_type File",
                ));
            }
        },
        (None, Some(path)) => path,
        (backend, _) => {
            let message = match backend {
                None => "neither mem_backend nor mem_file_path says where the memory is",
                Some(_) => "both mem_backend and mem_file_path say where the memory is",
            };
            let error = ApiError::new(Code::InvalidValue, message, "give mem_backend alone");
            return Err(error.of_field("mem_backend"));
        }
    };
    Ok(Call::Load(Restoration {
        files: SnapshotFiles {
            state: wanted.snapshot_path,
            memory,
        },
        resume: wanted.resume_vm,
        taps: wanted.network_overrides,
        vsock: wanted.vsock_override.map(|over| over.uds_path),
    }))
}

fn unsupported(field: &str, what: &str, hint: &str) -> ApiError {
    let message = format!("{what} are not supported");
    ApiError::new(Code::NotSupported, message, hint).of_field(field)
}
