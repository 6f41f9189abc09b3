//! A network namespace of a test's own: interfaces that nobody else sees, for threads of the test
//! and for the programs that it starts.

use crate::skip::skipped;
use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A network namespace, alive as long as this is.
#[derive(Debug)]
pub struct Namespace(Child);

impl Namespace {
    /// None, and reported, where this user may not make one or the host has no taps.
    ///
    /// # Errors
    /// When the host has no process left.
    pub fn new() -> Result<Option<Namespace>> {
        if !Path::new("/dev/net/tun").exists() {
            skipped("there is no /dev/net/tun");
            return Ok(None);
        }
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting unshare")?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let space = Namespace(child);
        if line.is_empty() {
            skipped("this user may not make a network namespace");
            return Ok(None);
        }
        space.ip("link set dev lo up")?;
        Ok(Some(space))
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Runs `work` in a thread that lives in the namespace, and so do the programs that it starts.
    ///
    /// # Errors
    /// When this user may not enter it.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let space = std::fs::File::open(self.path())?;
        let run = || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A command that runs another one in the namespace, with its arguments.
    #[must_use]
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("nsenter");
        wrapped.arg(format!("--net={}", self.path()));
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    }

    /// Moves an interface of this namespace into another.
    ///
    /// # Errors
    /// What `ip` says is wrong.
    pub fn give(&self, interface: &str, to: &Namespace) -> Result<()> {
        self.ip(&format!("link set dev {interface} netns {}", to.0.id()))
    }

    /// Runs `ip` in the namespace.
    ///
    /// # Errors
    /// What it says is wrong.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(arguments.split_whitespace());
        let done = self.wrap(&command).output()?;
        let text = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "ip {arguments}: {text}");
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
