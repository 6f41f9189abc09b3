//! Bodies: the message is whole, its content is not what belongs there.

use super::{Row, refused};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, method) in [("/actions", "PUT"), ("/coracle/v1/drives/disk0", "PATCH")] {
        for (name, body) in texts() {
            rows.push(of(method, path, name, body.as_bytes()));
        }
        for (name, body) in bytes() {
            rows.push(of(method, path, name, body));
        }
        for (name, body) in deep() {
            rows.push(of(method, path, name, body.as_bytes()));
        }
    }
    rows
}

fn of(method: &str, path: &str, name: &str, body: &[u8]) -> Row {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let bytes = [head.as_bytes(), body].concat();
    refused(400, format!("{method} {path}: {name}"), bytes)
}

fn texts() -> Vec<(&'static str, &'static str)> {
    vec![
        ("an open brace", "{"),
        ("a closed brace", "}"),
        ("a list", "[]"),
        ("a list of an object", "[{}]"),
        ("null", "null"),
        ("true", "true"),
        ("a number", "1"),
        ("a text", "\"a\""),
        ("an open text", "\"a"),
        ("blanks", "  \r\n\t "),
        ("a comma", ","),
        ("a word", "nope"),
        ("a comma at the end", "{\"a\": 1,}"),
        ("no value", "{\"a\"}"),
        ("an empty value", "{\"a\": }"),
        ("no name", "{: 1}"),
        ("a name without quotes", "{a: 1}"),
        ("a name in single quotes", "{'a': 1}"),
        ("an unknown field", "{\"nope\": 1}"),
        ("an empty name", "{\"\": 1}"),
        ("a comment", "{} // a"),
        ("a comment before", "/* a */ {}"),
        ("two values", "{} {}"),
        ("a brace too much", "{}}"),
        ("a NaN", "{\"a\": NaN}"),
        ("an infinity", "{\"a\": -Infinity}"),
        ("a number in base 16", "{\"a\": 0x10}"),
        ("a number that begins with zero", "{\"a\": 01}"),
        ("a number with a plus", "{\"a\": +1}"),
        ("a number that ends with a dot", "{\"a\": 1.}"),
        ("a number far too large", "{\"a\": 1e999}"),
        ("a control character in a text", "{\"a\": \"\u{1}\"}"),
        ("a line feed in a text", "{\"a\": \"b\nc\"}"),
        ("an escape that is none", "{\"a\": \"\\x41\"}"),
        ("half of a surrogate pair", "{\"a\": \"\\ud800\"}"),
        ("a surrogate pair reversed", "{\"a\": \"\\udc00\\ud800\"}"),
        ("a byte order mark", "\u{feff}{}"),
        ("a form", "action_type=SendCtrlAltDel"),
        ("a document in XML", "<?xml version=\"1.0\"?><a/>"),
        ("a document in YAML", "action_type: SendCtrlAltDel\n"),
        (
            "an empty name of an object's prototype",
            "{\"__proto__\": {}}",
        ),
    ]
}

fn bytes() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("a zero byte", b"\0"),
        ("an object and a zero byte", b"{}\0"),
        ("a zero byte in a text", b"{\"a\": \"\0\"}"),
        ("text that is no UTF-8", b"{\"a\": \"\xff\"}"),
        ("a name that is no UTF-8", b"{\"\xc3\x28\": 1}"),
        ("UTF-8 that is too long", b"{\"a\": \"\xc0\xaf\"}"),
        ("a surrogate in UTF-8", b"{\"a\": \"\xed\xa0\x80\"}"),
        ("an object in UTF-16", b"\xff\xfe{\0}\0"),
        ("an object in UTF-32", b"{\0\0\0}\0\0\0"),
        (
            "gzip",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0\x43\xbf\xa6\xa3\x02\0\0\0",
        ),
    ]
}

fn deep() -> Vec<(&'static str, String)> {
    let name = "a".repeat(50_000);
    vec![
        ("50,000 lists in lists", "[".repeat(50_000)),
        ("8,000 objects in objects", "{\"a\":".repeat(8_000)),
        (
            "a list of 25,000 numbers",
            format!("[{}0]", "0,".repeat(25_000)),
        ),
        ("a name of 50,000 letters", format!("{{\"{name}\": 1}}")),
        ("a number of 50,000 digits", "9".repeat(50_000)),
        ("50,000 blanks", " ".repeat(50_000)),
    ]
}
