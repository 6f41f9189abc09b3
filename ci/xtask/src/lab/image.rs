//! What the lab boots from: PID 1, modules, the coracle program, guest kernels, initrds, a disk and
//! the script.

use super::cpio::Archive;
use super::debian;
use super::packages::KernelPackage;
use crate::repo;
use anyhow::{Context, Result};
use lab::script::{self, Case};
use std::path::{Path, PathBuf};

/// Stock KVM.
const LAB_MODULES: &[&str] = &["kvm-amd"];
/// What a Debian guest needs to see its disk and its power button.
const GUEST_MODULES: &[&str] = &["virtio_mmio", "virtio_pci", "virtio_blk", "button", "evdev"];
/// What a guest loads only where its case says so.
const MISC_MODULES: &[&str] = &[
    "virtio_balloon",
    "virtio_console",
    "pvpanic_mmio",
    "ib700wdt",
];
/// A disk of 1 MiB that begins with this.
const DISK_MARK: &[u8] = b"coracle-lab-disk";
const DISK_SIZE: usize = 1 << 20;

/// Writes the archive.
pub(super) fn write(
    path: &Path,
    cases: &[Case],
    cloud: &KernelPackage,
    generic: &KernelPackage,
) -> Result<()> {
    let init = binary("lab-init")?;
    let guest = binary("lab-guest")?;
    let mut archive = Archive::new();
    archive.file("init", &init, true);
    let vsock = binary("lab-vsock")?;
    archive.file("bin/lab-vsock", &vsock, true);
    archive.file("initrds/vsock", &initrd(&vsock, None)?, false);
    modules(&mut archive, cloud, LAB_MODULES)?;
    let coracle = std::env::var_os("CORACLE_BIN").map(PathBuf::from);
    let coracle = coracle.unwrap_or_else(|| repo::release_binary("coracle"));
    archive.file("bin/coracle", &read(&coracle)?, true);
    archive.file(
        script::PATH.trim_start_matches('/'),
        script::write(cases).as_bytes(),
        false,
    );
    for (name, package) in [("cloud", cloud), ("generic", generic)] {
        if cases.iter().any(|case| case.name.starts_with(name)) {
            archive.file(&format!("kernels/{name}"), &read(&package.kernel)?, false);
            archive.file(
                &format!("initrds/{name}"),
                &initrd(&guest, Some(package))?,
                false,
            );
        }
    }
    if cases.iter().any(|case| case.name.starts_with("debian")) {
        let debian = debian::made(&generic.folder)?;
        archive.file("kernels/debian", &read(&generic.kernel)?, false);
        archive.file("initrds/debian", &read(&debian.initrd)?, false);
        archive.file("disks/debian", &read(&debian.root)?, false);
    }
    let misc = binary("lab-misc")?;
    archive.file("bin/lab-misc", &misc, true);
    archive.file("initrds/misc", &misc_initrd(&misc, generic)?, false);
    archive.file("kernels/lean", &read(&lean_kernel()?)?, false);
    archive.file("initrds/lean", &initrd(&guest, None)?, false);
    let mut disk = DISK_MARK.to_vec();
    disk.resize(DISK_SIZE, 0);
    archive.file("disks/disk", &disk, false);
    // One that cases may change.
    archive.file("disks/hot", &disk, false);
    std::fs::write(path, archive.finish()).with_context(|| path.display().to_string())
}

/// The initrd of a guest in the lab.
fn initrd(guest: &[u8], package: Option<&KernelPackage>) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.file("init", guest, true);
    if let Some(package) = package {
        modules(&mut archive, package, GUEST_MODULES)?;
    }
    Ok(archive.finish())
}

/// The initrd of a guest that loads further modules by name: each has a list of what it needs.
fn misc_initrd(guest: &[u8], package: &KernelPackage) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.file("init", guest, true);
    modules(&mut archive, package, GUEST_MODULES)?;
    let mut there = package.modules(GUEST_MODULES)?;
    for name in MISC_MODULES {
        let mut list = String::new();
        for module in package.modules(&[name])? {
            list.push_str(&format!("{}.ko\n", module.name));
            if !there.iter().any(|other| other.name == module.name) {
                let path = format!("modules/{}.ko", module.name);
                archive.file(&path, &module.bytes, false);
                there.push(module);
            }
        }
        archive.file(&format!("modules/{name}.list"), list.as_bytes(), false);
    }
    Ok(archive.finish())
}

/// Adds those modules that the package has, and the list of them.
fn modules(archive: &mut Archive, package: &KernelPackage, names: &[&str]) -> Result<()> {
    let mut list = String::new();
    for module in package.modules(names)? {
        archive.file(&format!("modules/{}.ko", module.name), &module.bytes, false);
        list.push_str(&format!("{}.ko\n", module.name));
    }
    archive.file("modules/list", list.as_bytes(), false);
    Ok(())
}

/// The lean kernel as a file: the embedded one, or `$CORACLE_LEAN_KERNEL` for trying another.
fn lean_kernel() -> Result<PathBuf> {
    let given = std::env::var_os("CORACLE_LEAN_KERNEL").map(PathBuf::from);
    let embedded = || Some(repo::embedded_guest()?.join("guest-kernel"));
    given
        .or_else(embedded)
        .context("no lean kernel: build coracle with --release first")
}

fn binary(name: &str) -> Result<Vec<u8>> {
    read(&repo::release_binary(name))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}
