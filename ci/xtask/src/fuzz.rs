//! Runs a target of tests/fuzz under libFuzzer with AddressSanitizer; needs the nightly toolchain
//! and cargo-fuzz.

use crate::{repo, steps};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::Duration;

/// Runs `target` for `seconds`; `list` prints the targets. False when the fuzzer found something.
pub(crate) fn run(target: &str, seconds: u32) -> Result<bool> {
    if repo::find_program("cargo-fuzz").is_none() {
        bail!("cargo-fuzz is missing: install it with `cargo install cargo-fuzz --locked`");
    }
    let mut command = Command::new("cargo");
    command.current_dir(repo::root()).args(["+nightly", "fuzz"]);
    if target == "list" {
        return Ok(command
            .args(["list", "--fuzz-dir", "tests/fuzz"])
            .status()?
            .success());
    }
    command
        .args(["run", "--fuzz-dir", "tests/fuzz", target, "--"])
        .arg(format!("-max_total_time={seconds}"))
        .args(["-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1"]);
    let mut report = steps::Report::default();
    // The build comes on top of the time that is asked for.
    let limit = Duration::from_secs(u64::from(seconds) + 900);
    report.run(&format!("fuzz {target}"), limit, &mut command)?;
    Ok(report.finish())
}
