//! A file that can lose power, a base that is a formula, and guest memory.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::disk::TransferError;
use crate::disk::overlay::base::Base;
use crate::disk::overlay::delta::Delta;
use crate::disk::overlay::header::{BaseFormat, BaseIdentity, BaseRef, COPIES, Header};
use crate::disk::overlay::store::Store;
use crate::ram::GuestRam;
use crate::sys::{Direction, Transferred};
use crate::virtio::Span;

pub(super) const SECTOR: u64 = 512;
type Sector = [u8; 512];

/// A small random generator, so that a seed is a whole run.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    durable: HashMap<u64, Sector>,
    /// Since the last sync, in order.
    pending: Vec<(u64, Sector)>,
    current: HashMap<u64, Sector>,
    /// How many operations succeed before they all fail.
    left: Option<u64>,
}

/// A file whose writes last after a sync, and before it sector by sector or not at all.
#[derive(Clone, Debug, Default)]
pub(super) struct CrashStore(Arc<Mutex<State>>);

impl CrashStore {
    /// What could be on the disk if power went now: of each sector any of its versions since the
    /// last sync.
    pub(super) fn crash(&self, random: &mut Random) -> Self {
        let state = self.0.lock().unwrap();
        let mut durable = state.durable.clone();
        // All, none, or some of what is under way.
        let odds = [0, 1, 2, 4][usize::try_from(random.below(4)).unwrap()];
        for (sector, bytes) in &state.pending {
            if random.below(4) < odds {
                durable.insert(*sector, *bytes);
            }
        }
        Self(Arc::new(Mutex::new(State {
            current: durable.clone(),
            durable,
            ..State::default()
        })))
    }

    pub(super) fn fail_after(&self, operations: Option<u64>) {
        self.0.lock().unwrap().left = operations;
    }

    fn spend(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        match &mut state.left {
            None => Ok(()),
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        assert!(offset.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(512));
        let mut state = self.0.lock().unwrap();
        for (sector, bytes) in (offset / SECTOR..).zip(bytes.chunks_exact(512)) {
            let bytes: Sector = bytes.try_into().unwrap();
            state.pending.push((sector, bytes));
            state.current.insert(sector, bytes);
        }
    }
}

impl Store for CrashStore {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(SECTOR) && into.len().is_multiple_of(512));
        let state = self.0.lock().unwrap();
        for (sector, into) in (offset / SECTOR..).zip(into.chunks_exact_mut(512)) {
            into.copy_from_slice(state.current.get(&sector).unwrap_or(&[0; 512]));
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        if let Err(error) = self.spend() {
            // Half of it is there all the same.
            self.put(offset, &from[..from.len() / 1024 * 512]);
            return Err(error);
        }
        self.put(offset, from);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.spend()?;
        let mut state = self.0.lock().unwrap();
        let pending = std::mem::take(&mut state.pending);
        state.durable.extend(pending);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; usize::try_from(len).unwrap()])
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.punch(offset, len)
    }

    fn transfer(
        &self,
        direction: Direction,
        ram: &GuestRam,
        spans: &[Span],
        offset: u64,
    ) -> Transferred {
        let mut at = offset;
        for span in spans {
            let mut bytes = vec![0; usize::try_from(span.len).unwrap()];
            let result = match direction {
                Direction::Read => self.read_at(at, &mut bytes).map(|()| {
                    ram.write_bytes(span.at, &bytes).unwrap();
                }),
                Direction::Write => {
                    ram.read_bytes(span.at, &mut bytes).unwrap();
                    self.write_at(at, &bytes)
                }
            };
            if let Err(error) = result {
                return (at - offset, Err(error));
            }
            at += u64::from(span.len);
        }
        (at - offset, Ok(()))
    }
}

/// What the base has in a sector: never zeroes.
pub(super) fn base_sector(sector: u64) -> Sector {
    let mut bytes = [0xb5; 512];
    bytes[..8].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// A base whose content follows from where it is.
#[derive(Debug)]
pub(super) struct FormulaBase(pub(super) u64);

impl Base for FormulaBase {
    fn bytes(&self) -> u64 {
        self.0
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        let mut at = offset;
        for span in into {
            let mut bytes = vec![0; usize::try_from(span.len).unwrap()];
            self.copy(at, &mut bytes).unwrap();
            ram.write_bytes(span.at, &bytes).unwrap();
            at += u64::from(span.len);
        }
        Ok(())
    }

    fn copy(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        assert!(
            offset + into.len() as u64 <= self.0,
            "a read beyond the base"
        );
        for (sector, into) in (offset / SECTOR..).zip(into.chunks_exact_mut(512)) {
            into.copy_from_slice(&base_sector(sector));
        }
        Ok(())
    }
}

pub(super) fn header(capacity: u64, base_bytes: u64, cluster_bytes: u32) -> Header {
    Header {
        generation: 1,
        id: [3; 16],
        committing: false,
        capacity,
        cluster_bytes,
        base: BaseRef {
            format: BaseFormat::Raw,
            path: "/base".into(),
            bytes: base_bytes,
            identity: BaseIdentity::default(),
        },
    }
}

/// A new delta's store, with its header in place.
pub(super) fn new_store(header: &Header) -> CrashStore {
    let store = CrashStore::default();
    store.put(0, &header.encode().unwrap().repeat(COPIES));
    store.sync().unwrap();
    store
}

/// Opens a delta as it is on the disk.
pub(super) fn open(store: &CrashStore) -> Delta<CrashStore> {
    let mut start = vec![0; 16_384];
    store.read_at(0, &mut start).unwrap();
    let header = Header::parse(&start).unwrap();
    let base = Box::new(FormulaBase(header.base.bytes));
    Delta::load(store.clone(), header, base, false).unwrap()
}

pub(super) fn ram() -> GuestRam {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap();
    Arc::new(memory).into()
}

/// Guest memory cut into spans of odd lengths that together have `len` bytes.
pub(super) fn spans(random: &mut Random, len: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    let (mut at, mut left) = (0x1000, len);
    while left > 0 {
        let piece = (SECTOR * (1 + random.below(12))).min(left);
        let len = u32::try_from(piece).unwrap();
        spans.push(Span { at, len });
        at += piece + SECTOR * random.below(3);
        left -= piece;
    }
    spans
}
