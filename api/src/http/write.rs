//! Answers to bytes.

use serde::Serialize;

/// What a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// JSON.
    #[default]
    Json,
    /// JSON, one value a line, without an end.
    JsonLines,
    /// Counters as Prometheus reads them.
    Metrics,
}

impl Media {
    /// Its name in a header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body; empty for none.
    pub body: Vec<u8>,
    /// What the body is.
    pub media: Media,
    /// Headers besides those that every answer has.
    pub headers: Vec<(&'static str, String)>,
}

impl Response {
    /// Success with nothing to tell.
    #[must_use]
    pub fn done() -> Self {
        Self::of(204)
    }

    /// A status alone.
    #[must_use]
    pub fn of(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// A status with `value` as JSON.
    #[must_use]
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status,
                body,
                ..Self::default()
            },
            // Only a map with keys that are no text cannot be written.
            Err(_) => Self::of(500),
        }
    }

    /// Success with a text that is `media`.
    #[must_use]
    pub fn text(media: Media, text: String) -> Self {
        Self {
            status: 200,
            body: text.into_bytes(),
            media,
            ..Self::default()
        }
    }

    /// The answer with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer as the log has it, in Firecracker's words.
    #[must_use]
    pub fn described(&self) -> String {
        let (status, reason) = (self.status, reason(self.status));
        match status {
            0..400 => {
                format!("The request was executed successfully. Status code: {status} {reason}.")
            }
            _ => format!(
                "Received Error. Status code: {status} {reason}. Message: {}",
                String::from_utf8_lossy(&self.body)
            ),
        }
    }

    /// Appends the answer to `out`: `keep_alive` tells whether the connection goes on, `with_body`
    /// is false for the answer to a HEAD request.
    pub fn encode(&self, keep_alive: bool, with_body: bool, out: &mut Vec<u8>) {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nServer: Coracle\r\nConnection: {connection}\r\n",
            self.status,
            reason(self.status)
        );
        for (name, value) in &self.headers {
            head.push_str(name);
            head.push_str(": ");
            // A value is one line whatever it was made of.
            head.extend(value.chars().filter(|c| !c.is_control()));
            head.push_str("\r\n");
        }
        // An answer without content has neither (RFC 9110, 8.6).
        if self.status != 204 && self.status >= 200 {
            let (media, len) = (self.media.name(), self.body.len());
            head.push_str(&format!(
                "Content-Type: {media}\r\nContent-Length: {len}\r\n"
            ));
        }
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        if with_body && self.status != 204 {
            out.extend_from_slice(&self.body);
        }
    }
}

/// The head of an answer whose body comes in [chunks](chunk) until [`LAST_CHUNK`] (RFC 9112, 7.1).
#[must_use]
pub fn stream_head(media: Media) -> Vec<u8> {
    let media = media.name();
    format!(
        "HTTP/1.1 200 OK\r\nServer: Coracle\r\nConnection: close\r\nCache-Control: no-store\r\n\
         Content-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes()
}

/// Appends a part of a streamed body to `out`.
pub fn chunk(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The end of a streamed body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What a client is sent that waits before it sends a body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response, keep_alive: bool, with_body: bool) -> String {
        let mut out = Vec::new();
        response.encode(keep_alive, with_body, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_are_whole_messages() {
        let answer = Response::json(200, &["a"]).with("Allow", "GET");
        assert_eq!(
            text(&answer, true, true),
            "HTTP/1.1 200 OK\r\nServer: Coracle\r\nConnection: keep-alive\r\nAllow: GET\r\n\
             Content-Type: application/json\r\nContent-Length: 5\r\n\r\n[\"a\"]"
        );
        assert!(text(&answer, false, false).ends_with("Content-Length: 5\r\n\r\n"));
        assert_eq!(
            text(&Response::done(), false, true),
            "HTTP/1.1 204 No Content\r\nServer: Coracle\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_stream_is_chunks() {
        let head = String::from_utf8(stream_head(Media::JsonLines)).unwrap();
        assert!(head.ends_with("chunked\r\n\r\n") && !head.contains("Content-Length"));
        let mut out = Vec::new();
        chunk(b"0123456789abcdef", &mut out);
        out.extend_from_slice(LAST_CHUNK);
        assert_eq!(out, b"10\r\n0123456789abcdef\r\n0\r\n\r\n");
    }

    #[test]
    fn a_value_cannot_begin_another_line() {
        let answer = Response::of(400).with("Allow", "a\r\nSet-Cookie: x");
        assert!(text(&answer, true, true).contains("Allow: aSet-Cookie: x\r\n"));
    }
}
