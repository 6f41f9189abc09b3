//! DNS messages (RFC 1035), as far as the proxy looks into them: the question, and the addresses of
//! an answer.

use crate::wire::{be16, be32, put};
use std::net::{IpAddr, Ipv4Addr};

const HEADER: usize = 12;
/// Records of an answer that are looked at.
const MOST_RECORDS: usize = 64;
/// Pointers that a name is followed through.
const MOST_POINTERS: usize = 16;
const MOST_NAME: usize = 255;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// An answer without any record that says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No server answered.
    Server,
    /// The policy refuses the name.
    Refused,
}

/// The question of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Number of the message.
    pub id: u16,
    /// The name in lower case, without the last dot.
    pub name: String,
    /// Which records.
    pub kind: u16,
    /// Which world, 1 for the Internet.
    pub class: u16,
    /// Where the question ends in the message.
    end: usize,
}

impl Question {
    /// Reads a query: exactly one question, and not an answer.
    #[must_use]
    pub fn of_query(message: &[u8]) -> Option<Self> {
        let question = Self::of(message)?;
        (message.get(2)? & 0x80 == 0).then_some(question)
    }

    /// Reads the question of an answer.
    #[must_use]
    pub fn of_answer(message: &[u8]) -> Option<Self> {
        let question = Self::of(message)?;
        (message.get(2)? & 0x80 != 0).then_some(question)
    }

    fn of(message: &[u8]) -> Option<Self> {
        if be16(message, 4)? != 1 {
            return None;
        }
        // Nothing stands in front of it that its name could point to.
        let (name, at) = name(message, HEADER, 0)?;
        Some(Self {
            id: be16(message, 0)?,
            name,
            kind: be16(message, at)?,
            class: be16(message, at + 2)?,
            end: at + 4,
        })
    }

    /// True when both ask the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.name, self.kind, self.class) == (&other.name, other.kind, other.class)
    }

    /// The start of an answer to `message`, which asks this.
    fn head(&self, message: &[u8], flags: [u8; 2]) -> Vec<u8> {
        let mut answer = message.get(..self.end).unwrap_or_default().to_vec();
        let asked = message.get(2).copied().unwrap_or(0);
        // An answer to the same kind of query, recursion as it was asked for, and available.
        let first = 0x80 | (asked & 0x79) | flags[0];
        put(&mut answer, 2, &[first, 0x80 | flags[1]]);
        put(&mut answer, 6, &[0; 6]);
        answer
    }

    /// The answer to `message` that it failed.
    #[must_use]
    pub fn failure(&self, message: &[u8], why: Failure) -> Vec<u8> {
        let code = match why {
            Failure::Server => 2,
            Failure::Refused => 5,
        };
        self.head(message, [0, code])
    }

    /// The answer that the whole one is too long for a datagram, upon which it is asked again
    /// through TCP.
    #[must_use]
    pub fn truncated(&self, answer: &[u8]) -> Vec<u8> {
        const TRUNCATED: u8 = 2;
        let code = answer.get(3).copied().unwrap_or(0) & 15;
        self.head(answer, [TRUNCATED, code])
    }
}

/// What an answer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Addresses with the seconds for which they are good.
    pub addresses: Vec<(IpAddr, u32)>,
    /// All names that stand in front of records or that records point to.
    pub aliases: Vec<String>,
}

impl Addresses {
    /// Reads the records of an answer to `question`, up to the first that makes no sense.
    #[must_use]
    pub fn of(message: &[u8], question: &Question) -> Self {
        let mut found = Self::default();
        let count = be16(message, 6).map_or(0, usize::from).min(MOST_RECORDS);
        let mut at = question.end;
        for _ in 0..count {
            match found.record(message, at) {
                Some(next) => at = next,
                None => break,
            }
        }
        found
    }

    fn record(&mut self, message: &[u8], at: usize) -> Option<usize> {
        let (owner, at) = name(message, at, MOST_POINTERS)?;
        let kind = be16(message, at)?;
        let seconds = be32(message, at + 4)?;
        let length = usize::from(be16(message, at + 8)?);
        let start = at + 10;
        let data = message.get(start..start + length)?;
        self.aliases.push(owner);
        match (kind, length) {
            (A, 4) => {
                let address = Ipv4Addr::from_bits(be32(data, 0)?);
                self.addresses.push((address.into(), seconds));
            }
            (AAAA, 16) => {
                let address = crate::wire::ipv6_at(data, 0)?;
                self.addresses.push((address.into(), seconds));
            }
            (CNAME, _) => self.aliases.push(name(message, start, MOST_POINTERS)?.0),
            _ => {}
        }
        Some(start + length)
    }
}

/// Reads a name with at most so many pointers, and where it ends.
fn name(message: &[u8], mut at: usize, most: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut end = None;
    let mut pointers = 0;
    loop {
        let length = *message.get(at)?;
        match length >> 6 {
            0 if length == 0 => return Some((name, end.unwrap_or(at + 1))),
            0 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| letter(*byte)));
                if name.len() > MOST_NAME {
                    return None;
                }
                at += 1 + usize::from(length);
            }
            3 => {
                pointers += 1;
                if pointers > most {
                    return None;
                }
                end = end.or(Some(at + 2));
                at = usize::from(be16(message, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
}

/// A byte of a label. What no rule can be about, a dot too, becomes a letter that no rule has.
fn letter(byte: u8) -> char {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
            char::from(byte.to_ascii_lowercase())
        }
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with counts, then the bytes given.
    fn message(flags: u8, questions: u8, answers: u8, rest: &[u8]) -> Vec<u8> {
        let mut message = vec![7, 9, flags, 0, 0, questions, 0, answers, 0, 0, 0, 0];
        message.extend_from_slice(rest);
        message
    }

    const WWW: &[u8] = b"\x03wWw\x07example\x03com\0\0\x01\0\x01";

    #[test]
    fn a_question_is_read_and_answered_without_records() {
        let query = message(1, 1, 0, WWW);
        let question = Question::of_query(&query).unwrap();
        assert_eq!(
            (question.name.as_str(), question.kind),
            ("www.example.com", A)
        );
        let answer = question.failure(&query, Failure::Refused);
        assert_eq!(
            answer.get(..12).unwrap(),
            [7, 9, 0x81, 0x85, 0, 1, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(answer.len(), query.len());
        assert!(question.is_same(&Question::of_answer(&answer).unwrap()));
    }

    #[test]
    fn addresses_and_aliases_are_read() {
        let mut rest = WWW.to_vec();
        rest.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01x\xc0\x10");
        rest.extend_from_slice(b"\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04");
        let answer = message(0x81, 1, 2, &rest);
        let question = Question::of_answer(&answer).unwrap();
        let found = Addresses::of(&answer, &question);
        assert_eq!(found.addresses, [("1.2.3.4".parse().unwrap(), 60)]);
        assert!(found.aliases.contains(&"x.example.com".to_owned()));
    }

    #[test]
    fn what_makes_no_sense_is_no_question() {
        for (why, bytes) in [
            ("empty", vec![]),
            ("only a header", message(1, 1, 0, &[])),
            ("no question", message(1, 0, 0, WWW)),
            ("two questions", message(1, 2, 0, WWW)),
            ("an answer", message(0x81, 1, 0, WWW)),
            ("a label beyond the end", message(1, 1, 0, b"\x3fabc")),
            (
                "a pointer to itself",
                message(1, 1, 0, b"\xc0\x0c\0\x01\0\x01"),
            ),
            (
                "a pointer beyond the end",
                message(1, 1, 0, b"\xff\xff\0\x01\0\x01"),
            ),
            ("a reserved label", message(1, 1, 0, b"\x80a\0\0\x01\0\x01")),
            ("no kind", message(1, 1, 0, b"\x01a\0\0")),
            (
                "a name without end",
                message(1, 1, 0, &[1, b'a'].repeat(200)),
            ),
        ] {
            assert_eq!(Question::of_query(&bytes), None, "{why}");
        }
    }

    #[test]
    fn a_dot_in_a_label_is_no_border() {
        let query = message(1, 1, 0, b"\x0dx.example.com\0\0\x01\0\x01");
        assert_eq!(Question::of_query(&query).unwrap().name, "x?example?com");
    }
}
