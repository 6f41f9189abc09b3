//! A client that sends bytes as they are and takes answers apart strictly.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers in their order, as they were written.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header, whose name is told in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("the body is no JSON")
    }

    /// Whether the server says that the connection ends with it.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// Connects; nothing that is waited for may take longer than `patience`.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(socket: &Path, patience: Duration) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connecting")?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends bytes in pieces of `piece` at most. That the server does not take all of them is no
    /// error: it may have ended the connection, and its answer says why.
    pub fn send(&mut self, bytes: &[u8], piece: usize) {
        for part in bytes.chunks(piece.max(1)) {
            if self.stream.write_all(part).is_err() {
                return;
            }
        }
    }

    /// Says that nothing more is sent.
    pub fn finish(&mut self) {
        // It fails only where the server has ended the connection already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next answer, `None` once the server has ended the connection.
    ///
    /// # Errors
    /// When what comes is no HTTP, or nothing comes in time.
    pub fn reply(&mut self) -> Result<Option<Reply>> {
        loop {
            if let Some((reply, len)) = parse(&self.buffer)? {
                self.buffer.drain(..len);
                return Ok(Some(reply));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => bail!("the connection ends within an answer: {:?}", self.text()),
                Ok(len) => self.buffer.extend_from_slice(&bytes[..len]),
                // A server that closes with bytes unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => {
                    let came = self.text();
                    return Err(error).with_context(|| format!("no answer, only {came:?}"));
                }
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

/// The answer at the front of `bytes` and its length, once it is whole. Nothing is forgiven: what
/// this reader refuses, some client refuses.
fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).context("a head that is no text")?;
    let mut lines = head.split("\r\n");
    let status = status(lines.next().unwrap_or_default())?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").context("a header without a colon")?;
        let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let clean = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        ensure!(named && !name.is_empty() && clean, "header {line:?}");
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut reply = Reply {
        status,
        headers,
        body: Vec::new(),
    };
    let bodiless = status == 204 || status < 200;
    let length = match (reply.header("content-length"), bodiless) {
        (None, true) => 0,
        (Some(text), false) => text.parse().context("a length that is no number")?,
        (length, _) => bail!("status {status} with Content-Length {length:?}"),
    };
    let start = end + 4;
    let Some(body) = bytes.get(start..start + length) else {
        return Ok(None);
    };
    reply.body = body.to_vec();
    Ok(Some((reply, start + length)))
}

fn status(line: &str) -> Result<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ");
    let rest = rest.with_context(|| format!("status line {line:?}"))?;
    let (code, reason) = rest.split_once(' ').context("a status without a reason")?;
    ensure!(
        code.len() == 3 && !reason.is_empty(),
        "status line {line:?}"
    );
    code.parse().context("a status that is no number")
}
