//! PID 1 of the lab: loads stock KVM, runs every case of the script and reports on the console,
//! then powers off. Whatever goes wrong is part of the report.

use anyhow::{Context, Result, bail};
use api::client::Client;
use api::http::Method;
use lab::report::Line;
use lab::script::{self, Case, Request, Step};
use lab::setup;
use rustix::process::{Pid, Signal, kill_process};
use rustix::system::{RebootCommand, reboot};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const CORACLE: &str = "/bin/coracle";
/// How many lines of a failed case are shown.
const LINES_SHOWN: usize = 40;
/// How often the lab says that a program beside the guest is at work.
const STILL_RUNNING: Duration = Duration::from_secs(30);
/// How long an answer of the program's API may take; the machine is emulated.
const API_PATIENCE: Duration = Duration::from_secs(20);
const API_TENTHS: u32 = 200;

fn main() {
    if let Err(error) = run() {
        println!("lab-init: {error:#}");
    }
    println!("{}", Line::Done);
    // The emulator ends with it; PID 1 must not return before that.
    let _ = reboot(RebootCommand::PowerOff);
}

fn run() -> Result<()> {
    setup::mount_all()?;
    setup::load_modules()?;
    std::fs::create_dir_all("/tmp").context("/tmp")?;
    setup::up("lo", &[])?;
    if !setup::wait_for_path("/dev/kvm", 50) {
        bail!("stock KVM gives no /dev/kvm");
    }
    let text = std::fs::read_to_string(script::PATH).context(script::PATH)?;
    let cases = script::read(&text).map_err(anyhow::Error::msg)?;
    println!("{}", Line::Cases(cases.len()));
    for case in &cases {
        println!("{}", Line::Begin(case.name.clone()));
        report(case);
    }
    Ok(())
}

fn report(case: &Case) {
    let started = Instant::now();
    let mut console = Vec::new();
    let mut ready = 0.0;
    let outcome = play(case, started, &mut console, &mut ready);
    let problem = outcome.map_or_else(|error| format!("{error:#}"), |()| String::new());
    if !problem.is_empty() {
        let text = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)) {
            println!("{}", Line::Output((*line).to_owned()));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let end = Line::End {
        name: case.name.clone(),
        ready,
        seconds,
        problem,
    };
    println!("{end}");
}

/// Runs one case; `ready` becomes the time of the first expected text.
fn play(case: &Case, started: Instant, console: &mut Vec<u8>, ready: &mut f64) -> Result<()> {
    let deadline = started + Duration::from_secs(case.seconds);
    if case.arguments.is_empty() {
        return alone(case, deadline, console);
    }
    let mut run = Run::start(case, deadline)?;
    let mut seen = 0;
    for step in &case.steps {
        let outcome = match step {
            Step::Expect(text) => run.expect(text, console, &mut seen),
            Step::Send(keys) => run.send(keys),
            Step::Terminate => run.terminate(),
            Step::Beside(line) => beside(line, &case.name, run.deadline, console),
            Step::Ask(request) => ask(request),
            Step::Resize(path, bytes) => resize(path, *bytes),
        };
        if outcome.is_err() {
            // Whatever the program says about it comes with the output.
            run.drain(console, Duration::from_millis(500));
            run.describe(console);
            return outcome;
        }
        if *ready == 0.0 && matches!(step, Step::Expect(_)) {
            *ready = started.elapsed().as_secs_f64();
        }
    }
    let status = match run.wait(console) {
        Ok(status) => status,
        Err(error) => {
            run.describe(console);
            return Err(error);
        }
    };
    if status.code() != Some(case.exit) {
        bail!("{status} instead of exit code {}", case.exit);
    }
    Ok(())
}

/// Runs the programs of a case that starts coracle itself.
fn alone(case: &Case, deadline: Instant, console: &mut Vec<u8>) -> Result<()> {
    for step in &case.steps {
        let Step::Beside(line) = step else {
            bail!("nothing runs that could do {step:?}");
        };
        beside(line, &case.name, deadline, console)?;
    }
    Ok(())
}

/// Runs another program to its end. What it says last is shown, whatever comes of it.
fn beside(line: &str, case: &str, deadline: Instant, console: &mut Vec<u8>) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = format!("/bin/{}", words.next().context("no program to run")?);
    let mut child = Command::new(&program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let started = Instant::now();
    let mut told = started;
    while child.try_wait().context("waiting for a program")?.is_none() {
        if Instant::now() > deadline {
            // Fails only for a program that has ended.
            let _ = child.kill();
        }
        if told.elapsed() > STILL_RUNNING {
            told = Instant::now();
            let seconds = started.elapsed().as_secs();
            println!("{}", Line::Output(format!("{case}: {seconds} s")));
        }
        setup::rest();
    }
    let output = child.wait_with_output().context("waiting for a program")?;
    let text = [output.stdout, output.stderr].concat();
    for line in String::from_utf8_lossy(&text).lines() {
        println!("{}", Line::Output(format!("{case}: {line}")));
    }
    console.extend(&text);
    if Instant::now() > deadline {
        bail!(lab::TIMED_OUT);
    }
    if !output.status.success() {
        bail!("{program}: {}", output.status);
    }
    Ok(())
}

/// Asks the program's API and judges the status.
fn ask(request: &Request) -> Result<()> {
    // A program that has only just begun has none yet.
    if !setup::wait_for_path(script::SOCKET, API_TENTHS) {
        bail!("no socket appears at {}", script::SOCKET);
    }
    let mut client = Client::connect(Path::new(script::SOCKET), API_PATIENCE)?;
    let body = Some(request.body.as_bytes()).filter(|body| !body.is_empty());
    let method = Method::named(&request.method);
    let answer = client.request(method, &request.path, body)?;
    if answer.status != request.status {
        let text = String::from_utf8_lossy(&answer.body);
        let (status, path) = (answer.status, &request.path);
        bail!(
            "{path}: status {status} instead of {}: {text}",
            request.status
        );
    }
    Ok(())
}

fn resize(path: &str, bytes: u64) -> Result<()> {
    let file = File::options()
        .write(true)
        .open(path)
        .with_context(|| path.to_owned())?;
    file.set_len(bytes).with_context(|| path.to_owned())
}

/// A running program.
struct Run {
    child: Child,
    input: Option<ChildStdin>,
    chunks: Receiver<Vec<u8>>,
    deadline: Instant,
}

impl Run {
    fn start(case: &Case, deadline: Instant) -> Result<Run> {
        let mut child = Command::new(CORACLE)
            .args(&case.arguments)
            .current_dir("/tmp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting coracle")?;
        let (sender, chunks) = channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child
                .stdout
                .take()
                .map(|stream| Box::new(stream) as Box<dyn Read + Send>),
            child
                .stderr
                .take()
                .map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        ];
        for mut stream in outputs.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut chunk) {
                    let bytes = chunk.get(..count).unwrap_or_default().to_vec();
                    if sender.send(bytes).is_err() {
                        break;
                    }
                }
            });
        }
        let input = child.stdin.take();
        Ok(Run {
            child,
            input,
            chunks,
            deadline,
        })
    }

    fn expect(&mut self, text: &str, console: &mut Vec<u8>, seen: &mut usize) -> Result<()> {
        loop {
            let rest = console.get(*seen..).unwrap_or_default();
            let found = rest
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            if let Some(at) = found {
                *seen += at + text.len();
                return Ok(());
            }
            if !self.more(console)? {
                bail!("ended before {text:?}, {}", self.end());
            }
        }
    }

    /// How the program ended that has closed its output.
    fn end(&mut self) -> String {
        for _ in 0..20 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.to_string();
            }
            setup::rest();
        }
        "though it still runs".to_owned()
    }

    /// Takes the next bytes of output; false at its end.
    fn more(&mut self, console: &mut Vec<u8>) -> Result<bool> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.chunks.recv_timeout(left) {
            Ok(bytes) => {
                console.extend(bytes);
                Ok(true)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => bail!(lab::TIMED_OUT),
        }
    }

    fn drain(&mut self, console: &mut Vec<u8>, limit: Duration) {
        self.deadline = Instant::now() + limit;
        while self.more(console).unwrap_or(false) {}
    }

    fn send(&mut self, keys: &str) -> Result<()> {
        let input = self.input.as_mut().context("no standard input")?;
        input
            .write_all(format!("{keys}\n").as_bytes())
            .context("typing")
    }

    fn terminate(&mut self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("sending SIGTERM")
    }

    /// How the program has ended, or where its threads are, for the report of a case that failed.
    fn describe(&mut self, console: &mut Vec<u8>) {
        if let Ok(Some(status)) = self.child.try_wait() {
            console.extend(format!("\ncoracle has ended: {status}\n").as_bytes());
            return;
        }
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else {
            return;
        };
        for task in tasks.flatten() {
            let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let (name, stack) = (read("comm"), read("stack"));
            let stack: Vec<&str> = stack.lines().take(6).collect();
            let line = format!("\nthread {}: {}\n", name.trim(), stack.join(" "));
            console.extend(line.as_bytes());
        }
    }

    fn wait(&mut self, console: &mut Vec<u8>) -> Result<ExitStatus> {
        // Both streams end with the program, and the deadline with the patience.
        while self.more(console)? {}
        self.child.wait().context("waiting for coracle")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Fails only for a program that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
