//! Streams between a program of the host and the bare guest, through the vsock device.

use crate::bench::machines::Machines;
use anyhow::{Context, Result, bail, ensure};
use harness::bare::ops::{Op, VsockLoad};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MODEL: &str = "virtio-vsock";
const PORT: u32 = 5000;
/// Bytes of one stream.
const BYTES: u64 = 512 << 20;
const CHUNK: usize = 256 << 10;
/// How long a machine may take to listen.
const START: Duration = Duration::from_secs(10);

fn socket(machines: &Machines) -> PathBuf {
    machines.folder().join("vsock")
}

/// The arguments of a machine with a vsock device.
pub(super) fn arguments(machines: &Machines) -> Vec<OsString> {
    let mut value = OsString::from("cid=3,path=");
    value.push(socket(machines));
    vec!["--vsock".into(), value]
}

/// Whether this program has such a device.
pub(super) fn offered(machines: &Machines) -> Result<u64> {
    machines.window(MODEL, &arguments(machines))
}

/// Gbit/s of one stream, from the host to the guest or, with `sends`, back.
#[expect(clippy::cast_precision_loss, reason = "bytes of one stream")]
pub(super) fn rate(machines: &Machines, sends: bool) -> Result<f64> {
    let path = socket(machines);
    // A socket that an earlier machine left would be connected to.
    let _ = std::fs::remove_file(&path);
    let mut arguments = arguments(machines);
    arguments.push("--no-rng".into());
    let load = VsockLoad {
        port: PORT,
        send: sends,
        bytes: BYTES,
    };
    let window = machines.window(MODEL, &arguments)?;
    let (answer, moved) = std::thread::scope(|scope| {
        let host = scope.spawn(|| stream(&path, sends));
        let answer = machines.run(Op::Vsock(window, load), &arguments);
        (answer, host.join())
    });
    let answer = answer?;
    let Ok(moved) = moved else {
        bail!("the host's end panicked")
    };
    let moved = moved.context("the host's end")?;
    ensure!(moved >= BYTES, "only {moved} bytes went through");
    let load = answer.loads.first().context("no load")?;
    Ok(load.done as f64 * 8.0 / 1e9 / machines.seconds(load.ticks))
}

/// The host's end: how many bytes it moved.
fn stream(path: &PathBuf, sends: bool) -> Result<u64> {
    let mut guest = connect(path)?;
    let mut chunk = vec![0x5a; CHUNK];
    let mut moved = 0;
    while moved < BYTES {
        let count = if sends {
            guest.read(&mut chunk)?
        } else {
            guest.write_all(&chunk)?;
            CHUNK
        };
        ensure!(count > 0, "the stream ends after {moved} bytes");
        moved += count as u64;
    }
    Ok(moved)
}

/// A connection to the guest's port, as soon as it listens.
fn connect(path: &PathBuf) -> Result<UnixStream> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        let Ok(mut stream) = UnixStream::connect(path) else {
            std::thread::yield_now();
            continue;
        };
        writeln!(stream, "CONNECT {PORT}")?;
        let mut line = String::new();
        // Byte by byte would do; the guest sends nothing before it has the first packet.
        let read = BufReader::with_capacity(1, &stream).read_line(&mut line);
        if read.is_ok() && line.starts_with("OK ") {
            return Ok(stream);
        }
    }
    bail!("the guest does not listen")
}
