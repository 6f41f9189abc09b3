//! How fast a guest starts and how little the monitor needs, by turns with the floor program.

use super::{Figure, conclude, folder, limits, median};
use crate::repo;
use crate::steps::cargo;
use anyhow::{Context, Result, bail, ensure};
use harness::pty::OnTerminal;
use harness::{TestVm, guests};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROMPT: &str = "# ";
const BOOT_LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartupLimits {
    first_byte_ms: f64,
    times_floor: f64,
    resident_kib: f64,
    program_kib: f64,
    prompt_s: f64,
}

#[derive(Debug, Serialize)]
struct Samples {
    floor_ms: Vec<f64>,
    coracle_ms: Vec<f64>,
    prompt_s: Vec<f64>,
}

/// Measures, prints and writes startup.json.
pub(super) fn run(runs: u32, boots: u32) -> Result<bool> {
    let limits = limits()?.startup;
    let coracle = program()?;
    let folder = folder()?;
    let guest = folder.join("hello");
    std::fs::write(&guest, guests::hello_reset()).context("writing the guest")?;
    let (floor_ms, coracle_ms) = first_bytes(&floor(&folder)?, &coracle, &guest, runs)?;
    let prompt_s = prompts(&coracle, boots)?;
    let (floor_middle, middle) = (median(&floor_ms), median(&coracle_ms));
    println!(
        "{:<44} {floor_middle:>10.2} ms",
        "floor: fork to the first byte, median"
    );
    let mut figures = vec![
        Figure::new(
            "fork to the first byte, median",
            "ms",
            middle,
            limits.first_byte_ms,
        ),
        Figure::new(
            "  as a multiple of the floor",
            "",
            middle / floor_middle,
            limits.times_floor,
        ),
        Figure::new(
            "largest resident set",
            "KiB",
            resident()?,
            limits.resident_kib,
        ),
        Figure::new(
            "program without the embedded guest",
            "KiB",
            size()?,
            limits.program_kib,
        ),
    ];
    if !prompt_s.is_empty() {
        let middle = median(&prompt_s);
        figures.push(Figure::new(
            "command to the prompt, cold",
            "s",
            middle,
            limits.prompt_s,
        ));
    }
    let samples = Samples {
        floor_ms,
        coracle_ms,
        prompt_s,
    };
    conclude("startup", &figures, &samples)
}

/// The release program: `$CORACLE_BIN`, or built now.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CORACLE_BIN") {
        return Ok(path.into());
    }
    let built = cargo(&["build", "--release", "--package", "coracle"]).status()?;
    ensure!(built.success(), "building coracle fails");
    Ok(repo::release_binary("coracle"))
}

fn floor(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("floor");
    let built = Command::new("gcc")
        .args(["-O2", "-static", "-o"])
        .arg(&program)
        .arg(repo::root().join("tests/bench/floor.c"))
        .status()
        .context("running gcc")?;
    ensure!(built.success(), "gcc fails on tests/bench/floor.c");
    Ok(program)
}

/// Milliseconds to the first byte, of the floor and of coracle, by turns.
fn first_bytes(
    floor: &Path,
    coracle: &Path,
    guest: &Path,
    runs: u32,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut times = (Vec::new(), Vec::new());
    // The first pair fills the page cache and is not counted.
    for pair in 0..=runs {
        let least = first_byte(Command::new(floor).arg(guest).arg("128"))?;
        let ours = ["boot", "--memory", "128M", "--kernel"];
        let ours = first_byte(Command::new(coracle).args(ours).arg(guest))?;
        if pair > 0 {
            times.0.push(least);
            times.1.push(ours);
        }
    }
    Ok(times)
}

fn first_byte(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().context("a pipe")?;
    let read = output.read_exact(&mut [0]);
    let time = started.elapsed();
    let status = child.wait()?;
    if let Err(error) = read {
        bail!("{command:?} wrote nothing ({error}) and ended with {status}");
    }
    Ok(time.as_secs_f64() * 1000.0)
}

/// KiB of the largest resident set while a guest that touches next to nothing is halted.
#[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
fn resident() -> Result<f64> {
    let vm = TestVm::of(&guests::halt())?.args(&["--memory", "128M"]);
    let mut machine = vm.boot()?;
    machine.expect(guests::HELLO, harness::vm::SHORTLY)?;
    Ok(machine.process.status_kib("VmHWM")? as f64)
}

/// KiB of the release program without the kernel and the image embedded in it.
#[expect(clippy::cast_precision_loss, reason = "KiB of one program")]
fn size() -> Result<f64> {
    let length = |path: &Path| {
        let found = std::fs::metadata(path).with_context(|| path.display().to_string());
        found.map(|found| found.len())
    };
    let whole = length(&harness::coracle().or_else(|_| program())?)?;
    let embedded = repo::embedded_guest().context("no embedded guest in the target directory")?;
    let guest = length(&embedded.join("guest-kernel"))? + length(&embedded.join("guest-image"))?;
    Ok(whole.saturating_sub(guest) as f64 / 1024.0)
}

/// Seconds from the command to the prompt of the embedded guest, on a terminal.
fn prompts(coracle: &Path, boots: u32) -> Result<Vec<f64>> {
    let mut command = Command::new(coracle);
    command.args(["boot", "--memory", "128M"]);
    (0..boots)
        .map(|_| {
            let started = Instant::now();
            let mut terminal = OnTerminal::start(&command, 80, 25)?;
            terminal.expect(PROMPT, BOOT_LIMIT)?;
            Ok(started.elapsed().as_secs_f64())
        })
        .collect()
}
