//! A machine's API on a port of the loopback, for programs that know no unix sockets. A machine
//! that a request has ended is followed by another.

use anyhow::{Context, Result, bail};
use harness::guests;
use harness::process::Process;
use std::fmt::{self, Display, Formatter};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);

/// In which state the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// It waits for its start.
    Waiting,
    /// It runs, with a drive named `disk`, a balloon and a socket device.
    Running,
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Machine::Waiting => "waiting",
            Machine::Running => "running",
        })
    }
}

/// The port; it is closed with the process.
pub(super) struct Bridge {
    port: u16,
    folder: PathBuf,
    _folder: TempDir,
}

impl Bridge {
    pub(super) fn start(coracle: &Path, machine: Machine) -> Result<Bridge> {
        let folder = tempfile::tempdir()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("a port")?;
        let port = listener.local_addr()?.port();
        let mut server = Server {
            coracle: std::path::absolute(coracle)?,
            machine,
            folder: folder.path().to_owned(),
            process: None,
        };
        server.connect()?;
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                match server.connect() {
                    Ok(stream) => carry(client, stream),
                    Err(error) => println!("xtask: the machine of the bridge: {error:#}"),
                }
            }
        });
        Ok(Bridge {
            port,
            folder: folder.path().to_owned(),
            _folder: folder,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A folder for what requests leave behind.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

struct Server {
    coracle: PathBuf,
    machine: Machine,
    folder: PathBuf,
    process: Option<Process>,
}

impl Server {
    /// A connection to the machine, or to a new one where it has ended.
    fn connect(&mut self) -> Result<UnixStream> {
        let socket = self.folder.join("api.sock");
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Ok(stream) = UnixStream::connect(&socket) {
                return Ok(stream);
            }
            let runs = match &mut self.process {
                Some(process) => process.wait(Duration::from_millis(1))?.is_none(),
                None => false,
            };
            if !runs {
                self.process = Some(self.boot(&socket)?);
            }
        }
        bail!("nobody answers at {}", socket.display());
    }

    fn boot(&self, socket: &Path) -> Result<Process> {
        let mut command = Command::new(&self.coracle);
        match self.machine {
            Machine::Waiting => command.arg("vmm"),
            Machine::Running => {
                let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
                    let path = self.folder.join(name);
                    std::fs::write(&path, bytes)?;
                    Ok(path)
                };
                let disk = file("disk", &vec![0; 1 << 20])?.display().to_string();
                command
                    .args(["boot", "--memory", "64M", "--balloon", "--kernel"])
                    .arg(file("guest", &guests::halt())?)
                    .args(["--disk", &format!("{disk},id=disk")])
            }
        };
        let child = command
            .arg("--api-sock")
            .arg(socket)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting coracle")?;
        Process::new(child)
    }
}

/// Carries bytes both ways until both sides have ended.
fn carry(client: TcpStream, machine: UnixStream) {
    let clones = client
        .try_clone()
        .and_then(|client| Ok((client, machine.try_clone()?)));
    let Ok((from_client, to_machine)) = clones else {
        return;
    };
    std::thread::spawn(move || {
        copy(from_client, &to_machine);
        let _ = to_machine.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        copy(machine, &client);
        let _ = client.shutdown(Shutdown::Both);
    });
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut bytes = [0; 16 << 10];
    while let Ok(len) = from.read(&mut bytes) {
        let Some(part) = bytes.get(..len).filter(|part| !part.is_empty()) else {
            return;
        };
        if to.write_all(part).is_err() {
            return;
        }
    }
}
