//! What the lab boots from: PID 1, modules, the coracle program, guest kernels, initrds, a disk and
//! the script.

use super::cpio::Archive;
use super::debian;
use super::packages::{self, KernelPackage, run};
use crate::repo;
use anyhow::{Context, Result};
use lab::script::{self, Case};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Stock KVM, and taps.
const LAB_MODULES: &[&str] = &["kvm-amd", "tun"];
/// What a Debian guest needs to see its disk and its power button.
const GUEST_MODULES: &[&str] = &["virtio_mmio", "virtio_pci", "virtio_blk", "button", "evdev"];
/// The same for a guest whose sockets are tried.
const VSOCK_MODULES: &[&str] = &["virtio_pci", "vmw_vsock_virtio_transport"];
/// The same for one with a network.
const NET_MODULES: &[&str] = &["virtio_pci", "virtio_net"];
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
/// An empty ext4, with a small journal, nothing that is made later, and blocks as large as the
/// clusters of a copy-on-write drive: so each new block is new to its map.
const EXT4_SIZE: u64 = 32 << 20;
const EXT4: [&str; 10] = [
    "-q",
    "-F",
    "-m",
    "0",
    "-J",
    "size=4",
    "-b",
    "4096",
    "-E",
    "lazy_itable_init=0,nodiscard",
];

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
    sockets(&mut archive, cloud)?;
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
                &initrd(&guest, Some((package, GUEST_MODULES)))?,
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
    disks(&mut archive, cases, path.parent().unwrap_or(path))?;
    let misc = binary("lab-misc")?;
    archive.file("bin/lab-misc", &misc, true);
    archive.file("initrds/misc", &misc_initrd(&misc, generic)?, false);
    archive.file("initrds/lean-misc", &initrd(&misc, None)?, false);
    archive.file("kernels/lean", &read(&lean_kernel()?)?, false);
    archive.file("initrds/lean", &initrd(&guest, None)?, false);
    let mut disk = DISK_MARK.to_vec();
    disk.resize(DISK_SIZE, 0);
    archive.file("disks/disk", &disk, false);
    // One that cases may change.
    archive.file("disks/hot", &disk, false);
    std::fs::write(path, archive.finish()).with_context(|| path.display().to_string())
}

/// Adds the programs whose two ends talk by the socket device or by a network, and their guests.
fn sockets(archive: &mut Archive, cloud: &KernelPackage) -> Result<()> {
    let busybox = read(&packages::busybox()?)?;
    archive.file("bin/busybox", &busybox, true);
    for (area, names) in [("vsock", VSOCK_MODULES), ("net", NET_MODULES)] {
        let program = binary(&format!("lab-{area}"))?;
        archive.file(&format!("bin/lab-{area}"), &program, true);
        for (kernel, needs) in [("", None), ("cloud-", Some((cloud, names)))] {
            let mut guest = Archive::new();
            guest.file("bin/busybox", &busybox, true);
            let guest = with_init(guest, &program, needs)?;
            archive.file(&format!("initrds/{kernel}{area}"), &guest, false);
        }
    }
    Ok(())
}

/// Adds what the cases about file systems on drives take, if there are any. `folder` is for what is
/// made on the way.
fn disks(archive: &mut Archive, cases: &[Case], folder: &Path) -> Result<()> {
    let durability = |case: &Case| case.name.starts_with("durability");
    let wanted = |case: &Case| case.name.starts_with("disk") || durability(case);
    if !cases.iter().any(wanted) {
        return Ok(());
    }
    let disk = binary("lab-disk")?;
    archive.file("bin/lab-disk", &disk, true);
    archive.file("initrds/disk", &initrd(&disk, None)?, false);
    let raw = folder.join("ext4");
    File::create(&raw)
        .and_then(|file| file.set_len(EXT4_SIZE))
        .with_context(|| raw.display().to_string())?;
    run(Command::new("mkfs.ext4").args(EXT4).arg(&raw))?;
    archive.file("disks/ext4", &read(&raw)?, false);
    let qcow2 = folder.join("ext4.qcow2");
    let convert = ["convert", "-f", "raw", "-O", "qcow2"];
    run(Command::new("qemu-img").args(convert).args([&raw, &qcow2]))?;
    archive.file("disks/ext4.qcow2", &read(&qcow2)?, false);
    if cases.iter().any(durability) {
        archive.file("bin/e2fsck", &read(&packages::e2fsck()?)?, true);
    }
    Ok(())
}

/// The initrd of a guest in the lab.
fn initrd(guest: &[u8], needs: Option<(&KernelPackage, &[&str])>) -> Result<Vec<u8>> {
    with_init(Archive::new(), guest, needs)
}

/// The same with something in it already.
fn with_init(
    mut archive: Archive,
    guest: &[u8],
    needs: Option<(&KernelPackage, &[&str])>,
) -> Result<Vec<u8>> {
    archive.file("init", guest, true);
    if let Some((package, names)) = needs {
        modules(&mut archive, package, names)?;
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
