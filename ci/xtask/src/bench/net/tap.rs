//! How fast a tap is: TCP between a program in a network namespace and a bare guest, by turns with
//! the same between two namespaces that a veth joins.

use super::NetLimits;
use crate::bench::machines::Machines;
use crate::bench::{Figure, median, program};
use crate::repo::find_program;
use anyhow::{Context, Result, ensure};
use harness::bare;
use harness::bare::ops::{NET_OFFLOADS, NetKind, NetLoad, Op};
use harness::netns::Namespace;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Bytes of one stream, in frames of 64 KiB and of an MTU of 1500.
const LARGE: u64 = 2 << 30;
const SMALL: u64 = 256 << 20;
/// Bytes that go there and back, one at a time.
const PINGS: u64 = 5000;
const CHUNK: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(20);

const PORT: u16 = 5000;
const PEER: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const MAC: &str = "02:00:00:00:00:02";

/// Gbit/s of one kind of frames.
#[derive(Debug, Serialize)]
struct Bulk {
    veth: f64,
    to_guest: f64,
    from_guest: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Round {
    large: Bulk,
    small: Bulk,
    veth_us: f64,
    tap_us: f64,
}

/// What one end of a connection saw: seconds from the first byte to the last, and the middle of the
/// round trips in microseconds.
struct Seen {
    seconds: f64,
    round_trip_us: f64,
}

/// One namespace with a veth and a tap in it, and one with the veth's other end.
struct Spaces {
    near: Namespace,
    far: Namespace,
}

impl Spaces {
    /// None, and said, where this user may not make them, or with what is missing.
    fn new() -> Result<Option<Spaces>> {
        if find_program("ethtool").is_none() {
            println!("taps: ethtool is missing");
            return Ok(None);
        }
        let (Some(near), Some(far)) = (Namespace::new()?, Namespace::new()?) else {
            return Ok(None);
        };
        near.ip("link add veth0 type veth peer name veth1")?;
        near.give("veth1", &far)?;
        near.ip("tuntap add dev vm0 mode tap")?;
        near.ip("address add 10.9.0.1/24 dev vm0")?;
        // The guest answers no questions but those of TCP.
        near.ip(&format!("neighbour add {GUEST} lladdr {MAC} dev vm0"))?;
        near.ip("address add 10.8.0.1/24 dev veth0")?;
        far.ip(&format!("address add {PEER}/24 dev veth1"))?;
        for (space, interface) in [(&near, "vm0"), (&near, "veth0"), (&far, "veth1")] {
            space.ip(&format!("link set dev {interface} up"))?;
        }
        Ok(Some(Spaces { near, far }))
    }

    /// Whether the veth takes frames of 64 KiB whole, or the host's TCP has them cut before.
    fn whole(&self, yes: bool) -> Result<()> {
        for (space, interface) in [(&self.near, "veth0"), (&self.far, "veth1")] {
            let mut command = Command::new("ethtool");
            command.args(["-K", interface, "tso", if yes { "on" } else { "off" }]);
            let done = space.wrap(&command).output().context("ethtool")?;
            let text = String::from_utf8_lossy(&done.stderr);
            ensure!(done.status.success(), "ethtool: {text}");
        }
        Ok(())
    }

    /// One connection over the veth: what its near end saw, and its far end, which does what the
    /// guest does otherwise.
    fn veth(&self, kind: NetKind, bytes: u64) -> Result<(Seen, Seen)> {
        let listener = self.far.enter(|| TcpListener::bind((PEER, PORT)))??;
        std::thread::scope(|scope| {
            let far = scope.spawn(|| serve(kind, listener.accept()?.0, bytes));
            let near = self.near.enter(|| connect(PEER))?;
            let near = talk(kind, near?, bytes)?;
            let far = far.join().ok().context("the veth's far end panicked")??;
            Ok((near, far))
        })
    }
}

/// Rounds of everything; none where this user may not.
pub(super) fn measure(rounds: u32) -> Result<Option<Vec<Round>>> {
    let Some(spaces) = Spaces::new()? else {
        return Ok(None);
    };
    let taps = Taps::new(&spaces)?;
    let all: Result<Vec<Round>> = (0..rounds).map(|_| taps.round()).collect();
    all.map(Some)
}

struct Taps<'a> {
    spaces: &'a Spaces,
    machines: Machines,
    window: u64,
    arguments: Vec<OsString>,
}

impl Taps<'_> {
    fn new(spaces: &Spaces) -> Result<Taps<'_>> {
        let machines = Machines::new(&program()?, bare::NET)?;
        let net = format!("tap:vm0,mac={MAC}");
        let arguments = vec!["--no-rng".into(), "--net".into(), net.into()];
        let window = machines.window("virtio-net", &arguments)?;
        Ok(Taps {
            spaces,
            machines,
            window,
            arguments,
        })
    }

    fn round(&self) -> Result<Round> {
        self.spaces.whole(true)?;
        let large = self.bulk(NET_OFFLOADS, LARGE)?;
        let (veth, _) = self.spaces.veth(NetKind::Echo, PINGS)?;
        let (tap, _) = self.tap(NetKind::Echo, NET_OFFLOADS, PINGS)?;
        self.spaces.whole(false)?;
        Ok(Round {
            large,
            small: self.bulk(0, SMALL)?,
            veth_us: veth.round_trip_us,
            tap_us: tap.round_trip_us,
        })
    }

    fn bulk(&self, offloads: u32, bytes: u64) -> Result<Bulk> {
        let (_, veth) = self.spaces.veth(NetKind::Sink, bytes)?;
        let (_, to_guest) = self.tap(NetKind::Sink, offloads, bytes)?;
        let (from_guest, _) = self.tap(NetKind::Source, offloads, bytes)?;
        Ok(Bulk {
            veth: gbit(bytes, veth.seconds),
            to_guest: gbit(bytes, to_guest),
            from_guest: gbit(bytes, from_guest.seconds),
        })
    }

    /// One connection with a guest: what the host saw, and the seconds of the guest's clock.
    fn tap(&self, kind: NetKind, offloads: u32, bytes: u64) -> Result<(Seen, f64)> {
        let op = Op::Net(self.window, NetLoad::new(kind, offloads, bytes));
        let (ready, wait) = mpsc::channel();
        let near = &self.spaces.near;
        std::thread::scope(|scope| {
            let host = scope.spawn(move || {
                // An error when the machine ends before.
                wait.recv().context("the guest did not start")?;
                talk(kind, near.enter(|| connect(GUEST))??, bytes)
            });
            let answer = self
                .machines
                .run_in(Some(near), op, &self.arguments, move || {
                    // Who does not listen has failed, which is told below.
                    let _ = ready.send(());
                })?;
            let seen = host.join().ok().context("the host's end panicked")?;
            let seen = seen.with_context(|| format!("the guest says {answer:?}"))?;
            let load = answer.loads.first().context("no load")?;
            ensure!(load.done == bytes, "only {} bytes went through", load.done);
            Ok((seen, self.machines.seconds(load.ticks)))
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one stream")]
fn gbit(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 * 8.0 / 1e9 / seconds
}

fn connect(peer: Ipv4Addr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((peer, PORT)), PATIENCE);
    let stream = stream.with_context(|| format!("connecting to {peer}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The near end of a connection.
fn talk(kind: NetKind, mut stream: TcpStream, bytes: u64) -> Result<Seen> {
    match kind {
        NetKind::Sink => send(stream, bytes),
        NetKind::Source => take(stream, bytes),
        NetKind::Echo => {
            let started = Instant::now();
            let mut all = Vec::new();
            for _ in 0..bytes {
                let sent = Instant::now();
                stream.write_all(&[0])?;
                stream.read_exact(&mut [0])?;
                all.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            Ok(Seen {
                seconds: started.elapsed().as_secs_f64(),
                round_trip_us: median(&all),
            })
        }
    }
}

/// The far end of a connection: what the guest does.
fn serve(kind: NetKind, mut stream: TcpStream, bytes: u64) -> Result<Seen> {
    match kind {
        NetKind::Sink => take(stream, bytes),
        NetKind::Source => send(stream, bytes),
        NetKind::Echo => {
            stream.set_nodelay(true)?;
            for _ in 0..bytes {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                stream.write_all(&byte)?;
            }
            Ok(Seen {
                seconds: 0.0,
                round_trip_us: 0.0,
            })
        }
    }
}

fn send(mut stream: TcpStream, bytes: u64) -> Result<Seen> {
    let chunk = vec![0; CHUNK];
    let started = Instant::now();
    for _ in 0..bytes / CHUNK as u64 {
        stream.write_all(&chunk)?;
    }
    Ok(since(started))
}

fn take(mut stream: TcpStream, bytes: u64) -> Result<Seen> {
    let mut chunk = vec![0; CHUNK];
    let mut came = stream.read(&mut chunk)? as u64;
    let started = Instant::now();
    while came < bytes {
        let more = stream.read(&mut chunk)?;
        ensure!(more > 0, "the stream ends after {came} bytes");
        came += more as u64;
    }
    Ok(since(started))
}

fn since(started: Instant) -> Seen {
    Seen {
        seconds: started.elapsed().as_secs_f64(),
        round_trip_us: 0.0,
    }
}

/// What is promised, and what is only told beside a veth.
pub(super) fn figures(rounds: &[Round], limits: &NetLimits) -> Vec<Figure> {
    let middle = |of: &dyn Fn(&Round) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    let mut figures = Vec::new();
    let mut bulk = |names: [&'static str; 3], of: fn(&Round) -> &Bulk| {
        let veth = middle(&|round| of(round).veth);
        let to_guest = middle(&|round| of(round).to_guest);
        let from_guest = middle(&|round| of(round).from_guest);
        figures.push(Figure::told(names[0], "Gbit/s", veth));
        for (name, rate) in [(names[1], to_guest), (names[2], from_guest)] {
            figures.push(Figure::told(name, "Gbit/s", rate));
            figures.push(Figure::told("  of veth", "", rate / veth));
        }
    };
    bulk(
        [
            "veth, frames of 64 KiB",
            "tap to the guest, 64 KiB",
            "tap from the guest, 64 KiB",
        ],
        |round| &round.large,
    );
    bulk(
        [
            "veth, frames of 1500",
            "tap to the guest, 1500",
            "tap from the guest, 1500",
        ],
        |round| &round.small,
    );
    let veth = middle(&|round| round.veth_us);
    let added = middle(&|round| round.tap_us - round.veth_us);
    figures.push(Figure::told("round trip over veth", "us", veth));
    let limit = limits.tap_added_us;
    figures.push(Figure::new("added to it by a tap", "us", added, limit));
    figures
}
