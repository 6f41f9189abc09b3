//! What a guest reads of its metadata service, through the kernel's own TCP: with a token and
//! without, as text and as JSON, before a change and after it.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Where the service is.
const ADDRESS: ([u8; 4], u16) = ([169, 254, 169, 254], 80);
/// How long an answer may take; the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(20);
/// A text in the metadata that is longer than one packet.
const LONG_BYTES: usize = 20_000;

/// Reads, waits for a typed line, and reads again.
///
/// # Errors
/// When an answer is not what the rules say.
pub fn run() -> Result<()> {
    let path = "GET /latest/name HTTP/1.1";
    ensure!(ask(path)?.0 == 401, "it can be read without a token");
    let token = "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 600";
    let (status, token) = ask(token)?;
    ensure!(status == 200 && !token.is_empty(), "no token: {status}");
    let with = |lines: &str| get(&format!("{lines}\r\nX-metadata-token: {token}"));
    println!("lab-net: metadata {}", with(path)?);
    let json = with("GET /latest/list HTTP/1.1\r\nAccept: application/json")?;
    ensure!(json == "[1,2]", "not the list: {json}");
    // Many connections, one after the other, each with more than a packet.
    for _ in 0..50 {
        let long = with("GET /latest/long HTTP/1.1")?;
        let good = long.len() == LONG_BYTES && long.bytes().all(|byte| byte == b'x');
        ensure!(good, "{} bytes", long.len());
    }
    let mut line = String::new();
    println!("lab-net: waiting");
    std::io::stdin().read_line(&mut line)?;
    println!("lab-net: changed {}", with(path)?);
    Ok(())
}

fn get(lines: &str) -> Result<String> {
    let (status, body) = ask(lines)?;
    match status {
        200 => Ok(body),
        _ => bail!("{lines}: {status} {body}"),
    }
}

/// The status and the body that answer a request.
fn ask(lines: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&ADDRESS.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{lines}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("reading")?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}
