//! Builds the bare test guests (guest/bare) with the compiler that builds this crate: programs
//! without a standard library, linked by a script of its own, that are no package of the workspace.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest folder")?);
    let root = manifest.ancestors().nth(2).ok_or("no repository around")?;
    let guest = root.join("guest/bare");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", guest.display());
    println!("cargo::rerun-if-changed=build.rs");
    let script = format!(
        "link-arg=-Wl,--build-id=none,-T,{}",
        guest.join("link.ld").display()
    );
    let flags = [
        "panic=abort",
        "opt-level=3",
        "relocation-model=static",
        "strip=symbols",
        "link-args=-nostdlib -nostartfiles -static -no-pie",
        &script,
    ];
    for (root, image) in [("main", "bare"), ("net", "bare-net")] {
        let built = Command::new(env::var_os("RUSTC").ok_or("no RUSTC")?)
            .args(["--edition=2024", "--crate-type=bin", "--crate-name=bare"])
            .arg("--target=x86_64-unknown-linux-gnu")
            .args(flags.map(|flag| format!("-C{flag}")))
            .arg("-o")
            .arg(out.join(image).with_extension("elf"))
            .arg(guest.join("src").join(root).with_extension("rs"))
            .status()?;
        if !built.success() {
            return Err(format!("building guest/bare/src/{root}.rs fails, see above").into());
        }
    }
    Ok(())
}
