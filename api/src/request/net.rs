//! Requests for network interfaces.

use serde::Deserialize;

use super::{Asked, Call, LimitsChange, Part};
use crate::error::ApiError;
use crate::firecracker::{NetworkInterface, NetworkInterfacePatch};

/// What changes of a network interface; what is none stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetChange {
    /// Other limits of what the guest receives.
    #[serde(default)]
    pub rx: LimitsChange,
    /// Other limits of what the guest sends.
    #[serde(default)]
    pub tx: LimitsChange,
}

/// `PUT /network-interfaces/{id}`
pub(crate) fn put(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let interface: NetworkInterface = asked.body()?;
    asked.must_be_named("iface_id", &interface.iface_id)?;
    asked.must_be_plain()?;
    Ok(Call::Describe(Part::Net(Box::new(interface.spec()))))
}

/// `DELETE /network-interfaces/{id}`
pub(crate) fn delete(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Describe(Part::WithoutNet(asked.id.to_owned())))
}

/// `PATCH /network-interfaces/{id}`
pub(crate) fn patch_theirs(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let patch: NetworkInterfacePatch = asked.body()?;
    asked.must_be_named("iface_id", &patch.iface_id)?;
    let change = NetChange {
        rx: patch.rx_rate_limiter.unwrap_or_default().into(),
        tx: patch.tx_rate_limiter.unwrap_or_default().into(),
    };
    Ok(changed(asked, change))
}

/// `PATCH /coracle/v1/network-interfaces/{id}`
pub(crate) fn patch_ours(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let change: NetChange = asked.body()?;
    change.rx.check("rx.")?;
    change.tx.check("tx.")?;
    Ok(changed(asked, change))
}

fn changed(asked: &Asked<'_>, change: NetChange) -> Call {
    let id = asked.id.to_owned();
    Call::ChangeNet { id, change }
}
