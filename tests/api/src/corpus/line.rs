//! The first line of a request.

use super::{Row, controls, ends, refused, with};

/// What stands between words in a header's value and so in no token (RFC 9110, 5.6.2).
const SEPARATORS: &[u8] = b"(),/:;<=>?@[\\]{}\"";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = methods();
    rows.extend(targets());
    rows.extend(versions());
    rows.extend(shapes());
    rows
}

fn methods() -> Vec<Row> {
    let mut rows = Vec::new();
    for byte in controls().chain([0x80, 0xff]) {
        let name = format!("byte {byte:#04x} in the method");
        rows.push(ends(400, name, with("G", byte, "T / HTTP/1.1\r\n\r\n")));
    }
    for &byte in SEPARATORS {
        let name = format!("{} in the method", char::from(byte));
        rows.push(ends(400, name, with("G", byte, "T / HTTP/1.1\r\n\r\n")));
    }
    // The answer to HEAD has no body, which the reader of answers would wait for.
    for (method, name) in [
        ("get", "a method in small letters"),
        ("GeT", "a method in mixed letters"),
        ("BREW", "a method that is not known"),
        ("CONNECT", "CONNECT to a path"),
        ("OPTIONS", "OPTIONS"),
        ("TRACE", "TRACE"),
        ("GET'", "a method with an apostrophe, which is a token"),
    ] {
        let head = format!("{method} /version HTTP/1.1\r\n\r\n");
        rows.push(refused(400, name, head));
    }
    let long = "G".repeat(9000);
    rows.push(ends(
        431,
        "a method of 9,000 letters",
        format!("{long} / HTTP/1.1\r\n\r\n"),
    ));
    rows
}

/// Targets that are no paths.
const NO_PATHS: &[&str] = &[
    "*",
    "localhost:80",
    "localhost",
    "version",
    "http://localhost",
    "https://localhost/version",
    "HTTP://localhost/version",
    "file:///etc/passwd",
    "?version",
    "#version",
    "\\version",
    ".",
    "../version",
    "http:/version",
];

/// Paths at which nothing is.
const NOWHERE: &[&str] = &[
    "//",
    "//version",
    "/version/",
    "/./version",
    "/a/../version",
    "/../../etc/passwd",
    "/version?",
    "/version?a=b",
    "/version#a",
    "/version;a",
    "/%76ersion",
    "/version%00",
    "/version%0d%0aX:%20y",
    "/%",
    "/%zz",
    "/VERSION",
    "/drives",
    "/drives/",
    "/drives/../version",
    "/drives/a%2fb",
    "/<script>",
    "/\\..\\version",
    "/{id}",
    "http://a@b:1/nope",
];

fn targets() -> Vec<Row> {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\n\r\n");
    let mut rows = Vec::new();
    for byte in controls() {
        let name = format!("byte {byte:#04x} in the target");
        rows.push(ends(400, name, with("GET /a", byte, "b HTTP/1.1\r\n\r\n")));
    }
    for byte in [0x80, 0xc3, 0xff] {
        let name = format!("byte {byte:#04x} in the target");
        rows.push(ends(400, name, with("GET /a", byte, "b HTTP/1.1\r\n\r\n")));
    }
    for target in NO_PATHS {
        let name = format!("the target {target}, which is no path");
        rows.push(ends(400, name, get(target)));
    }
    for target in NOWHERE {
        let name = format!("the target {target}, at which nothing is");
        rows.push(refused(400, name, get(target)));
    }
    for target in ["/coracle/v1", "/coracle/v1x/machine", "/coracle/v2/machine"] {
        let name = format!("the target {target}, beside our paths");
        rows.push(refused(400, name, get(target)));
    }
    for target in [
        "/coracle/v1/",
        "/coracle/v1/machine/",
        "/coracle/v1//machine",
        "/coracle/v1/machine?x",
        "/coracle/v1/%6dachine",
        "/coracle/v1/drives/a/b",
        "/coracle/v1/../version",
    ] {
        let name = format!("the target {target}, below our paths");
        rows.push(refused(404, name, get(target)));
    }
    let long = format!("/{}", "a".repeat(8192));
    rows.push(ends(431, "a target of 8,193 bytes", get(&long)));
    rows.push(refused(400, "a target of 7,000 bytes", get(&long[..7000])));
    rows
}

fn versions() -> Vec<Row> {
    let get = |version: &str| format!("GET / {version}\r\n\r\n");
    let mut rows = Vec::new();
    for version in [
        "HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9",
    ] {
        let name = format!("the version {version}");
        rows.push(ends(505, name, get(version)));
    }
    for version in [
        "HTTP/1",
        "HTTP/2",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/11",
        "HTTP/1.1.1",
        "HTTP/01.1",
        "HTTP/1.01",
        "HTTP/1.10",
        "HTTP/11.1",
        "HTTP/1,1",
        "HTTP/1-1",
        "HTTP/-1.1",
        "HTTP/1.x",
        "HTTP/x.1",
        "HTTP",
        "HTTP/",
        "HTTP 1.1",
        "HTTP/ 1.1",
        "HTTP /1.1",
        "http/1.1",
        "Http/1.1",
        "HTTPS/1.1",
        "FTP/1.1",
        "SIP/2.0",
        "1.1",
        "HTTP/1.1 ",
        "HTTP/1.1\t",
        " HTTP/1.1",
        "\tHTTP/1.1",
        "HTTP/1.1 GET",
        "HTTP/1.1,",
        "HTTP/1.1\0",
        "\0HTTP/1.1",
        "HTTP/1\u{b7}1",
    ] {
        let name = format!("the version {version:?}, which is none");
        rows.push(ends(400, name, get(version)));
    }
    rows
}

fn shapes() -> Vec<Row> {
    [
        ("no version", "GET /\r\n\r\n"),
        ("no target", "GET HTTP/1.1\r\n\r\n"),
        ("a method alone", "GET\r\n\r\n"),
        ("a method and a blank", "GET \r\n\r\n"),
        ("no method", " / HTTP/1.1\r\n\r\n"),
        ("a tab before the method", "\tGET / HTTP/1.1\r\n\r\n"),
        ("two blanks after the method", "GET  / HTTP/1.1\r\n\r\n"),
        ("tabs for blanks", "GET\t/\tHTTP/1.1\r\n\r\n"),
        ("form feeds for blanks", "GET\x0c/\x0cHTTP/1.1\r\n\r\n"),
        ("a blank in the target", "GET /a b HTTP/1.1\r\n\r\n"),
        ("no blanks", "GET/HTTP/1.1\r\n\r\n"),
        ("a carriage return within", "GET /\rHTTP/1.1\r\n\r\n"),
        ("a line that goes on", "GET /\r\n HTTP/1.1\r\n\r\n"),
        ("a line feed within", "GET\n/ HTTP/1.1\r\n\r\n"),
        ("a line that ends with a line feed", "GET / HTTP/1.1\n\r\n"),
        ("lines that end with line feeds", "GET / HTTP/1.1\nA: b\n\n"),
        ("a line that ends with a return", "GET / HTTP/1.1\rA: b\r\r"),
        (
            "a line that ends with LF CR",
            "GET / HTTP/1.1\n\rA: b\n\r\n\r",
        ),
        ("two returns", "GET / HTTP/1.1\r\r\n\r\n"),
        ("a return before the method", "\rGET / HTTP/1.1\r\n\r\n"),
        ("an answer", "HTTP/1.1 200 OK\r\n\r\n"),
        ("a quoted target", "GET \"/\" HTTP/1.1\r\n\r\n"),
    ]
    .map(|(name, text)| ends(400, name, text))
    .into()
}
