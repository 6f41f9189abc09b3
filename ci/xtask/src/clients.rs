//! `cargo xtask api-clients`: programs of others against the API. Two published clients of
//! Firecracker, and schemathesis, which makes requests of the OpenAPI documents and judges the
//! answers by them. Slow, and it installs packages: no part of `cargo xtask test`.

mod bridge;

use crate::repo;
use crate::steps::{Report, cargo};
use anyhow::{Context, Result, ensure};
use bridge::{Bridge, Machine};
use harness::guests;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Checks of schemathesis that say something here: the machine's state decides about good data, so
/// that they need not be accepted; Firecracker's paths answer 400 to an unknown method.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,negative_data_rejection";

/// Runs them all; `cases` is how many requests schemathesis makes of each operation.
pub(crate) fn run(cases: u32) -> Result<bool> {
    let coracle = crate::bench::program()?;
    let folder = tempfile::tempdir()?;
    let firecracker = folder.path().join("firecracker");
    std::os::unix::fs::symlink(std::path::absolute(&coracle)?, &firecracker)?;
    let guest = folder.path().join("guest");
    std::fs::write(&guest, guests::halt()).context("writing the guest")?;
    let mut report = Report::default();
    let manifest = repo::root().join("tests/api/fctools/Cargo.toml");
    let target = repo::target().join("api-clients/fctools");
    report.run(
        "fctools",
        15 * MINUTE,
        cargo(&["run", "--quiet", "--locked", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(target)
            .arg("--")
            .args([&firecracker, &guest]),
    )?;
    let Some(python) = repo::find_program("python3") else {
        report.skip("python", "python3 is missing");
        return Ok(report.finish());
    };
    let environment = environment(&python)?;
    let client = repo::root().join("tests/api/clients/firecracker_client.py");
    report.run(
        "firecracker-python",
        5 * MINUTE,
        Command::new(environment.join("bin/python"))
            .arg(client)
            .args([&firecracker, &guest]),
    )?;
    for name in ["firecracker", "coracle"] {
        for machine in [Machine::Waiting, Machine::Running] {
            schemathesis(&mut report, &environment, name, machine, &coracle, cases)?;
        }
    }
    Ok(report.finish())
}

fn schemathesis(
    report: &mut Report,
    environment: &Path,
    name: &str,
    machine: Machine,
    coracle: &Path,
    cases: u32,
) -> Result<()> {
    let bridge = Bridge::start(coracle, machine)?;
    let document = repo::root().join(format!("resources/openapi/{name}.json"));
    let title = format!("schemathesis {name} {machine}");
    report.run(
        &title,
        60 * MINUTE,
        Command::new(environment.join("bin/schemathesis"))
            .current_dir(bridge.folder())
            .arg("run")
            .arg(document)
            .args(["--url", &bridge.url(), "--checks", CHECKS])
            .args(["--phases", "examples,coverage,fuzzing"])
            .args(["--max-examples", &cases.to_string()])
            // What ends the machine under test, and what does not end by itself.
            .args(["--exclude-path-regex", "^/coracle/v1/(actions|events)$"])
            .args(["--suppress-health-check", "all", "--continue-on-failure"])
            .args(["--warnings", "off", "--no-color"]),
    )
}

/// The environment of Python packages, made when it is missing or for other packages.
fn environment(python: &Path) -> Result<PathBuf> {
    let wanted = repo::root().join("tests/api/clients/requirements.txt");
    let text = std::fs::read_to_string(&wanted).context("requirements.txt")?;
    let folder = repo::target().join("api-clients/python");
    let note = folder.join("installed.txt");
    if std::fs::read_to_string(&note).is_ok_and(|installed| installed == text) {
        return Ok(folder);
    }
    let made = Command::new(python)
        .args(["-m", "venv", "--clear"])
        .arg(&folder)
        .status()
        .context("running python3 -m venv")?;
    ensure!(
        made.success(),
        "python3 -m venv fails; Debian's package is python3-venv"
    );
    let installed = Command::new(folder.join("bin/pip"))
        .args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ])
        .arg(&wanted)
        .status()
        .context("running pip")?;
    ensure!(installed.success(), "pip cannot install the packages");
    std::fs::write(&note, text).context("writing installed.txt")?;
    Ok(folder)
}
