//! Both ends of the socket device's cases. As PID 1 of a guest it does what the host's end asks
//! for, each on a connection of its own; otherwise it is that end: `lab-vsock PATH TEST=NUMBER…`.

use anyhow::{Context, Result, ensure};
use lab::sys::VsockAddress;
use lab::{agent, setup};
use rustix::net::{AddressFamily, SocketType};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Where the guest listens, where nobody does, and where the host listens for the guest.
const AGENT: u32 = 1000;
const NOBODY: u32 = 1001;
const CALLED: u32 = 77;
const HOST_CID: u32 = 2;
const ANY_CID: u32 = u32::MAX;

fn main() -> Result<()> {
    if std::process::id() == 1 {
        return guest();
    }
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("lab-vsock PATH TEST=NUMBER…")?;
    agent::play(&Host { path }, arguments)
}

fn guest() -> Result<()> {
    setup::mount_all()?;
    setup::load_modules()?;
    let listener = vsock()?;
    let address = VsockAddress {
        cid: ANY_CID,
        port: AGENT,
    };
    rustix::net::bind(&listener, &address).context("binding")?;
    rustix::net::listen(&listener, 256).context("listening")?;
    println!("lab-vsock: listening");
    let accept = || {
        let accepted = rustix::net::accept(&listener).context("accepting")?;
        Ok(File::from(accepted))
    };
    agent::serve_all(accept, Caller)
}

fn vsock() -> Result<OwnedFd> {
    let made = rustix::net::socket(AddressFamily::VSOCK, SocketType::STREAM, None);
    made.context("making a socket of AF_VSOCK")
}

/// From the guest to the host.
#[derive(Clone, Copy)]
struct Caller;

impl Caller {
    fn at(port: u32) -> Result<File> {
        let (socket, cid) = (vsock()?, HOST_CID);
        rustix::net::connect(&socket, &VsockAddress { cid, port })?;
        Ok(socket.into())
    }
}

impl agent::Caller for Caller {
    fn connect(&self) -> Result<File> {
        Self::at(CALLED)
    }

    fn connect_nowhere(&self) -> Result<()> {
        let refused = Self::at(NOBODY).is_err();
        ensure!(refused, "somebody answers on a port of nobody");
        Ok(())
    }
}

/// From the host to the guest, by the device's socket.
struct Host {
    path: String,
}

impl agent::Host for Host {
    fn connect(&self) -> Result<File> {
        let mut stream = UnixStream::connect(&self.path).with_context(|| self.path.clone())?;
        writeln!(stream, "CONNECT {AGENT}")?;
        let mut line = Vec::new();
        // Byte by byte: what follows the line is the stream's.
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stream
                .read_exact(&mut byte)
                .context("no answer to CONNECT")?;
            line.extend(byte);
        }
        ensure!(line.starts_with(b"OK "), "an odd answer");
        Ok(OwnedFd::from(stream).into())
    }

    fn listen(&self) -> Result<Box<dyn FnOnce() -> Result<File>>> {
        let listener = setup::listen(&format!("{}_{CALLED}", self.path))?;
        Ok(Box::new(move || {
            Ok(OwnedFd::from(listener.accept()?.0).into())
        }))
    }

    fn connect_nowhere(&self) -> Result<()> {
        let mut stream = UnixStream::connect(&self.path)?;
        writeln!(stream, "CONNECT {NOBODY}")?;
        let mut all = String::new();
        stream.read_to_string(&mut all)?;
        ensure!(all.is_empty(), "nobody says {all:?}");
        Ok(())
    }
}
