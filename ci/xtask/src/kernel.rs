//! Builds a guest kernel through the recipe in resources/kernel.

use crate::repo;
use anyhow::{Context, Result};
use std::process::Command;

/// Hands `arguments` to the recipe. False when it fails.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let recipe = repo::root().join("resources/kernel/build.sh");
    let status = Command::new(&recipe)
        .args(arguments)
        .status()
        .with_context(|| format!("running {}", recipe.display()))?;
    Ok(status.success())
}
