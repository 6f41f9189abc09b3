//! Machines of the bare guest that run one load each.

use anyhow::{Context, Result, ensure};
use harness::bare;
use harness::bare::answer::Answer;
use harness::bare::ops::{Op, Program};
use harness::netns::Namespace;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a guest waits before its load, while its threads are spread.
const SETTLE: Duration = Duration::from_millis(30);

/// Puts the threads of vCPUs on one CPU and all others on the next, as two idle CPUs would have
/// them: on a busy machine they may share one, and then the polling guest starves its device.
/// Without a second CPU, or without the right, nothing is changed.
fn spread(process: u32) {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let thread = task.file_name().to_str().and_then(|id| id.parse().ok());
        let mut cpus = CpuSet::new();
        cpus.set(usize::from(!name.starts_with("vcpu")));
        // A thread that is gone needs no place.
        let _ = sched_setaffinity(thread.and_then(Pid::from_raw), &cpus);
    }
}

/// A virtio device of a machine, from its plan.
pub(super) struct Device {
    pub(super) model: String,
    pub(super) window: u64,
}

/// The program under test and how fast its guests' clock goes.
pub(super) struct Machines {
    pub(super) coracle: PathBuf,
    folder: tempfile::TempDir,
    ticks_per_second: f64,
}

impl Machines {
    /// Machines whose kernel is `guest`.
    pub(super) fn new(coracle: &Path, guest: &[u8]) -> Result<Machines> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        std::fs::write(folder.path().join("guest"), guest).context("writing the guest")?;
        let mut machines = Machines {
            coracle: coracle.to_owned(),
            folder,
            ticks_per_second: 0.0,
        };
        machines.ticks_per_second = machines.clock()?;
        Ok(machines)
    }

    /// The command of a machine that runs a program.
    pub(super) fn command(&self, program: &Program, arguments: &[OsString]) -> Result<Command> {
        let folder = self.folder.path();
        let initrd = folder.join("program");
        std::fs::write(&initrd, program.encode(bare::ticks()?)).context("writing a program")?;
        let mut command = Command::new(&self.coracle);
        command
            .args(["boot", "--memory", "64M", "--kernel"])
            .arg(folder.join("guest"))
            .arg("--initrd")
            .arg(initrd)
            .args(arguments)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Where the files of the machines are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Seconds of ticks of a guest's clock.
    #[expect(clippy::cast_precision_loss, reason = "ticks of some seconds")]
    pub(super) fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / self.ticks_per_second
    }

    /// The virtio devices of a machine with these arguments.
    pub(super) fn devices(&self, arguments: &[OsString]) -> Result<Vec<Device>> {
        let mut command = self.command(&Program::new(), arguments)?;
        let output = command.arg("--print-plan").output()?;
        let refusal = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}", refusal.trim());
        let plan: Value = serde_json::from_slice(&output.stdout).context("the plan")?;
        let devices = plan["devices"].as_array().into_iter().flatten();
        let virtio = devices.filter(|device| !device["queues"].is_null());
        let found = virtio.filter_map(|device| {
            let start = device["mmio"]["start"].as_str()?.strip_prefix("0x")?;
            Some(Device {
                model: device["model"].as_str()?.to_owned(),
                window: u64::from_str_radix(start, 16).ok()?,
            })
        });
        Ok(found.collect())
    }

    /// The window of the device of that model.
    pub(super) fn window(&self, model: &str, arguments: &[OsString]) -> Result<u64> {
        let devices = self.devices(arguments)?;
        let found = devices.iter().find(|device| device.model == model);
        Ok(found
            .with_context(|| format!("no {model} in the plan"))?
            .window)
    }

    /// Ticks of the guests' TSC in a second, from two marks of a guest that pauses.
    #[expect(clippy::cast_precision_loss, reason = "a second of ticks")]
    fn clock(&self) -> Result<f64> {
        let mut program = Program::new();
        for op in [Op::Mark, Op::Pause(Duration::from_secs(1)), Op::Mark] {
            program.push(op);
        }
        let mut child = self
            .command(&program, &[])?
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("a pipe")?;
        let mut text = Vec::new();
        let mut seen = Vec::new();
        for line in BufReader::new(output).lines() {
            text.push(line?);
            seen.push(Instant::now());
        }
        child.wait()?;
        let answer = Answer::parse(text.join("\n").as_bytes())?;
        let (&[first, last], [begun, ended, ..]) = (answer.marks.as_slice(), seen.as_slice())
        else {
            anyhow::bail!("no two marks: {answer:?}");
        };
        Ok((last - first) as f64 / (*ended - *begun).as_secs_f64())
    }

    /// Runs one load with the machine's threads on CPUs of their own.
    pub(super) fn run(&self, load: Op, arguments: &[OsString]) -> Result<Answer> {
        self.run_in(None, load, arguments, || ())
    }

    /// The same in a network namespace; `ready` is called when the guest is there.
    pub(super) fn run_in(
        &self,
        space: Option<&Namespace>,
        load: Op,
        arguments: &[OsString],
        ready: impl FnOnce(),
    ) -> Result<Answer> {
        let mut program = Program::new();
        for op in [Op::Mark, Op::Pause(SETTLE), load] {
            program.push(op);
        }
        let mut command = self.command(&program, arguments)?;
        if let Some(space) = space {
            command = space.wrap(&command);
            command.stdin(Stdio::null());
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut console = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut text = String::new();
        console.read_line(&mut text)?;
        spread(child.id());
        ready();
        console.read_to_string(&mut text)?;
        child.wait()?;
        Answer::parse(text.as_bytes())
    }
}
