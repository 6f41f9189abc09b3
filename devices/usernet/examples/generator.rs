//! A frame generator: a guest made of frames on one end of a network in a process of its own, hosts
//! on loopback on the other. Prints what it measures as JSON; `cargo xtask bench net` runs it.
//!
//! `generator passt` measures passt the same way, where it is installed.

use serde::Serialize;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use usernet::Config;
use usernet::testing::{Guest, StreamId, Wire};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const BULK: Duration = Duration::from_secs(2);
const PINGS: usize = 3000;
const CONNECTIONS: Duration = Duration::from_secs(2);
/// Connections that are under way at a time.
const AT_ONCE: usize = 16;
const IDLE: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Default, Serialize)]
struct Figures {
    up_gbit: f64,
    down_gbit: f64,
    loopback_us: f64,
    round_trip_us: f64,
    connections_per_second: f64,
    idle_wakeups: f64,
    resident_kib: f64,
}

/// A network in another process.
struct Network {
    child: Child,
    /// The process that does the work; passt may put itself into the background.
    pid: u32,
    guest: Guest,
    gateway: std::net::IpAddr,
    folder: Option<PathBuf>,
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn main() -> Outcome<()> {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve(),
        Some("passt") => measure(passt),
        _ => measure(ours),
    }
}

/// The network's process: its end of the link is the standard input.
fn serve() -> Outcome<()> {
    let frames = io::stdin().as_fd().try_clone_to_owned()?;
    usernet::serve(frames, None, &config())?;
    Ok(())
}

fn config() -> Config {
    let mut config = Config::default();
    config.policy.host = true;
    config
}

fn ours() -> Outcome<Network> {
    let (wire, theirs) = Wire::pair()?;
    let child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::from(theirs))
        .spawn()?;
    let config = config();
    Ok(Network {
        pid: child.id(),
        child,
        guest: Guest::new(wire, config.gateway_mac),
        gateway: config.subnet4.gateway.into(),
        folder: None,
    })
}

fn passt() -> Outcome<Network> {
    let folder = std::env::temp_dir().join(format!("generator-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    // passt gives up root, and has to reach the folder all the same.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    let path = folder.join("socket");
    let child = Command::new("passt")
        .args(["--foreground", "--quiet", "--mtu", "65520", "--socket"])
        .arg(&path)
        .args([
            "--address",
            "10.0.2.15",
            "--netmask",
            "24",
            "--gateway",
            "10.0.2.2",
        ])
        .args(["-t", "none", "-u", "none"])
        .spawn()?;
    let start = Instant::now();
    let (_keep, never) = mpsc::channel::<()>();
    let socket = loop {
        match UnixStream::connect(&path) {
            Ok(socket) => break socket,
            Err(error) if start.elapsed() > Duration::from_secs(20) => return Err(error.into()),
            Err(_) => drop(never.recv_timeout(Duration::from_millis(10))),
        }
    };
    let mut guest = Guest::new(Wire::frames(socket), [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);
    guest.set_mtu(65_520, true);
    Ok(Network {
        pid: child.id(),
        child,
        guest,
        gateway: [10, 0, 2, 2].into(),
        folder: Some(folder),
    })
}

fn measure(start: fn() -> Outcome<Network>) -> Outcome<()> {
    let mut network = start()?;
    let mut figures = Figures {
        loopback_us: loopback()?,
        round_trip_us: round_trip(&mut network)?,
        up_gbit: up(&mut network)?,
        down_gbit: down(&mut network)?,
        connections_per_second: connections(&mut network)?,
        ..Figures::default()
    };
    figures.resident_kib = status(network.pid, "VmRSS:")?;
    // What is left of the connections comes to its end first.
    let settle = Instant::now();
    while settle.elapsed() < Duration::from_secs(2) {
        network.guest.work(Duration::from_millis(100))?;
    }
    figures.idle_wakeups = idle(&network)?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

fn connect(network: &mut Network, port: u16) -> io::Result<StreamId> {
    let id = network
        .guest
        .connect(SocketAddr::new(network.gateway, port))?;
    network.guest.until(|guest| guest.stream(id).is_open())?;
    Ok(id)
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times
        .get(times.len() / 2)
        .map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// A host that sends every byte back.
fn echo(listener: TcpListener) {
    thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
}

/// A byte to a host and back, without any network between.
fn loopback() -> Outcome<f64> {
    let (listener, at) = listen()?;
    echo(listener);
    let mut stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    let mut times = Vec::new();
    for _ in 0..PINGS {
        let start = Instant::now();
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        times.push(start.elapsed());
    }
    Ok(median(&mut times))
}

/// The same from the guest.
fn round_trip(network: &mut Network) -> Outcome<f64> {
    let (listener, at) = listen()?;
    echo(listener);
    let id = connect(network, at.port())?;
    network.guest.only_count(id);
    let mut times = Vec::new();
    for count in 1..=u64::try_from(PINGS)? {
        let start = Instant::now();
        network.guest.send(id, &[1])?;
        network
            .guest
            .until(|guest| guest.stream(id).count() == count)?;
        times.push(start.elapsed());
    }
    network.guest.close(id)?;
    network.guest.until(|guest| guest.stream(id).is_ended())?;
    network.guest.forget(id);
    Ok(median(&mut times))
}

fn gbit(bytes: u64, time: Duration) -> f64 {
    // Counts of bytes are far below the 53 bits of a float.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bits = bytes as f64 * 8.0;
    bits / time.as_secs_f64() / 1e9
}

/// From the guest to a host that reads and forgets.
fn up(network: &mut Network) -> Outcome<f64> {
    let (listener, at) = listen()?;
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    let host = thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut room = vec![0; 256 << 10];
        loop {
            let bytes = stream.read(&mut room)?;
            if bytes == 0 {
                return Ok(());
            }
            counter.fetch_add(u64::try_from(bytes).unwrap_or(0), Relaxed);
        }
    });
    let id = connect(network, at.port())?;
    let data = vec![0x5a; 1 << 20];
    let start = Instant::now();
    while start.elapsed() < BULK {
        let sent = network.guest.send(id, &data)?;
        let patience = if sent == 0 {
            Duration::from_millis(50)
        } else {
            Duration::ZERO
        };
        network.guest.work(patience)?;
    }
    let result = gbit(received.load(Relaxed), start.elapsed());
    network.guest.close(id)?;
    network.guest.until(|guest| guest.stream(id).is_ended())?;
    network.guest.forget(id);
    host.join().map_err(|_| "the host's thread failed")??;
    Ok(result)
}

/// From a host that sends what it can to the guest.
fn down(network: &mut Network) -> Outcome<f64> {
    let (listener, at) = listen()?;
    thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let data = vec![0x5a; 256 << 10];
        loop {
            stream.write_all(&data)?;
        }
    });
    let id = connect(network, at.port())?;
    network.guest.only_count(id);
    let (start, before) = (Instant::now(), network.guest.stream(id).count());
    while start.elapsed() < BULK {
        network.guest.work(Duration::from_millis(50))?;
    }
    let result = gbit(network.guest.stream(id).count() - before, start.elapsed());
    network.guest.abort(id)?;
    network.guest.forget(id);
    network.guest.work(Duration::from_millis(100))?;
    network.guest.others();
    Ok(result)
}

/// Connections one after the other, some side by side: a request, an answer, the end.
fn connections(network: &mut Network) -> Outcome<f64> {
    let (listener, at) = listen()?;
    let (stop, stopped) = mpsc::channel::<()>();
    let host = thread::spawn(move || -> io::Result<()> {
        let mut request = [0; 64];
        while stopped.try_recv().is_err() {
            let (mut stream, _) = listener.accept()?;
            // Those that are broken at the end are no matter.
            if matches!(stream.read(&mut request), Ok(1..)) {
                let _ = stream.write_all(&request);
            }
        }
        Ok(())
    });
    let to = SocketAddr::new(network.gateway, at.port());
    let mut under_way: Vec<(StreamId, bool)> = Vec::new();
    let mut done = 0_u32;
    let start = Instant::now();
    while start.elapsed() < CONNECTIONS {
        while under_way.len() < AT_ONCE {
            under_way.push((network.guest.connect(to)?, false));
        }
        network.guest.work(Duration::from_millis(50))?;
        let mut left = Vec::new();
        for (id, is_asked) in under_way.drain(..) {
            let stream = network.guest.stream(id);
            if stream.is_reset() {
                return Err("a connection was reset".into());
            }
            if stream.is_ended() && stream.count() == 64 {
                network.guest.close(id)?;
                network.guest.forget(id);
                done += 1;
                continue;
            }
            let asks = !is_asked && stream.is_open();
            if asks {
                network.guest.send(id, &[7; 64])?;
            }
            left.push((id, is_asked || asks));
        }
        under_way = left;
        // Last acknowledgements for streams that are forgotten.
        network.guest.others();
    }
    let rate = f64::from(done) / start.elapsed().as_secs_f64();
    for (id, _) in under_way {
        network.guest.abort(id)?;
        network.guest.forget(id);
    }
    // Wakes the host, which may have seen the end already.
    let _ = stop.send(());
    let _ = TcpStream::connect(at);
    host.join().map_err(|_| "the host's thread failed")??;
    Ok(rate)
}

/// A number of a process's status.
fn status(pid: u32, name: &str) -> Outcome<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no such line")?.parse()?)
}

/// How often the network's process runs while nobody sends anything.
fn idle(network: &Network) -> Outcome<f64> {
    let switches = || -> Outcome<f64> {
        let voluntary = status(network.pid, "voluntary_ctxt_switches:")?;
        Ok(voluntary + status(network.pid, "nonvoluntary_ctxt_switches:")?)
    };
    let before = switches()?;
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(IDLE);
    Ok(switches()? - before)
}
