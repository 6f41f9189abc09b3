//! What programs of guest and host do to each other over streams, whatever carries them: the
//! guest's end does what the first line of a connection asks for, the host's end asks and checks.

use crate::stream;
use anyhow::{Context, Result, bail, ensure};
use rustix::net::Shutdown;
use rustix::system::{RebootCommand, reboot};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::Instant;

/// How the guest's end reaches the host.
pub trait Caller {
    /// Connects to where the host listens.
    ///
    /// # Errors
    /// When it can't.
    fn connect(&self) -> Result<File>;

    /// Tries what must not succeed.
    ///
    /// # Errors
    /// When it did.
    fn connect_nowhere(&self) -> Result<()>;

    /// Does something that only this way has, and tells what came of it.
    ///
    /// # Errors
    /// When there is no such thing.
    fn other(&self, what: &str, _value: &str) -> Result<String> {
        bail!("what is {what:?}?")
    }
}

/// How the host's end reaches the guest.
pub trait Host {
    /// Connects to the guest's end.
    ///
    /// # Errors
    /// When it can't.
    fn connect(&self) -> Result<File>;

    /// Listens where the guest calls: what accepts the call.
    ///
    /// # Errors
    /// When the place is taken.
    fn listen(&self) -> Result<Box<dyn FnOnce() -> Result<File>>>;

    /// Connects to where nobody listens in the guest.
    ///
    /// # Errors
    /// When somebody answers.
    fn connect_nowhere(&self) -> Result<()>;
}

/// Does what one connection asks for in its first line.
///
/// # Errors
/// When the connection breaks, or the line is none that is known.
pub fn serve(mut connection: &File, caller: &dyn Caller) -> Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).context("reading what to do")?;
    let (what, value) = line.trim_end().split_once('=').context("an odd line")?;
    let number = value.parse::<u64>();
    match what {
        "down" => {
            let verdict = stream::check(reader, number?);
            // The host has closed its half and waits for this.
            let verdict = verdict.err().unwrap_or_else(|| "ok".to_owned());
            connection.write_all(verdict.as_bytes())?;
        }
        "up" => stream::send(connection, number?)?,
        "echo" => {
            std::io::copy(&mut reader, &mut connection)?;
        }
        "call" => {
            let verdict = call(number?, caller).map_err(|error| format!("{error:#}"));
            let verdict = verdict.err().unwrap_or_else(|| "ok".to_owned());
            connection.write_all(verdict.as_bytes())?;
        }
        "quit" => reboot(RebootCommand::Restart).context("rebooting")?,
        _ => {
            let told = caller.other(what, value);
            let told = told.unwrap_or_else(|error| format!("{error:#}"));
            connection.write_all(told.as_bytes())?;
        }
    }
    Ok(())
}

/// Serves connections for ever, each on a thread of its own.
///
/// # Errors
/// When no more can be accepted.
pub fn serve_all(
    mut accept: impl FnMut() -> Result<File>,
    caller: impl Caller + Copy + Send + 'static,
) -> Result<()> {
    loop {
        let connection = accept()?;
        std::thread::spawn(move || {
            if let Err(error) = serve(&connection, &caller) {
                println!("lab agent: {error:#}");
            }
        });
    }
}

/// Connects to the host, sends, closes that half, and checks what comes back.
fn call(count: u64, caller: &dyn Caller) -> Result<()> {
    caller.connect_nowhere()?;
    let socket = caller.connect().context("connecting to the host")?;
    stream::send(&socket, count)?;
    close_half(&socket)?;
    stream::check(&socket, count).map_err(anyhow::Error::msg)
}

/// Does the tests that arguments name, `TEST=NUMBER`, one after another.
///
/// # Errors
/// Names the test that failed.
pub fn play(host: &dyn Host, tests: impl Iterator<Item = String>) -> Result<()> {
    for argument in tests {
        let (test, number) = argument.split_once('=').context("TEST=NUMBER")?;
        let started = Instant::now();
        one(host, test, number.parse()?).with_context(|| argument.clone())?;
        let seconds = started.elapsed().as_secs_f64();
        println!("{argument} ok, {seconds:.2} s");
    }
    Ok(())
}

fn one(host: &dyn Host, test: &str, number: u64) -> Result<()> {
    match test {
        "down" => {
            let stream = ask(host, &format!("down={number}"))?;
            stream::send(&stream, number)?;
            close_half(&stream)?;
            verdict(&stream)
        }
        "up" => {
            let stream = ask(host, &format!("up={number}"))?;
            stream::check(&stream, number).map_err(anyhow::Error::msg)
        }
        "guest" => {
            let accept = host.listen()?;
            let stream = ask(host, &format!("call={number}"))?;
            let called = accept()?;
            let mut all = Vec::new();
            (&called).read_to_end(&mut all)?;
            (&called).write_all(&all)?;
            drop(called);
            verdict(&stream)
        }
        "halves" => {
            // The guest sends and closes, while this side goes on.
            let stream = ask(host, "echo=0")?;
            stream::send(&stream, number)?;
            close_half(&stream)?;
            stream::check(&stream, number).map_err(anyhow::Error::msg)
        }
        "parallel" => parallel(host, number),
        "downloads" => downloads(host, number),
        "nobody" => host.connect_nowhere(),
        "quit" => ask(host, "quit=0").map(drop),
        _ => bail!("no such test"),
    }
}

/// Opens a connection and says what it is for.
///
/// # Errors
/// When the guest does not take it.
pub fn ask(host: &dyn Host, what: &str) -> Result<File> {
    let mut stream = host.connect()?;
    writeln!(stream, "{what}")?;
    Ok(stream)
}

fn verdict(mut stream: &File) -> Result<()> {
    let mut verdict = String::new();
    stream.read_to_string(&mut verdict)?;
    ensure!(verdict == "ok", "the guest says {verdict:?}");
    Ok(())
}

fn close_half(stream: &File) -> Result<()> {
    Ok(rustix::net::shutdown(stream, Shutdown::Write)?)
}

/// Many connections at once, all open before the first of them says anything.
fn parallel(host: &dyn Host, count: u64) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(ask(host, "echo=0")?);
    }
    for (number, mut stream) in streams.iter().enumerate() {
        stream.write_all(format!("this is {number}").repeat(50).as_bytes())?;
        close_half(stream)?;
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

/// How much each of many downloads brings.
const DOWNLOAD_BYTES: u64 = 40_000;

/// Many downloads that all have begun before the first is read, each checked byte for byte.
fn downloads(host: &dyn Host, count: u64) -> Result<()> {
    let begun = (0..count).map(|_| ask(host, &format!("up={DOWNLOAD_BYTES}")));
    for (number, stream) in begun.collect::<Result<Vec<File>>>()?.iter().enumerate() {
        let checked = stream::check(stream, DOWNLOAD_BYTES).map_err(anyhow::Error::msg);
        checked.with_context(|| format!("download {number}"))?;
    }
    Ok(())
}
