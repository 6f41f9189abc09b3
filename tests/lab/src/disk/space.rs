//! Space that comes back, and a base that stays as it is.

use super::machine::{IMAGE, Machine, coracle_disk, made, taken};
use super::{KEPT, LARGE};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

const EMPTY: &str = "/disks/ext4";
const EMPTY_QCOW2: &str = "/disks/ext4.qcow2";
const REBOOTED: i32 = 3;

/// Fills and trims a drive, boots once more and looks. `kind` is `none`, or the format of the base
/// of a copy-on-write drive; `options` are further ones of the drive, `more` of the program.
///
/// # Errors
/// When anything is not as it should be.
pub fn run(kind: &str, options: &str, more: &[&str]) -> Result<()> {
    let base = if kind == "qcow2" { EMPTY_QCOW2 } else { EMPTY };
    let before = std::fs::read(base).context(base)?;
    let drive = made(kind, base, options)?;
    let (full, trimmed) = fill(&drive, more)?;
    let machine = Machine::start(&drive, "lab.do=look", more)?;
    let mounted = expect(&machine, &["calling", "mounted", "kept"])?;
    for option in options.split(',').filter(|one| one.starts_with("queues")) {
        ensure!(mounted.ends_with(option), "{mounted} without {option}");
    }
    ended(machine)?;
    if kind != "none" {
        coracle_disk(&["verify", IMAGE])?;
    }
    ensure!(
        std::fs::read(base).context(base)? == before,
        "the base has changed"
    );
    println!("{full} KiB of the host when filled, {trimmed} KiB when trimmed");
    Ok(())
}

/// How many KiB of the host the drive takes when it was filled, and when it was trimmed.
fn fill(drive: &str, more: &[&str]) -> Result<(u64, u64)> {
    let machine = Machine::start(drive, "lab.do=fill", more)?;
    expect(&machine, &["calling", "mounted", "filled"])?;
    let full = taken(IMAGE)?;
    ensure!(
        full > KEPT.1 + LARGE.1,
        "the image takes {full} bytes only, with all that was written"
    );
    machine.go()?;
    expect(&machine, &["trimmed"])?;
    let trimmed = taken(IMAGE)?;
    ended(machine)?;
    // The file system has written a little in the meantime.
    ensure!(
        trimmed + LARGE.1 / 16 * 15 <= full,
        "of {full} bytes only {} came back",
        full.saturating_sub(trimmed)
    );
    Ok((full / 1024, trimmed / 1024))
}

/// Waits for lines that begin so, one after the other, and returns the one about the mounting.
fn expect(machine: &Machine, wanted: &[&str]) -> Result<String> {
    let mut mounted = String::new();
    for wanted in wanted {
        let line = machine.expect(wanted, &mut BTreeMap::new())?;
        if *wanted == "mounted" {
            mounted = line;
        }
    }
    Ok(mounted)
}

fn ended(machine: Machine) -> Result<()> {
    let status = machine.end()?;
    ensure!(status.code() == Some(REBOOTED), "the machine: {status}");
    Ok(())
}
