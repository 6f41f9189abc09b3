//! The metadata service of a machine.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::text::words;

/// Who reads the metadata of a machine, where, and how; in the words of Firecracker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MmdsSpec {
    /// Whether the guest needs a token to read.
    #[serde(default)]
    pub version: MmdsVersion,
    /// The names of the network interfaces on which it is there.
    pub network_interfaces: Vec<String>,
    /// Its address, which is link-local; without it 169.254.169.254.
    #[serde(default)]
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub ipv4_address: Option<Ipv4Addr>,
    /// Whether answers are text whatever the guest accepts, as EC2 gives them.
    #[serde(default)]
    pub imds_compat: bool,
}

/// How metadata is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub enum MmdsVersion {
    /// By anybody.
    #[default]
    V1,
    /// With a token.
    V2,
}

words!(MmdsVersion, "mmds version", "v1, v2", {
    "v1" => MmdsVersion::V1,
    "v2" => MmdsVersion::V2,
});
