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
    /// The unpacked package.
    pub(super) folder: PathBuf,
    /// The kernel image, a bzImage.
    pub(super) kernel: PathBuf,
    modules: PathBuf,
}

impl KernelPackage {
    /// The modules of those names that the package has, each after the modules it depends on.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let files = repo::files(&self.modules, &[".ko"])?;
        let mut loaded = Vec::new();
        for name in names {
            load(&files, name, &mut loaded)?;
        }
        Ok(loaded)
    }
}

/// A kernel module.
#[derive(Debug)]
pub(super) struct Module {
    /// Its name without `.ko`, with hyphens as underscores.
    pub(super) name: String,
    /// The file.
    pub(super) bytes: Vec<u8>,
}

/// Adds a module behind its dependencies, once. A name that the package hasn't is left out: it is
/// built in, or this flavour does without.
fn load(files: &[PathBuf], name: &str, loaded: &mut Vec<Module>) -> Result<()> {
    let name = name.replace('-', "_");
    let has_name = |path: &&PathBuf| {
        path.file_stem()
            .is_some_and(|stem| stem.to_string_lossy().replace('-', "_") == name)
    };
    let Some(path) = files.iter().find(has_name) else {
        return Ok(());
    };
    if loaded.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    for dependency in dependencies(&bytes) {
        load(files, &dependency, loaded)?;
    }
    loaded.push(Module { name, bytes });
    Ok(())
}

/// What a module says it depends on: the line `depends=` of its information.
fn dependencies(module: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"\0depends=";
    let start = module.windows(MARK.len()).position(|window| window == MARK);
    let rest = start
        .and_then(|start| module.get(start + MARK.len()..))
        .unwrap_or_default();
    let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text).into_owned();
    text.split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The checker of ext4, which runs without a system around it.
pub(super) fn e2fsck() -> Result<PathBuf> {
    program("e2fsck-static", "sbin/e2fsck.static")
}

/// The small tools of many programs, which run without a system around them too.
pub(super) fn busybox() -> Result<PathBuf> {
    program("busybox-static", "bin/busybox")
}

/// A program of a package.
fn program(package: &str, path: &str) -> Result<PathBuf> {
    let folder = repo::target().join("debs").join(package);
    let program = folder.join(path);
    if !program.is_file() {
        unpack(package, package, &folder).with_context(|| format!("getting Debian's {package}"))?;
    }
    Ok(program)
}

/// The package's files; downloads and unpacks it the first time.
pub(super) fn unpacked(package: &str) -> Result<KernelPackage> {
    let folder = repo::target().join("debs").join(package);
    if !folder.join("boot").is_dir() {
        newest(package)
            .and_then(|image| unpack(package, &image, &folder))
            .with_context(|| format!("getting Debian's {package}"))?;
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
        folder,
    })
}

/// Downloads `image`, which `package` stands for, and unpacks it.
fn unpack(package: &str, image: &str, folder: &Path) -> Result<()> {
    if repo::find_program("apt-get").is_none() {
        bail!("this needs apt-get and dpkg-deb: the lab runs on Debian and Ubuntu");
    }
    let downloads = repo::target().join("debs/downloads").join(package);
    std::fs::create_dir_all(&downloads).with_context(|| downloads.display().to_string())?;
    // _apt may not write to a home directory: apt then downloads as the caller and says so.
    let download = ["download", "-q", "-o", "APT::Sandbox::User=root", image];
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

pub(super) fn run(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_file() {
        assert_eq!(dependencies(b"x\0depends=a,b-c\0y"), ["a", "b-c"]);
        assert!(dependencies(b"x\0depends=\0y").is_empty());
        assert!(dependencies(b"x").is_empty());
    }
}
