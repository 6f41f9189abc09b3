//! What both PID 1s do first: mount the kernel's file systems and load modules. And what several
//! programs of the lab need.

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{ClockId, Timespec, clock_nanosleep_relative};
use std::ffi::CStr;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

const BUSYBOX: &str = "/bin/busybox";

/// Mounts /dev, /proc and /sys.
///
/// # Errors
/// Names the one that cannot be mounted.
pub fn mount_all() -> Result<()> {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        std::fs::create_dir_all(at).with_context(|| at.to_owned())?;
        mount(kind, at, kind, MountFlags::empty(), None::<&CStr>)
            .with_context(|| format!("mounting {at}"))?;
    }
    Ok(())
}

/// Loads the modules that /modules/list names, in that order.
///
/// # Errors
/// Names the module that the kernel refuses.
pub fn load_modules() -> Result<()> {
    let list = std::fs::read_to_string("/modules/list").unwrap_or_default();
    for name in list.lines() {
        let path = Path::new("/modules").join(name);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        rustix::system::finit_module(&file, c"", 0)
            .with_context(|| format!("loading {}", path.display()))?;
    }
    Ok(())
}

/// Lets this process have as many descriptors as it may: each connection is one.
///
/// # Errors
/// The kernel's.
pub fn raise_descriptors() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).context("raising the number of descriptors")
}

/// Waits until a path exists, for at most some tenths of a second.
#[must_use]
pub fn wait_for_path(path: &str, tenths: u32) -> bool {
    (0..tenths).any(|_| {
        let there = Path::new(path).exists();
        if !there {
            rest();
        }
        there
    })
}

/// A tenth of a second. Device nodes appear without anything to wait for.
pub fn rest() {
    let tenth = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    // Woken early is as good.
    let _ = clock_nanosleep_relative(ClockId::Monotonic, &tenth);
}

/// Listens for a guest at a path, where a case before this one may have left its socket.
///
/// # Errors
/// Names the path that cannot be had.
pub fn listen(path: &str) -> Result<UnixListener> {
    // Nothing to remove is the case the first time.
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).with_context(|| format!("listening at {path}"))
}

/// The value of `NAME=` on the kernel's command line.
#[must_use]
pub fn argument(name: &str) -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    let value = |word: &str| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned());
    line.split_whitespace().find_map(value)
}

/// Gives an interface its addresses, and takes it into use.
///
/// # Errors
/// Names what busybox refused.
pub fn up(interface: &str, addresses: &[String]) -> Result<()> {
    // Nobody else has the addresses, and asking takes a second. A kernel without IPv6 asks nobody.
    let asks = format!("/proc/sys/net/ipv6/conf/{interface}/accept_dad");
    let _ = std::fs::write(asks, "0");
    for address in addresses {
        ip(&["addr", "add", address, "dev", interface])?;
    }
    ip(&["link", "set", interface, "up"])
}

/// Has busybox do what `ip` is told to.
///
/// # Errors
/// What it said.
pub fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new(BUSYBOX).arg("ip").args(words).output();
    let output = output.context(BUSYBOX)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("ip {}: {}", words.join(" "), text.trim());
    }
    Ok(())
}
