//! Balloon, ports, watchdog and panic port under real drivers. As PID 1 of a guest it does what
//! `lab.do=` says; beside a guest, in the lab, it looks at the monitor and talks to its sockets.

use anyhow::{Context, Result, bail};
use lab::setup;
use rustix::system::{RebootCommand, reboot};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

const MIB: usize = 1 << 20;
/// A moment that is longer is no moment of a guest that runs.
const PAUSE: Duration = Duration::from_secs(5);
/// How long something that takes the guest and the host some time is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    if std::process::id() == 1 {
        println!("lab-misc: user space");
        if let Err(error) = guest() {
            println!("lab-misc: wrong: {error:#}");
        }
        // PID 1 returns: the kernel panics.
        return Ok(());
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["below", mib] => resident(mib, |has, limit| has < limit),
        ["above", mib] => resident(mib, |has, limit| has > limit),
        ["api", method, path, body, wanted] => api(method, path, body, wanted),
        ["port", path] => port(path),
        ["still"] => still(),
        other => bail!("no such work: {other:?}"),
    }
}

/// Waits until the monitor's resident memory is on the right side of a limit.
fn resident(mib: &str, right: impl Fn(usize, usize) -> bool) -> Result<()> {
    let limit: usize = mib.parse().context("a number of MiB")?;
    let started = Instant::now();
    loop {
        let has = monitor()? / MIB;
        if right(has, limit) {
            println!("resident: {has} MiB");
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!("the monitor has {has} MiB resident, which is on the wrong side of {limit}");
        }
        setup::rest();
    }
}

/// The resident bytes of the one monitor that runs.
fn monitor() -> Result<usize> {
    let pages = std::fs::read_to_string(monitors_folder()?.join("statm"))?;
    let resident = pages.split_whitespace().nth(1).context("statm is odd")?;
    Ok(resident.parse::<usize>()? * 4096)
}

/// The folder in /proc of the one monitor that runs.
fn monitors_folder() -> Result<PathBuf> {
    let mut all = std::fs::read_dir("/proc")?.flatten();
    let is_it = |path: &Path| {
        let name = std::fs::read_to_string(path.join("comm"));
        name.is_ok_and(|name| name.trim() == "coracle")
    };
    let found = all.find(|entry| is_it(&entry.path()));
    Ok(found.context("no monitor runs")?.path())
}

/// Watches the monitor's vCPUs for longer than a pause has to last: none of them runs.
fn still() -> Result<()> {
    let before = vcpus()?;
    let started = Instant::now();
    while started.elapsed() < PAUSE + Duration::from_secs(1) {
        setup::rest();
    }
    let after = vcpus()?;
    if before != after || before.is_empty() {
        bail!("the vCPUs ran: {before:?}, then {after:?}");
    }
    println!("still: {before:?}");
    Ok(())
}

/// The name of each vCPU's thread and how long it has run, in the host's ticks.
fn vcpus() -> Result<Vec<String>> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(monitors_folder()?.join("task"))?.flatten() {
        let text = std::fs::read_to_string(task.path().join("stat"))?;
        let fields: Vec<&str> = text.split_whitespace().collect();
        if let [_, name, rest @ ..] = fields.as_slice()
            && name.starts_with("(vcpu-")
        {
            // utime and stime, counted from the state (proc(5)).
            let used = rest.get(11..13).context("stat is odd")?;
            all.push(format!("{name} {used:?}"));
        }
    }
    Ok(all)
}

/// Sends a request until its answer contains what is wanted.
fn api(method: &str, path: &str, body: &str, wanted: &str) -> Result<()> {
    let body = if body == "-" { "" } else { body };
    let started = Instant::now();
    loop {
        let mut socket = UnixStream::connect("/tmp/api").context("/tmp/api")?;
        let kind = "Content-Type: application/json\r\nConnection: close";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: lab\r\n{kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let head = if body.is_empty() {
            format!("{method} {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        } else {
            head
        };
        socket.write_all(head.as_bytes())?;
        socket.write_all(body.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        if answer.contains(wanted) {
            println!(
                "{method} {path}: {}",
                answer.lines().last().unwrap_or_default()
            );
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!("{method} {path}: no {wanted:?} in {answer:?}");
        }
        setup::rest();
    }
}

/// Talks with the echo of a guest: lines, then a megabyte.
fn port(path: &str) -> Result<()> {
    let mut socket = UnixStream::connect(path).with_context(|| path.to_owned())?;
    socket.write_all(b"hello\n")?;
    let mut answer = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    if line != "hello\n" {
        bail!("the echo says {line:?}");
    }
    let sent: Vec<u8> = (0..MIB).map(|n| (n ^ n >> 8).to_le_bytes()[0]).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || socket.write_all(&copy));
    let mut got = vec![0; MIB];
    answer.read_exact(&mut got).context("reading the echo")?;
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer died"))??;
    if got != sent {
        bail!("the echo differs");
    }
    println!("port: a megabyte came back as it was sent");
    Ok(())
}

fn guest() -> Result<()> {
    setup::mount_all()?;
    setup::load_modules()?;
    let modules = setup::argument("lab.modules").unwrap_or_default();
    for name in modules.split(',').filter(|name| !name.is_empty()) {
        load(name)?;
    }
    let work = setup::argument("lab.do").unwrap_or_default();
    for work in work.split(',') {
        let (what, value) = work.split_once(':').unwrap_or((work, ""));
        match what {
            "fill" => fill(value.parse().context("a number of MiB")?),
            "wait" => wait()?,
            "echo" => echo(value)?,
            "random" => random(value.parse().context("a number of bytes")?)?,
            "watchdog" => watchdog()?,
            "pause" => stand_still()?,
            "reboot" => reboot(RebootCommand::Restart).context("rebooting")?,
            "poweroff" => reboot(RebootCommand::PowerOff).context("powering off")?,
            "panic" => return Ok(()),
            other => bail!("no such work: {other:?}"),
        }
        println!("lab-misc: did {work}");
    }
    Ok(())
}

/// Loads a module and what it needs, with the parameter that its name may be followed by.
fn load(name: &str) -> Result<()> {
    let (name, parameter) = name.split_once('/').unwrap_or((name, ""));
    let list = format!("/modules/{name}.list");
    let list = std::fs::read_to_string(&list).with_context(|| list.clone())?;
    for module in list.lines() {
        let path = Path::new("/modules").join(module);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let own = module.trim_end_matches(".ko") == name;
        let parameter = if own { parameter } else { "" };
        let parameter = std::ffi::CString::new(parameter)?;
        match rustix::system::finit_module(&file, &parameter, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).context(format!("loading {module}")),
        }
    }
    Ok(())
}

/// Writes so much memory and gives it back to the guest's kernel.
fn fill(mib: usize) {
    let mut memory = vec![0_u8; mib * MIB];
    for (page, number) in memory.chunks_mut(4096).zip(1_usize..) {
        page.fill(number.to_le_bytes()[0] | 1);
    }
    println!(
        "lab-misc: filled {}",
        std::hint::black_box(&memory).len() / MIB
    );
}

fn wait() -> Result<()> {
    println!("lab-misc: waiting");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("waiting")?;
    Ok(())
}

/// Sends back what comes on the port of that name, until the other side goes.
fn echo(name: &str) -> Result<()> {
    let device = port_of(name)?;
    println!("lab-misc: echo on {}", device.display());
    let mut port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&device)
        .with_context(|| device.display().to_string())?;
    let mut chunk = [0; 4096];
    let mut echoed = 0;
    loop {
        // Nobody is there yet, or not any more: both read as an end.
        match port.read(&mut chunk).context("reading the port")? {
            0 if echoed > 0 => return Ok(()),
            0 => setup::rest(),
            len => {
                let bytes = chunk.get(..len).unwrap_or_default();
                port.write_all(bytes).context("writing the port")?;
                echoed += len;
            }
        }
    }
}

/// The device of the port of that name.
fn port_of(name: &str) -> Result<PathBuf> {
    for _ in 0..100 {
        let ports = std::fs::read_dir("/sys/class/virtio-ports");
        for port in ports.into_iter().flatten().flatten() {
            let found = std::fs::read_to_string(port.path().join("name")).unwrap_or_default();
            if found.trim() == name {
                return Ok(Path::new("/dev").join(port.file_name()));
            }
        }
        setup::rest();
    }
    bail!("no port {name} appears")
}

/// Reads random bytes of the device and says how long that took.
fn random(bytes: usize) -> Result<()> {
    let started = Instant::now();
    let mut got = vec![0; bytes];
    File::open("/dev/hwrng")
        .and_then(|mut device| device.read_exact(&mut got))
        .context("/dev/hwrng")?;
    let seconds = started.elapsed().as_secs();
    let pace = if seconds >= 2 { "slowly" } else { "fast" };
    println!("lab-misc: random {pace}, {seconds} s");
    Ok(())
}

/// Ticks until a moment is long, as it is for who stands still: both clocks have gone on by as
/// much, and time is right again.
fn stand_still() -> Result<()> {
    println!("lab-misc: ticking");
    let now = || (Instant::now(), SystemTime::now());
    let mut last = now();
    loop {
        setup::rest();
        let next = now();
        let passed = next.0.duration_since(last.0);
        if passed >= PAUSE {
            let wall = next.1.duration_since(last.1).context("time went back")?;
            if wall.abs_diff(passed) > Duration::from_millis(50) {
                bail!("{passed:?} have passed, and {wall:?} on the wall");
            }
            println!("lab-misc: stood still for {passed:?}");
            return Ok(());
        }
        last = next;
    }
}

/// Starts the watchdog, feeds it once, and hangs.
fn watchdog() -> Result<()> {
    let mut device = OpenOptions::new()
        .write(true)
        .open("/dev/watchdog")
        .context("/dev/watchdog")?;
    device.write_all(b"x").context("feeding")?;
    println!("lab-misc: hanging");
    loop {
        setup::rest();
    }
}
