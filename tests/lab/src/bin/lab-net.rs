//! Both ends of the network device's cases. As PID 1 of a guest it gives `eth0` the addresses that
//! the kernel's command line names and does what the host's end asks for over TCP; otherwise it is
//! that end: `lab-net ADDRESS:PORT TEST=NUMBER…`, `lab-net egress ADDRESS:PORT WHAT=ADDRESS…`, or
//! `lab-net up INTERFACE ADDRESS/BITS…`.

use anyhow::{Context, Result, ensure};
use lab::{agent, egress, setup};
use rustix::system::{RebootCommand, reboot};
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Where the guest listens, where nobody does, and where the host listens for the guest.
const AGENT: u16 = 1000;
const NOBODY: u16 = 1001;
const CALLED: u16 = 77;
/// How many may wait to be accepted: all that a case makes at once.
const WAITING: i32 = 4096;
/// How long a connection to where something listens may take; the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    if std::process::id() == 1 {
        return guest();
    }
    let mut arguments = std::env::args().skip(1);
    let target = arguments
        .next()
        .context("lab-net ADDRESS:PORT TEST=NUMBER…")?;
    if target == "up" {
        let interface = arguments
            .next()
            .context("lab-net up INTERFACE ADDRESS/BITS…")?;
        let addresses: Vec<String> = arguments.collect();
        return setup::up(&interface, &addresses);
    }
    let is_egress = target == "egress";
    let target = match is_egress {
        true => arguments
            .next()
            .context("lab-net egress ADDRESS:PORT WHAT=ADDRESS…")?,
        false => target,
    };
    let guest = target.parse().with_context(|| target.clone())?;
    if is_egress {
        return egress::play(&Host { guest }, arguments);
    }
    agent::play(&Host { guest }, arguments)
}

/// The command line has `addresses=ADDRESS/BITS,…`, `host=ADDRESS`, where the host is to be called,
/// and where the packets of others go, `gateway=ADDRESS`, if anywhere.
fn guest() -> Result<()> {
    setup::mount_all()?;
    setup::load_modules()?;
    setup::raise_descriptors()?;
    let addresses = setup::argument("addresses").context("addresses=")?;
    let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
    setup::up("lo", &[])?;
    setup::up("eth0", &addresses)?;
    if let Some(gateway) = setup::argument("gateway") {
        setup::ip(&["route", "add", "default", "via", &gateway])?;
    }
    if setup::argument("metadata").is_some() {
        if let Err(error) = lab::metadata::run() {
            println!("lab-net: wrong: {error:#}");
        }
        return Ok(reboot(RebootCommand::Restart)?);
    }
    let host = setup::argument("host").context("host=")?;
    let host = host.parse().with_context(|| host.clone())?;
    // Takes IPv4 as well, if there is IPv6 at all.
    let listener =
        TcpListener::bind(("::", AGENT)).or_else(|_| TcpListener::bind(("0.0.0.0", AGENT)));
    let listener = listener.context("listening")?;
    // Callers for whom the kernel has no place are no fault of the network.
    rustix::net::listen(&listener, WAITING).context("listening")?;
    println!("lab-net: listening");
    let accept = || file(listener.accept().context("accepting")?.0);
    agent::serve_all(accept, Caller { host })
}

fn file(stream: TcpStream) -> Result<File> {
    Ok(OwnedFd::from(stream).into())
}

fn connect(address: SocketAddr) -> Result<File> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE);
    file(stream.with_context(|| address.to_string())?)
}

/// Connects to where nobody listens.
fn nowhere(mut address: SocketAddr) -> Result<()> {
    address.set_port(NOBODY);
    ensure!(
        connect(address).is_err(),
        "somebody answers on a port of nobody"
    );
    Ok(())
}

/// From the guest to the host.
#[derive(Clone, Copy)]
struct Caller {
    host: std::net::IpAddr,
}

impl agent::Caller for Caller {
    fn connect(&self) -> Result<File> {
        connect((self.host, CALLED).into())
    }

    fn connect_nowhere(&self) -> Result<()> {
        nowhere((self.host, NOBODY).into())
    }

    fn other(&self, what: &str, value: &str) -> Result<String> {
        egress::obey(what, value)
    }
}

/// From the host to the guest.
struct Host {
    guest: SocketAddr,
}

impl agent::Host for Host {
    fn connect(&self) -> Result<File> {
        connect(self.guest)
    }

    fn listen(&self) -> Result<Box<dyn FnOnce() -> Result<File>>> {
        let listener = TcpListener::bind(("0.0.0.0", CALLED)).context("listening")?;
        Ok(Box::new(move || file(listener.accept()?.0)))
    }

    fn connect_nowhere(&self) -> Result<()> {
        nowhere(self.guest)
    }
}
