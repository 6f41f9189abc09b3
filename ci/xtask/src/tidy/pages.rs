//! Devices and their pages: every device model has a page of its name in docs/devices, or a page
//! there names its source file.

use super::Problem;
use crate::repo;
use anyhow::{Context, Result};
use std::path::Path;

const PAGES: &str = "docs/devices";
/// Where device models are: folders of files and of folders with a `mod.rs`.
const MODELS: [&str; 3] = [
    "devices/src/legacy",
    "devices/src/virtio",
    "devices/src/virtio/transport",
];
/// What of those is no model but serves all of them.
const SHARED: &[&str] = &[
    "chain",
    "config_space",
    "core",
    "features",
    "interrupt",
    "mod",
    "queue",
    "slot",
    "testing",
    "tests",
    "transport",
];

/// Compares the models with the pages.
pub(super) fn check(root: &Path, problems: &mut Vec<Problem>) -> Result<()> {
    let mut pages = Vec::new();
    for path in repo::files(&root.join(PAGES), &[".md"])? {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        pages.push((name, text));
    }
    for name in models(root)? {
        let own = pages.iter().any(|(page, _)| *page == name);
        let shared = pages.iter().any(|(_, text)| describes(text, &name));
        if !own && !shared {
            let message = format!("{name} has no page of its own and no page names `{name}.rs`");
            problems.push(Problem {
                file: PAGES.to_owned(),
                line: 1,
                message,
            });
        }
    }
    Ok(())
}

/// True when the page names the model's source in backquotes, as in `legacy/serial.rs`.
fn describes(text: &str, name: &str) -> bool {
    text.contains(&format!("/{name}.rs`"))
}

/// The names of all device models.
fn models(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in MODELS {
        let entries = std::fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())?;
        for entry in entries {
            let path = entry?.path();
            let is_model = path.extension().is_some_and(|extension| extension == "rs")
                || path.join("mod.rs").is_file();
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if is_model && !SHARED.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_a_source() {
        assert!(describes("Models: `legacy/serial.rs`.\n", "serial"));
        assert!(!describes("The `serial` port.\n", "serial"));
    }
}
