//! Requests for network interfaces.

use super::{Asked, Call, Part};
use crate::error::ApiError;
use crate::firecracker::NetworkInterface;

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
