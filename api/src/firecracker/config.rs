//! All that a machine was made of.

use serde::Serialize;

use super::{Balloon, BootSource, Drive, Entropy, MachineConfig, NetworkInterface, Vsock, Words};
use crate::spec::{MachineSpec, MmdsSpec};

/// `GET /vm/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub struct VmConfig {
    /// The balloon, where there is one.
    pub balloon: Option<Balloon>,
    /// The disks.
    pub drives: Vec<Drive>,
    /// What is started.
    pub boot_source: BootSource,
    /// The size of the machine.
    pub machine_config: MachineConfig,
    /// The metadata service, where there is one.
    pub mmds_config: Option<MmdsSpec>,
    /// The source of random numbers, where there is one.
    pub entropy: Option<Entropy>,
    /// Network interfaces.
    pub network_interfaces: Vec<NetworkInterface>,
    /// The socket device, where there is one.
    pub vsock: Option<Vsock>,
}

impl VmConfig {
    /// What a machine was made of.
    #[must_use]
    pub fn of(spec: &MachineSpec, words: &Words) -> Self {
        let disks = spec.disks.iter().enumerate();
        let nets = spec.nets.iter().enumerate();
        Self {
            balloon: spec.balloon.as_ref().map(Balloon::of),
            drives: disks
                .map(|(index, disk)| Drive::of(spec.disk_name(index), disk, words))
                .collect(),
            boot_source: BootSource::of(spec),
            machine_config: MachineConfig::of(spec, words),
            mmds_config: spec.mmds.clone(),
            entropy: Entropy::of(spec),
            network_interfaces: nets
                .map(|(index, net)| NetworkInterface::of(spec.net_name(index), net))
                .collect(),
            vsock: spec.vsock.as_ref().map(Vsock::of),
        }
    }
}
