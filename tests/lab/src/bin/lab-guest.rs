//! PID 1 of a guest in the lab: loads modules, looks at its machine, says what it found in one
//! line, and ends the way that `lab.end=` on the command line asks for.

use anyhow::{Context, Result, bail};
use lab::setup;
use rustix::system::{RebootCommand, reboot};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

/// What the host put at the beginning of the disk.
const DISK_MARK: &[u8; 16] = b"coracle-lab-disk";
const KEY_POWER: u16 = 116;
/// Sleep control register of the platform, S5 and the enable bit.
const POWER_OFF: (u16, u8) = (0x600, (5 << 2) | 0x20);

fn main() {
    println!("lab-guest: user space");
    match look() {
        Ok(found) => println!("lab-guest: ready {found}"),
        Err(error) => println!("lab-guest: wrong: {error:#}"),
    }
    if let Some(task) = setup::argument("lab.hot")
        && let Err(error) = lab::hot::run(&task)
    {
        println!("lab-guest: wrong: {error:#}");
    }
    let end = setup::argument("lab.end").unwrap_or_default();
    if let Err(error) = finish(&end) {
        println!("lab-guest: wrong: {error:#}");
    }
    // PID 1 returns: the kernel panics, which is what `lab.end=panic` asks for.
}

fn look() -> Result<String> {
    setup::mount_all()?;
    setup::load_modules()?;
    let cpus = std::thread::available_parallelism()?;
    let disk = if setup::argument("lab.disk").is_some() {
        disk()?
    } else {
        "none"
    };
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = memory
        .split_whitespace()
        .nth(1)
        .context("/proc/meminfo is odd")?
        .to_owned();
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let uptime = uptime
        .split_whitespace()
        .next()
        .context("/proc/uptime is odd")?
        .to_owned();
    Ok(format!(
        "cpus={cpus} disk={disk} memory={memory} uptime={uptime}"
    ))
}

/// Reads the mark, writes a sector and reads it back from the device.
fn disk() -> Result<&'static str> {
    if !setup::wait_for_path("/dev/vda", 50) {
        bail!("/dev/vda does not appear");
    }
    let mut mark = [0; 16];
    File::open("/dev/vda")
        .context("/dev/vda")?
        .read_exact(&mut mark)
        .context("reading")?;
    if mark != *DISK_MARK {
        bail!("the disk begins with {mark:?}");
    }
    let sector = [0x5a; 512];
    let mut disk = OpenOptions::new().write(true).open("/dev/vda")?;
    disk.seek(SeekFrom::Start(512))?;
    disk.write_all(&sector).context("writing")?;
    disk.sync_all().context("flushing")?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")?;
    let mut back = [0; 512];
    let mut disk = File::open("/dev/vda")?;
    disk.seek(SeekFrom::Start(512))?;
    disk.read_exact(&mut back).context("reading back")?;
    if back != sector {
        bail!("the disk forgets what is written");
    }
    Ok("ok")
}

fn finish(end: &str) -> Result<()> {
    match end {
        "reboot" => reboot(RebootCommand::Restart).context("rebooting"),
        "poweroff" => reboot(RebootCommand::PowerOff).context("powering off"),
        "port" => lab::sys::write_port(POWER_OFF.0, POWER_OFF.1).context("writing a port"),
        "button" => {
            wait_for_button()?;
            reboot(RebootCommand::PowerOff).context("powering off")
        }
        "panic" => Ok(()),
        other => bail!("no such end: {other:?}"),
    }
}

/// Reads events of the first input device until the power key goes down.
fn wait_for_button() -> Result<()> {
    if !setup::wait_for_path("/dev/input/event0", 50) {
        bail!("there is no power button");
    }
    let mut events = File::open("/dev/input/event0").context("/dev/input/event0")?;
    println!("lab-guest: waiting for the button");
    std::io::stdout().flush()?;
    // struct input_event: two words of time, then type, code and value.
    let mut event = [0; 24];
    loop {
        events.read_exact(&mut event).context("reading events")?;
        let [.., low, high, _, _, _, _] = event;
        if u16::from_le_bytes([low, high]) == KEY_POWER {
            println!("lab-guest: the button was pressed");
            return Ok(());
        }
    }
}
