//! Requests from bytes that come in pieces of any size. What the pieces were makes no difference
//! to the requests and errors that come out.
//!
//! Stricter than RFC 9112 asks wherever two readers could see two different requests: a line ends
//! with CR LF, a length is one header of digits, and transfer codings are refused.

use super::{Method, Request};

/// Longest head of a request: its line and headers.
pub const HEAD_BYTES: usize = 8192;
/// Longest body of a request, unless the server is told otherwise.
pub const BODY_BYTES: usize = 51_200;
/// Most headers of a request.
pub const MOST_HEADERS: usize = 64;

/// Why bytes are no request that is answered. The connection ends with it: where the next request
/// would begin is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No HTTP at all, or a byte that cannot stand where it does.
    #[error("the request is not HTTP/1.1: {0}")]
    Syntax(httparse::Error),
    /// Another version.
    #[error("the request is of another version than HTTP/1.0 and HTTP/1.1")]
    Version,
    /// A line that ends without a carriage return.
    #[error("a line of the request ends without a carriage return")]
    BareNewline,
    /// Something else than a path after the method.
    #[error("the request's target is not a path that begins with a slash")]
    Target,
    /// More than [`HEAD_BYTES`].
    #[error("the request's line and headers are longer than {HEAD_BYTES} bytes")]
    HeadTooLong,
    /// More than [`MOST_HEADERS`].
    #[error("the request has more than {MOST_HEADERS} headers")]
    TooManyHeaders,
    /// `Host` more than once.
    #[error("the request has more than one Host")]
    HostTwice,
    /// A `Content-Length` that is no number.
    #[error("Content-Length is not a number of bytes, written as digits")]
    Length,
    /// `Content-Length` more than once, even with one value.
    #[error("the request has more than one Content-Length")]
    LengthTwice,
    /// `Content-Length` and `Transfer-Encoding`.
    #[error("the request has both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// A body in chunks.
    #[error("the body comes in chunks, without a Content-Length")]
    Chunked,
    /// Another transfer coding.
    #[error("the body comes in a transfer coding that is not known")]
    Coding,
    /// An `Expect` of something else than `100-continue`.
    #[error("the request expects what is not known")]
    Expectation,
    /// More than is taken: [`BODY_BYTES`] unless the server is told otherwise.
    #[error("the body is longer than the server takes")]
    BodyTooLong,
}

impl Malformed {
    /// The status that answers it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLong | Self::TooManyHeaders => 431,
            Self::BodyTooLong => 413,
            Self::Chunked => 411,
            Self::Coding => 501,
            Self::Expectation => 417,
            Self::Version => 505,
            Self::Syntax(_)
            | Self::BareNewline
            | Self::Target
            | Self::HostTwice
            | Self::Length
            | Self::LengthTwice
            | Self::LengthAndCoding => 400,
        }
    }

    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::HeadTooLong | Self::TooManyHeaders => "send fewer and shorter headers",
            Self::BodyTooLong => "send a shorter body",
            Self::Chunked | Self::Coding => "send the body as it is, with a Content-Length",
            Self::Expectation => "leave the Expect header out",
            Self::Target => "send a path such as /version",
            _ => "send the request with an HTTP/1.1 client, such as curl --unix-socket",
        }
    }
}

/// The head of a request whose body is not all there.
#[derive(Clone, Debug)]
struct Head {
    method: Method,
    path: String,
    body_bytes: usize,
    keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    waits: bool,
}

/// Takes bytes, gives requests.
#[derive(Debug)]
pub struct Parser {
    most_body_bytes: usize,
    buffer: Vec<u8>,
    /// Where the rest begins that no request has taken.
    start: usize,
    head: Option<Head>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new(BODY_BYTES)
    }
}

impl Parser {
    /// Takes bodies of so many bytes at most.
    #[must_use]
    pub fn new(most_body_bytes: usize) -> Self {
        Self {
            most_body_bytes,
            buffer: Vec::new(),
            start: 0,
            head: None,
        }
    }

    /// Takes the next bytes. No more than [`room`](Self::room) ever need be given.
    pub fn push(&mut self, bytes: &[u8]) {
        let taken = std::mem::take(&mut self.start);
        self.buffer.drain(..taken.min(self.buffer.len()));
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes can be of use: with so many there is a request or an error.
    #[must_use]
    pub fn room(&self) -> usize {
        let most = HEAD_BYTES.saturating_add(self.most_body_bytes);
        most.saturating_sub(self.rest().len())
    }

    /// Whether nothing of a request has come.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.head.is_none() && self.rest().is_empty()
    }

    /// Lets go of the memory that large requests took.
    pub fn shrink(&mut self) {
        if self.is_idle() {
            self.buffer = Vec::new();
            self.start = 0;
        }
    }

    /// Whether the client waits to be told that it may send the body; true once a request.
    pub fn wants_continue(&mut self) -> bool {
        let waits = self.head.as_mut().map(|head| &mut head.waits);
        waits.is_some_and(std::mem::take)
    }

    /// The next request, if it is all there.
    ///
    /// # Errors
    /// [`Malformed`], after which nothing more can be told from the bytes.
    pub fn request(&mut self) -> Result<Option<Request>, Malformed> {
        let head = match self.head.take() {
            Some(head) => head,
            None => match self.read_head()? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        let Some(body) = self.rest().get(..head.body_bytes) else {
            self.head = Some(head);
            return Ok(None);
        };
        let body = body.to_vec();
        self.start = self.start.saturating_add(head.body_bytes);
        Ok(Some(Request {
            method: head.method,
            path: head.path,
            body,
            keep_alive: head.keep_alive,
        }))
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn read_head(&mut self) -> Result<Option<Head>, Malformed> {
        let rest = self.rest();
        // No byte beyond the limit is looked at, so that it counts the same in pieces.
        let window = rest.get(..HEAD_BYTES).unwrap_or(rest);
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let len = match request.parse(window) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if window.len() < HEAD_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(Malformed::HeadTooLong),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooManyHeaders),
            Err(httparse::Error::Version) => match version(window) {
                Some(error) => return Err(error),
                None if window.len() < HEAD_BYTES => return Ok(None),
                None => return Err(Malformed::HeadTooLong),
            },
            Err(error) => return Err(Malformed::Syntax(error)),
        };
        let head = read(&request, window.get(..len).unwrap_or_default())?;
        if head.body_bytes > self.most_body_bytes {
            return Err(Malformed::BodyTooLong);
        }
        self.start = self.start.saturating_add(len);
        Ok(Some(head))
    }
}

/// What is wrong with a version that is not ours: it is another one, or none at all. None where
/// that cannot be told yet.
fn version(head: &[u8]) -> Option<Malformed> {
    let none = Some(Malformed::Syntax(httparse::Error::Version));
    // Empty lines before a request are let be (RFC 9112, 2.2).
    let lines = head.iter().position(|byte| !b"\r\n".contains(byte));
    let line = head.get(lines?..).unwrap_or_default();
    let Some(word) = line.splitn(3, |&byte| byte == b' ').nth(2) else {
        return none;
    };
    for (place, wanted) in b"HTTP/0.0".iter().enumerate() {
        let byte = word.get(place)?;
        let good = match wanted {
            b'0' => byte.is_ascii_digit(),
            letter => byte == letter,
        };
        if !good {
            return none;
        }
    }
    Some(Malformed::Version)
}

/// What the parsed head of a request, which is `text`, says.
fn read(request: &httparse::Request<'_, '_>, text: &[u8]) -> Result<Head, Malformed> {
    let mut before = 0;
    for &byte in text {
        if byte == b'\n' && before != b'\r' {
            return Err(Malformed::BareNewline);
        }
        before = byte;
    }
    let path = path_of(request.path.unwrap_or_default()).ok_or(Malformed::Target)?;
    let newer = request.version == Some(1);
    let fields = Fields::read(request.headers, newer)?;
    Ok(Head {
        method: Method::named(request.method.unwrap_or_default()),
        path: path.to_owned(),
        body_bytes: fields.body_bytes()?,
        keep_alive: fields.keep_alive,
        waits: fields.waits && newer,
    })
}

/// The path in a request's target, also where a proxy's form names a host before it (RFC 9112,
/// 3.2.2).
fn path_of(target: &str) -> Option<&str> {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.get(rest.find('/')?..)?,
        None => target,
    };
    let good = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    good.then_some(path)
}

/// The headers that mean something here.
#[derive(Debug)]
struct Fields<'a> {
    length: Option<&'a [u8]>,
    /// Whether there is a transfer coding, and whether it is `chunked` alone.
    coding: Option<bool>,
    keep_alive: bool,
    waits: bool,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>], keep_alive: bool) -> Result<Self, Malformed> {
        let mut fields = Self {
            length: None,
            coding: None,
            keep_alive,
            waits: false,
        };
        let mut hosts = 0_usize;
        for header in headers {
            let value = header.value.trim_ascii();
            let named = |name: &str| header.name.eq_ignore_ascii_case(name);
            if named("content-length") {
                if fields.length.replace(value).is_some() {
                    return Err(Malformed::LengthTwice);
                }
            } else if named("transfer-encoding") {
                let chunked = fields.coding.is_none() && value.eq_ignore_ascii_case(b"chunked");
                fields.coding = Some(chunked);
            } else if named("connection") {
                fields.connection(value);
            } else if named("expect") {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Malformed::Expectation);
                }
                fields.waits = true;
            } else if named("host") {
                hosts = hosts.saturating_add(1);
            }
        }
        if hosts > 1 {
            return Err(Malformed::HostTwice);
        }
        Ok(fields)
    }

    fn connection(&mut self, value: &[u8]) {
        for word in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if word.eq_ignore_ascii_case(b"close") {
                self.keep_alive = false;
                return;
            }
            self.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn body_bytes(&self) -> Result<usize, Malformed> {
        match (self.length, self.coding) {
            (Some(_), Some(_)) => Err(Malformed::LengthAndCoding),
            (None, Some(true)) => Err(Malformed::Chunked),
            (None, Some(false)) => Err(Malformed::Coding),
            (None, None) => Ok(0),
            (Some(digits), None) => number(digits),
        }
    }
}

fn number(digits: &[u8]) -> Result<usize, Malformed> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Length);
    }
    let number = std::str::from_utf8(digits).unwrap_or_default();
    // All digits: what does not fit is too large.
    number.parse().map_err(|_| Malformed::BodyTooLong)
}

#[cfg(test)]
mod tests;
