//! What a guest may reach through the user-mode network, tried from inside: addresses on which the
//! host listens, and a name that moves from one to another.

use crate::{agent, setup};
use anyhow::{Context, Result, bail, ensure};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the host has for a case: others' networks, a private one, where clouds keep credentials.
const ADDRESSES: [&str; 5] = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.3",
    "10.77.0.1",
    "169.254.169.254",
];
/// Where the host listens at every address.
const PORT: u16 = 7000;
/// Where the user-mode network asks for names.
const NAME_SERVER: &str = "127.0.0.1:5300";
/// Whom the guest asks for names.
const ASKED: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 2, 3), 53);
/// A name that rules speak of.
const NAME: &str = "moving.lab.test";
/// How long an answer may take; the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes before the question of a message.
const HEADER: usize = 12;

/// The host's end: `open=ADDRESS` and `closed=ADDRESS` are what the guest must find there,
/// `name=ADDRESS` lets it ask for the name, which from then on is at that address.
///
/// # Errors
/// Names the step at which something else happened.
pub fn play(host: &dyn agent::Host, steps: impl Iterator<Item = String>) -> Result<()> {
    for address in ADDRESSES {
        // There already after another case; one that is missing is not open below.
        let _ = setup::ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    let listener = TcpListener::bind(("0.0.0.0", PORT)).context("listening")?;
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let names = UdpSocket::bind(NAME_SERVER).context("serving names")?;
    let address = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&address);
    std::thread::spawn(move || serve_names(&names, &told));
    for step in steps {
        let (what, value) = step.split_once('=').context("WHAT=ADDRESS")?;
        let answer = match what {
            "open" | "closed" => ask(host, &format!("reach={value}:{PORT}"))?,
            "name" => {
                let moved: Ipv4Addr = value.parse()?;
                address.store(moved.to_bits(), Ordering::Relaxed);
                ask(host, &format!("resolve={NAME}"))?
            }
            _ => bail!("{step}: no such step"),
        };
        let wanted = if what == "name" { value } else { what };
        ensure!(
            answer.starts_with(wanted),
            "{step}: the guest says {answer:?}"
        );
        println!("{step} ok: {answer}");
    }
    Ok(())
}

fn ask(host: &dyn agent::Host, what: &str) -> Result<String> {
    let mut answer = String::new();
    let mut stream = agent::ask(host, what)?;
    stream
        .read_to_string(&mut answer)
        .context(what.to_owned())?;
    Ok(answer)
}

/// Answers every question with the present address, which is good for a second.
fn serve_names(socket: &UdpSocket, address: &AtomicU32) {
    let mut room = [0; 512];
    while let Ok((bytes, asker)) = socket.recv_from(&mut room) {
        let Some((number, question)) = split(room.get(..bytes)) else {
            continue;
        };
        let address = address.load(Ordering::Relaxed).to_be_bytes();
        // An answer to one question with one record: the question's name, A, IN, a second, 4 bytes.
        let head = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4];
        let answer = [number, &head, question, &record, &address].concat();
        // Who has gone does without.
        let _ = socket.send_to(&answer, asker);
    }
}

/// The number of a message and its question, behind the header.
fn split(message: Option<&[u8]>) -> Option<(&[u8], &[u8])> {
    let message = message?;
    let rest = message.get(HEADER..)?;
    // The question ends with the root's label, its kind and its class; more may follow.
    let end = rest.iter().position(|byte| *byte == 0)?.checked_add(5)?;
    Some((message.get(..2)?, rest.get(..end)?))
}

/// The guest's end: does one thing and tells what came of it.
///
/// # Errors
/// When it is asked for something else, or no answer comes.
pub fn obey(what: &str, value: &str) -> Result<String> {
    match what {
        "reach" => reach(value.parse()?),
        "resolve" => resolve(value),
        _ => bail!("what is {what:?}?"),
    }
}

fn reach(to: SocketAddr) -> Result<String> {
    match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(_) => Ok("open".to_owned()),
        // A network that says nothing is no rule.
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(error.into()),
        Err(error) => Ok(format!("closed, {error}")),
    }
}

/// Asks the name server for an address.
fn resolve(name: &str) -> Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    socket.send_to(&question, ASKED)?;
    let mut room = [0; 512];
    let (bytes, _) = socket.recv_from(&mut room).context("no answer")?;
    let address = room
        .get(..bytes)
        .and_then(|answer| answer.last_chunk::<4>());
    Ok(Ipv4Addr::from(*address.context("no address")?).to_string())
}
