//! Session tokens: a proof that whoever reads the metadata can send a PUT with a header of its
//! own, which what a careless proxy or a browser is talked into cannot.
//!
//! Nothing is kept of a token. It says itself how long it is good, and carries a code that only
//! this process can make (HMAC, RFC 2104), so that a guest may ask for any number of them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

/// How long a token may be good.
pub(crate) const SHORTEST: u32 = 1;
/// Six hours.
pub(crate) const LONGEST: u32 = 21_600;

const BLOCK_BYTES: usize = 64;
/// Of the code, which is enough that none is ever guessed.
const CODE_BYTES: usize = 16;
/// Hexadecimal digits of a number.
const NUMBER_DIGITS: usize = 16;

/// Makes tokens and knows them again.
pub(crate) struct Tokens {
    key: [u8; BLOCK_BYTES],
    since: Instant,
    /// How many there were, so that no two are the same.
    count: AtomicU64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// With a key that nobody knows.
    pub(crate) fn new(now: Instant) -> rustix::io::Result<Self> {
        let mut key = [0; BLOCK_BYTES];
        getrandom(&mut key, GetRandomFlags::empty())?;
        Ok(Self {
            key,
            since: now,
            count: AtomicU64::new(0),
        })
    }

    /// A token that is good for so many seconds; none for a time that is not allowed.
    pub(crate) fn issue(&self, seconds: u32, now: Instant) -> Option<String> {
        if !(SHORTEST..=LONGEST).contains(&seconds) {
            return None;
        }
        let end = now.checked_add(Duration::from_secs(seconds.into()))?;
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        Some(self.text(self.millis(end), count))
    }

    /// Whether `text` is one of these tokens, and still good.
    pub(crate) fn is_good(&self, text: &[u8], now: Instant) -> bool {
        let number = |from: usize| {
            let digits = text.get(from..from.saturating_add(NUMBER_DIGITS))?;
            u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        let (Some(end), Some(count)) = (number(0), number(NUMBER_DIGITS)) else {
            return false;
        };
        // Every byte is looked at, so that the time tells nothing of where they differ.
        let right = self.text(end, count);
        let differ = right.bytes().zip(text).fold(0, |all, (a, b)| all | (a ^ b));
        right.len() == text.len() && differ == 0 && end > self.millis(now)
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.since);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn text(&self, end: u64, count: u64) -> String {
        let mut text = format!("{end:016x}{count:016x}");
        for byte in self.code(end, count).iter().take(CODE_BYTES) {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    fn code(&self, end: u64, count: u64) -> [u8; 32] {
        let inner = Sha256::new()
            .chain_update(self.key.map(|byte| byte ^ 0x36))
            .chain_update(end.to_be_bytes())
            .chain_update(count.to_be_bytes())
            .finalize();
        Sha256::new()
            .chain_update(self.key.map(|byte| byte ^ 0x5c))
            .chain_update(inner)
            .finalize()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_time() {
        let now = Instant::now();
        let tokens = Tokens::new(now).unwrap();
        let token = tokens.issue(60, now).unwrap();
        assert_eq!(token.len(), 64);
        let after = |millis| now + Duration::from_millis(millis);
        assert!(tokens.is_good(token.as_bytes(), now));
        assert!(tokens.is_good(token.as_bytes(), after(59_999)));
        assert!(!tokens.is_good(token.as_bytes(), after(60_000)));
        assert_ne!(tokens.issue(60, now).unwrap(), token, "no two are the same");
        for (seconds, allowed) in [(0, false), (1, true), (21_600, true), (21_601, false)] {
            assert_eq!(tokens.issue(seconds, now).is_some(), allowed, "{seconds}");
        }
    }

    #[test]
    fn nothing_else_is_a_token() {
        let now = Instant::now();
        let tokens = Tokens::new(now).unwrap();
        let token = tokens.issue(60, now).unwrap();
        for place in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[place] = if other[place] == b'0' { b'1' } else { b'0' };
            assert!(!tokens.is_good(&other, now), "{place}");
            assert!(!tokens.is_good(&token.as_bytes()[..place], now), "{place}");
        }
        let others = [
            token.to_uppercase(),
            format!("{token}0"),
            format!("+{}", &token[1..]),
            format!(" {token}"),
            "é".repeat(32),
            String::new(),
        ];
        for other in others {
            let same = other == token;
            assert!(same || !tokens.is_good(other.as_bytes(), now), "{other}");
        }
        // Another process's are not ours.
        let stranger = Tokens::new(now).unwrap().issue(60, now).unwrap();
        assert!(!tokens.is_good(stranger.as_bytes(), now));
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        // HMAC-SHA-256 of 16 zero bytes with a key of zeroes, as other programs compute it.
        let tokens = Tokens {
            key: [0; BLOCK_BYTES],
            since: Instant::now(),
            count: AtomicU64::new(0),
        };
        let code = tokens.code(0, 0).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(code, EXPECTED);
    }

    const EXPECTED: &str = "853c7403937d8b6239569b184eb7993fc5f751aefcea28f2c863858e2d29c50b";
}
