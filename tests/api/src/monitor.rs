//! A monitor whose machine is described and started through its API.

use anyhow::{Context, Result, ensure};
use api::client::{Answer, Client};
use api::http::Method;
use harness::output::Output;
use harness::process::Process;
use harness::vm::SHORTLY;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// `coracle vmm`, or `firecracker` where it is called by that name.
#[derive(Debug)]
pub struct Monitor {
    /// The process.
    pub process: Process,
    /// What the guest writes to its console.
    pub console: Output,
    /// What the monitor writes to standard error.
    pub errors: Output,
    folder: TempDir,
}

impl Monitor {
    /// Starts one, and waits for its socket.
    ///
    /// # Errors
    /// When it does not come.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut child = Command::new(harness::coracle()?)
            .args(["vmm", "--api-sock"])
            .arg(folder.path().join("api.sock"))
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting coracle")?;
        let console = Output::collect(child.stdout.take().context("a pipe")?);
        let errors = Output::collect(child.stderr.take().context("a pipe")?);
        let mut monitor = Self {
            process: Process::new(child)?,
            console,
            errors,
            folder,
        };
        monitor.wait()?;
        Ok(monitor)
    }

    fn wait(&mut self) -> Result<()> {
        while Client::connect(&self.socket(), SHORTLY).is_err() {
            let ended = self.process.wait(std::time::Duration::from_millis(1))?;
            ensure!(ended.is_none(), "it ends: {}", self.errors.text());
        }
        Ok(())
    }

    /// The folder that it runs in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder().join("api.sock")
    }

    /// A file in its folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.folder().join(name);
        std::fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// A client.
    ///
    /// # Errors
    /// When it finds nobody.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.socket(), SHORTLY)?)
    }

    /// Asks once, with a JSON body.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        let text = body.to_string();
        Ok(self
            .client()?
            .request(method, path, Some(text.as_bytes()))?)
    }

    /// Asks for what must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn put(&self, path: &str, body: &Value) -> Result<()> {
        let answer = self.ask(Method::Put, path, body)?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 204, "PUT {path}: {} {said}", answer.status);
        Ok(())
    }

    /// Starts a guest that says hello.
    ///
    /// # Errors
    /// When it does not.
    pub fn boot(&self, image: &[u8]) -> Result<()> {
        let kernel = self.file("kernel", image)?;
        self.put("/boot-source", &json!({"kernel_image_path": kernel}))?;
        self.put("/actions", &json!({"action_type": "InstanceStart"}))?;
        let hello = harness::guests::HELLO.as_bytes();
        let said = self.console.wait_for(hello, 0, SHORTLY);
        said.map(drop).context("the guest says nothing")
    }
}
