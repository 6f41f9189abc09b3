//! The drives that the machines of the bare guest have.

use super::{FILL, SPAN};
use crate::bench::machines::Machines;
use anyhow::{Context, Result, ensure};
use harness::bare::ops::{BlockLoad, Op};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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

/// One way to have a drive.
pub(super) struct Disk {
    pub(super) name: &'static str,
    pub(super) arguments: Vec<OsString>,
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

impl Machines {
    /// Makes an image.
    fn create(&self, arguments: &[&OsStr]) -> Result<()> {
        let mut command = Command::new(&self.coracle);
        let output = command.args(["disk", "create"]).args(arguments).output();
        let output = output.context("coracle disk create")?;
        let refusal = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}", refusal.trim());
        Ok(())
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
}
