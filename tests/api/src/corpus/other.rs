//! What is no HTTP at all: other protocols that come to the wrong socket.

use super::{Row, ends};

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<_> = [
        ("a greeting of SSH", "SSH-2.0-OpenSSH_9.6\r\n"),
        ("a greeting of SMTP", "EHLO localhost\r\n"),
        (
            "a command of QEMU's monitor",
            "{\"execute\": \"qmp_capabilities\"}\r\n",
        ),
        ("a command of a store", "*1\r\n$4\r\nPING\r\n"),
        (
            "a version 1 of the proxy protocol",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        ),
        ("a connect of the socket device", "CONNECT 52\n\r\n\r\n"),
        ("an empty object", "{}\r\n\r\n"),
        ("a script", "#!/bin/sh\necho a\n\r\n"),
        ("words", "hello, is anybody there?\r\n\r\n"),
        ("a line of blanks", "        \r\n\r\n"),
        ("a status line of another version", "HTTP/2 200\r\n\r\n"),
    ]
    .map(|(name, text)| ends(400, name, text))
    .into();
    rows.extend([
        ends(
            505,
            "the preface of HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ),
        ends(
            400,
            "a greeting of TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ends(400, "version 2 of the proxy protocol", {
            b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00".to_vec()
        }),
        ends(
            400,
            "an authentication of D-Bus",
            b"\0AUTH EXTERNAL 30\r\n".to_vec(),
        ),
        ends(400, "zeros", vec![0; 4096]),
        ends(400, "ones", vec![0xff; 4096]),
        ends(400, "every byte", (0..=255).collect::<Vec<u8>>()),
        ends(
            400,
            "an ELF",
            b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        ),
        ends(400, "gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec()),
        ends(400, "a frame of HTTP/2", b"\0\0\0\x04\0\0\0\0\0".to_vec()),
        ends(
            400,
            "a byte order mark first",
            b"\xef\xbb\xbfGET / HTTP/1.1\r\n\r\n".to_vec(),
        ),
        ends(400, "a request in UTF-16", {
            let text = "GET / HTTP/1.1\r\n\r\n".encode_utf16();
            text.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
        }),
    ]);
    rows
}
