//! The two everyday tasks: `check` before a commit, `test` for everything.

use crate::steps::{Counts, Report, cargo};
use crate::{deps, lab, tidy};
use anyhow::Result;
use std::time::{Duration, Instant};

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
    let build = [
        "build",
        "--release",
        "--package",
        "coracle",
        "--package",
        "lab",
    ];
    report.run("release build", 15 * MINUTE, &mut cargo(&build))?;
    let unit = [
        "test",
        "--workspace",
        "--exclude",
        "boot-tests",
        "--exclude",
        "api-tests",
        "--no-fail-fast",
    ];
    report.run("unit tests", 15 * MINUTE, &mut cargo(&unit))?;
    let boot = [
        "test",
        "--package",
        "boot-tests",
        "--package",
        "api-tests",
        "--no-fail-fast",
    ];
    report.run("boot tests", 15 * MINUTE, &mut cargo(&boot))?;
    lab_step(&mut report);
    Ok(report.finish())
}

fn lab_step(report: &mut Report) {
    println!("\n== lab");
    if let Some(why) = lab::missing() {
        return report.skip("lab", &why);
    }
    let started = Instant::now();
    let counts = lab::counted("").unwrap_or_else(|error| {
        println!("xtask: lab: {error:#}");
        Counts {
            failed: 1,
            ..Counts::default()
        }
    });
    report.push("lab", counts, started.elapsed());
}

fn checks(report: &mut Report) -> Result<()> {
    if has_subcommand("fmt") {
        report.run(
            "format",
            2 * MINUTE,
            &mut cargo(&["fmt", "--all", "--check"]),
        )?;
    } else {
        report.skip("format", "cargo fmt is missing (rustfmt)");
    }
    report.check("tidy", tidy::run);
    report.check("dependency edges", deps::run);
    if !has_subcommand("clippy") {
        report.skip("clippy", "cargo clippy is missing");
        return Ok(());
    }
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

/// Debian's cargo comes without its formatter and linter.
fn has_subcommand(name: &str) -> bool {
    let output = cargo(&[name, "--version"]).output();
    output.is_ok_and(|output| output.status.success())
}
