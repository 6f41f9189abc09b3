//! Both ends of the socket device's cases. As PID 1 of a guest it does what the host's end asks
//! for, each on a connection of its own; otherwise it is that end: `lab-vsock PATH TEST=NUMBER…`.

use anyhow::{Context, Result, bail, ensure};
use lab::sys::VsockAddress;
use lab::{setup, stream};
use rustix::net::{AddressFamily, Shutdown, SocketType};
use rustix::system::{RebootCommand, reboot};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net;
use std::os::unix::net::UnixStream;
use std::time::Instant;

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
    for argument in arguments {
        let (test, number) = argument.split_once('=').context("TEST=NUMBER")?;
        let started = Instant::now();
        host(&path, test, number.parse()?).with_context(|| argument.clone())?;
        let seconds = started.elapsed().as_secs_f64();
        println!("{argument} ok, {seconds:.2} s");
    }
    Ok(())
}

// The guest's end.

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
    loop {
        let connection = File::from(rustix::net::accept(&listener).context("accepting")?);
        std::thread::spawn(move || {
            if let Err(error) = serve(&connection) {
                println!("lab-vsock: {error:#}");
            }
        });
    }
}

fn vsock() -> Result<rustix::fd::OwnedFd> {
    let made = rustix::net::socket(AddressFamily::VSOCK, SocketType::STREAM, None);
    made.context("making a socket of AF_VSOCK")
}

/// Does what one connection asks for in its first line.
fn serve(mut connection: &File) -> Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line).context("reading what to do")?;
    let (what, number) = line.trim_end().split_once('=').context("an odd line")?;
    let number: u64 = number.parse()?;
    match what {
        "down" => {
            let verdict = stream::check(reader, number);
            // The host has closed its half and waits for this.
            let verdict = verdict.err().unwrap_or_else(|| "ok".to_owned());
            connection.write_all(verdict.as_bytes())?;
        }
        "up" => stream::send(connection, number)?,
        "echo" => {
            std::io::copy(&mut reader, &mut connection)?;
        }
        "call" => {
            let verdict = call(number).map_err(|error| format!("{error:#}"));
            let verdict = verdict.err().unwrap_or_else(|| "ok".to_owned());
            connection.write_all(verdict.as_bytes())?;
        }
        "quit" => reboot(RebootCommand::Restart).context("rebooting")?,
        _ => bail!("what is {what:?}?"),
    }
    Ok(())
}

/// Connects to the host, sends, closes that half, and checks what comes back.
fn call(count: u64) -> Result<()> {
    let socket = vsock()?;
    let address = |port| VsockAddress {
        cid: HOST_CID,
        port,
    };
    let refused = rustix::net::connect(&vsock()?, &address(NOBODY));
    ensure!(refused.is_err(), "somebody answers on a port of nobody");
    rustix::net::connect(&socket, &address(CALLED)).context("connecting to the host")?;
    let socket = File::from(socket);
    stream::send(&socket, count)?;
    rustix::net::shutdown(&socket, Shutdown::Write)?;
    stream::check(&socket, count).map_err(anyhow::Error::msg)
}

// The host's end.

fn host(path: &str, test: &str, number: u64) -> Result<()> {
    match test {
        "down" => {
            let stream = ask(path, &format!("down={number}"))?;
            stream::send(&stream, number)?;
            stream.shutdown(net::Shutdown::Write)?;
            verdict(&stream)
        }
        "up" => {
            let stream = ask(path, &format!("up={number}"))?;
            stream::check(&stream, number).map_err(anyhow::Error::msg)
        }
        "guest" => {
            let listener = setup::listen(&format!("{path}_{CALLED}"))?;
            let stream = ask(path, &format!("call={number}"))?;
            let (called, _) = listener.accept()?;
            let mut all = Vec::new();
            (&called).read_to_end(&mut all)?;
            (&called).write_all(&all)?;
            drop(called);
            verdict(&stream)
        }
        "halves" => {
            // The guest sends and closes, while this side goes on.
            let stream = ask(path, "echo=0")?;
            stream::send(&stream, number)?;
            stream.shutdown(net::Shutdown::Write)?;
            stream::check(&stream, number).map_err(anyhow::Error::msg)
        }
        "parallel" => parallel(path, number),
        "nobody" => {
            let mut stream = UnixStream::connect(path)?;
            writeln!(stream, "CONNECT {NOBODY}")?;
            let mut all = String::new();
            stream.read_to_string(&mut all)?;
            ensure!(all.is_empty(), "nobody says {all:?}");
            Ok(())
        }
        "quit" => {
            let mut stream = ask(path, "quit=0")?;
            // Ends with the guest.
            let _ = stream.read(&mut [0]);
            Ok(())
        }
        _ => bail!("no such test"),
    }
}

/// A connection to the guest's end, which was told what to do.
fn ask(path: &str, what: &str) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(path).with_context(|| path.to_owned())?;
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
    writeln!(stream, "{what}")?;
    Ok(stream)
}

fn verdict(mut stream: &UnixStream) -> Result<()> {
    let mut verdict = String::new();
    stream.read_to_string(&mut verdict)?;
    ensure!(verdict == "ok", "the guest says {verdict:?}");
    Ok(())
}

/// Many connections at once, all open before the first of them says anything.
fn parallel(path: &str, count: u64) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(ask(path, "echo=0")?);
    }
    for (number, mut stream) in streams.iter().enumerate() {
        stream.write_all(format!("this is {number}").repeat(50).as_bytes())?;
        stream.shutdown(net::Shutdown::Write)?;
    }
    for (number, mut stream) in streams.iter().enumerate().rev() {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(
            text == format!("this is {number}").repeat(50),
            "{number} got another's"
        );
    }
    Ok(())
}
