//! Network interfaces.

use serde::{Deserialize, Serialize};

use super::RateLimiter;
use crate::spec::{FlowSpec, NetKind, NetSpec};

/// `PUT /network-interfaces/{id}`, and a network interface in [`super::VmConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct NetworkInterface {
    /// The name that changes it.
    pub iface_id: String,
    /// The tap; empty for what has no name on the host.
    pub host_dev_name: String,
    /// The guest's Ethernet address, where it was said.
    pub guest_mac: Option<String>,
    /// What the guest may receive.
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What the guest may send.
    pub tx_rate_limiter: Option<RateLimiter>,
    /// The largest packet, where it was said.
    pub mtu: Option<u64>,
}

impl NetworkInterface {
    /// The network that it is: one on a tap.
    #[must_use]
    pub fn spec(self) -> NetSpec {
        let flow = |limiter: Option<RateLimiter>| {
            let (bandwidth, packets) = limiter.unwrap_or_default().rates();
            FlowSpec { bandwidth, packets }
        };
        NetSpec {
            id: Some(self.iface_id),
            kind: NetKind::Tap,
            name: Some(self.host_dev_name),
            mac: self.guest_mac,
            mtu: self.mtu,
            rx: flow(self.rx_rate_limiter),
            tx: flow(self.tx_rate_limiter),
            ..NetSpec::default()
        }
    }

    /// The interface that a machine was given, under the name by which it is changed.
    #[must_use]
    pub fn of(iface_id: String, net: &NetSpec) -> Self {
        let limiter =
            |flow: &FlowSpec| RateLimiter::of(flow.bandwidth.as_ref(), flow.packets.as_ref());
        Self {
            iface_id,
            host_dev_name: net.name.clone().unwrap_or_default(),
            guest_mac: net.mac.clone(),
            rx_rate_limiter: limiter(&net.rx),
            tx_rate_limiter: limiter(&net.tx),
            mtu: net.mtu,
        }
    }
}

/// `PATCH /network-interfaces/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkInterfacePatch {
    /// Its name, as in the path.
    pub iface_id: String,
    /// Other limits of what the guest may receive.
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Other limits of what the guest may send.
    pub tx_rate_limiter: Option<RateLimiter>,
}
