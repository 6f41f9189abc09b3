//! A stream of bytes that both sides know and that repeats nowhere, fast to make and to check.

use std::io::{self, Read, Write};

/// How much is made, sent and checked at a time.
const CHUNK: usize = 64 << 10;

/// The bytes, from the first on.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    counter: u64,
}

impl Bytes {
    /// Another stream for every key.
    #[must_use]
    pub fn keyed(key: u64) -> Bytes {
        Bytes { counter: key }
    }

    /// Fills a buffer, whose length is a multiple of eight but at the stream's end.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            self.counter = self.counter.wrapping_add(1);
            // A multiplication spreads the counter over all bits.
            let mixed = self.counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 32)).to_le_bytes();
            for (to, from) in word.iter_mut().zip(mixed) {
                *to = from;
            }
        }
    }
}

/// Sends `count` bytes.
///
/// # Errors
/// When the other side takes them no more.
pub fn send(mut to: impl Write, count: u64) -> io::Result<()> {
    let mut bytes = Bytes::default();
    let mut buffer = vec![0; CHUNK];
    let mut left = count;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let part = buffer.get_mut(..len).unwrap_or_default();
        bytes.fill(part);
        to.write_all(part)?;
        left = left.saturating_sub(len as u64);
    }
    to.flush()
}

/// Reads to the end and checks that it were `count` bytes, and the right ones.
///
/// # Errors
/// Names the first place that is wrong.
pub fn check(mut from: impl Read, count: u64) -> Result<(), String> {
    let mut bytes = Bytes::default();
    let (mut found, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0_u64;
    loop {
        let len =
            fill(&mut from, &mut found).map_err(|error| format!("after {at} bytes: {error}"))?;
        let (found, expected) = (found.get(..len), expected.get_mut(..len));
        let (found, expected) = (found.unwrap_or_default(), expected.unwrap_or_default());
        bytes.fill(expected);
        if found != expected {
            let place = found.iter().zip(&*expected).position(|(a, b)| a != b);
            let place = at.saturating_add(place.unwrap_or_default() as u64);
            return Err(format!("byte {place} is wrong"));
        }
        at = at.saturating_add(len as u64);
        if len < CHUNK {
            break;
        }
    }
    match at == count {
        true => Ok(()),
        false => Err(format!("{at} bytes instead of {count}")),
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_checked() {
        for count in [0, 1, 8, 65_535, 65_536, 65_537, 200_001] {
            let mut sent = Vec::new();
            send(&mut sent, count).unwrap();
            assert_eq!(check(sent.as_slice(), count), Ok(()));
            assert!(check(sent.as_slice(), count + 1).is_err());
            if let Some(byte) = sent.last_mut() {
                *byte ^= 1;
                let place = count - 1;
                assert_eq!(
                    check(sent.as_slice(), count),
                    Err(format!("byte {place} is wrong"))
                );
            }
        }
    }
}
