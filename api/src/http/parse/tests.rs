//! Tables of good and malformed messages, and the rule that pieces make no difference.

use httparse::Error;
use proptest::prelude::*;

use super::*;

/// Everything that comes out of `bytes` given in `pieces`, whose lengths repeat.
fn played(bytes: &[u8], pieces: &[usize]) -> (Vec<Request>, Option<Malformed>) {
    let mut parser = Parser::default();
    let mut requests = Vec::new();
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    loop {
        loop {
            match parser.request() {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
        if rest.is_empty() {
            return (requests, None);
        }
        assert!(parser.room() > 0, "a parser that waits has room");
        let piece = (*pieces.next().unwrap()).clamp(1, rest.len());
        let (now, later) = rest.split_at(piece.min(parser.room()));
        parser.push(now);
        rest = later;
    }
}

fn whole(bytes: &[u8]) -> (Vec<Request>, Option<Malformed>) {
    played(bytes, &[usize::MAX])
}

fn one(bytes: &[u8]) -> Request {
    match whole(bytes) {
        (mut requests, None) if requests.len() == 1 => requests.remove(0),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn good_requests() {
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(8000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(64));
    type Good<'a> = (&'a [u8], Method, &'a str, &'a [u8], bool);
    let cases: &[Good] = &[
        (b"GET / HTTP/1.1\r\n\r\n", Method::Get, "/", b"", true),
        (
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            Method::Get,
            "/",
            b"",
            true,
        ),
        (
            b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
            Method::Get,
            "/a?b",
            b"",
            true,
        ),
        (
            b"GET http://x/a HTTP/1.1\r\n\r\n",
            Method::Get,
            "/a",
            b"",
            true,
        ),
        (b"GET / HTTP/1.0\r\n\r\n", Method::Get, "/", b"", false),
        (
            b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
            Method::Get,
            "/",
            b"",
            true,
        ),
        (
            b"GET / HTTP/1.1\r\nConnection: x, CLOSE\r\n\r\n",
            Method::Get,
            "/",
            b"",
            false,
        ),
        (
            b"GET / HTTP/1.1\r\nConnection: close, keep-alive\r\n\r\n",
            Method::Get,
            "/",
            b"",
            false,
        ),
        (
            b"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",
            Method::Put,
            "/",
            b"ab",
            true,
        ),
        (
            b"PUT / HTTP/1.1\r\ncontent-length:2\r\n\r\nab",
            Method::Put,
            "/",
            b"ab",
            true,
        ),
        (
            b"PUT / HTTP/1.1\r\nCONTENT-LENGTH: \t 2 \r\n\r\nab",
            Method::Put,
            "/",
            b"ab",
            true,
        ),
        (
            b"PUT / HTTP/1.1\r\nContent-Length: 0002\r\n\r\nab",
            Method::Put,
            "/",
            b"ab",
            true,
        ),
        (
            b"PATCH / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            Method::Patch,
            "/",
            b"",
            true,
        ),
        (
            b"DELETE /x HTTP/1.1\r\n\r\n",
            Method::Delete,
            "/x",
            b"",
            true,
        ),
        (b"POST /x HTTP/1.1\r\n\r\n", Method::Post, "/x", b"", true),
        (b"HEAD /x HTTP/1.1\r\n\r\n", Method::Head, "/x", b"", true),
        (b"BREW /x HTTP/1.1\r\n\r\n", Method::Other, "/x", b"", true),
        (b"get /x HTTP/1.1\r\n\r\n", Method::Other, "/x", b"", true),
        (b"GET / HTTP/1.1\r\nX:\r\n\r\n", Method::Get, "/", b"", true),
        (
            b"GET / HTTP/1.1\r\nX: \xff\r\n\r\n",
            Method::Get,
            "/",
            b"",
            true,
        ),
        (long.as_bytes(), Method::Get, "/", b"", true),
        (many.as_bytes(), Method::Get, "/", b"", true),
    ];
    for (bytes, method, path, body, keep_alive) in cases {
        let expected = Request {
            method: *method,
            path: (*path).to_owned(),
            body: body.to_vec(),
            keep_alive: *keep_alive,
        };
        assert_eq!(one(bytes), expected, "{}", String::from_utf8_lossy(bytes));
    }
}

/// Messages that are refused, by the headers that follow a good request line.
const HEADERS: &[(&str, Malformed)] = &[
    ("Content-Length: -1", Malformed::Length),
    ("Content-Length: +1", Malformed::Length),
    ("Content-Length: 1 1", Malformed::Length),
    ("Content-Length: 1,1", Malformed::Length),
    ("Content-Length: 1;", Malformed::Length),
    ("Content-Length: 0x1", Malformed::Length),
    ("Content-Length: 1.0", Malformed::Length),
    ("Content-Length: 1e1", Malformed::Length),
    ("Content-Length:", Malformed::Length),
    ("Content-Length: ", Malformed::Length),
    ("Content-Length: \u{661}", Malformed::Length),
    ("Content-Length: NaN", Malformed::Length),
    ("Content-Length: -0", Malformed::Length),
    ("Content-Length: 51201", Malformed::BodyTooLong),
    ("Content-Length: 4294967297", Malformed::BodyTooLong),
    (
        "Content-Length: 18446744073709551615",
        Malformed::BodyTooLong,
    ),
    (
        "Content-Length: 18446744073709551617",
        Malformed::BodyTooLong,
    ),
    (
        "Content-Length: 99999999999999999999999999",
        Malformed::BodyTooLong,
    ),
    (
        "Content-Length: 1\r\nContent-Length: 1",
        Malformed::LengthTwice,
    ),
    (
        "Content-Length: 1\r\ncontent-length: 2",
        Malformed::LengthTwice,
    ),
    (
        "Content-Length: 0\r\nContent-Length: 0",
        Malformed::LengthTwice,
    ),
    (
        "Content-Length: x\r\nContent-Length: 1",
        Malformed::LengthTwice,
    ),
    ("Transfer-Encoding: chunked", Malformed::Chunked),
    ("transfer-encoding: CHUNKED", Malformed::Chunked),
    ("Transfer-Encoding: gzip", Malformed::Coding),
    ("Transfer-Encoding: gzip, chunked", Malformed::Coding),
    ("Transfer-Encoding: identity", Malformed::Coding),
    ("Transfer-Encoding:", Malformed::Coding),
    ("Transfer-Encoding: xchunked", Malformed::Coding),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        Malformed::Coding,
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        Malformed::LengthAndCoding,
    ),
    (
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        Malformed::LengthAndCoding,
    ),
    (
        "Content-Length: 1\r\nTransfer-Encoding: identity",
        Malformed::LengthAndCoding,
    ),
    (
        "Content-Length: x\r\nTransfer-Encoding: chunked",
        Malformed::LengthAndCoding,
    ),
    ("Content-Length : 1", Malformed::Syntax(Error::HeaderName)),
    (
        "Transfer-Encoding : chunked",
        Malformed::Syntax(Error::HeaderName),
    ),
    (
        "Transfer-Encoding\t: chunked",
        Malformed::Syntax(Error::HeaderName),
    ),
    (" Content-Length: 1", Malformed::Syntax(Error::HeaderName)),
    ("X: a\r\n b", Malformed::Syntax(Error::HeaderName)),
    ("X: a\r\n\tb", Malformed::Syntax(Error::HeaderName)),
    (": a", Malformed::Syntax(Error::HeaderName)),
    ("X", Malformed::Syntax(Error::HeaderName)),
    ("X y: a", Malformed::Syntax(Error::HeaderName)),
    ("X\0: a", Malformed::Syntax(Error::HeaderName)),
    ("X(: a", Malformed::Syntax(Error::HeaderName)),
    ("\u{e9}: a", Malformed::Syntax(Error::HeaderName)),
    ("X: a\0b", Malformed::Syntax(Error::HeaderValue)),
    ("X: a\u{7f}b", Malformed::Syntax(Error::HeaderValue)),
    ("X: a\u{1b}b", Malformed::Syntax(Error::HeaderValue)),
    ("X: a\rb", Malformed::Syntax(Error::HeaderValue)),
    ("Host: a\r\nHost: a", Malformed::HostTwice),
    ("Host: a\r\nhost: b", Malformed::HostTwice),
    ("Expect: 200-ok", Malformed::Expectation),
    ("Expect: 100-continue, x", Malformed::Expectation),
    ("Expect:", Malformed::Expectation),
    ("X: a\nY: b", Malformed::BareNewline),
    ("X: a\nContent-Length: 5", Malformed::BareNewline),
];

/// Whole messages that are refused.
const MESSAGES: &[(&[u8], Malformed)] = &[
    (b"\0", Malformed::Syntax(Error::Token)),
    (
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        Malformed::Syntax(Error::Token),
    ),
    (b" GET / HTTP/1.1\r\n\r\n", Malformed::Syntax(Error::Token)),
    (b"GET\r\n\r\n", Malformed::Syntax(Error::Token)),
    (b"GET /\r\n\r\n", Malformed::Syntax(Error::Token)),
    (b"GET  HTTP/1.1\r\n\r\n", Malformed::Syntax(Error::Token)),
    (
        b"GET / HTTP/1.1 \r\n\r\n",
        Malformed::Syntax(Error::NewLine),
    ),
    (
        b"GET / HTTP/1.1\rX: y\r\n\r\n",
        Malformed::Syntax(Error::NewLine),
    ),
    (b"G@T / HTTP/1.1\r\n\r\n", Malformed::Syntax(Error::Token)),
    (
        b"GET /\x01 HTTP/1.1\r\n\r\n",
        Malformed::Syntax(Error::Token),
    ),
    (
        b"GET /a b HTTP/1.1\r\n\r\n",
        Malformed::Syntax(Error::Version),
    ),
    (b"GET / HTTP/2.0\r\n\r\n", Malformed::Version),
    (b"GET / HTTP/1.2\r\n\r\n", Malformed::Version),
    (b"GET / HTTP/0.9\r\n\r\n", Malformed::Version),
    (b"\r\n\r\nGET / HTTP/2.0\r\n\r\n", Malformed::Version),
    (
        b"GET / HTTP/11.1\r\n\r\n",
        Malformed::Syntax(Error::Version),
    ),
    (b"GET / http/1.1\r\n\r\n", Malformed::Syntax(Error::Version)),
    (b"GET / HTTP/2\r\n\r\n", Malformed::Syntax(Error::Version)),
    (b"GET / FTP/1.1\r\n\r\n", Malformed::Syntax(Error::Version)),
    (
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n\r\n",
        Malformed::Syntax(Error::Version),
    ),
    (
        b"GET / HTTP/1.1x\r\n\r\n",
        Malformed::Syntax(Error::NewLine),
    ),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Malformed::Version),
    (b"GET / HTTP/1.1\n\n", Malformed::BareNewline),
    (b"GET / HTTP/1.1\r\n\n", Malformed::BareNewline),
    (b"\nGET / HTTP/1.1\r\n\r\n", Malformed::BareNewline),
    (b"GET * HTTP/1.1\r\n\r\n", Malformed::Target),
    (b"CONNECT a:1 HTTP/1.1\r\n\r\n", Malformed::Target),
    (b"GET version HTTP/1.1\r\n\r\n", Malformed::Target),
    (b"GET http://host HTTP/1.1\r\n\r\n", Malformed::Target),
    (b"GET https://host/ HTTP/1.1\r\n\r\n", Malformed::Target),
    (b"GET //\xc3\xa9 HTTP/1.1\r\n\r\n", Malformed::Target),
];

#[test]
fn malformed_messages() {
    let mut wrong = Vec::new();
    let mut check = |bytes: &[u8], expected: Malformed| {
        let came = whole(bytes);
        if came != (Vec::new(), Some(expected)) {
            wrong.push(format!("{:?}: {came:?}", String::from_utf8_lossy(bytes)));
        }
        for pieces in [&[1][..], &[2, 3], &[7]] {
            assert_eq!(played(bytes, pieces), came, "in pieces of {pieces:?}");
        }
    };
    for (headers, expected) in HEADERS {
        let message = format!("PUT /x HTTP/1.1\r\n{headers}\r\n\r\nbody");
        check(message.as_bytes(), *expected);
    }
    for (message, expected) in MESSAGES {
        check(message, *expected);
    }
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let long_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(65_536));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65));
    check(long_line.as_bytes(), Malformed::HeadTooLong);
    check(long_header.as_bytes(), Malformed::HeadTooLong);
    check(&[b'\r', b'\n'].repeat(5000), Malformed::HeadTooLong);
    check(many.as_bytes(), Malformed::TooManyHeaders);
    // A version that begins before the limit and would end behind it.
    let late = format!("GET /{} HTTP/2.0\r\n\r\n", "a".repeat(HEAD_BYTES - 13));
    check(late.as_bytes(), Malformed::HeadTooLong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(HEADERS.len() + MESSAGES.len() >= 60);
}

#[test]
fn every_refusal_has_a_status_and_a_hint() {
    for (_, error) in HEADERS.iter().chain(&[]) {
        assert!((400..=505).contains(&error.status()) && !error.hint().is_empty());
    }
}

#[test]
fn requests_in_a_row_come_in_order() {
    let bytes = b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n\
                  GET /c HTTP/1.1\r\n\r\nbad\x00";
    let (requests, error) = whole(bytes);
    let paths: Vec<_> = requests.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
    assert_eq!(error, Some(Malformed::Syntax(Error::Token)));
}

#[test]
fn a_client_that_waits_is_told_once_and_only_while_it_waits() {
    let head = b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    let mut parser = Parser::default();
    parser.push(head);
    assert_eq!(parser.request(), Ok(None));
    assert!(parser.wants_continue());
    assert!(!parser.wants_continue());
    assert!(!parser.is_idle());
    parser.push(b"x");
    assert!(parser.request().unwrap().is_some());
    assert!(parser.is_idle());
    // With the body at hand, or from an old client, there is nobody to tell.
    parser.push(&[head.as_slice(), b"x"].concat());
    assert!(parser.request().unwrap().is_some());
    assert!(!parser.wants_continue());
    parser.push(b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(parser.request(), Ok(None));
    assert!(!parser.wants_continue());
}

#[test]
fn a_parser_gives_memory_back() {
    let mut parser = Parser::default();
    let head = format!("PUT / HTTP/1.1\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    parser.push(head.as_bytes());
    parser.push(&vec![0; BODY_BYTES]);
    assert_eq!(parser.request().unwrap().unwrap().body.len(), BODY_BYTES);
    parser.shrink();
    assert_eq!(parser.buffer.capacity(), 0);
}

/// Bytes that are nearly requests: parts in any order, some of them noise.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"PUT /a HTTP/1.0\r\n".to_vec()),
        Just(b"Content-Length: 4\r\n".to_vec()),
        Just(b"Expect: 100-continue\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Connection: close\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r\nbody".to_vec()),
        Just(b"X: ".to_vec()),
        Just(vec![b'a'; 3000]),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(parts, 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        bytes in messages(),
        pieces in proptest::collection::vec(1_usize..900, 1..8),
    ) {
        prop_assert_eq!(played(&bytes, &pieces), whole(&bytes));
        prop_assert_eq!(played(&bytes, &[1]), whole(&bytes));
    }

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(played(&bytes, &[3]), whole(&bytes));
    }
}
