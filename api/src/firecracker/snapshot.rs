//! Snapshots, written and read.

use std::path::PathBuf;

use serde::Deserialize;

/// `PUT /snapshot/create`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// How much of the memory is written.
    #[serde(default)]
    pub snapshot_type: SnapshotType,
    /// The file of the machine's state.
    #[cfg_attr(test, schema(value_type = String))]
    pub snapshot_path: PathBuf,
    /// The file of its memory.
    #[cfg_attr(test, schema(value_type = String))]
    pub mem_file_path: PathBuf,
}

/// How much of the memory a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum SnapshotType {
    /// All of it.
    #[default]
    Full,
    /// What was written since the last one.
    Diff,
}

/// `PUT /snapshot/load`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SnapshotLoad {
    /// The file of the machine's state.
    #[cfg_attr(test, schema(value_type = String))]
    pub snapshot_path: PathBuf,
    /// The file of its memory, as it was named first.
    #[serde(default)]
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub mem_file_path: Option<PathBuf>,
    /// Where its memory comes from.
    #[serde(default)]
    pub mem_backend: Option<MemoryBackend>,
    /// Whether the guest goes on at once.
    #[serde(default)]
    pub resume_vm: bool,
    /// Whether later snapshots may be of what was written since.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// The same, as it was named first.
    #[serde(default)]
    pub enable_diff_snapshots: bool,
    /// Other taps for network interfaces.
    #[serde(default)]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket for the socket device.
    #[serde(default)]
    pub vsock_override: Option<VsockOverride>,
}

/// Where memory comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MemoryBackend {
    /// What is at the path.
    pub backend_type: MemoryBackendType,
    /// The path.
    #[cfg_attr(test, schema(value_type = String))]
    pub backend_path: PathBuf,
}

/// What memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum MemoryBackendType {
    /// A file.
    File,
    /// A process that serves page faults, behind a socket.
    Uffd,
}

/// Another tap for a network interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    /// The interface's name.
    pub iface_id: String,
    /// The tap.
    pub host_dev_name: String,
}

/// Another socket for the socket device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VsockOverride {
    /// The socket's path.
    #[cfg_attr(test, schema(value_type = String))]
    pub uds_path: PathBuf,
}
