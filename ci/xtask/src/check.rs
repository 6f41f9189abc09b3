//! The two everyday tasks: `check` before a commit, `test` for everything.

use crate::steps::{Report, cargo};
use crate::{deps, tidy};
use anyhow::Result;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Formatting, lints and rules; no test runs.
pub(crate) fn check() -> Result<bool> {
    let mut report = Report::default();
    checks(&mut report)?;
    Ok(report.finish())
}

/// Everything that this host can test.
pub(crate) fn test() -> Result<bool> {
    let mut report = Report::default();
    checks(&mut report)?;
    report.run(
        "unit tests",
        15 * MINUTE,
        &mut cargo(&["test", "--workspace", "--no-fail-fast"]),
    )?;
    Ok(report.finish())
}

fn checks(report: &mut Report) -> Result<()> {
    report.run(
        "format",
        2 * MINUTE,
        &mut cargo(&["fmt", "--all", "--check"]),
    )?;
    report.check("tidy", tidy::run);
    report.check("dependency edges", deps::run);
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    report.run("clippy", 15 * MINUTE, &mut cargo(&clippy))
}
