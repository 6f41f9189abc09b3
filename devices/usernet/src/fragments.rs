//! Pieces of the guest's packets, kept until a packet is whole (RFC 791, RFC 8200): few at a time,
//! and none for long.

use crate::wire::{Bad, Piece};
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Packets of which some pieces are there. The oldest gives way.
const MOST_PACKETS: usize = 8;
/// What the pieces of a packet come to at most, without its header.
const MOST_BYTES: usize = 65_515;
/// Pieces of a packet at most: as many as those of the smallest MTU.
const MOST_PIECES: usize = 128;
/// How long pieces wait for the others. Nobody is woken for them: who comes next looks.
const PATIENCE: Duration = Duration::from_secs(30);

/// What pieces of one packet have in common.
type Key = (IpAddr, IpAddr, u8, u32);

#[derive(Debug)]
struct Partial {
    key: Key,
    since: Instant,
    /// The first piece's header.
    header: Vec<u8>,
    data: Vec<u8>,
    /// What is there of `data`, in order and apart from each other.
    there: Vec<Range<usize>>,
    /// Where the last piece ends, once it is known.
    end: Option<usize>,
}

/// All packets of which some pieces are there.
#[derive(Debug, Default)]
pub(crate) struct Fragments(Vec<Partial>);

impl Fragments {
    /// Takes a piece; the packet, if that makes it whole. Counts in `lost` the packets that are
    /// given up for it, because they are too old or too many.
    pub(crate) fn take(
        &mut self,
        piece: &Piece<'_>,
        now: Instant,
        lost: &mut u64,
    ) -> Result<Option<Vec<u8>>, Bad> {
        let before = self.0.len();
        self.0.retain(|partial| now - partial.since < PATIENCE);
        *lost += u64::try_from(before - self.0.len()).unwrap_or(0);
        let key = (piece.from, piece.to, piece.protocol, piece.id);
        let found = self.0.iter().position(|partial| partial.key == key);
        let mut partial = match found {
            Some(place) => self.0.remove(place),
            None => Partial::new(key, now),
        };
        // A piece that fits nowhere ends its whole packet: what is left would be of two.
        partial.add(piece).ok_or(Bad::Fragment)?;
        if partial.is_whole() {
            return Ok(Some(partial.packet()));
        }
        if self.0.len() == MOST_PACKETS {
            self.0.remove(0);
            *lost += 1;
        }
        self.0.push(partial);
        self.0.sort_by_key(|partial| partial.since);
        Ok(None)
    }
}

impl Partial {
    fn new(key: Key, since: Instant) -> Self {
        Self {
            key,
            since,
            header: Vec::new(),
            data: Vec::new(),
            there: Vec::new(),
            end: None,
        }
    }

    /// None for a piece that cannot belong to the others: it overlaps, or lies beyond the end.
    fn add(&mut self, piece: &Piece<'_>) -> Option<()> {
        let range = piece.offset..piece.offset + piece.data.len();
        let is_odd = piece.more && !piece.data.len().is_multiple_of(8);
        if is_odd || range.is_empty() || range.end > MOST_BYTES || self.there.len() == MOST_PIECES {
            return None;
        }
        let place = self.there.partition_point(|other| other.end <= range.start);
        if self
            .there
            .get(place)
            .is_some_and(|next| next.start < range.end)
        {
            return None;
        }
        let last = self.there.last().map_or(0, |last| last.end).max(range.end);
        if !piece.more && self.end.replace(range.end).is_some() {
            return None;
        }
        if self.end.is_some_and(|end| last > end) {
            return None;
        }
        if piece.offset == 0 {
            self.header = piece.header.clone();
        }
        if self.data.len() < range.end {
            self.data.resize(range.end, 0);
        }
        self.data
            .get_mut(range.clone())?
            .copy_from_slice(piece.data);
        self.there.insert(place, range);
        Some(())
    }

    fn is_whole(&self) -> bool {
        let there: usize = self.there.iter().map(Range::len).sum();
        self.end == Some(there)
    }

    /// The packet as if it had never been cut.
    fn packet(mut self) -> Vec<u8> {
        self.header.append(&mut self.data);
        crate::wire::mend_length(&mut self.header);
        self.header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(id: u32, offset: usize, data: &[u8], more: bool) -> Piece<'_> {
        let ip = IpAddr::from([10, 0, 2, 15]);
        Piece {
            from: ip,
            to: ip,
            protocol: 17,
            id,
            offset,
            data,
            more,
            header: vec![0x45; 20],
        }
    }

    #[test]
    fn what_came_too_long_ago_is_given_up() {
        let mut fragments = Fragments::default();
        let (now, mut lost) = (Instant::now(), 0);
        let mut take = |id, offset, more, seconds| {
            let now = now + Duration::from_secs(seconds);
            let taken = fragments.take(&piece(id, offset, &[1; 8], more), now, &mut lost);
            (taken.unwrap().is_some(), lost)
        };
        assert_eq!(take(1, 0, true, 0), (false, 0));
        assert_eq!(take(2, 0, true, 29), (false, 0));
        // The second half finds no first one any more, and waits itself.
        assert_eq!(take(1, 8, false, 30), (false, 1));
        assert_eq!(take(2, 8, false, 58), (true, 1));
    }

    #[test]
    fn memory_is_bounded() {
        let mut fragments = Fragments::default();
        let (now, mut lost) = (Instant::now(), 0);
        for id in 0..100 {
            let far = piece(id, 65_504, &[1; 8], true);
            assert!(fragments.take(&far, now, &mut lost).unwrap().is_none());
        }
        assert_eq!((fragments.0.len(), lost), (MOST_PACKETS, 92));
        let beyond = piece(7, 65_512, &[1; 8], true);
        let taken = fragments.take(&beyond, now, &mut lost);
        assert_eq!(taken, Err(Bad::Fragment));
        // As many pieces as there may be, and one more.
        for number in 0..MOST_PIECES {
            let small = piece(1000, 16 * number, &[1; 8], true);
            assert!(fragments.take(&small, now, &mut lost).is_ok());
        }
        let small = piece(1000, 16 * MOST_PIECES, &[1; 8], true);
        assert_eq!(fragments.take(&small, now, &mut lost), Err(Bad::Fragment));
    }
}
