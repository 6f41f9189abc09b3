//! The API of a machine: how soon it answers, how soon it starts a guest, how it serves many.

use super::startup::program;
use super::{Figure, conclude, folder, limits, median};
use anyhow::{Context, Result, bail, ensure};
use api::client::{Answer, Client};
use api::http::Method;
use harness::guests;
use harness::process::Process;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);

/// Threads of clients, and the connections that each of them asks on in turn.
const THREADS: usize = 4;
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 500;

/// Requests after which the memory must be what it was.
const REQUESTS: usize = 100_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiLimits {
    first_answer_ms: f64,
    first_answer_cpu_ms: f64,
    start_to_first_byte_ms: f64,
    get_p99_ms: f64,
    growth_kib: f64,
}

#[derive(Debug, Serialize)]
struct Samples {
    first_answer_ms: Vec<f64>,
    start_to_first_byte_ms: Vec<f64>,
}

/// One run: milliseconds of each of its parts.
#[derive(Debug)]
struct Sample {
    first_answer: f64,
    cpu: f64,
    start_to_first_byte: f64,
}

/// Measures, prints and writes api.json.
pub(super) fn run(runs: u32) -> Result<bool> {
    let limits = limits()?.api;
    let coracle = program()?;
    let folder = folder()?;
    let guest = folder.join("hello");
    std::fs::write(&guest, guests::hello_reset()).context("writing the guest")?;
    // The first fills the page cache and is not counted.
    let samples = (0..=runs).map(|_| sample(&coracle, &guest));
    let samples: Vec<_> = samples.collect::<Result<_>>()?;
    let of = |part: fn(&Sample) -> f64| samples.iter().skip(1).map(part).collect::<Vec<_>>();
    let first_answer_ms = of(|sample| sample.first_answer);
    let start_to_first_byte_ms = of(|sample| sample.start_to_first_byte);
    let (served, p99, growth) = under_load(&coracle)?;
    let figures = [
        Figure::new(
            "fork to the first answer, median",
            "ms",
            median(&first_answer_ms),
            limits.first_answer_ms,
        ),
        Figure::new(
            "  CPU time until then, median",
            "ms",
            median(&of(|sample| sample.cpu)),
            limits.first_answer_cpu_ms,
        ),
        Figure::new(
            "InstanceStart to the first byte, median",
            "ms",
            median(&start_to_first_byte_ms),
            limits.start_to_first_byte_ms,
        ),
        Figure::new(
            "GET / among 64 connections, 99 of 100 within",
            "ms",
            p99,
            limits.get_p99_ms,
        ),
        Figure::told("  of those that found a place, a second", "", served),
        Figure::new(
            "memory after 100,000 requests, growth",
            "KiB",
            growth,
            limits.growth_kib,
        ),
    ];
    let samples = Samples {
        first_answer_ms,
        start_to_first_byte_ms,
    };
    conclude("api", &figures, &samples)
}

/// A monitor that waits for its machine.
struct Monitor {
    process: Process,
    console: ChildStdout,
    socket: PathBuf,
    started: Instant,
    _folder: TempDir,
}

impl Monitor {
    fn start(coracle: &Path) -> Result<Monitor> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("s");
        let started = Instant::now();
        let mut child = Command::new(coracle)
            .args(["vmm", "--api-sock"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let console = child.stdout.take().context("a pipe")?;
        let process = Process::new(child)?;
        Ok(Monitor {
            process,
            console,
            socket,
            started,
            _folder: folder,
        })
    }

    /// A client as soon as one can be.
    fn client(&self) -> Result<Client> {
        while self.started.elapsed() < PATIENCE {
            match Client::connect(&self.socket, PATIENCE) {
                Ok(client) => return Ok(client),
                Err(_) => std::thread::yield_now(),
            }
        }
        bail!("coracle vmm does not answer");
    }

    /// Milliseconds that its threads have run.
    #[expect(clippy::cast_precision_loss, reason = "a few milliseconds")]
    fn cpu_ms(&self) -> Result<f64> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let run = text.split_whitespace().next().context("schedstat")?;
            nanoseconds += run.parse::<u64>().context("schedstat")?;
        }
        Ok(nanoseconds as f64 / 1e6)
    }
}

fn sample(coracle: &Path, guest: &Path) -> Result<Sample> {
    let mut monitor = Monitor::start(coracle)?;
    let mut client = monitor.client()?;
    let answer = client.get("/")?;
    let first_answer = milliseconds(monitor.started);
    ensure!(answer.status == 200, "GET / answers {}", answer.status);
    let cpu = monitor.cpu_ms()?;
    let size = json!({"vcpu_count": 1, "mem_size_mib": 128});
    put(&mut client, "/machine-config", &size)?;
    put(
        &mut client,
        "/boot-source",
        &json!({"kernel_image_path": guest}),
    )?;
    let started = Instant::now();
    let start = json!({"action_type": "InstanceStart"});
    let (answer, first_byte) = std::thread::scope(|scope| {
        let console = &mut monitor.console;
        let first_byte = scope.spawn(move || {
            let read = console.read_exact(&mut [0]);
            (read, milliseconds(started))
        });
        (put(&mut client, "/actions", &start), first_byte.join())
    });
    let (read, start_to_first_byte) = first_byte.ok().context("a thread")?;
    answer?;
    read.context("the guest says nothing")?;
    Ok(Sample {
        first_answer,
        cpu,
        start_to_first_byte,
    })
}

fn put(client: &mut Client, path: &str, body: &Value) -> Result<()> {
    let text = body.to_string();
    let Answer { status, body, .. } = client.request(Method::Put, path, Some(text.as_bytes()))?;
    let said = String::from_utf8_lossy(&body);
    ensure!(status == 204, "PUT {path} answers {status}: {said}");
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Answers a second, milliseconds of the slowest hundredth, KiB that many requests leave behind.
#[expect(clippy::cast_precision_loss, reason = "counts and KiB of one process")]
fn under_load(coracle: &Path) -> Result<(f64, f64, f64)> {
    let monitor = Monitor::start(coracle)?;
    let mut client = monitor.client()?;
    ensure!(client.get("/")?.status == 200, "GET /");
    drop(client);
    let started = Instant::now();
    let times: Vec<_> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| many(&monitor.socket));
        let threads: Vec<_> = (0..THREADS).map(|_| ask()).collect();
        let all = threads.into_iter().map(ScopedJoinHandle::join);
        all.collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    let mut all = Vec::new();
    for times in times {
        all.extend(times.ok().context("a thread")??);
    }
    all.sort_by(f64::total_cmp);
    let place = (all.len() * 99).div_ceil(100).saturating_sub(1);
    let p99 = all.get(place).copied().context("no answer at all")?;
    let mut client = monitor.client()?;
    let before = monitor.process.status_kib("VmRSS")?;
    for number in 0..REQUESTS {
        let path = if number % 10 == 0 { "/vm/config" } else { "/" };
        ensure!(client.get(path)?.status == 200, "GET {path}");
    }
    let after = monitor.process.status_kib("VmRSS")?;
    let growth = after.saturating_sub(before);
    Ok((all.len() as f64 / seconds, p99, growth as f64))
}

/// Asks on many connections in turn: milliseconds of every answer. A client that finds no place
/// is told so, and comes again.
fn many(socket: &Path) -> Result<Vec<f64>> {
    let mut clients: Vec<Option<Client>> = (0..CONNECTIONS).map(|_| None).collect();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        for place in &mut clients {
            let started = Instant::now();
            let mut client = match place.take() {
                Some(client) => client,
                None => Client::connect(socket, PATIENCE)?,
            };
            match client.get("/") {
                Ok(answer) if answer.status == 200 => {
                    times.push(milliseconds(started));
                    *place = Some(client);
                }
                Ok(answer) => ensure!(answer.status == 503, "GET / answers {}", answer.status),
                // Ended for another, or before it could ask.
                Err(_) => {}
            }
        }
    }
    Ok(times)
}
