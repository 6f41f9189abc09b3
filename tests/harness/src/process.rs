//! A child process that is waited for with a deadline and never outlives its test.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// How a program ended and what it had written.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    /// Takes over a child that has just been started.
    ///
    /// # Errors
    /// When the kernel has no pidfd for it.
    pub fn new(child: Child) -> Result<Process> {
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("opening a pidfd")?;
        Ok(Process { child, pidfd })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.pidfd, signal).context("sending a signal")
    }

    /// Waits for the end; none when it still runs after `limit`.
    ///
    /// # Errors
    /// When the host refuses to wait.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let limit = Timespec::try_from(limit).context("a time limit")?;
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit)))?;
        if ready == 0 {
            return Ok(None);
        }
        Ok(Some(self.child.wait()?))
    }

    /// A number of KiB from /proc/PID/status, such as `VmHWM`.
    ///
    /// # Errors
    /// When the process is gone or the field is missing.
    pub fn status_kib(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("{field} in {path}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Code and signal of an exit status.
pub(crate) fn parts(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    (status.code(), status.signal())
}
