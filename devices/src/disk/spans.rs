//! Arithmetic on the spans of a request.

use crate::ram::{GuestRam, OutOfRam};
use crate::virtio::Span;

/// Zeroes are written in pieces of this size.
const ZEROES: [u8; 4096] = [0; 4096];

/// The bytes of all spans.
pub(crate) fn total(spans: &[Span]) -> u64 {
    let add = |sum: u64, span: &Span| sum.saturating_add(span.len.into());
    spans.iter().fold(0, add)
}

/// The `len` bytes behind the first `skip` ones.
pub(crate) fn cut(spans: &[Span], mut skip: u64, mut len: u64) -> Vec<Span> {
    let mut part = Vec::new();
    for span in spans {
        let span_len = u64::from(span.len);
        if len == 0 {
            break;
        }
        if skip >= span_len {
            skip = skip.saturating_sub(span_len);
            continue;
        }
        let take = span_len.saturating_sub(skip).min(len);
        part.push(Span {
            at: span.at.wrapping_add(skip),
            len: u32::try_from(take).unwrap_or(u32::MAX),
        });
        (skip, len) = (0, len.saturating_sub(take));
    }
    part
}

/// Fills the spans with zeroes.
pub(crate) fn zero(ram: &GuestRam, spans: &[Span]) -> Result<(), OutOfRam> {
    for span in spans {
        let (mut at, mut left) = (span.at, usize::try_from(span.len).unwrap_or_default());
        while left > 0 {
            let piece = left.min(ZEROES.len());
            ram.write_bytes(at, ZEROES.get(..piece).unwrap_or_default())?;
            at = at.wrapping_add(piece as u64);
            left = left.saturating_sub(piece);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_spans() {
        let spans = [(0x1000, 10), (0x2000, 20), (0x3000, 5)].map(|(at, len)| Span { at, len });
        let parts = |skip, len| -> Vec<(u64, u32)> {
            let part = cut(&spans, skip, len);
            part.iter().map(|span| (span.at, span.len)).collect()
        };
        assert_eq!(total(&spans), 35);
        assert_eq!(parts(0, 35), [(0x1000, 10), (0x2000, 20), (0x3000, 5)]);
        assert_eq!(parts(4, 6), [(0x1004, 6)]);
        assert_eq!(parts(10, 1), [(0x2000, 1)]);
        assert_eq!(parts(29, 3), [(0x2013, 1), (0x3000, 2)]);
        assert_eq!(parts(34, 100), [(0x3004, 1)]);
        assert_eq!(parts(0, 0), []);
    }
}
