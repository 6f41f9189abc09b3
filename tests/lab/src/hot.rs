//! What a guest sees while its disk is changed under it: how fast it reads, how large the disk
//! is, what is on it. It says what it is ready for and goes on at each line that is typed.

use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use crate::setup;

const DISK: &str = "/dev/vda";
/// What is read to measure: all of the disk as it is to begin with.
const MEASURED_BYTES: usize = 1 << 20;
/// The least time that the second reading takes to begin with the limit of 64 KiB in a tenth of a
/// second, a full bucket at first: 1.5 seconds, less what the clocks may differ by. The kernel may
/// read all of the disk with one request, and one that is larger than the bucket goes on credit.
const LIMITED: Duration = Duration::from_millis(1300);
/// How much longer it takes with the limit than without, at least.
const RATIO: u32 = 3;

/// Does the task of a case.
///
/// # Errors
/// When the disk does not behave as it should.
pub fn run(task: &str) -> Result<()> {
    if !setup::wait_for_path(DISK, 50) {
        bail!("{DISK} does not appear");
    }
    match task {
        "limits" => limits(),
        "sizes" => sizes(),
        other => bail!("no such task: {other:?}"),
    }
}

/// Reads the disk without, with and again without a limit.
fn limits() -> Result<()> {
    // The first time brings in what else it takes, such as code.
    read_all()?;
    let before = read_twice()?;
    ready("free", before)?;
    let limited = read_twice()?;
    if limited < LIMITED || limited < before.saturating_mul(RATIO) {
        bail!("{limited:?} with the limit, {before:?} without");
    }
    ready("limited", limited)?;
    let after = read_twice()?;
    if after.saturating_mul(RATIO) > limited {
        bail!("{after:?} without the limit again, {limited:?} with it");
    }
    println!("lab-guest: free again {after:?}");
    Ok(())
}

/// Follows the disk's size and content.
fn sizes() -> Result<()> {
    let begin = sectors()?;
    ready("size", begin)?;
    let mut last = begin;
    // Grown through the API, grown by the host and told of: each time the new end can be written.
    for _ in 0..2 {
        let now = changed(last)?;
        if now <= last {
            bail!("{now} sectors after {last}");
        }
        write_last(now)?;
        ready("grown", now)?;
        last = now;
    }
    // Another image, as large as the first one was and not written by this guest.
    let now = changed(last)?;
    if now != begin {
        bail!("{now} sectors instead of {begin}");
    }
    drop_caches()?;
    let mut sector = [0; 512];
    let mut disk = File::open(DISK)?;
    disk.read_exact(&mut sector).context("reading")?;
    if !sector.starts_with(b"coracle-lab-disk") {
        bail!("the other image begins with {:?}", sector.get(..16));
    }
    println!("lab-guest: another image");
    Ok(())
}

/// Says what it found and waits for a line.
fn ready(what: &str, found: impl std::fmt::Debug) -> Result<()> {
    println!("lab-guest: {what} {found:?}");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .context("the console")?;
    Ok(())
}

/// Reads the disk past the cache, twice: how long that took.
fn read_twice() -> Result<Duration> {
    Ok(read_all()?.saturating_add(read_all()?))
}

/// Reads the disk past the cache: how long it took.
fn read_all() -> Result<Duration> {
    drop_caches()?;
    let mut bytes = vec![0; MEASURED_BYTES];
    let mut disk = File::open(DISK).context(DISK)?;
    let started = Instant::now();
    disk.read_exact(&mut bytes).context("reading")?;
    Ok(started.elapsed())
}

fn drop_caches() -> Result<()> {
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")
}

fn sectors() -> Result<u64> {
    let text = std::fs::read_to_string("/sys/block/vda/size").context("/sys/block/vda/size")?;
    text.trim().parse().context("/sys/block/vda/size is odd")
}

/// The size once it is another one.
fn changed(last: u64) -> Result<u64> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        match sectors()? {
            now if now != last => return Ok(now),
            _ => std::thread::yield_now(),
        }
    }
    bail!("the disk stays at {last} sectors");
}

fn write_last(sectors: u64) -> Result<()> {
    let mut disk = OpenOptions::new().write(true).open(DISK).context(DISK)?;
    disk.seek(SeekFrom::Start((sectors - 1) * 512))?;
    disk.write_all(&[0x5a; 512])
        .context("writing the last sector")?;
    disk.sync_all().context("flushing")
}
