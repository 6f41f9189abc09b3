//! A delta at work: reads come from it or from its base, writes go into it. A cluster counts as
//! the delta's once its data is there; the map in the file follows at the next flush, after the
//! data.

use std::io;
use std::ops::Range;

use super::base::{Base, copy_padded};
use super::header::{Header, HeaderError};
use super::layout::{BLOCK_BYTES, Layout, SLOTS};
use super::map::{Damaged, Map, Survey};
use super::spans::{self, total};
use super::store::Store;
use crate::disk::{Geometry, TransferError};
use crate::ram::GuestRam;
use crate::sys::Direction;
use crate::virtio::Span;

/// A delta whose map cannot be had.
#[derive(Debug)]
pub(super) enum LoadError {
    Header(HeaderError),
    Read(io::Error),
    Damaged(Damaged),
    Mend(io::Error),
}

/// An open delta over its base.
#[derive(Debug)]
pub(super) struct Delta<S> {
    store: S,
    header: Header,
    layout: Layout,
    map: Map,
    base: Box<dyn Base>,
    read_only: bool,
    /// A flush failed. The host may have dropped what was written before, so that no later flush
    /// can promise anything.
    lost: bool,
    /// One cluster, for those that are copied in part.
    cluster: Vec<u8>,
}

/// A range in parts, each of which may be missing.
#[derive(Clone, Debug)]
struct Parts {
    /// Within a cluster that the delta lacks and that the range does not fill.
    head: Option<Range<u64>>,
    /// Clusters that the delta has, or that the range fills.
    middle: Range<u64>,
    /// As `head`, in another cluster.
    tail: Option<Range<u64>>,
}

/// What becomes of a range that is emptied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Emptied {
    /// It may read as anything; its space is given back.
    Discarded,
    /// It reads as zeroes; its space is given back.
    Unmapped,
    /// It reads as zeroes.
    Zeroed,
}

impl<S: Store> Delta<S> {
    /// Takes a file with a checked header and loads its map.
    pub(super) fn load(
        store: S,
        header: Header,
        base: Box<dyn Base>,
        read_only: bool,
    ) -> Result<Self, LoadError> {
        let layout =
            Layout::new(header.capacity, header.cluster_bytes).map_err(LoadError::Header)?;
        let map = load_map(&store, &header, layout)?;
        let cluster_bytes = usize::try_from(layout.cluster_bytes).unwrap_or_default();
        let mut delta = Self {
            store,
            header,
            layout,
            map,
            base,
            read_only,
            lost: false,
            cluster: vec![0; cluster_bytes],
        };
        if !read_only {
            delta.mend().map_err(LoadError::Mend)?;
        }
        Ok(delta)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn store(&self) -> &S {
        &self.store
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    pub(super) fn base_mut(&mut self) -> &mut dyn Base {
        &mut *self.base
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            bytes: self.header.capacity,
            read_only: self.read_only,
        }
    }

    /// Wipes what interrupted writes left in the map, so that later it cannot be taken for
    /// damage.
    fn mend(&mut self) -> io::Result<()> {
        if self.map.torn().is_empty() {
            return Ok(());
        }
        for (block, slot) in self.map.torn() {
            self.store
                .write_at(self.layout.slot(*block, *slot), &[0; BLOCK_BYTES])?;
        }
        self.store.sync()?;
        self.map.mended();
        Ok(())
    }

    fn clusters(&self, offset: u64, len: u64) -> Range<u64> {
        let end = offset.saturating_add(len);
        let cluster_bytes = self.layout.cluster_bytes.max(1);
        self.layout.cluster_of(offset)..end.div_ceil(cluster_bytes)
    }

    pub(super) fn read(
        &mut self,
        offset: u64,
        ram: &GuestRam,
        into: &[Span],
    ) -> Result<(), TransferError> {
        let len = total(into);
        if self.map.has_all(self.clusters(offset, len)) {
            return self.own(Direction::Read, offset, ram, into);
        }
        let mut done = 0;
        while done < len {
            let at = offset.saturating_add(done);
            let (present, piece) = self.alike(at, len.saturating_sub(done));
            let part = spans::cut(into, done, piece);
            let result = if present {
                self.own(Direction::Read, at, ram, &part)
            } else {
                read_base(&mut *self.base, at, ram, &part)
            };
            result.map_err(|error| after(done, error))?;
            done = done.saturating_add(piece);
        }
        Ok(())
    }

    /// Whether the delta has what is at `at`, and how many bytes from there on are alike.
    fn alike(&self, at: u64, most: u64) -> (bool, u64) {
        let clusters = self.clusters(at, most);
        let count = clusters.end.saturating_sub(clusters.start);
        let (present, count) = self.map.run(clusters.start, count);
        let end = self.layout.start_of(clusters.start.saturating_add(count));
        (present, end.saturating_sub(at).min(most))
    }

    fn own(
        &self,
        direction: Direction,
        offset: u64,
        ram: &GuestRam,
        spans: &[Span],
    ) -> Result<(), TransferError> {
        let at = self.layout.data(offset);
        let (done, result) = self.store.transfer(direction, ram, spans, at);
        result.map_err(|error| TransferError { done, error })
    }

    /// Reads into the monitor's own memory.
    pub(super) fn copy(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut rest = into;
        let mut at = offset;
        while !rest.is_empty() {
            let (present, len) = self.alike(at, rest.len() as u64);
            let middle = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at_mut(middle);
            if present {
                self.store.read_at(self.layout.data(at), piece)?;
            } else {
                copy_padded(&mut *self.base, at, piece)?;
            }
            (rest, at) = (behind, at.saturating_add(len));
        }
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        offset: u64,
        ram: &GuestRam,
        from: &[Span],
    ) -> Result<(), TransferError> {
        let len = total(from);
        if self.map.has_all(self.clusters(offset, len)) {
            return self.own(Direction::Write, offset, ram, from);
        }
        let parts = self.parts(offset, len);
        let skip = |part: &Range<u64>| part.start.saturating_sub(offset);
        let failed = |part: &Range<u64>| {
            let done = skip(part);
            move |error| TransferError { done, error }
        };
        let spans_of = |part: &Range<u64>| spans::cut(from, skip(part), length(part));
        if let Some(part) = parts.head {
            self.complete(part.clone(), ram, &spans_of(&part))
                .map_err(failed(&part))?;
        }
        let middle = parts.middle;
        if !middle.is_empty() {
            self.own(Direction::Write, middle.start, ram, &spans_of(&middle))
                .map_err(|error| after(skip(&middle), error))?;
            self.map.add(self.clusters(middle.start, length(&middle)));
        }
        if let Some(part) = parts.tail {
            self.complete(part.clone(), ram, &spans_of(&part))
                .map_err(failed(&part))?;
        }
        Ok(())
    }

    /// A range, taken apart where it begins or ends within a cluster that the delta lacks.
    fn parts(&self, offset: u64, len: u64) -> Parts {
        let end = offset.saturating_add(len);
        let clusters = self.clusters(offset, len);
        let last = clusters.end.saturating_sub(1);
        let head = self.piece_of(clusters.start, offset, end);
        let tail = match last == clusters.start {
            true => None,
            false => self.piece_of(last, offset, end),
        };
        let start = head.as_ref().map_or(offset, |part| part.end);
        let stop = tail.as_ref().map_or(end, |part| part.start);
        Parts {
            head,
            middle: start..stop,
            tail,
        }
    }

    /// The part of `start..end` that lies in a cluster, if the delta lacks the cluster and that
    /// part is not all of it.
    fn piece_of(&self, cluster: u64, start: u64, end: u64) -> Option<Range<u64>> {
        let from = self.layout.start_of(cluster);
        let to = from.saturating_add(self.layout.cluster_bytes);
        let whole = start <= from && (end >= to || end >= self.header.capacity);
        let piece = start.max(from)..end.min(to);
        (!whole && !self.map.has(cluster)).then_some(piece)
    }

    /// Puts a cluster into the delta: the base's bytes, with those of the guest in `piece`.
    fn complete(&mut self, piece: Range<u64>, ram: &GuestRam, from: &[Span]) -> io::Result<()> {
        let len = piece.end.saturating_sub(piece.start);
        self.complete_with(piece, |bytes| {
            let mut rest = bytes;
            for span in spans::cut(from, 0, len) {
                let len = usize::try_from(span.len).unwrap_or_default();
                let (part, behind) = rest.split_at_mut_checked(len).ok_or_else(outside)?;
                ram.read_bytes(span.at, part).map_err(|_| outside())?;
                rest = behind;
            }
            Ok(())
        })
    }

    fn complete_with(
        &mut self,
        piece: Range<u64>,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let number = self.layout.cluster_of(piece.start);
        let start = self.layout.start_of(number);
        copy_padded(&mut *self.base, start, &mut self.cluster)?;
        let within = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
        let range = within(piece.start)..within(piece.end);
        fill(self.cluster.get_mut(range).ok_or_else(outside)?)?;
        self.store
            .write_at(self.layout.data(start), &self.cluster)?;
        self.map.add(number..number.saturating_add(1));
        Ok(())
    }

    /// Copies clusters of the base that the delta lacks into it, as if they were written.
    pub(super) fn adopt(&mut self, cluster: u64) -> io::Result<()> {
        if self.map.has(cluster) {
            return Ok(());
        }
        let start = self.layout.start_of(cluster);
        self.complete_with(start..start, |_| Ok(()))
    }

    /// Writes from the monitor's own memory; zeroes become holes.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let parts = self.parts(offset, bytes.len() as u64);
        let bytes_of = |part: &Range<u64>| {
            let at = |edge: u64| usize::try_from(edge.saturating_sub(offset)).ok();
            let range = at(part.start)?..at(part.end)?;
            bytes.get(range)
        };
        for part in parts.head.iter().chain(&parts.tail) {
            let from = bytes_of(part).ok_or_else(outside)?;
            self.complete_with(part.clone(), |cluster| {
                cluster.copy_from_slice(from);
                Ok(())
            })?;
        }
        let middle = parts.middle;
        if middle.is_empty() {
            return Ok(());
        }
        let from = bytes_of(&middle).ok_or_else(outside)?;
        self.put_whole(middle.start, from)
    }

    fn put_whole(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let at = self.layout.data(offset);
        if bytes.iter().all(|byte| *byte == 0) {
            self.empty_whole(at, bytes.len() as u64, Emptied::Unmapped)?;
        } else {
            self.store.write_at(at, bytes)?;
        }
        self.map.add(self.clusters(offset, bytes.len() as u64));
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        if self.lost {
            let reason = "an earlier flush failed, so that what was written before may be lost";
            return Err(io::Error::other(reason));
        }
        let result = self.flush_all();
        self.lost = result.is_err();
        result
    }

    /// The data first, so that the map never names what is not there.
    fn flush_all(&mut self) -> io::Result<()> {
        self.store.sync()?;
        if !self.map.is_dirty() {
            return Ok(());
        }
        let (store, layout) = (&self.store, self.layout);
        self.map.write(&self.header.id, |block, slot, bytes| {
            store.write_at(layout.slot(block, slot), bytes)
        })?;
        self.store.sync()?;
        self.map.written();
        Ok(())
    }

    pub(super) fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.empty(offset, len, Emptied::Discarded)
    }

    pub(super) fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let how = if unmap {
            Emptied::Unmapped
        } else {
            Emptied::Zeroed
        };
        self.empty(offset, len, how)
    }

    fn empty(&mut self, offset: u64, len: u64, how: Emptied) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let parts = self.parts(offset, len);
        for part in parts.head.into_iter().chain(parts.tail) {
            self.empty_piece(part, how)?;
        }
        let middle = parts.middle;
        if middle.is_empty() {
            return Ok(());
        }
        self.empty_whole(self.layout.data(middle.start), length(&middle), how)?;
        // A hole in the delta hides what the base has there.
        self.map.add(self.clusters(middle.start, length(&middle)));
        Ok(())
    }

    /// A part of a cluster that the delta lacks.
    fn empty_piece(&mut self, piece: Range<u64>, how: Emptied) -> io::Result<()> {
        if how == Emptied::Discarded {
            // There is no space to give back.
            return Ok(());
        }
        self.complete_with(piece, |bytes| {
            bytes.fill(0);
            Ok(())
        })
    }

    fn empty_whole(&mut self, at: u64, len: u64, how: Emptied) -> io::Result<()> {
        let result = match how {
            Emptied::Zeroed => self.store.zero(at, len),
            Emptied::Discarded | Emptied::Unmapped => self.store.punch(at, len),
        };
        match result {
            // File systems without holes get zeroes, or nothing where nothing is promised.
            Err(error)
                if error.kind() == io::ErrorKind::Unsupported && how != Emptied::Discarded =>
            {
                self.write_out_zeroes(at, len)
            }
            result => result,
        }
    }

    fn write_out_zeroes(&mut self, at: u64, len: u64) -> io::Result<()> {
        self.cluster.fill(0);
        let mut done = 0;
        while done < len {
            let piece = self.layout.cluster_bytes.min(len.saturating_sub(done));
            let bytes = usize::try_from(piece).unwrap_or_default();
            let zeroes = self.cluster.get(..bytes).unwrap_or_default();
            self.store.write_at(at.saturating_add(done), zeroes)?;
            done = done.saturating_add(piece.max(1));
        }
        Ok(())
    }

    /// Puts another header in the place of this one: first one copy, then the other.
    pub(super) fn replace_header(&mut self, mut header: Header) -> io::Result<()> {
        header.generation = self.header.generation.saturating_add(1);
        let bytes = header
            .encode()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        for copy in 0..SLOTS {
            let at = copy.saturating_mul(bytes.len() as u64);
            self.store.write_at(at, &bytes)?;
            self.store.sync()?;
        }
        self.header = header;
        Ok(())
    }
}

impl<S: Store> Base for Delta<S> {
    fn bytes(&self) -> u64 {
        self.header.capacity
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        Self::read(self, offset, ram, into)
    }

    fn copy(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        Self::copy(self, offset, into)
    }
}

fn load_map<S: Store>(store: &S, header: &Header, layout: Layout) -> Result<Map, LoadError> {
    let survey = Survey::read(
        layout.clusters,
        layout.map_blocks,
        &header.id,
        |block, pair| store.read_at(layout.slot(block, 0), pair),
    );
    let survey = survey.map_err(LoadError::Read)?;
    survey.sound().map_err(LoadError::Damaged)
}

/// Reads a range that the delta lacks: the base's bytes, zeroes where it has ended.
fn read_base(
    base: &mut dyn Base,
    at: u64,
    ram: &GuestRam,
    into: &[Span],
) -> Result<(), TransferError> {
    let len = total(into);
    let within = base.bytes().saturating_sub(at).min(len);
    if within == len {
        return base.read(at, ram, into);
    }
    if within > 0 {
        base.read(at, ram, &spans::cut(into, 0, within))?;
    }
    let rest = spans::cut(into, within, len.saturating_sub(within));
    let done = within;
    spans::zero(ram, &rest).map_err(|_| TransferError {
        done,
        error: outside(),
    })
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// The error of a part, told of the whole.
fn after(done: u64, error: TransferError) -> TransferError {
    TransferError {
        done: done.saturating_add(error.done),
        error: error.error,
    }
}

fn outside() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}
