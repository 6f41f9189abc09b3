//! What is started.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::{KernelFormat, KernelProtocol, KernelSpec, MachineSpec};

/// What [`BootSource::of`] calls the kernel of the built-in guest.
const BUILT_IN: &str = "built-in";

/// `PUT /boot-source`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// The kernel, or `built-in`.
    #[cfg_attr(test, schema(value_type = String))]
    pub kernel_image_path: PathBuf,
    /// The initial RAM disk.
    #[cfg_attr(test, schema(value_type = Option<String>))]
    pub initrd_path: Option<PathBuf>,
    /// The command line; without it the monitor chooses.
    pub boot_args: Option<String>,
}

impl BootSource {
    /// The kernel as a machine is given it.
    #[must_use]
    pub fn kernel(&self) -> KernelSpec {
        KernelSpec {
            path: self.kernel_image_path.clone(),
            format: KernelFormat::Auto,
            protocol: KernelProtocol::Auto,
        }
    }

    /// What a machine starts.
    #[must_use]
    pub fn of(spec: &MachineSpec) -> Self {
        let kernel = spec.kernel.as_ref();
        let chosen = spec.cmdline.is_empty() && spec.default_cmdline;
        Self {
            kernel_image_path: kernel.map_or_else(|| BUILT_IN.into(), |one| one.path.clone()),
            initrd_path: spec.initrd.clone(),
            boot_args: (!chosen).then(|| spec.cmdline.clone()),
        }
    }
}
