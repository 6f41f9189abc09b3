//! The metadata service: on which networks it is, and where there.

use std::net::Ipv4Addr;

use api::spec::{MachineSpec, MmdsVersion};
use mmds::{DEFAULT_ADDRESS, Settings, Version};

use super::{ConfigError, NetConfig, Problem, excerpt};

const INTERFACES: &str = "network interfaces";

/// The metadata service of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmdsConfig {
    /// Where it is.
    pub address: Ipv4Addr,
    /// What it asks and how it answers.
    pub settings: Settings,
}

/// Notes for each network whether the service is there.
pub(super) fn read(spec: &MachineSpec, nets: &mut [NetConfig]) -> Result<(), ConfigError> {
    let Some(mmds) = &spec.mmds else {
        return Ok(());
    };
    let address = mmds.ipv4_address.unwrap_or(DEFAULT_ADDRESS);
    // RFC 3927, 2.1: the first and the last 256 are not given.
    let [_, _, third, _] = address.octets();
    if !address.is_link_local() || third == 0 || third == 255 {
        let problem = Problem::NotLinkLocal;
        return Err(ConfigError::new("ipv4 address", &address, problem));
    }
    if mmds.network_interfaces.is_empty() {
        return Err(ConfigError::new(INTERFACES, &"[]", Problem::NoInterface));
    }
    let config = MmdsConfig {
        address,
        settings: Settings {
            version: match mmds.version {
                MmdsVersion::V1 => Version::V1,
                MmdsVersion::V2 => Version::V2,
            },
            imds_compat: mmds.imds_compat,
        },
    };
    for name in &mmds.network_interfaces {
        let place = (0..nets.len()).find(|place| spec.net_name(*place) == *name);
        let net = place.and_then(|place| nets.get_mut(place));
        let missing = || ConfigError::new(INTERFACES, &excerpt(name), Problem::UnknownInterface);
        net.ok_or_else(missing)?.mmds = Some(config);
    }
    Ok(())
}
