//! Runs the emulator with the lab in it and reads the report on its serial console.

use crate::steps::{kill_tree, lines_of};
use anyhow::{Context, Result};
use lab::report::{self, Line};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

const MEMORY: &str = "7168";
/// The emulated TSCs run together, but no bit says so. Without `tsc=reliable` KVM would give each
/// vCPU a clock of its own, seconds apart, as it does on no host that people use.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable";

/// Boots the lab, hands every line of its report to `each` and keeps the whole console in `log`.
/// Returns what went wrong with the lab itself, if anything did; one that reports nothing for
/// `silence` is killed.
pub(super) fn boot(
    kernel: &Path,
    archive: &Path,
    log: &Path,
    silence: Duration,
    mut each: impl FnMut(Line),
) -> Result<Option<String>> {
    let mut child = start(kernel, archive)?;
    let lines = lines_of(&mut child);
    let mut log = File::create(log).with_context(|| log.display().to_string())?;
    let mut deadline = Instant::now() + silence;
    let mut done = false;
    let problem = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(log, "{line}").context("writing the console's log")?;
                if let Some(line) = report::read(&line) {
                    done |= line == Line::Done;
                    deadline = Instant::now() + silence;
                    each(line);
                } else if line.contains("lab-init:") || line.contains("Kernel panic") {
                    println!("lab: {line}");
                }
            }
            Err(RecvTimeoutError::Disconnected) if done => break None,
            Err(RecvTimeoutError::Disconnected) => break Some("the lab crashed".to_owned()),
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("the lab stood still for {} s", silence.as_secs()));
            }
        }
    };
    if let Some(problem) = &problem {
        println!("lab: {problem}");
        kill_tree(child.id());
    }
    child.wait().context("waiting for the emulator")?;
    Ok(problem)
}

fn start(kernel: &Path, archive: &Path) -> Result<Child> {
    Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
        ])
        .args([
            "-m",
            MEMORY,
            "-nographic",
            "-no-reboot",
            "-nodefaults",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(archive)
        .args(["-append", COMMAND_LINE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting qemu-system-x86_64")
}
