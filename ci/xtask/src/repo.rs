//! Where things are: the repository's root and target directory, its source files, the programs
//! on the PATH.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The top folder of the repository.
pub(crate) fn root() -> PathBuf {
    // ci/xtask is two folders below the top; cargo says where it is when it builds this crate.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .ancestors()
        .nth(2)
        .unwrap_or(manifest)
        .to_path_buf()
}

/// Cargo's target directory: `$CARGO_TARGET_DIR` or `target` in the repository.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A release program that `cargo build --release` has made.
pub(crate) fn release_binary(name: &str) -> PathBuf {
    target().join("x86_64-unknown-linux-gnu/release").join(name)
}

/// The folder with the kernel and the image that the newest release build of coracle embeds.
pub(crate) fn embedded_guest() -> Option<PathBuf> {
    let builds = target().join("x86_64-unknown-linux-gnu/release/build");
    let entries = std::fs::read_dir(builds).ok()?;
    let outs = entries.filter_map(|entry| Some(entry.ok()?.path().join("out")));
    let dated = outs.filter_map(|out| {
        let made = std::fs::metadata(out.join("guest-kernel"))
            .ok()?
            .modified()
            .ok()?;
        Some((made, out))
    });
    dated.max().map(|(_, out)| out)
}

/// The first program of that name on the PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Every file below the root whose name ends with one of `endings`, sorted, without build output,
/// fuzz corpora and hidden folders.
pub(crate) fn files(root: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("reading the folder {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !skipped_folder(&name) {
                folders.push(entry.path());
            } else if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn skipped_folder(name: &str) -> bool {
    name.starts_with('.') || matches!(name, "target" | "corpus" | "artifacts" | "coverage")
}
