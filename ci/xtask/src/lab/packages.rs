//! Debian's kernel packages, downloaded and unpacked below the target directory, never installed.

use crate::repo;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The package that depends on the newest cloud kernel.
pub(super) const CLOUD: &str = "linux-image-cloud-amd64";
/// The package that depends on the newest generic kernel.
pub(super) const GENERIC: &str = "linux-image-amd64";

/// A kernel package as it lies on the disk.
#[derive(Debug)]
pub(super) struct KernelPackage {
    /// The kernel image, a bzImage.
    pub(super) kernel: PathBuf,
    modules: PathBuf,
}

impl KernelPackage {
    /// The bytes of a module, by its name without `.ko`; none when the package has no such module.
    pub(super) fn module(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = format!("{name}.ko");
        for path in repo::files(&self.modules, &[&file])? {
            if path.file_name().is_some_and(|found| found == file.as_str()) {
                let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// The package's files; downloads and unpacks it the first time.
pub(super) fn unpacked(package: &str) -> Result<KernelPackage> {
    let folder = repo::target().join("debs").join(package);
    if !folder.join("boot").is_dir() {
        unpack(package, &folder).with_context(|| format!("getting Debian's {package}"))?;
    }
    let kernels = repo::files(&folder.join("boot"), &["-amd64"])?;
    let is_kernel = |path: &&PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    };
    let kernel = kernels
        .iter()
        .find(is_kernel)
        .context("no kernel in the package")?
        .clone();
    Ok(KernelPackage {
        kernel,
        modules: folder.join("lib/modules"),
    })
}

fn unpack(package: &str, folder: &Path) -> Result<()> {
    if repo::find_program("apt-get").is_none() {
        bail!("this needs apt-get and dpkg-deb: the lab runs on Debian and Ubuntu");
    }
    let image = newest(package)?;
    let downloads = repo::target().join("debs/downloads").join(package);
    std::fs::create_dir_all(&downloads).with_context(|| downloads.display().to_string())?;
    // _apt may not write to a home directory: apt then downloads as the caller and says so.
    let download = ["download", "-q", "-o", "APT::Sandbox::User=root", &image];
    run(Command::new("apt-get")
        .args(download)
        .current_dir(&downloads))?;
    let archives = repo::files(&downloads, &[".deb"])?;
    let archive = archives.last().context("apt-get downloaded nothing")?;
    // Unpacked beside its place and renamed: an interrupted run leaves no half of it.
    let fresh = folder.with_extension("unpacking");
    // Nothing to remove is the usual case.
    let _ = std::fs::remove_dir_all(&fresh);
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&fresh))?;
    std::fs::rename(&fresh, folder).with_context(|| folder.display().to_string())?;
    std::fs::remove_dir_all(&downloads).with_context(|| downloads.display().to_string())
}

/// The image package that a meta-package depends on.
fn newest(package: &str) -> Result<String> {
    let output = run(Command::new("apt-cache").args(["depends", "--important", package]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    name.map(str::to_owned)
        .context("apt knows no such package: run apt-get update")
}

fn run(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}
