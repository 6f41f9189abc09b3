//! Stopping the guest: the request of a user, and the orderly end that PID 1 makes of it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use rustix::system::{RebootCommand, reboot};
use rustix::thread::clock_nanosleep_relative;

use crate::{mounts, sys};

/// How long programs may take to end after SIGTERM before they are killed.
const GRACE: Duration = Duration::from_secs(2);

/// What a user can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// End the machine.
    PowerOff,
    /// Start it anew.
    Reboot,
}

impl Request {
    /// The signal that carries it to PID 1: the same ones that busybox sends, so that its
    /// applets work here.
    fn signal(self) -> rustix::process::Signal {
        match self {
            Self::PowerOff => rustix::process::Signal::USR2,
            Self::Reboot => rustix::process::Signal::TERM,
        }
    }
}

/// Asks PID 1 (the commands `poweroff` and `reboot`).
pub(crate) fn ask(request: Request) -> ExitCode {
    match kill_process(Pid::INIT, request.signal()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot ask PID 1 to stop the guest: {error}; are you root?");
            ExitCode::FAILURE
        }
    }
}

/// Ends the guest: programs first, then file systems, then the machine. Never returns.
pub(crate) fn end(request: Request) -> ! {
    stop_programs();
    rustix::fs::sync();
    mounts::unmount_lasting();
    rustix::fs::sync();
    if !Path::new("/sys/firmware/acpi").exists() {
        without_acpi(request);
    }
    let command = match request {
        Request::PowerOff => RebootCommand::PowerOff,
        Request::Reboot => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        eprintln!("init: the kernel refuses to stop: {error}");
    }
    // Nothing is left to run. Ending PID 1 would be a kernel panic, so it sleeps.
    loop {
        sys::wait(&[sys::Signal(libc::SIGCHLD)]);
    }
}

/// A kernel without ACPI does not know how to switch off: it would stop the processors and the
/// monitor would wait for ever. The machine's own power register says it to the monitor.
fn without_acpi(request: Request) {
    if request == Request::Reboot {
        return;
    }
    let port = proto::power::SLEEP_CONTROL_PORT;
    if let Err(error) = sys::write_port(port, proto::power::POWER_OFF) {
        eprintln!("init: cannot write port {port:#x} to switch off: {error}");
    }
}

/// Asks every other process to end, waits a little, and kills the rest.
fn stop_programs() {
    if !others_run() {
        return;
    }
    // -1 would be refused as a Pid; the group of all processes is signalled one by one.
    signal_others(rustix::process::Signal::TERM);
    signal_others(rustix::process::Signal::CONT);
    let deadline = Instant::now() + GRACE;
    while others_run() && Instant::now() < deadline {
        let pause = rustix::thread::Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let _ = clock_nanosleep_relative(rustix::thread::ClockId::Monotonic, &pause);
    }
    signal_others(rustix::process::Signal::KILL);
}

/// The processes of user space other than this one. Kernel threads have no command line.
fn others() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&id| id != 1)
        .filter(|id| fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty()))
        .filter_map(Pid::from_raw)
        .collect()
}

fn others_run() -> bool {
    !others().is_empty()
}

fn signal_others(signal: rustix::process::Signal) {
    for id in others() {
        let _ = kill_process(id, signal);
    }
}
