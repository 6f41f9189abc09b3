//! `cargo xtask lab`: one boot of a stock Debian kernel with stock KVM under an emulator, and in it
//! every case of the table, each a run of `coracle boot`. The truth about stock KVM on a machine
//! that has none: it says what is correct, not how fast.

mod cases;
mod cpio;
mod emulator;
mod image;
mod packages;

use crate::repo;
use crate::steps::{Counts, cargo};
use anyhow::{Context, Result, bail};
use lab::report::Line;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Everything that one lab boot may take.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What became of one case.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    passed: bool,
    ready_seconds: f64,
    seconds: f64,
    problem: String,
}

/// Why the lab cannot run on this host; none when it can.
pub(crate) fn missing() -> Option<String> {
    if repo::find_program("qemu-system-x86_64").is_none() {
        return Some("qemu-system-x86_64 is missing: apt-get install qemu-system-x86".to_owned());
    }
    for package in [packages::CLOUD, packages::GENERIC] {
        if let Err(error) = packages::unpacked(package) {
            return Some(format!("{error:#}"));
        }
    }
    None
}

/// Builds what the lab needs and runs the cases whose name contains `filter`. True when all pass.
pub(crate) fn run(filter: &str) -> Result<bool> {
    if let Some(why) = missing() {
        bail!("{why}");
    }
    let mut build = cargo(&["build", "--release", "--package", "lab"]);
    if std::env::var_os("CORACLE_BIN").is_none() {
        build.args(["--package", "coracle"]);
    }
    if !build.status().context("building for the lab")?.success() {
        bail!("building for the lab fails");
    }
    Ok(counted(filter)?.failed == 0)
}

/// Runs the cases with programs that are already built, prints the table and counts.
pub(crate) fn counted(filter: &str) -> Result<Counts> {
    let folder = repo::target().join("lab");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let cloud = packages::unpacked(packages::CLOUD)?;
    let generic = packages::unpacked(packages::GENERIC)?;
    let cases = cases::all(filter);
    if cases.is_empty() {
        bail!("no case of the lab contains {filter:?}");
    }
    let archive = folder.join("lab.cpio");
    image::write(&archive, &cases, &cloud, &generic)?;
    let started = Instant::now();
    let mut outcomes = Vec::new();
    let log = folder.join("console.log");
    let problem = emulator::boot(&cloud.kernel, &archive, &log, LIMIT, |line| match line {
        Line::Cases(count) => {
            let seconds = started.elapsed().as_secs_f64();
            println!("lab: stock KVM is up after {seconds:.1} s, {count} cases");
        }
        Line::Output(text) => println!("    | {text}"),
        Line::End {
            name,
            ready,
            seconds,
            problem,
        } => {
            let passed = problem.is_empty();
            let word = if passed { "ok" } else { "FAILED" };
            println!(
                "lab: {name:<28} {word:<7} ready {ready:>7.2} s  end {seconds:>7.2} s  {problem}"
            );
            outcomes.push(Outcome {
                name,
                passed,
                ready_seconds: ready,
                seconds,
                problem,
            });
        }
        Line::Begin(_) | Line::Done => {}
    })?;
    finish(&cases, outcomes, problem.as_deref(), started.elapsed())
}

fn finish(
    cases: &[lab::script::Case],
    mut outcomes: Vec<Outcome>,
    problem: Option<&str>,
    time: Duration,
) -> Result<Counts> {
    let folder = repo::target().join("lab");
    let done = outcomes.len();
    for case in cases.iter().skip(done) {
        let problem = problem.unwrap_or("the lab ended before it").to_owned();
        println!("lab: {:<28} FAILED  {problem}", case.name);
        outcomes.push(Outcome {
            name: case.name.clone(),
            passed: false,
            ready_seconds: 0.0,
            seconds: 0.0,
            problem,
        });
    }
    let results = folder.join("results.json");
    let text = serde_json::to_string_pretty(&outcomes).context("results of the lab")?;
    std::fs::write(&results, text).with_context(|| results.display().to_string())?;
    let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
    let failed = outcomes.len() - passed;
    println!(
        "lab: {passed} passed, {failed} failed in {:.0} s",
        time.as_secs_f64()
    );
    compare_boots(&outcomes);
    println!("lab: results in {}", results.display());
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Counts {
        passed: count(passed),
        failed: count(failed),
        skipped: 0,
    })
}

/// Prints how the lean kernel's way to user space, and the embedded guest's to its prompt, compare
/// with the way of Debian's cloud kernel to user space.
fn compare_boots(outcomes: &[Outcome]) {
    let ready = |name: &str| {
        let found = outcomes
            .iter()
            .find(|outcome| outcome.name == name && outcome.passed);
        found.map(|outcome| outcome.ready_seconds)
    };
    let Some(cloud) = ready("cloud-1") else {
        return;
    };
    for (name, what) in [
        ("lean-1", "lean kernel to user space"),
        ("embedded-1", "command to prompt"),
    ] {
        if let Some(seconds) = ready(name) {
            let share = seconds / cloud;
            println!(
                "lab: {what} {seconds:.2} s, {share:.2} of Debian's cloud kernel, {cloud:.2} s"
            );
        }
    }
}
