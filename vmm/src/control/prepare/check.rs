//! What is judged of a part as soon as it is described: its values, whatever the other parts will
//! be, and its files. All is judged together once more when the machine is built.

use api::error::{ApiError, Code};
use api::spec::{KernelFormat, KernelProtocol, KernelSpec, MachineSpec};

use crate::config::{Config, ConfigError};
use crate::files::{self, FileError};

/// The whole machine, if nothing can be added any more.
pub(super) fn all(spec: &MachineSpec) -> Result<(), ApiError> {
    read(spec).map(drop)
}

/// CPUs, memory, and what is measured by it.
pub(super) fn size(spec: &MachineSpec) -> Result<(), ApiError> {
    let part = MachineSpec {
        cpus: spec.cpus,
        memory: spec.memory.clone(),
        hugepages: spec.hugepages,
        balloon: spec.balloon.clone(),
        ..any_kernel()
    };
    read(&part).map(drop)
}

/// Kernel, initial RAM disk and command line.
pub(super) fn boot_source(spec: &MachineSpec) -> Result<(), ApiError> {
    let part = MachineSpec {
        kernel: spec.kernel.clone(),
        initrd: spec.initrd.clone(),
        cmdline: spec.cmdline.clone(),
        ..MachineSpec::default()
    };
    let config = read(&part)?;
    if let Some(kernel) = &config.kernel {
        files::open_input("kernel", &kernel.path).map_err(bad_file("kernel_image_path"))?;
    }
    if let Some(initrd) = &config.initrd {
        files::open_input("initrd", initrd).map_err(bad_file("initrd_path"))?;
    }
    Ok(())
}

/// All disks, and the image of the one at `place`.
pub(super) fn disk(spec: &MachineSpec, place: usize) -> Result<(), ApiError> {
    let part = MachineSpec {
        disks: spec.disks.clone(),
        ..any_kernel()
    };
    let config = read(&part)?;
    match config.disks.get(place) {
        Some(disk) => files::open_disk(disk)
            .map(drop)
            .map_err(bad_file("path_on_host")),
        None => Ok(()),
    }
}

/// The metadata service, and the networks that it is on.
pub(super) fn mmds(spec: &MachineSpec) -> Result<(), ApiError> {
    let part = MachineSpec {
        nets: spec.nets.clone(),
        mmds: spec.mmds.clone(),
        ..any_kernel()
    };
    read(&part).map(drop)
}

/// All network interfaces.
pub(super) fn nets(spec: &MachineSpec) -> Result<(), ApiError> {
    let part = MachineSpec {
        nets: spec.nets.clone(),
        ..any_kernel()
    };
    read(&part).map(drop)
}

/// The devices of which there is one at most, and the console.
pub(super) fn devices(spec: &MachineSpec) -> Result<(), ApiError> {
    let part = MachineSpec {
        vsock: spec.vsock.clone(),
        rng: spec.rng,
        rng_bandwidth: spec.rng_bandwidth.clone(),
        rng_iops: spec.rng_iops.clone(),
        console: spec.console.clone(),
        ..any_kernel()
    };
    read(&part).map(drop)
}

/// A machine with a kernel of its own, which one will be said later.
fn any_kernel() -> MachineSpec {
    MachineSpec {
        kernel: Some(KernelSpec {
            path: "kernel".into(),
            format: KernelFormat::Auto,
            protocol: KernelProtocol::Auto,
        }),
        ..MachineSpec::default()
    }
}

fn read(spec: &MachineSpec) -> Result<Config, ApiError> {
    Config::try_from(spec).map_err(|error: ConfigError| {
        ApiError::new(Code::InvalidValue, error.to_string(), error.remedy())
            .of_field(error.field.replace(' ', "_"))
    })
}

fn bad_file(field: &'static str) -> impl Fn(FileError) -> ApiError {
    move |error| ApiError::new(Code::BadFile, error.to_string(), error.remedy()).of_field(field)
}
