//! Machines of the bare guest that run one load each, and the drives that they have.

use anyhow::{Context, Result, ensure};
use harness::bare::answer::Answer;
use harness::bare::ops::{BlockLoad, Op, Program};
use harness::{bare, guests};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The engine that waits for each read and write.
pub(super) const RAW: &str = "sync";
/// The engine that has many under way.
pub(super) const URING: &str = "io_uring";
/// A copy-on-write drive over the same file.
pub(super) const OVERLAY: &str = "copy-on-write";
/// Of these the better one counts.
pub(super) const ENGINES: [&str; 2] = [RAW, URING];

/// The only device of these machines.
pub(super) const WINDOW: u64 = guests::VIRTIO_BASE as u64;

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
    /// The value of `--disk`.
    value: OsString,
}

/// What this program offers of the drives that are measured.
pub(super) fn disks(machines: &Machines, file: &Path) -> Result<Vec<Disk>> {
    let with = |options: &str| {
        let mut value = file.as_os_str().to_owned();
        value.push(options);
        value
    };
    let mut disks = Vec::new();
    for (name, options) in [(RAW, ",engine=sync"), (URING, ",engine=io_uring")] {
        let value = with(options);
        let disk = Disk { name, value };
        if machines.accepts(&disk)? {
            disks.push(disk);
        } else {
            println!("{name}: left out, {options:?} is refused here");
        }
    }
    if disks.is_empty() {
        let value = with("");
        disks.push(Disk { name: RAW, value });
    }
    Ok(disks)
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

    /// The command of a machine that runs a program. Its only devices are the drives.
    pub(super) fn command(&self, program: &Program, disks: &[&Disk]) -> Result<Command> {
        let folder = self.folder.path();
        let initrd = folder.join("program");
        std::fs::write(&initrd, program.encode(bare::ticks()?)).context("writing a program")?;
        let mut command = Command::new(&self.coracle);
        command
            .args(["boot", "--memory", "64M", "--no-rng", "--kernel"])
            .arg(folder.join("guest"))
            .arg("--initrd")
            .arg(initrd)
            .stdin(Stdio::null());
        for disk in disks {
            command.arg("--disk").arg(&disk.value);
        }
        Ok(command)
    }

    fn accepts(&self, disk: &Disk) -> Result<bool> {
        let mut command = self.command(&Program::new(), &[disk])?;
        let output = command.output().context("running coracle")?;
        Ok(output.status.success())
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
        let mut program = Program::new();
        for op in [Op::Mark, Op::Pause(SETTLE), Op::Block(WINDOW, *load)] {
            program.push(op);
        }
        let mut command = self.command(&program, &[disk])?;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut console = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut text = String::new();
        console.read_line(&mut text)?;
        spread(child.id());
        console.read_to_string(&mut text)?;
        child.wait()?;
        let answer = Answer::parse(text.as_bytes())?;
        let load = answer.loads.first().context("no load")?;
        ensure!(load.errors == 0, "requests fail: {load:?}");
        Ok(load.done as f64 * self.ticks_per_second / load.ticks as f64)
    }
}
