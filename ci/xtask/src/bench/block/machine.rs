//! Machines of the bare guest that run one load each, and the drives that they have.

use super::{FILL, SPAN};
use anyhow::{Context, Result, ensure};
use harness::bare;
use harness::bare::answer::Answer;
use harness::bare::ops::{BlockLoad, Op, Program};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The engine that waits for each read and write.
pub(super) const RAW: &str = "sync";
/// The engine that has many under way.
pub(super) const URING: &str = "io_uring";
/// A copy-on-write drive.
pub(super) const OVERLAY: &str = "copy-on-write";
/// What a drive has when nothing is said: the page cache at once, and the rest by the other engine.
pub(super) const AUTO: &str = "auto";
/// Of these the best one counts.
pub(super) const ENGINES: [&str; 3] = [AUTO, RAW, URING];

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

/// One way to have a drive.
pub(super) struct Disk {
    pub(super) name: &'static str,
    pub(super) arguments: Vec<OsString>,
    pub(super) window: u64,
}

/// A virtio device of a machine, from its plan.
pub(super) struct Device {
    pub(super) model: String,
    pub(super) window: u64,
}

/// `--disk FILE,options`
pub(super) fn disk_arguments(file: &Path, options: &str) -> Vec<OsString> {
    let mut value = file.as_os_str().to_owned();
    value.push(options);
    vec!["--disk".into(), value]
}

/// What this program offers of the drives that are measured.
pub(super) fn disks(machines: &Machines, file: &Path) -> Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for name in ENGINES {
        match machines.disk(name, disk_arguments(file, &format!(",engine={name}"))) {
            Ok(disk) => disks.push(disk),
            Err(why) => println!("SKIPPED {name}: {why:#}"),
        }
    }
    if disks.is_empty() {
        disks.push(machines.disk(RAW, disk_arguments(file, ""))?);
    }
    match overlay(machines, file) {
        Ok(disk) => disks.push(disk),
        Err(why) => println!("SKIPPED {OVERLAY}: {why:#}"),
    }
    Ok(disks)
}

/// A copy-on-write drive that is warm: a guest has written all of it once, so that its base, which
/// is empty, is never looked at.
fn overlay(machines: &Machines, file: &Path) -> Result<Disk> {
    // Beside the other drive, for what the file system does to both.
    let (base, delta) = (file.with_extension("base"), file.with_extension("cow"));
    for stale in [&base, &delta] {
        // Of a run that was stopped.
        let _ = std::fs::remove_file(stale);
    }
    let size = SPAN.to_string();
    let of_base = [OsStr::new("--size"), size.as_ref(), base.as_ref()];
    let of_delta = ["--base-format".as_ref(), "raw".as_ref(), "--base".as_ref()];
    machines.create(&of_base)?;
    machines.create(&[&of_delta[..], &[base.as_ref(), delta.as_ref()]].concat())?;
    let disk = machines.disk(OVERLAY, disk_arguments(&delta, ",format=cow"))?;
    let block = FILL.into();
    let all = BlockLoad {
        write: true,
        random: false,
        block,
        depth: 8,
        span: SPAN,
        time: Duration::from_secs(600),
        count: SPAN / block,
    };
    machines.block(&disk, &all)?;
    // Write-back in the middle of a round would be measured too.
    File::open(&delta)?
        .sync_all()
        .context("syncing the delta")?;
    Ok(disk)
}

/// The program under test and how fast its guests' clock goes.
pub(super) struct Machines {
    coracle: PathBuf,
    folder: tempfile::TempDir,
    ticks_per_second: f64,
}

impl Machines {
    pub(super) fn new(coracle: &Path) -> Result<Machines> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        std::fs::write(folder.path().join("guest"), bare::IMAGE).context("writing the guest")?;
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

    /// Makes an image.
    fn create(&self, arguments: &[&OsStr]) -> Result<()> {
        let mut command = Command::new(&self.coracle);
        let output = command.args(["disk", "create"]).args(arguments).output();
        let output = output.context("coracle disk create")?;
        let refusal = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}", refusal.trim());
        Ok(())
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

    /// A drive, unless the program refuses it.
    pub(super) fn disk(&self, name: &'static str, arguments: Vec<OsString>) -> Result<Disk> {
        let window = self.window("virtio-blk", &arguments)?;
        Ok(Disk {
            name,
            arguments,
            window,
        })
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

    /// Requests a second of one load.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a fraction of a second"
    )]
    pub(super) fn block(&self, disk: &Disk, load: &BlockLoad) -> Result<f64> {
        let answer = self.run(Op::Block(disk.window, *load), &disk.arguments)?;
        let load = answer.loads.first().context("no load")?;
        ensure!(load.errors == 0, "requests fail: {load:?}");
        Ok(load.done as f64 / self.seconds(load.ticks))
    }

    /// Runs one load with the machine's threads on CPUs of their own.
    pub(super) fn run(&self, load: Op, arguments: &[OsString]) -> Result<Answer> {
        let mut program = Program::new();
        for op in [Op::Mark, Op::Pause(SETTLE), load] {
            program.push(op);
        }
        let mut command = self.command(&program, arguments)?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut console = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut text = String::new();
        console.read_line(&mut text)?;
        spread(child.id());
        console.read_to_string(&mut text)?;
        child.wait()?;
        Answer::parse(text.as_bytes())
    }
}
