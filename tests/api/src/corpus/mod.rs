//! Malformed messages, each with what a server that takes no risks answers. Where RFC 9112 leaves
//! a choice, the corpus asks for the refusal: a message that two readers could read in two ways
//! ends the connection.

mod body;
mod head;
mod length;
mod line;
mod other;

/// A message that no client should send.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is wrong with it.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What is answered, in order.
    pub statuses: Vec<u16>,
    /// Whether the server ends the connection with the last answer.
    pub ends: bool,
}

/// One that is answered with `status` and ends the connection.
fn ends(status: u16, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Row {
    Row {
        name: name.into(),
        bytes: bytes.into(),
        statuses: vec![status],
        ends: true,
    }
}

/// One that is understood, refused with `status`, and leaves the connection in use.
fn refused(status: u16, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Row {
    Row {
        ends: false,
        ..ends(status, name, bytes)
    }
}

/// A request to `PUT /actions` with these header lines and this body, both as they are.
fn put(headers: &str, body: &str) -> Vec<u8> {
    format!("PUT /actions HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}").into_bytes()
}

/// `before`, one byte, `after`.
fn with(before: &str, byte: u8, after: &str) -> Vec<u8> {
    [before.as_bytes(), &[byte], after.as_bytes()].concat()
}

/// Bytes that stand in no method, target, field name or value (RFC 9110, 5.6.2 and 5.5), without
/// those that end a line.
fn controls() -> impl Iterator<Item = u8> {
    (0..=0x1f)
        .chain([0x7f])
        .filter(|byte| !b"\t\r\n".contains(byte))
}

/// All of them.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = line::rows();
    rows.extend(head::rows());
    rows.extend(length::rows());
    rows.extend(body::rows());
    rows.extend(other::rows());
    rows
}

/// Requests that are whole but for their end: after them, nothing is sent. They get no answer.
#[must_use]
pub fn cut_off() -> Vec<Vec<u8>> {
    let body = r#"{"action_type": "SendCtrlAltDel"}"#;
    let whole = put(&format!("Content-Length: {}\r\n", body.len()), body);
    (1..whole.len()).map(|len| whole[..len].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_message_is_there_once_and_they_are_many() {
        let rows = rows();
        let names: BTreeSet<_> = rows.iter().map(|row| &row.name).collect();
        let messages: BTreeSet<_> = rows.iter().map(|row| &row.bytes).collect();
        assert_eq!((names.len(), messages.len()), (rows.len(), rows.len()));
        assert!(rows.len() >= 300, "{}", rows.len());
    }
}
