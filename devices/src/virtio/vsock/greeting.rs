//! The line with which a host program asks for a connection: `CONNECT PORT\n`. Pure; any bytes
//! may come, in any pieces.

/// The longest line, its newline included. The longest good one is `CONNECT 4294967294\r\n`.
pub const LINE_BYTES: usize = 32;
/// The port number that means "any" and is nobody's.
const ANY_PORT: u32 = u32::MAX;

/// What the bytes so far come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parsed {
    /// The line goes on; all bytes are taken.
    More,
    /// A connection to this port of the guest is wanted.
    Connect {
        /// The port.
        port: u32,
        /// How many of the bytes belong to the line. What follows is the stream's.
        used: usize,
    },
    /// It is no such line, or too long for one.
    Bad,
}

/// A line that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    /// How many more bytes the line can have.
    pub fn room(&self) -> usize {
        LINE_BYTES.saturating_sub(self.len)
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) -> Parsed {
        let end = piece.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(piece, |end| piece.get(..end).unwrap_or_default());
        let place = self.bytes.get_mut(self.len..);
        let Some(place) = place.and_then(|place| place.get_mut(..taken.len())) else {
            return Parsed::Bad;
        };
        place.copy_from_slice(taken);
        self.len = self.len.saturating_add(taken.len());
        match end {
            // Full, and still without its newline.
            _ if self.len >= LINE_BYTES => Parsed::Bad,
            None => Parsed::More,
            Some(end) => {
                let line = self.bytes.get(..self.len).unwrap_or_default();
                port(line).map_or(Parsed::Bad, |port| Parsed::Connect {
                    port,
                    used: end.saturating_add(1),
                })
            }
        }
    }
}

/// The port of a whole line: the word in any case, white space, a decimal number.
fn port(line: &[u8]) -> Option<u32> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let (verb, number) = (words.next()?, words.next()?);
    let good = verb.eq_ignore_ascii_case(b"connect")
        && number.iter().all(u8::is_ascii_digit)
        && words.next().is_none();
    let number = std::str::from_utf8(number).ok().filter(|_| good)?;
    number.parse().ok().filter(|port| *port != ANY_PORT)
}

/// What a host program reads once the guest has accepted: its own port number.
pub(super) fn accepted(port: u32) -> String {
    format!("OK {port}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &[u8]) -> Parsed {
        Line::default().push(text)
    }

    #[test]
    fn lines_that_ask_for_a_port() {
        for (text, port) in [
            ("CONNECT 1\n", 1),
            ("connect 52\n", 52),
            ("Connect 0\n", 0),
            ("CONNECT 4294967294\n", u32::MAX - 1),
            ("CONNECT 0000000000000000000022\n", 22),
            ("  CONNECT\t1024  \r\n", 1024),
        ] {
            let used = text.len();
            assert_eq!(
                whole(text.as_bytes()),
                Parsed::Connect { port, used },
                "{text:?}"
            );
        }
        let used = 11;
        let early = whole(b"CONNECT 80\nGET / HTTP/1.0\nHost: a-long-name.example\n");
        assert_eq!(early, Parsed::Connect { port: 80, used });
    }

    #[test]
    fn lines_that_do_not() {
        for text in [
            "\n",
            "CONNECT\n",
            "CONNECT \n",
            "CONNECT -1\n",
            "CONNECT +1\n",
            "CONNECT 1 2\n",
            "CONNECT 4294967295\n",
            "CONNECT 4294967296\n",
            "CONNECT 99999999999999999999\n",
            "CONNECT 0x10\n",
            "CONNECT 1\0\n",
            "CONNECT1\n",
            "CONNECTED 1\n",
            "OK 1\n",
            "CONNECT \u{661}\n",
            "CONNECT 00000000000000000000000001\n",
            "                                       ",
        ] {
            assert_eq!(whole(text.as_bytes()), Parsed::Bad, "{text:?}");
        }
        assert_eq!(whole(&[0xff, b'\n']), Parsed::Bad);
        assert_eq!(whole(&[b'C'; LINE_BYTES - 1]), Parsed::More);
        assert_eq!(whole(&[b'C'; LINE_BYTES]), Parsed::Bad);
    }

    proptest! {
        /// In pieces as in one, and what follows the line is nobody's business here.
        #[test]
        fn pieces_do_not_matter(
            text in "(CONNECT |connect\t)?[0-9 ]{0,14}(\n|\r\n|)(.|\n){0,9}",
            sizes in prop::collection::vec(1_usize..9, 40),
        ) {
            let expected = whole(text.as_bytes());
            let mut line = Line::default();
            let mut rest = text.as_bytes();
            let mut found = Parsed::More;
            for size in sizes {
                let (piece, later) = rest.split_at(size.min(rest.len()));
                found = line.push(piece);
                if let Parsed::Connect { port, used } = found {
                    let used = text.len() - rest.len() + used;
                    found = Parsed::Connect { port, used };
                }
                rest = later;
                if found != Parsed::More || rest.is_empty() {
                    break;
                }
            }
            if rest.is_empty() || found != Parsed::More {
                prop_assert_eq!(found, expected);
            }
        }
    }
}
