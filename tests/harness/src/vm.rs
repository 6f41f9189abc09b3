//! A machine under test: `coracle boot` with pipes on its standard streams.

use crate::output::Output;
use crate::process::{Exit, Process, parts};
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a machine of a few instructions may take to do what it does.
pub const SHORTLY: Duration = Duration::from_secs(20);

/// Describes a machine; `boot` starts it.
#[derive(Debug)]
pub struct TestVm {
    folder: TempDir,
    arguments: Vec<std::ffi::OsString>,
}

impl TestVm {
    /// `coracle boot` and nothing else.
    ///
    /// # Errors
    /// When there is no room for a temporary folder.
    pub fn new() -> Result<TestVm> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        Ok(TestVm {
            folder,
            arguments: vec!["boot".into()],
        })
    }

    /// `coracle vmm`, whose machine is described through its API on the socket at
    /// [`socket`](Self::socket).
    ///
    /// # Errors
    /// When there is no room for a temporary folder.
    pub fn served() -> Result<TestVm> {
        let mut vm = TestVm::new()?;
        vm.arguments = vec!["vmm".into(), "--api-sock".into(), vm.socket().into()];
        Ok(vm)
    }

    /// Where its API can be.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder().join("api.sock")
    }

    /// A machine whose kernel is `image`, of 32 MiB unless `--memory` says otherwise.
    ///
    /// # Errors
    /// When the image cannot be written to a temporary file.
    pub fn of(image: &[u8]) -> Result<TestVm> {
        let vm = TestVm::new()?;
        let kernel = vm.file("kernel", image)?;
        Ok(vm.arg("--kernel").arg(&kernel))
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> TestVm {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> TestVm {
        self.arguments.extend(arguments.iter().map(Into::into));
        self
    }

    /// A temporary file that lives as long as the machine.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// The temporary folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command with its arguments, for tests that start it their own way.
    ///
    /// # Errors
    /// When the program isn't built.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(crate::coracle()?);
        command.args(&self.arguments);
        // Beside the machines of whoever runs the tests.
        command.env("XDG_RUNTIME_DIR", self.folder());
        let says = |word: &str| {
            let mut words = self.arguments.iter();
            words.any(|argument| argument.to_string_lossy().starts_with(word))
        };
        if says("--kernel") && !says("--memory") {
            command.args(["--memory", "32M"]);
        }
        Ok(command)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the program isn't built or cannot be started.
    pub fn boot(self) -> Result<Machine> {
        let mut child = self
            .command()?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting coracle")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(Output::collect).context("a pipe")?;
        let stderr = child.stderr.take().map(Output::collect).context("a pipe")?;
        let process = Process::new(child)?;
        Ok(Machine {
            process,
            stdin,
            stdout,
            stderr,
            seen: 0,
            _folder: self.folder,
        })
    }

    /// Starts it and waits for its end.
    ///
    /// # Errors
    /// As `boot`, and when it doesn't end by itself in time.
    pub fn run(self) -> Result<Exit> {
        self.boot()?.exit(SHORTLY)
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    /// The process, for signals and /proc.
    pub process: Process,
    /// What it has written to standard output: the guest's console.
    pub stdout: Output,
    /// What it has written to standard error.
    pub stderr: Output,
    stdin: Option<ChildStdin>,
    seen: usize,
    _folder: TempDir,
}

impl Machine {
    /// Waits for text on the console, after what was waited for before.
    ///
    /// # Errors
    /// When it doesn't come within `limit`; the message holds both streams.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<()> {
        match self.stdout.wait_for(text.as_bytes(), self.seen, limit) {
            Some(end) => {
                self.seen = end;
                Ok(())
            }
            None => bail!("no {text:?} within {limit:?}{}", self.transcript()),
        }
    }

    /// Types into the console.
    ///
    /// # Errors
    /// When the machine has ended or its input was closed.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the input was closed")?;
        stdin
            .write_all(text.as_bytes())
            .context("typing into the console")
    }

    /// Closes the console's input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to the monitor.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for the end and returns how it ended.
    ///
    /// # Errors
    /// When it still runs after `limit`: it is then killed, and the message holds both streams.
    pub fn exit(mut self, limit: Duration) -> Result<Exit> {
        let Some(status) = self.process.wait(limit)? else {
            bail!("still running after {limit:?}{}", self.transcript());
        };
        // A helper process that keeps a stream open would be a fault of its own.
        if !self.stdout.wait_for_end(SHORTLY) || !self.stderr.wait_for_end(SHORTLY) {
            bail!("a standard stream stays open after the end");
        }
        let (code, signal) = parts(status);
        Ok(Exit {
            code,
            signal,
            stdout: self.stdout.bytes(),
            stderr: self.stderr.text(),
        })
    }

    fn transcript(&self) -> String {
        format!(
            "\n--- console\n{}\n--- errors\n{}",
            self.stdout.text(),
            self.stderr.text()
        )
    }
}
