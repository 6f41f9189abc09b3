//! What drives cost besides time: system calls of a request, and wake-ups when nothing is asked.

use super::drive::{Disk, RAW, URING};
use super::{BlockLimits, CASES, Figure, vsock};
use crate::bench::machines::Machines;
use crate::repo::find_program;
use anyhow::{Context, Result, bail, ensure};
use harness::bare::answer::Answer;
use harness::bare::ops::{BlockLoad, Op, Program};
use harness::process::Process;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Requests of the shorter and the longer load whose system calls are compared.
const COUNTS: [u64; 2] = [10_000, 60_000];

/// What is promised besides rates.
pub(super) fn figures(
    machines: &Machines,
    disks: &[Disk],
    limits: &BlockLimits,
    idle: u64,
) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, disk) in [
        ("system calls a request, io_uring, depth 32", URING),
        ("system calls a request, sync, depth 32", RAW),
    ] {
        let Some(disk) = disks.iter().find(|found| found.name == disk) else {
            continue;
        };
        match calls(machines, disk)? {
            Some(calls) if disk.name == URING => {
                figures.push(Figure::new(name, "", calls, limits.calls_per_request));
            }
            Some(calls) => figures.push(Figure::told(name, "", calls)),
            None => println!("SKIPPED {name}: neither perf with tracefs nor strace is here"),
        }
    }
    let mut arguments = disks
        .last()
        .map(|disk| disk.arguments.clone())
        .unwrap_or_default();
    if vsock::offered(machines).is_ok() {
        arguments.extend(vsock::arguments(machines));
    }
    let (wakeups, percent) = idleness(machines, &arguments, Duration::from_secs(idle))?;
    figures.push(Figure::new(
        "idle guest: wake-ups of the monitor",
        "",
        wakeups,
        limits.idle_wakeups,
    ));
    figures.push(Figure::new(
        "idle guest: CPU of the monitor",
        "%",
        percent,
        limits.idle_cpu_percent,
    ));
    Ok(figures)
}

/// System calls of one request: the slope between two counts, so that the start is not counted.
#[expect(clippy::cast_precision_loss, reason = "counts of calls")]
fn calls(machines: &Machines, disk: &Disk) -> Result<Option<f64>> {
    let mut seen = Vec::new();
    for count in COUNTS {
        let load = BlockLoad {
            count,
            time: Duration::from_secs(60),
            ..CASES[1].load()
        };
        let mut program = Program::new();
        program.push(Op::Block(disk.window, load));
        let Some(calls) = count_calls(&machines.command(&program, &disk.arguments)?)? else {
            return Ok(None);
        };
        seen.push(calls);
    }
    let [few, many] = seen[..] else {
        bail!("two loads")
    };
    Ok(Some((many - few) / (COUNTS[1] - COUNTS[0]) as f64))
}

/// How many system calls all threads of a command make: counted by the kernel where perf can
/// ask for it, else by strace, which slows the program down.
fn count_calls(command: &Command) -> Result<Option<f64>> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let report = folder.path().join("report");
    let perf = ["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"];
    let strace = ["-f", "-c", "-U", "calls,name", "-o"];
    for (program, arguments) in [("perf", &perf[..]), ("strace", &strace[..])] {
        if find_program(program).is_none() {
            continue;
        }
        let mut counted = Command::new(program);
        counted
            .args(arguments)
            .arg(&report)
            .arg(command.get_program())
            .args(command.get_args());
        let output = counted.stdin(Stdio::null()).output().context(program)?;
        if Answer::parse(&output.stdout).is_err() {
            continue;
        }
        if let Some(calls) = read_report(program, &report)? {
            return Ok(Some(calls));
        }
    }
    Ok(None)
}

fn read_report(program: &str, report: &Path) -> Result<Option<f64>> {
    let text = std::fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let line = match program {
        "perf" => text.lines().find(|line| line.contains("raw_syscalls")),
        _ => text.lines().find(|line| line.trim_end().ends_with("total")),
    };
    let number = line.and_then(|line| line.trim_start().split([',', ' ']).next());
    Ok(number.and_then(|number| number.parse().ok()))
}

/// Voluntary context switches of the monitor's threads and its share of a CPU while its guest is
/// halted with its devices started.
fn idleness(machines: &Machines, arguments: &[OsString], time: Duration) -> Result<(f64, f64)> {
    let mut program = Program::new();
    for device in machines.devices(arguments)? {
        // The driver has buffers for what may come: packets and events.
        let filled = if device.model == "virtio-vsock" {
            0b101
        } else {
            0
        };
        program.push(Op::Start(device.window, filled));
    }
    program.push(Op::Mark);
    program.push(Op::Idle);
    let mut command = machines.command(&program, arguments)?;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("a pipe")?;
    let mut process = Process::new(child)?;
    let mut lines = BufReader::new(output).lines();
    let said = lines
        .by_ref()
        .find(|line| line.as_ref().is_ok_and(|line| line.starts_with("mark")));
    said.context("the guest does not come up")??;
    let mut pass = |time| {
        let ended = process.wait(time)?;
        ensure!(ended.is_none(), "the idle machine ended: {ended:?}");
        Usage::of(process.id())
    };
    // The first second is for what the start has left to do.
    let before = pass(Duration::from_secs(1))?;
    let after = pass(time)?;
    let percent = 100.0 * (after.seconds - before.seconds) / time.as_secs_f64();
    Ok((after.switches - before.switches, percent))
}

/// What the threads of a process have used.
struct Usage {
    switches: f64,
    seconds: f64,
}

impl Usage {
    fn of(process: u32) -> Result<Usage> {
        let mut usage = Usage {
            switches: 0.0,
            seconds: 0.0,
        };
        let tasks = format!("/proc/{process}/task");
        for task in std::fs::read_dir(&tasks).context(tasks)? {
            let task = task?.path();
            let status = std::fs::read_to_string(task.join("status"))?;
            let switches = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
                .and_then(|number| number.trim().parse::<f64>().ok());
            usage.switches += switches.context("no voluntary_ctxt_switches")?;
            let schedstat = std::fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds = schedstat
                .split(' ')
                .next()
                .and_then(|n| n.parse::<f64>().ok());
            usage.seconds += nanoseconds.context("no schedstat")? / 1e9;
        }
        Ok(usage)
    }
}
