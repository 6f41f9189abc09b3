//! The guest's end: it calls the lab, mounts its disk and does what `lab.do=` says. Every line that
//! it sends tells what is true by then.

use super::model::{self, PAGE_BYTES, PAGE_COUNT};
use super::{KEPT, LARGE, MOUNT, PORT};
use crate::sys::{self, VsockAddress};
use crate::{setup, stream};
use anyhow::{Context, Result, bail};
use rustix::fs::FallocateFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{AddressFamily, SocketType};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const DISK: &str = "/dev/vda";
const HOST_CID: u32 = 2;

/// Does the work of a case.
///
/// # Errors
/// When the disk or the file system on it does not behave. The lab is told.
pub fn run() -> Result<()> {
    setup::mount_all()?;
    setup::load_modules()?;
    let lab = Lab::call()?;
    let done = work(&lab);
    if let Err(error) = &done {
        lab.say(&format!("wrong: {error:#}"))?;
    }
    done
}

fn work(lab: &Lab) -> Result<()> {
    lab.say("calling")?;
    mount_disk()?;
    let queues = std::fs::read_dir("/sys/block/vda/mq").context("the disk's queues")?;
    lab.say(&format!("mounted, queues={}", queues.count()))?;
    match setup::argument("lab.do").unwrap_or_default().as_str() {
        "fill" => fill(lab)?,
        "look" => look(lab)?,
        "write" => return write(lab),
        other => bail!("no such work: {other:?}"),
    }
    unmount(MOUNT, UnmountFlags::empty()).context("unmounting")
}

/// The connection to the lab.
struct Lab(File);

impl Lab {
    fn call() -> Result<Lab> {
        let socket = rustix::net::socket(AddressFamily::VSOCK, SocketType::STREAM, None);
        let socket = socket.context("making a socket of AF_VSOCK")?;
        let address = VsockAddress {
            cid: HOST_CID,
            port: PORT,
        };
        rustix::net::connect(&socket, &address).context("calling the lab")?;
        Ok(Lab(File::from(socket)))
    }

    /// Sends a line at once, whatever other threads send.
    fn say(&self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        (&self.0)
            .write_all(line.as_bytes())
            .context("telling the lab")
    }

    fn wait(&self) -> Result<()> {
        let mut line = String::new();
        BufReader::new(&self.0)
            .read_line(&mut line)
            .context("waiting for the lab")?;
        Ok(())
    }
}

fn mount_disk() -> Result<()> {
    if !setup::wait_for_path(DISK, 50) {
        bail!("{DISK} does not appear");
    }
    std::fs::create_dir_all(MOUNT).context(MOUNT)?;
    let options = CString::new(setup::argument("lab.mount").unwrap_or_default())?;
    mount(DISK, MOUNT, "ext4", MountFlags::empty(), options.as_c_str()).context("mounting the disk")
}

/// A file that stays and one that goes, whose place is given back.
fn fill(lab: &Lab) -> Result<()> {
    for (name, count) in [KEPT, LARGE] {
        let file = File::create(Path::new(MOUNT).join(name)).context(name)?;
        stream::send(&file, count).context(name)?;
        file.sync_all().context(name)?;
    }
    lab.say("filled")?;
    lab.wait()?;
    std::fs::remove_file(Path::new(MOUNT).join(LARGE.0)).context(LARGE.0)?;
    let folder = File::open(MOUNT).context(MOUNT)?;
    rustix::fs::syncfs(&folder).context("syncing")?;
    let trimmed = sys::trim(&folder).context("trimming")?;
    lab.say(&format!("trimmed {trimmed}"))
}

/// What a guest before this one has left.
fn look(lab: &Lab) -> Result<()> {
    let (name, count) = KEPT;
    let file = File::open(Path::new(MOUNT).join(name)).context(name)?;
    stream::check(file, count)
        .map_err(anyhow::Error::msg)
        .context(name)?;
    if Path::new(MOUNT).join(LARGE.0).exists() {
        bail!("{} is back", LARGE.0);
    }
    lab.say("kept")
}

/// One step of a writer: the folder of the round, its seed, the step's number.
type Step = fn(&Path, u64, u64) -> Result<()>;

/// Sends all that is there, then writes without end.
fn write(lab: &Lab) -> Result<()> {
    let number = |name| -> Result<u64> {
        let text = setup::argument(name).context(name)?;
        text.parse().context(name)
    };
    let (round, keep, seed) = (
        number("lab.round")?,
        number("lab.keep")?,
        number("lab.seed")?,
    );
    let hold = number("lab.hold")?;
    send_all(lab)?;
    lab.say("found")?;
    for folder in std::fs::read_dir(MOUNT)?.flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let past = name.parse::<u64>().is_ok_and(|past| past < keep);
        if past {
            std::fs::remove_dir_all(folder.path()).context(name)?;
        }
    }
    let folder = Path::new(MOUNT).join(round.to_string());
    std::fs::create_dir(&folder).context("making a folder")?;
    std::fs::write(folder.join(model::LOG), "").context(model::LOG)?;
    let pages = File::create(folder.join(model::PAGES)).context(model::PAGES)?;
    // Room that is not written yet: the first write to a page is the disk's first there too.
    let len = (PAGE_COUNT * PAGE_BYTES) as u64;
    rustix::fs::fallocate(&pages, FallocateFlags::empty(), 0, len).context("making room")?;
    rustix::fs::syncfs(&File::open(&folder)?).context("syncing")?;
    lab.say("ready")?;
    let writers: [Step; 3] = [write_file, append, write_page];
    let begun = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let start = |(number, writer): (usize, Step)| {
            let (folder, begun) = (&folder, &begun);
            scope.spawn(move || -> Result<()> {
                for step in 0.. {
                    while begun.fetch_add(1, Ordering::Relaxed) >= hold {
                        // From here on nothing more is written or flushed.
                        std::thread::park();
                    }
                    writer(folder, seed, step).with_context(|| format!("writer {number}"))?;
                    lab.say(&format!("done {number} {step}"))?;
                }
                Ok(())
            })
        };
        let threads: Vec<_> = writers.into_iter().enumerate().map(start).collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a writer died"))??;
        }
        Ok(())
    })
}

/// Sends every file of every folder of a round.
fn send_all(lab: &Lab) -> Result<()> {
    for folder in std::fs::read_dir(MOUNT)?.flatten() {
        let round = folder.file_name().to_string_lossy().into_owned();
        if round.parse::<u64>().is_err() {
            continue;
        }
        for file in std::fs::read_dir(folder.path())?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let content = std::fs::read(file.path()).with_context(|| name.clone())?;
            lab.say(&format!("file {round} {name} {}", content.len()))?;
            (&lab.0).write_all(&content).context("sending a file")?;
        }
    }
    Ok(())
}

/// Replaces a file as careful programs do, or removes one.
fn write_file(folder: &Path, seed: u64, step: u64) -> Result<()> {
    let (number, content) = model::file_step(seed, step);
    let path: PathBuf = folder.join(model::file_name(number));
    match content {
        Some(content) => {
            let fresh = folder.join("fresh");
            let mut file = File::create(&fresh)?;
            file.write_all(&content)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
        }
        None if path.exists() => std::fs::remove_file(&path)?,
        None => return Ok(()),
    }
    Ok(File::open(folder)?.sync_all()?)
}

fn append(folder: &Path, seed: u64, step: u64) -> Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .open(folder.join(model::LOG))?;
    file.write_all(&model::record(seed, step))?;
    Ok(file.sync_data()?)
}

/// Writes in place; the call itself flushes.
fn write_page(folder: &Path, seed: u64, step: u64) -> Result<()> {
    let (number, content) = model::page(seed, step);
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(folder.join(model::PAGES))?;
    Ok(file.write_all_at(&content, (number * PAGE_BYTES) as u64)?)
}
