//! Requests for what there is one of at most.

use super::{Asked, Call, Part};
use crate::error::{ApiError, Code};
use crate::firecracker::{CpuConfig, Serial, Vsock};

/// `PUT /vsock`
pub(crate) fn put_vsock(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let vsock: Vsock = asked.body()?;
    Ok(Call::Describe(Part::Vsock(vsock.spec())))
}

/// `PUT /serial`
pub(crate) fn put_serial(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let serial: Serial = asked.body()?;
    Ok(Call::Describe(Part::Console(serial.backend()?)))
}

/// `PUT /logger`
pub(crate) fn put_logger(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Log(asked.body()?))
}

/// `PUT /metrics`
pub(crate) fn put_metrics(asked: &Asked<'_>) -> Result<Call, ApiError> {
    Ok(Call::Count(asked.body()?))
}

/// `PUT /cpu-config`
pub(crate) fn put_cpu_config(asked: &Asked<'_>) -> Result<Call, ApiError> {
    let config: CpuConfig = asked.body()?;
    config.check()?;
    Ok(Call::Describe(Part::Nothing))
}

/// What a machine here does not have.
pub(crate) fn missing(_: &Asked<'_>) -> Result<Call, ApiError> {
    Err(ApiError::new(
        Code::NotSupported,
        "the machine cannot have such a device",
        "docs/api.md tells what is there",
    ))
}
