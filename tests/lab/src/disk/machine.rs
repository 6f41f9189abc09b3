//! The lab's end: images, the program that is started over them, and what its guest says.

use super::PORT;
use super::model::Files;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const CORACLE: &str = "/bin/coracle";
const CONSOLE: &str = "/tmp/disk-console";
const SOCKET: &str = "/tmp/disk-vsock";
/// The image of the drive.
pub(super) const IMAGE: &str = "/tmp/disk-image";
/// How long anything that a guest is to say may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether the program still runs.
const LOOK_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// How much is copied at a time.
const PIECE: usize = 64 << 10;

/// What a guest sends.
#[derive(Debug)]
pub(super) enum Message {
    /// A line.
    Line(String),
    /// A file of a round.
    File {
        /// The round.
        round: u64,
        /// The file's name.
        name: String,
        /// What is in it.
        content: Vec<u8>,
    },
}

/// A program that runs, and its guest.
pub(super) struct Machine {
    child: Child,
    messages: Receiver<Message>,
    socket: Option<UnixStream>,
}

impl Machine {
    /// Starts the program over a drive, with further arguments, and waits for the guest's call.
    pub(super) fn start(drive: &str, cmdline: &str, more: &[&str]) -> Result<Machine> {
        let path = format!("{SOCKET}_{PORT}");
        let listener = crate::setup::listen(&path)?;
        listener.set_nonblocking(true)?;
        let log = File::create(CONSOLE).context(CONSOLE)?;
        let child = Command::new(CORACLE)
            .args([
                "boot",
                "--kernel",
                "/kernels/lean",
                "--initrd",
                "/initrds/disk",
            ])
            .args([
                "--memory",
                "64M",
                "--vsock",
                &format!("cid=3,path={SOCKET}"),
            ])
            .args(["--disk", drive, "--cmdline", cmdline])
            .args(more)
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .spawn()
            .context("starting coracle")?;
        let (sender, messages) = channel();
        let mut machine = Machine {
            child,
            messages,
            socket: None,
        };
        let socket = machine.answer(&listener)?;
        if console().contains("engine=sync is used") {
            bail!("the drive does without its engine{}", console());
        }
        machine.socket = Some(socket.try_clone()?);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(socket);
            while let Some(message) = read(&mut reader) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        Ok(machine)
    }

    fn answer(&mut self, listener: &UnixListener) -> Result<UnixStream> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok((socket, _)) = listener.accept() {
                socket.set_nonblocking(false)?;
                return Ok(socket);
            }
            if self.child.try_wait()?.is_some() {
                bail!("the machine ended before its guest called{}", console());
            }
            let mut called = [PollFd::new(listener, PollFlags::IN)];
            rustix::event::poll(&mut called, Some(&LOOK_AGAIN))?;
        }
        bail!("no guest calls{}", console())
    }

    /// The next message; none when the guest says no more or nothing until then.
    pub(super) fn hear(&self, until: Instant) -> Result<Option<Message>> {
        let left = until.saturating_duration_since(Instant::now());
        match self.messages.recv_timeout(left) {
            Ok(Message::Line(line)) if line.starts_with("wrong") => {
                bail!("the guest says {line}{}", console())
            }
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    /// Waits for a line that begins so, and returns it; the files that come before it are kept.
    pub(super) fn expect(&self, wanted: &str, files: &mut BTreeMap<u64, Files>) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) = self.hear(deadline)? {
            match message {
                Message::Line(line) if line.starts_with(wanted) => return Ok(line),
                Message::Line(line) => bail!("the guest says {line:?} instead of {wanted:?}"),
                Message::File {
                    round,
                    name,
                    content,
                } => {
                    files.entry(round).or_default().insert(name, content);
                }
            }
        }
        bail!("the guest never says {wanted:?}{}", console())
    }

    /// Lets a guest go on that waits.
    pub(super) fn go(&self) -> Result<()> {
        let mut socket = self.socket.as_ref().context("no guest has called")?;
        socket.write_all(b"go\n").context("telling the guest")
    }

    /// Ends the program with SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing coracle")?;
        self.child.wait().context("waiting for coracle")?;
        Ok(())
    }

    /// Waits until the guest has ended by itself.
    pub(super) fn end(mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            crate::setup::rest();
        }
        bail!("the guest does not end{}", console())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails only for a program that has ended.
        let _ = self.kill();
    }
}

/// What the last machine had written, for an error's text.
fn console() -> String {
    let text = std::fs::read(CONSOLE).unwrap_or_default();
    format!("; its console:\n{}", String::from_utf8_lossy(&text))
}

/// The next message; none at the end, also when it comes in the middle of one.
fn read(reader: &mut impl BufRead) -> Option<Message> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.strip_suffix('\n')?;
    let Some(rest) = line.strip_prefix("file ") else {
        return Some(Message::Line(line.to_owned()));
    };
    let mut words = rest.split(' ');
    let round = words.next()?.parse().ok()?;
    let name = words.next()?.to_owned();
    let mut content = vec![0; words.next()?.parse().ok()?];
    reader.read_exact(&mut content).ok()?;
    Some(Message::File {
        round,
        name,
        content,
    })
}

/// Makes a drive with what `base` has on it: a copy for the kind `none`, else a copy-on-write drive
/// over a base of that kind. Returns the option that it is given to the program with.
pub(super) fn made(kind: &str, base: &str, options: &str) -> Result<String> {
    // Nothing to remove is the case unless a case before this one has failed.
    let _ = std::fs::remove_file(IMAGE);
    if kind == "none" {
        copy(base, IMAGE)?;
        return Ok(format!("{IMAGE}{options}"));
    }
    coracle_disk(&["create", "--base", base, "--base-format", kind, IMAGE])?;
    Ok(format!("{IMAGE},format=cow{options}"))
}

/// Copies an image and leaves out what is zeroes: a new image, or what a killed monitor left.
pub(super) fn copy(from: &str, to: &str) -> Result<()> {
    let mut source = File::open(from).with_context(|| from.to_owned())?;
    let copy = File::create(to).with_context(|| to.to_owned())?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let len = source.read(&mut piece).with_context(|| from.to_owned())?;
        let bytes = piece.get(..len).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        if bytes.iter().any(|byte| *byte != 0) {
            copy.write_all_at(bytes, at)
                .with_context(|| to.to_owned())?;
        }
        at += len as u64;
    }
    copy.set_len(at).with_context(|| to.to_owned())
}

/// How many bytes of the host's an image takes.
pub(super) fn taken(path: &str) -> Result<u64> {
    let about = std::fs::metadata(path).with_context(|| path.to_owned())?;
    Ok(about.blocks() * 512)
}

/// Runs a program to its end and returns what it says; a status that is not right is an error.
pub(super) fn run(program: &str, arguments: &[&str], right: &[i32]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if !output
        .status
        .code()
        .is_some_and(|code| right.contains(&code))
    {
        bail!("{program} {arguments:?}: {}: {text}", output.status);
    }
    Ok(text)
}

/// Runs `coracle disk` with these words behind it.
pub(super) fn coracle_disk(arguments: &[&str]) -> Result<String> {
    run(CORACLE, &[&["disk"], arguments].concat(), &[0])
}
