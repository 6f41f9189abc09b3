//! A blocking client of the API: one connection, one request after the other.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::http::Method;

/// The longest answer that is read: a machine's own answers are far shorter.
const ANSWER_BYTES: usize = 16 << 20;

/// The most headers of an answer.
const MOST_HEADERS: usize = 64;

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the path.
    #[error("cannot reach the machine's API")]
    Connect(#[source] io::Error),
    /// The connection broke, or nothing came in time.
    #[error("the machine's API does not answer")]
    Io(#[from] io::Error),
    /// The answer is no HTTP, or too long.
    #[error("what the machine's API answers is not HTTP: {0}")]
    Malformed(&'static str),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body; empty where there is none.
    pub body: Vec<u8>,
    /// Whether the connection can be used for another request.
    pub keep_alive: bool,
}

impl Answer {
    /// Whether the request was carried out.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null for none and for what is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// What has come beyond the last answer.
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to the socket at `path`. Neither a request nor an answer may take longer than
    /// `patience`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(ClientError::Connect)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Asks for what is at `path`.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn get(&mut self, path: &str) -> Result<Answer, ClientError> {
        self.request(Method::Get, path, None)
    }

    /// Changes what is at `path`.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn patch(&mut self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.request(Method::Patch, path, Some(body.to_string().as_bytes()))
    }

    /// Puts something at `path`.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn put(&mut self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.request(Method::Put, path, Some(body.to_string().as_bytes()))
    }

    /// Asks for a stream of lines at `path`, which may be silent for as long as it likes; or the
    /// answer that says why there is none.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn stream(mut self, path: &str) -> Result<Result<Stream, Answer>, ClientError> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(head.as_bytes())?;
        loop {
            if let Some(len) = stream_begins(&self.buffer)? {
                self.buffer.drain(..len.min(self.buffer.len()));
                self.stream.set_read_timeout(None)?;
                let stream = Stream {
                    client: self,
                    line: Vec::new(),
                };
                return Ok(Ok(stream));
            }
            if let Some((answer, _)) = parse(&self.buffer)? {
                return Ok(Err(answer));
            }
            self.read_more()?;
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// When none comes. An answer that says no is no error here.
    pub fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Answer, ClientError> {
        let mut message = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        if let Some(body) = body {
            message.push_str("Content-Type: application/json\r\n");
            message.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        message.push_str("\r\n");
        let mut bytes = message.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        // A server that refuses early may have stopped reading: its answer says why.
        let sent = self.stream.write_all(&bytes);
        match (self.answer(), sent) {
            (Err(ClientError::Io(_)), Err(error)) => Err(error.into()),
            (answer, _) => answer,
        }
    }

    fn answer(&mut self) -> Result<Answer, ClientError> {
        loop {
            if let Some((answer, len)) = parse(&self.buffer)? {
                self.buffer.drain(..len.min(self.buffer.len()));
                return Ok(answer);
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> Result<(), ClientError> {
        if self.buffer.len() >= ANSWER_BYTES {
            return Err(ClientError::Malformed("it does not end"));
        }
        let mut bytes = [0; 4096];
        let len = self.stream.read(&mut bytes)?;
        if len == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.buffer
            .extend_from_slice(bytes.get(..len).unwrap_or_default());
        Ok(())
    }
}

/// Lines that come as they are written.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl Stream {
    /// The next line without its end; none when the stream has ended, as it does with the machine.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn next_line(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
                let rest = self.line.split_off(end.saturating_add(1));
                let line = std::mem::replace(&mut self.line, rest);
                let text = String::from_utf8_lossy(line.trim_ascii_end());
                return Ok(Some(text.into_owned()));
            }
            match next_chunk(&self.client.buffer)? {
                Some(([], _)) => return Ok(None),
                Some((data, len)) => {
                    self.line.extend_from_slice(data);
                    self.client.buffer.drain(..len);
                }
                None => self.client.read_more()?,
            }
        }
    }
}

/// The length of the head of `bytes`, once it is whole, if it begins a stream.
fn stream_begins(bytes: &[u8]) -> Result<Option<usize>, ClientError> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else {
        return Ok(None);
    };
    let chunked = |header: &httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("transfer-encoding")
            && header.value.eq_ignore_ascii_case(b"chunked")
    };
    Ok(response.headers.iter().any(chunked).then_some(head))
}

/// The chunk at the front of `bytes` and its length with what is around it, once it is whole.
fn next_chunk(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, ClientError> {
    const NO_CHUNK: ClientError = ClientError::Malformed("it has no chunks");
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let size = std::str::from_utf8(bytes.get(..end).unwrap_or_default());
    let size = size
        .ok()
        .and_then(|size| usize::from_str_radix(size, 16).ok());
    let size = size.filter(|size| *size <= ANSWER_BYTES).ok_or(NO_CHUNK)?;
    let start = end.saturating_add(2);
    let data = start..start.saturating_add(size);
    let whole = data.end.saturating_add(2);
    match (bytes.get(data.clone()), bytes.get(data.end..whole)) {
        (Some(data), Some(b"\r\n")) => Ok(Some((data, whole))),
        (_, Some(_)) => Err(NO_CHUNK),
        _ => Ok(None),
    }
}

/// The answer at the front of `bytes` and its length, once it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, ClientError> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => {
            return Err(ClientError::Malformed(
                "it has no status line or bad headers",
            ));
        }
    };
    let status = response.code.unwrap_or_default();
    let (mut length, mut keep_alive) = (0_usize, true);
    for header in response.headers {
        let value = std::str::from_utf8(header.value).unwrap_or_default();
        if header.name.eq_ignore_ascii_case("content-length") {
            length = value
                .parse()
                .map_err(|_| ClientError::Malformed("it has no length"))?;
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = !value.eq_ignore_ascii_case("close");
        }
    }
    let end = head.saturating_add(length);
    let Some(body) = bytes.get(head..end) else {
        return Ok(None);
    };
    let answer = Answer {
        status,
        body: body.to_vec(),
        keep_alive,
    };
    Ok(Some((answer, end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::write::{LAST_CHUNK, chunk, stream_head};
    use crate::http::{Media, Response};

    #[test]
    fn what_the_server_writes_the_client_reads() {
        let mut bytes = Vec::new();
        Response::json(200, &["a"]).encode(true, true, &mut bytes);
        let first = bytes.len();
        Response::done().encode(false, true, &mut bytes);
        for len in 0..first {
            assert!(parse(bytes.get(..len).unwrap()).unwrap().is_none());
        }
        let (answer, len) = parse(&bytes).unwrap().unwrap();
        assert_eq!((answer.status, len), (200, first));
        assert_eq!(answer.json(), serde_json::json!(["a"]));
        assert!(answer.keep_alive && answer.is_success());
        let (answer, _) = parse(bytes.get(first..).unwrap()).unwrap().unwrap();
        assert_eq!((answer.status, answer.keep_alive), (204, false));
        assert!(parse(b"rubbish\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_are_read_as_they_are_written() {
        let mut bytes = Vec::new();
        chunk(b"a line\n", &mut bytes);
        let first = bytes.len();
        bytes.extend_from_slice(LAST_CHUNK);
        for len in 0..first {
            assert!(next_chunk(bytes.get(..len).unwrap()).unwrap().is_none());
        }
        let (data, len) = next_chunk(&bytes).unwrap().unwrap();
        assert_eq!((data, len), (&b"a line\n"[..], first));
        let (data, _) = next_chunk(bytes.get(first..).unwrap()).unwrap().unwrap();
        assert!(data.is_empty());
        for wrong in [
            &b"x\r\n"[..],
            b"-1\r\n",
            b"ffffffffffffffff\r\n",
            b"1\r\nabc",
        ] {
            assert!(next_chunk(wrong).is_err(), "{wrong:?}");
        }
        let head = stream_head(Media::JsonLines);
        assert_eq!(stream_begins(&head).unwrap(), Some(head.len()));
        let mut refused = Vec::new();
        Response::of(503).encode(false, true, &mut refused);
        assert_eq!(stream_begins(&refused).unwrap(), None);
    }

    #[test]
    fn a_client_without_a_server_says_so() {
        let path = Path::new("/no/such/socket");
        let error = Client::connect(path, Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, ClientError::Connect(_)));
    }
}
