//! A network interface of a machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::RateSpec;
use super::text::words;

/// A network interface: what the guest sees, and what is behind it on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// The name by which the API knows it; without one `net0`, `net1` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is behind it.
    #[serde(default)]
    pub kind: NetKind,
    /// The tap's name on the host. Without one, and without descriptors, a new tap is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The socket on which passt listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub path: Option<PathBuf>,
    /// Descriptors of the tap's queues that the process is started with, instead of a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fds: Vec<u64>,
    /// The guest's Ethernet address; without it one that follows from the interface's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Which Ethernet addresses the guest may send from.
    #[serde(default, skip_serializing_if = "SourceMac::is_own")]
    pub source: SourceMac,
    /// The largest packet; without it the tap's, or 1500 for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u64>,
    /// How many pairs of queues; without it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u64>,
    /// What the guest may receive in a time.
    #[serde(default, skip_serializing_if = "FlowSpec::is_unlimited")]
    pub rx: FlowSpec,
    /// What the guest may send in a time.
    #[serde(default, skip_serializing_if = "FlowSpec::is_unlimited")]
    pub tx: FlowSpec,
    /// What only `user` has.
    #[serde(default, skip_serializing_if = "UserNetSpec::is_default")]
    pub user: UserNetSpec,
}

/// What is behind a network interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NetKind {
    /// A network of our own process: no rights and no set-up needed.
    #[default]
    User,
    /// A tap device of the host.
    Tap,
    /// passt, which somebody else has started.
    Passt,
}

words!(NetKind, "net kind", "user, tap, passt", {
    "user" => NetKind::User,
    "tap" => NetKind::Tap,
    "passt" => NetKind::Passt,
});

/// Which Ethernet addresses a guest may send from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SourceMac {
    /// Its own; frames from others are dropped and counted.
    #[default]
    Own,
    /// Any, as a bridge in the guest needs it.
    Any,
}

words!(SourceMac, "net source", "own, any", {
    "own" => SourceMac::Own,
    "any" => SourceMac::Any,
});

impl SourceMac {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the shape that serde takes"
    )]
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// How much may go one way in a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FlowSpec {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<RateSpec>,
    /// Packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<RateSpec>,
}

impl FlowSpec {
    fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// The user-mode network of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct UserNetSpec {
    /// Ports of the host that lead into the guest: `[HOST_IP:]HOST_PORT:GUEST_PORT[/udp]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// What the guest may reach: the first rule that fits decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressSpec>,
    /// Whether the guest may reach the host's own services, by the gateway's address.
    pub host: bool,
    /// Whether there is IPv6.
    pub ipv6: bool,
    /// The network's IPv4 addresses, such as `10.0.2.0/24`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Name servers, instead of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
}

impl Default for UserNetSpec {
    fn default() -> Self {
        Self {
            publish: Vec::new(),
            egress: Vec::new(),
            host: false,
            ipv6: true,
            subnet: None,
            dns: Vec::new(),
        }
    }
}

impl UserNetSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A rule for what the guest may reach: `TARGET[:PORT[-PORT]][/tcp|/udp]`, where the target is
/// `any`, an address, a network such as `10.0.0.0/8` or a name such as `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum EgressSpec {
    /// What fits is let through.
    Allow(String),
    /// What fits is refused.
    Deny(String),
}
