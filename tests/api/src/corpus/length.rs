//! Where a body ends: the place of request smuggling.

use super::{Row, ends, put, refused};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = numbers();
    rows.extend(twice());
    rows.extend(codings());
    rows.extend(disguises());
    rows
}

/// Lengths that are no numbers.
const NO_NUMBERS: &[&str] = &[
    "",
    " ",
    "+2",
    "-2",
    "-0",
    "+0",
    "0x2",
    "2x",
    "x2",
    "2 2",
    "2,2",
    "2, 2",
    "2;2",
    "2.0",
    "2.",
    ".2",
    "2e0",
    "1e1",
    "2_0",
    "0b10",
    "0o2",
    "2\t2",
    "\"2\"",
    "'2'",
    "(2)",
    "two",
    "NaN",
    "inf",
    "null",
    "true",
    "$2",
    "2%",
    "%32",
    "2\\",
    "2/1",
    "1+1",
    "2-",
    "\u{ff12}",
    "\u{662}",
    "\u{b2}",
    "2\u{a0}",
    "\u{feff}2",
    "0x",
    "-",
    "+",
    "--2",
    "2bytes",
    "2;q=1",
    "chunked",
    "-9223372036854775808",
    "-18446744073709551616",
];

/// Lengths that are too large.
const TOO_LARGE: &[&str] = &[
    "51201",
    "000000000000000051201",
    "65536",
    "1000000",
    "2147483648",
    "4294967296",
    "4294967298",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551618",
    "99999999999999999999999999999999999999999999999999",
];

fn numbers() -> Vec<Row> {
    let mut rows = Vec::new();
    let length = |value: &str| put(&format!("Content-Length: {value}\r\n"), "{}");
    for value in NO_NUMBERS {
        let name = format!("the length {value:?}");
        rows.push(ends(400, name, length(value)));
    }
    for value in TOO_LARGE {
        let name = format!("the length {value}, which is too much");
        rows.push(ends(413, name, length(value)));
    }
    rows.push(ends(
        413,
        "a length of a thousand digits",
        length(&"9".repeat(1000)),
    ));
    let large = "a".repeat(60_000);
    let declared = put("Content-Length: 60000\r\n", &large);
    rows.push(ends(413, "a body of 60,000 bytes", declared));
    let waits = put("Expect: 100-continue\r\nContent-Length: 60000\r\n", "");
    rows.push(ends(413, "leave asked for 60,000 bytes", waits));
    rows
}

fn twice() -> Vec<Row> {
    [
        ("two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n"),
        (
            "one length twice",
            "Content-Length: 2\r\nContent-Length: 2\r\n",
        ),
        (
            "a length in two cases",
            "content-length: 2\r\nCONTENT-LENGTH: 2\r\n",
        ),
        (
            "a length, and one with zeros",
            "Content-Length: 2\r\nContent-Length: 02\r\n",
        ),
        (
            "a length and an empty one",
            "Content-Length: 2\r\nContent-Length:\r\n",
        ),
        (
            "an empty length and one",
            "Content-Length:\r\nContent-Length: 2\r\n",
        ),
        (
            "two lengths of zero",
            "Content-Length: 0\r\nContent-Length: 0\r\n",
        ),
        (
            "two lengths apart",
            "Content-Length: 2\r\nA: b\r\nContent-Length: 3\r\n",
        ),
        (
            "a length and a bad one",
            "Content-Length: 2\r\nContent-Length: x\r\n",
        ),
        ("a length that is folded", "Content-Length:\r\n 2\r\n"),
        (
            "a length that goes on in the next line",
            "Content-Length: 1\r\n 0\r\n",
        ),
        ("a length after a line feed", "A: b\nContent-Length: 2\r\n"),
        ("a length after a return", "A: b\rContent-Length: 2\r\n"),
    ]
    .map(|(name, headers)| ends(400, name, put(headers, "{}")))
    .into()
}

/// Transfer codings that are not known.
const UNKNOWN_CODINGS: &[&str] = &[
    "",
    "identity",
    "gzip",
    "deflate",
    "compress",
    "br",
    "x",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, chunked",
    "chunked,",
    ",chunked",
    "chunked;a=b",
    "\"chunked\"",
    "xchunked",
    "chunkedx",
    "chunk",
    "identity, chunked",
    "chunked, identity",
    "trailers",
];

fn codings() -> Vec<Row> {
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    let mut rows = Vec::new();
    for value in ["chunked", "Chunked", "CHUNKED", " chunked ", "\tchunked"] {
        let name = format!("the coding {value:?}");
        let headers = format!("Transfer-Encoding: {value}\r\n");
        rows.push(ends(411, name, put(&headers, chunks)));
    }
    for value in UNKNOWN_CODINGS {
        let name = format!("the coding {value:?}, which is not known");
        let headers = format!("Transfer-Encoding: {value}\r\n");
        rows.push(ends(501, name, put(&headers, chunks)));
    }
    for (name, headers) in [
        (
            "a coding and a length",
            "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        ),
        (
            "a length and a coding",
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "a length of zero and a coding",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "a length and no coding",
            "Content-Length: 2\r\nTransfer-Encoding: identity\r\n",
        ),
        (
            "a length and an empty coding",
            "Content-Length: 2\r\nTransfer-Encoding:\r\n",
        ),
        (
            "a length and codings",
            "Content-Length: 2\r\ntransfer-encoding: gzip, chunked\r\n",
        ),
        ("a folded coding", "Transfer-Encoding:\r\n chunked\r\n"),
        (
            "a coding that goes on",
            "Transfer-Encoding: chunked\r\n , identity\r\n",
        ),
        (
            "a coding after a line feed",
            "A: b\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "a coding after a vertical tab",
            "Transfer-Encoding: \x0bchunked\r\n",
        ),
    ] {
        rows.push(ends(400, name, put(headers, chunks)));
    }
    for (name, headers) in [
        (
            "two codings",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        ),
        (
            "two codings, chunks last",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "one coding twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
    ] {
        rows.push(ends(501, name, put(headers, chunks)));
    }
    rows
}

/// Headers that look like a length or a coding and are none: the request has no body, and what
/// follows is another request.
fn disguises() -> Vec<Row> {
    let mut rows = Vec::new();
    for header in [
        "Content_Length: 2",
        "ContentLength: 2",
        "X-Content-Length: 2",
        "Content-Lengths: 2",
        "Content-Length-: 2",
        "Transfer_Encoding: chunked",
        "X-Transfer-Encoding: chunked",
        "TE: chunked",
    ] {
        let mut row = refused(400, header, put(&format!("{header}\r\n"), "{}\r\n\r\n"));
        row.statuses.push(400);
        row.ends = true;
        rows.push(row);
    }
    rows.push(refused(400, "no length and no body", put("", "")));
    rows.push(refused(
        400,
        "a length of zero",
        put("Content-Length: 0\r\n", ""),
    ));
    rows.push(refused(
        400,
        "a length of zero, long",
        put("Content-Length: 0000000000\r\n", ""),
    ));
    rows
}
