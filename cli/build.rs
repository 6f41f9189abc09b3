//! Makes the guest that `coracle boot` starts when it is given no kernel: the committed kernel
//! unpacked, and a system image with coracle-init. Touches OUT_DIR only.
//!
//! From the environment: `CORACLE_GUEST_IMAGE` names a finished system image to embed instead
//! (nothing is built then), `CORACLE_BUSYBOX` a static busybox to put in (empty: none).

#[path = "build/image.rs"]
mod image;

use std::env;
use std::error::Error;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What the guest is linked for: static, as the rest, and at a fixed address, since relocating
/// itself at start would touch pages, each of which is a fault.
const GUEST_FLAGS: &str = "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static";
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest folder")?);
    let root = manifest
        .parent()
        .ok_or("the package has no parent folder")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    for input in [
        "guest",
        "oci/src/rootfs",
        "resources/kernel/vmlinux-lean.zst",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    for input in ["build.rs", "build"] {
        println!("cargo::rerun-if-changed={}", manifest.join(input).display());
    }
    println!("cargo::rerun-if-env-changed=CORACLE_GUEST_IMAGE");
    println!("cargo::rerun-if-env-changed=CORACLE_BUSYBOX");
    if packs_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }

    unpack_kernel(
        &root.join("resources/kernel/vmlinux-lean.zst"),
        &out.join("guest-kernel"),
    )?;
    let image = match env::var_os("CORACLE_GUEST_IMAGE") {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            fs::read(&path).map_err(|error| {
                format!(
                    "CORACLE_GUEST_IMAGE={}: {error}",
                    Path::new(&path).display()
                )
            })?
        }
        None => image::build(&build_init(root, &out)?, busybox()?.as_ref())?,
    };
    replace(&out.join("guest-image"), &image)
}

/// Whether the C library that is linked in relocates a program by the packed list, which glibc does
/// from 2.36 on: the long one is a hundred kilobytes that every machine reads as it starts, and has
/// in its memory then.
fn packs_relocations() -> bool {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let Ok(text) = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()) else {
        return false;
    };
    let version = text.trim().strip_prefix("glibc 2.");
    let minor = version.and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= 36)
}

/// Writes only what changes, so that the embedding crate is not built anew for nothing.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    Ok(fs::write(path, bytes)?)
}

fn unpack_kernel(packed: &Path, unpacked: &Path) -> Result<()> {
    let file = fs::File::open(packed).map_err(|error| format!("{}: {error}", packed.display()))?;
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(file)?;
    let mut kernel = Vec::new();
    decoder.read_to_end(&mut kernel)?;
    replace(unpacked, &kernel)
}

/// Builds coracle-init with its own target folder: this build holds the lock of the usual one.
fn build_init(root: &Path, out: &Path) -> Result<Vec<u8>> {
    let target = out.join("guest-target");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Everything that the guest needs is in the lock and was fetched for this very build; the
    // network is asked only if that should not hold.
    let mut failure = String::new();
    for offline in [true, false] {
        let mut command = Command::new(&cargo);
        command
            .current_dir(root)
            .args(["build", "--quiet", "--locked", "--package", "coracle-init"])
            .args([
                "--profile",
                "guest",
                "--target",
                GUEST_TARGET,
                "--target-dir",
            ])
            .arg(&target)
            .args(offline.then_some("--offline"));
        for (name, _) in env::vars_os() {
            // Flags, wrappers and linkers of the outer build are for the outer build.
            let ours = name.to_str().is_some_and(|name| {
                (name.starts_with("CARGO_") && !KEPT.contains(&name))
                    || name.starts_with("RUSTC")
                    || name == "RUSTFLAGS"
            });
            if ours {
                command.env_remove(name);
            }
        }
        let output = command
            .env("CARGO_ENCODED_RUSTFLAGS", GUEST_FLAGS)
            .output()?;
        if output.status.success() {
            return Ok(fs::read(
                target.join(GUEST_TARGET).join("guest/coracle-init"),
            )?);
        }
        failure = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    Err(format!("building coracle-init failed:\n{failure}").into())
}

/// Where cargo finds registries and what it has fetched.
const KEPT: &[&str] = &["CARGO_HOME", "CARGO_NET_OFFLINE"];

/// The user's static busybox, if there is one. It is never part of the repository.
fn busybox() -> Result<Option<image::Busybox>> {
    let path = match env::var_os("CORACLE_BUSYBOX") {
        Some(path) if path.is_empty() => return Ok(None),
        Some(path) => PathBuf::from(path),
        None => {
            let usual = ["/bin/busybox", "/usr/bin/busybox"];
            match usual
                .into_iter()
                .map(PathBuf::from)
                .find(|path| path.is_file())
            {
                Some(path) => path,
                None => return Ok(None),
            }
        }
    };
    println!("cargo::rerun-if-changed={}", path.display());
    let program =
        fs::read(&path).map_err(|error| format!("busybox {}: {error}", path.display()))?;
    if !image::is_static(&program) {
        println!(
            "cargo::warning={} is not static and is left out of the guest; \
             install busybox-static for a full shell",
            path.display()
        );
        return Ok(None);
    }
    let list = Command::new(&path).arg("--list-full").output()?;
    let applets = String::from_utf8_lossy(&list.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    Ok(Some(image::Busybox { program, applets }))
}
