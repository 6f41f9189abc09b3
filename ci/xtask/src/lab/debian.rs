//! A Debian system for a guest in the lab: the initramfs that Debian's own initramfs-tools make for
//! the generic kernel, and a root file system on ext4. Made once, below the target directory, by
//! debootstrap, which has to run as root.

use super::packages::run;
use crate::repo;
use anyhow::{Context, Result, bail};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the initramfs is made with, beside the smallest system.
const PACKAGES: &str = "--include=initramfs-tools,busybox,udev,kmod,e2fsprogs";
const RELEASE: &str = "bookworm";
/// What a guest that only says hello does without.
const LEFT_OUT: [&str; 6] = [
    "lib/modules",
    "boot",
    "usr/share",
    "var/lib/apt",
    "var/cache",
    "usr/lib/udev",
];
/// What the guest runs instead of an init: it looks at its root, writes to it and switches off.
const HELLO: &str = "#!/bin/sh
mount -t proc proc /proc 2>/dev/null
mount -t sysfs sysfs /sys 2>/dev/null
grep ' / ' /proc/mounts
ls -d /sys/bus/pci/devices/*/virtio*/block/vda || ls -d /sys/block/vda
echo written > /hello && sync
echo \"debian: $(uname -r), $(nproc) CPUs, $(cat /hello)\"
exec busybox poweroff -f
";

/// The files that a guest boots from.
#[derive(Debug)]
pub(super) struct Debian {
    /// Debian's initramfs.
    pub(super) initrd: PathBuf,
    /// The root, an ext4 image.
    pub(super) root: PathBuf,
}

/// Makes the files, unless they are there. `package` is the unpacked generic kernel.
pub(super) fn made(package: &Path) -> Result<Debian> {
    let folder = repo::target().join("debs/debian");
    let made = Debian {
        initrd: folder.join("initrd"),
        root: folder.join("root.ext4"),
    };
    if !made.root.is_file() {
        make(package, &folder, &made).context("making a Debian system with debootstrap")?;
    }
    Ok(made)
}

fn make(package: &Path, folder: &Path, made: &Debian) -> Result<()> {
    for program in ["debootstrap", "mkfs.ext4"] {
        if repo::find_program(program).is_none() {
            bail!("{program} is missing: apt-get install debootstrap e2fsprogs");
        }
    }
    let system = folder.join("system");
    // Nothing to remove is the usual case.
    let _ = std::fs::remove_dir_all(&system);
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let bootstrap = ["--variant=minbase", PACKAGES, RELEASE];
    run(Command::new("debootstrap").args(bootstrap).arg(&system))?;
    for part in ["boot", "lib/modules"] {
        let to = system.join(part);
        std::fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
        let from = package.join(part).join(".");
        run(Command::new("cp").arg("-r").arg(from).arg(&to))?;
    }
    let versions = std::fs::read_dir(system.join("lib/modules")).context("lib/modules")?;
    let version = versions.flatten().next().context("no kernel version")?;
    let version = version.file_name();
    let inside = || {
        let mut command = Command::new("chroot");
        command.arg(&system);
        command
    };
    run(inside().arg("depmod").arg(&version))?;
    run(inside()
        .args(["mkinitramfs", "-o", "/initrd"])
        .arg(&version))?;
    let initrd = system.join("initrd");
    std::fs::rename(&initrd, &made.initrd).with_context(|| initrd.display().to_string())?;
    for part in LEFT_OUT {
        let part = system.join(part);
        std::fs::remove_dir_all(&part).with_context(|| part.display().to_string())?;
    }
    let hello = system.join("hello.sh");
    std::fs::write(&hello, HELLO)
        .and_then(|()| std::fs::set_permissions(&hello, Permissions::from_mode(0o755)))
        .with_context(|| hello.display().to_string())?;
    let image = made.root.with_extension("making");
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .arg(&system)
        .arg(&image)
        .arg("256M"))?;
    std::fs::rename(&image, &made.root).with_context(|| made.root.display().to_string())
}
