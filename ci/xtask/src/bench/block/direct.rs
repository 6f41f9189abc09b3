//! Requests that go past the page cache, beside what fio reaches on the same file.

use super::drive::disk_arguments;
use super::{CASES, Case, Figure, SPAN};
use crate::bench::machines::Machines;
use crate::repo::find_program;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const OPTIONS: &str = ",engine=io_uring,direct=on";
const SECONDS: &str = "2";

/// Thousands of requests a second, told only: the device decides them, not the monitor.
pub(super) fn figures(machines: &Machines, file: &Path) -> Result<Vec<Figure>> {
    let disk = match machines.disk("direct", disk_arguments(file, OPTIONS)) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED direct I/O: {why:#}");
            return Ok(Vec::new());
        }
    };
    let mut figures = Vec::new();
    for (case, ours) in [
        (&CASES[1], "direct random read 4 KiB, depth 32"),
        (&CASES[2], "direct sequential read 128 KiB, depth 8"),
    ] {
        let rate = machines.block(&disk, &case.load())?;
        figures.push(Figure::told(ours, "k/s", rate / 1000.0));
        match find_program("fio") {
            Some(_) => {
                let rate = fio(file, case)? / 1000.0;
                figures.push(Figure::told("  the same by fio", "k/s", rate));
            }
            None => println!("SKIPPED {ours} by fio: fio is missing (Debian's package fio)"),
        }
    }
    Ok(figures)
}

/// Requests a second that fio reaches.
fn fio(file: &Path, case: &Case) -> Result<f64> {
    let kind = if case.random { "randread" } else { "read" };
    let mut command = Command::new("fio");
    command
        .args(["--name=beside", "--direct=1", "--ioengine=io_uring"])
        .args(["--output-format=json", "--time_based", "--runtime", SECONDS])
        .args(["--rw", kind])
        .arg(format!("--bs={}", case.block))
        .arg(format!("--iodepth={}", case.depth))
        .arg(format!("--size={SPAN}"))
        .arg("--filename")
        .arg(file);
    let output = command.output().context("running fio")?;
    let refusal = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fio fails: {refusal}");
    let report: Value = serde_json::from_slice(&output.stdout).context("fio's report")?;
    let rate = report["jobs"][0]["read"]["iops"].as_f64();
    rate.context("no iops in fio's report")
}
