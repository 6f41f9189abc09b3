//! Further ports of a console.

use api::spec::{ConsolePortSpec, PortBackend};
use devices::virtio::console::MOST_PORTS;

use super::{ConfigError, Problem, check_path, excerpt};

/// Longest path of a unix socket: Linux has 108 bytes for it, one of which ends it.
const MOST_SOCKET_BYTES: usize = 107;

/// Judges the ports of a machine.
pub(super) fn read_all(specs: &[ConsolePortSpec]) -> Result<Vec<ConsolePortSpec>, ConfigError> {
    if specs.len() > MOST_PORTS {
        let most = u64::try_from(MOST_PORTS).unwrap_or(u64::MAX);
        let of = "a machine";
        return Err(ConfigError::new(
            "console ports",
            &specs.len(),
            Problem::TooMany { most, of },
        ));
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    for (number, spec) in specs.iter().enumerate() {
        let name = &spec.name;
        if !(1..=64).contains(&name.len()) || !name.bytes().all(good) {
            let problem = Problem::BadPortName;
            return Err(ConfigError::new(
                "console port name",
                &excerpt(name),
                problem,
            ));
        }
        let before = specs.get(..number).unwrap_or_default();
        if before.iter().any(|other| other.name == *name) {
            return Err(ConfigError::new("console port name", name, Problem::Twice));
        }
        match &spec.backend {
            PortBackend::Socket(path) => {
                check_path("console port socket", path)?;
                if path.as_os_str().len() > MOST_SOCKET_BYTES {
                    let most = "107 bytes";
                    return Err(ConfigError::new(
                        "console port socket",
                        &path.display(),
                        Problem::TooLong { most },
                    ));
                }
            }
            PortBackend::File(path) => check_path("console port file", path)?,
            PortBackend::Pty => {}
        }
    }
    Ok(specs.to_vec())
}
