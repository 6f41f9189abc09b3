//! Fields of TCP segments, and their options as far as they are changed on the way.

use super::{Bad, Packet, be16, be32, put};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// The head of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// Bytes of the header, options included.
    pub(crate) header: usize,
    /// Bytes behind the header.
    pub(crate) data: usize,
}

impl Segment {
    /// Reads the header of a segment whose sum need not be looked at when it is `partial`.
    pub(crate) fn parse(packet: &Packet<'_>, partial: bool) -> Result<Self, Bad> {
        let segment = Self::fields(packet.payload).ok_or(Bad::Malformed)?;
        if !partial && !packet.sum_is_right() {
            return Err(Bad::Checksum);
        }
        Ok(segment)
    }

    pub(crate) fn fields(bytes: &[u8]) -> Option<Self> {
        let header = usize::from(*bytes.get(12)? >> 4) * 4;
        let data = bytes.len().checked_sub(header)?;
        let segment = Self {
            from: be16(bytes, 0)?,
            to: be16(bytes, 2)?,
            seq: be32(bytes, 4)?,
            ack: be32(bytes, 8)?,
            flags: *bytes.get(13)?,
            header,
            data,
        };
        let has_ports = segment.from != 0 && segment.to != 0;
        (header >= 20 && has_ports).then_some(segment)
    }

    pub(crate) fn is(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Where a segment's largest segment size is said.
fn mss_at(bytes: &[u8]) -> Option<usize> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const MSS: u8 = 2;
    let header = usize::from(*bytes.get(12)? >> 4) * 4;
    let mut at = 20;
    while at < header {
        match *bytes.get(at)? {
            END => return None,
            NOTHING => at += 1,
            kind => {
                let length = usize::from(*bytes.get(at + 1)?);
                if kind == MSS && length == 4 && at + 4 <= header {
                    return Some(at + 2);
                }
                at += length.max(2);
            }
        }
    }
    None
}

/// The largest segment size that a SYN tells.
pub(crate) fn mss_of(bytes: &[u8]) -> Option<u16> {
    be16(bytes, mss_at(bytes)?)
}

/// Replaces the largest segment size and returns what it was.
pub(crate) fn replace_mss(bytes: &mut [u8], mss: u16) -> Option<u16> {
    let at = mss_at(bytes)?;
    let before = be16(bytes, at)?;
    put(bytes, at, &mss.to_be_bytes());
    Some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_segment_is_found_among_options() {
        let with = |options: &[u8]| {
            let mut bytes = vec![0; 20];
            bytes.extend_from_slice(options);
            bytes.resize(20 + options.len().next_multiple_of(4), 0);
            bytes[12] = u8::try_from(bytes.len() / 4).unwrap() << 4;
            replace_mss(&mut bytes, 9)
        };
        assert_eq!(with(&[2, 4, 5, 180]), Some(1460));
        assert_eq!(with(&[1, 1, 3, 3, 7, 2, 4, 0, 3]), Some(3));
        assert_eq!(with(&[0, 2, 4, 5, 180]), None);
        assert_eq!(with(&[3, 0, 2, 4, 0, 1]), Some(1));
        assert_eq!(with(&[3, 200]), None);
        assert_eq!(with(&[2]), None);
        assert_eq!(with(&[]), None);
    }
}
