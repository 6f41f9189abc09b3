//! Requests from bytes and answers to bytes: HTTP/1.x as far as metadata needs it.

use std::fmt::Write as _;

/// The longest head of a request: its line and headers.
pub(crate) const HEAD_BYTES: usize = 8192;
/// More headers are no honest client's.
const MOST_HEADERS: usize = 64;

/// What a request asks for, as far as it means something here. Names borrow from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    /// The path as it was sent, without a query.
    pub(crate) path: &'a str,
    pub(crate) token: Option<&'a [u8]>,
    /// How long a token is to be good, and by which name that was said.
    pub(crate) seconds: Option<(&'static str, &'a [u8])>,
    /// It came through a proxy.
    pub(crate) forwarded: bool,
    /// JSON is wanted, and not text.
    pub(crate) json: bool,
    pub(crate) keep_alive: bool,
}

/// What the first bytes of a connection hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard<'a> {
    /// A request of so many bytes.
    Ask(Ask<'a>, usize),
    /// The beginning of one.
    Partial,
    /// None that is answered but with this; where the next would begin is not known.
    Bad(Reply),
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) json: bool,
    pub(crate) body: String,
    /// A header besides those that all have.
    pub(crate) header: Option<(&'static str, String)>,
}

impl Reply {
    /// A status and a text.
    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    /// Its bytes; `with_body` is false for the answer to a HEAD request.
    pub(crate) fn encode(&self, keep_alive: bool, with_body: bool) -> Vec<u8> {
        let kind = if self.json {
            "application/json"
        } else {
            "text/plain"
        };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nServer: Coracle\r\nConnection: {connection}\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n",
            self.status,
            reason(self.status),
            self.body.len(),
        );
        if let Some((name, value)) = &self.header {
            // Writing to a string does not fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        if with_body {
            head.push_str(&self.body);
        }
        head.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Reads the request that `bytes`, of [`HEAD_BYTES`] at most, begin with.
pub(crate) fn hear(bytes: &[u8]) -> Heard<'_> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let long = || Reply::text(431, "The request's line and headers are too long.");
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES => return Heard::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Heard::Bad(long());
        }
        Err(httparse::Error::Version) => {
            return Heard::Bad(Reply::text(505, "HTTP/1.0 and HTTP/1.1 are spoken here."));
        }
        Err(error) => {
            return Heard::Bad(Reply::text(
                400,
                format!("The request is not HTTP: {error}."),
            ));
        }
    };
    let mut ask = Ask {
        method: request.method.unwrap_or_default(),
        path: "",
        token: None,
        seconds: None,
        forwarded: false,
        json: false,
        keep_alive: request.version == Some(1),
    };
    let Some(path) = path_of(request.path.unwrap_or_default()) else {
        return Heard::Bad(Reply::text(400, "Invalid URI."));
    };
    ask.path = path;
    for header in request.headers.iter() {
        if let Err(reply) = ask.heed(header.name, header.value.trim_ascii()) {
            return Heard::Bad(reply);
        }
    }
    Heard::Ask(ask, length)
}

/// The path of a request's target, also where a proxy's form names a host before it (RFC 9112,
/// 3.2.2).
fn path_of(target: &str) -> Option<&str> {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.get(rest.find('/')?..)?,
        None => target,
    };
    let path = path.split('?').next()?;
    path.starts_with('/').then_some(path)
}

impl<'a> Ask<'a> {
    /// Takes a header in. Of those that may be there once, the first counts.
    fn heed(&mut self, name: &str, value: &'a [u8]) -> Result<(), Reply> {
        const SECONDS: [&str; 2] = [
            "X-metadata-token-ttl-seconds",
            "X-aws-ec2-metadata-token-ttl-seconds",
        ];
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("x-metadata-token") || is("x-aws-ec2-metadata-token") {
            self.token.get_or_insert(value);
        } else if let Some(known) = SECONDS.into_iter().find(|known| is(known)) {
            self.seconds.get_or_insert((known, value));
        } else if is("x-forwarded-for") {
            self.forwarded = true;
        } else if is("accept") {
            self.json = wants_json(value);
        } else if is("connection") {
            let words = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            for word in words {
                if word.eq_ignore_ascii_case(b"close") {
                    self.keep_alive = false;
                } else if word.eq_ignore_ascii_case(b"keep-alive") {
                    self.keep_alive = true;
                }
            }
        } else if is("content-length") && value != b"0" || is("transfer-encoding") {
            // Nothing here takes a body, so none has to be waited for.
            let about = "The request has a body; requests for metadata have none.";
            return Err(Reply::text(400, about));
        }
        Ok(())
    }
}

/// Whether the first kind of answer that is accepted, of those that there are, is JSON.
fn wants_json(value: &[u8]) -> bool {
    let mut kinds = value.split(|byte| *byte == b',').map(|kind| {
        let kind = kind.split(|byte| *byte == b';').next();
        kind.unwrap_or_default().trim_ascii()
    });
    let known = kinds.find_map(|kind| {
        let is = |known: &str| kind.eq_ignore_ascii_case(known.as_bytes());
        let json = is("application/json") || is("application/*");
        let text = is("text/plain") || is("plain/text") || is("text/*") || is("*/*");
        (json || text).then_some(json)
    });
    known.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Ask<'_> {
        match hear(text.as_bytes()) {
            Heard::Ask(ask, length) => {
                assert_eq!(length, text.len(), "{text:?}");
                ask
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn with(header: &str) -> String {
        format!("GET / HTTP/1.1\r\n{header}\r\n\r\n")
    }

    #[test]
    fn requests_say_what_they_want() {
        let text = "PUT /latest/api/token?a=b HTTP/1.1\r\nHost: 169.254.169.254\r\n\
                    x-AWS-ec2-metadata-token-ttl-SECONDS:  60 \r\nX-Forwarded-For: 1.2.3.4\r\n\
                    X-metadata-token: abc\r\nX-metadata-token: def\r\nContent-Length: 0\r\n\r\n";
        let expected = Ask {
            method: "PUT",
            path: "/latest/api/token",
            token: Some(b"abc"),
            seconds: Some(("X-aws-ec2-metadata-token-ttl-seconds", b"60")),
            forwarded: true,
            json: false,
            keep_alive: true,
        };
        assert_eq!(ask(text), expected);
        assert_eq!(
            ask("GET http://169.254.169.254/a HTTP/1.0\r\n\r\n").path,
            "/a"
        );
    }

    #[test]
    fn connections_last_as_their_version_and_headers_say() {
        let cases = [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: close\r\n", false),
            ("HTTP/1.1", "Connection: TE, Close\r\n", false),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: keep-alive\r\n", true),
        ];
        for (version, header, keep_alive) in cases {
            let text = format!("GET / {version}\r\n{header}\r\n");
            assert_eq!(ask(&text).keep_alive, keep_alive, "{text:?}");
        }
    }

    #[test]
    fn the_first_known_kind_of_answer_is_given() {
        let cases = [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/*", true),
            ("text/html, application/json, */*", true),
            ("application/json,text/plain", true),
            ("text/plain, application/json", false),
            ("*/*", false),
            ("text/*;q=0.5", false),
            ("plain/text", false),
            ("image/png", false),
            ("", false),
        ];
        for (value, json) in cases {
            assert_eq!(
                ask(&with(&format!("Accept: {value}"))).json,
                json,
                "{value}"
            );
        }
        assert!(!ask("GET / HTTP/1.1\r\n\r\n").json);
    }

    #[test]
    fn what_is_no_request_is_answered_so() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_BYTES));
        let many = with("a: b\r\n".repeat(MOST_HEADERS + 1).trim_end());
        let cases = [
            ("\0\0\0\0", 400),
            ("GET\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\na b: c\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("GET / HTTP/9\r\n\r\n", 505),
            ("GET a HTTP/1.1\r\n\r\n", 400),
            ("OPTIONS * HTTP/1.1\r\n\r\n", 400),
            ("GET http:// HTTP/1.1\r\n\r\n", 400),
            ("GET http://host HTTP/1.1\r\n\r\n", 400),
            ("GET ?a HTTP/1.1\r\n\r\n", 400),
            (&with("Content-Length: 1"), 400),
            (&with("Content-Length: 00"), 400),
            (&with("Content-Length: -1"), 400),
            (&with("Transfer-Encoding: chunked"), 400),
            (&many, 431),
            (&long[..HEAD_BYTES], 431),
        ];
        for (text, status) in cases {
            match hear(text.as_bytes()) {
                Heard::Bad(reply) => assert_eq!(reply.status, status, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_beginning_of_a_request_is_waited_on() {
        let text = with("Accept: application/json");
        for end in 0..text.len() {
            assert_eq!(hear(&text.as_bytes()[..end]), Heard::Partial, "{end}");
        }
    }

    #[test]
    fn answers_are_whole_messages() {
        let mut reply = Reply::text(405, "No.");
        reply.header = Some(("Allow", "GET, PUT".to_owned()));
        let text = |with_body| String::from_utf8(reply.encode(false, with_body)).unwrap();
        assert_eq!(
            text(true),
            "HTTP/1.1 405 Method Not Allowed\r\nServer: Coracle\r\nConnection: close\r\n\
             Content-Type: text/plain\r\nContent-Length: 3\r\nAllow: GET, PUT\r\n\r\nNo."
        );
        assert_eq!(text(true), text(false) + "No.");
    }
}
