//! Header lines.

use super::{Row, controls, ends, refused, with};

const GET: &str = "GET /version HTTP/1.1\r\n";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = names();
    rows.extend(values());
    rows.extend(lines());
    rows.extend(limits());
    rows.extend(meanings());
    rows
}

fn names() -> Vec<Row> {
    let mut rows = Vec::new();
    let before = format!("{GET}X");
    for byte in controls()
        .chain(*b" \t(),/;<=>?@[\\]{}\"")
        .chain([0x80, 0xff])
    {
        let name = format!("byte {byte:#04x} in a header's name");
        rows.push(ends(400, name, with(&before, byte, "Y: z\r\n\r\n")));
    }
    for (name, line) in [
        ("a blank before the colon", "X : y"),
        ("a tab before the colon", "X\t: y"),
        ("a header without a name", ": y"),
        ("a header without a colon", "X"),
        ("a header that is a blank", " "),
        ("a blank before the first header's name", " X: y"),
        ("a tab before the first header's name", "\tX: y"),
        (
            "a Content-Length with a blank before its colon",
            "Content-Length : 2",
        ),
        (
            "a Transfer-Encoding with a blank before its colon",
            "Transfer-Encoding : chunked",
        ),
    ] {
        rows.push(ends(400, name, format!("{GET}{line}\r\n\r\n")));
    }
    rows
}

fn values() -> Vec<Row> {
    let mut rows = Vec::new();
    let before = format!("{GET}X: a");
    for byte in controls() {
        let name = format!("byte {byte:#04x} in a header's value");
        rows.push(ends(400, name, with(&before, byte, "b\r\n\r\n")));
    }
    rows
}

fn lines() -> Vec<Row> {
    [
        ("a folded header", "A: b\r\n c\r\n\r\n"),
        ("a header folded with a tab", "A: b\r\n\tc\r\n\r\n"),
        ("a folded empty header", "A:\r\n b\r\n\r\n"),
        ("a Host that is folded", "Host: a\r\n b\r\n\r\n"),
        ("a header that ends with a line feed", "A: b\nC: d\r\n\r\n"),
        ("the last header ends with a line feed", "A: b\n\r\n"),
        ("an end of line feeds", "A: b\r\n\n"),
        ("a header that ends with a return", "A: b\rC: d\r\n\r\n"),
        ("a return within a value", "A: b\rc\r\n\r\n"),
        ("two returns at a header's end", "A: b\r\r\n\r\n"),
        ("a return before the empty line", "A: b\r\n\r\r\n"),
        ("a return for the empty line", "A: b\r\n\rC: d\r\n\r\n"),
        ("a line feed within a name", "A\nB: c\r\n\r\n"),
        ("an empty name after a header", "A: b\r\n: c\r\n\r\n"),
        ("a body for a header", "A: b\r\n{\"a\" 1}\r\n\r\n"),
        (
            "another request for a header",
            "A: b\r\nGET / HTTP/1.1\r\n\r\n",
        ),
    ]
    .map(|(name, text)| ends(400, name, format!("{GET}{text}")))
    .into()
}

fn limits() -> Vec<Row> {
    let long = "a".repeat(9000);
    let many = |count: usize| format!("{GET}{}\r\n", "A: b\r\n".repeat(count));
    vec![
        ends(431, "65 headers", many(65)),
        ends(431, "1,000 headers", many(1000)),
        ends(431, "20,000 headers", many(20_000)),
        ends(
            431,
            "a name of 9,000 bytes",
            format!("{GET}{long}: b\r\n\r\n"),
        ),
        ends(
            431,
            "a value of 9,000 bytes",
            format!("{GET}A: {long}\r\n\r\n"),
        ),
        ends(
            431,
            "a value of 9,000 blanks",
            format!("{GET}A:{}b\r\n\r\n", " ".repeat(9000)),
        ),
        ends(
            431,
            "9,000 empty lines first",
            format!("{}{GET}\r\n", "\r\n".repeat(9000)),
        ),
        ends(431, "a megabyte without a line's end", vec![b'a'; 1 << 20]),
        ends(431, "a head of 8,193 bytes", {
            let rest = 8193 - GET.len() - "A: \r\n\r\n".len();
            format!("{GET}A: {}\r\n\r\n", "b".repeat(rest))
        }),
    ]
}

/// Headers that are well formed and say what cannot be.
fn meanings() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, text) in [
        ("two Hosts", "Host: a\r\nHost: b\r\n"),
        ("one Host twice", "Host: a\r\nHost: a\r\n"),
        ("two Hosts in two cases", "host: a\r\nHOST: b\r\n"),
        ("an empty Host and one that is not", "Host:\r\nHost: b\r\n"),
    ] {
        rows.push(ends(400, name, format!("{GET}{text}\r\n")));
    }
    for value in [
        "nothing",
        "100",
        "100-continue, x",
        "200-ok",
        "\"100-continue\"",
        "",
    ] {
        let name = format!("Expect: {value:?}");
        rows.push(ends(417, name, format!("{GET}Expect: {value}\r\n\r\n")));
    }
    let body = "Content-Length: 2\r\n\r\n{}";
    rows.push(refused(400, "a body of GET", format!("{GET}{body}")));
    rows.push(refused(
        400,
        "a body of DELETE",
        format!("DELETE / HTTP/1.1\r\n{body}"),
    ));
    rows.push(refused(
        405,
        "a body of DELETE where there is none of it",
        format!("DELETE /coracle/v1/machine HTTP/1.1\r\n{body}"),
    ));
    rows.push(refused(
        400,
        "a body of our GET",
        format!("GET /coracle/v1/machine HTTP/1.1\r\n{body}"),
    ));
    rows
}
