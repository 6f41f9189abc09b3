//! Losses of power: whatever sectors of the writes under way come through, what was flushed is
//! there, and each other sector is as it was or as some request wanted it.

use std::collections::{HashMap, HashSet};

use super::kit::{CrashStore, Random, SECTOR, base_sector, header, new_store, open, ram, spans};
use crate::disk::overlay::delta::Delta;
use crate::disk::overlay::layout::BLOCK_CLUSTERS;
use crate::disk::overlay::store::Store;
use crate::ram::GuestRam;

type Sector = [u8; 512];

/// The values that each sector may have; those not named are the base's.
#[derive(Clone, Debug)]
struct Model {
    /// By what was asked, without a loss of power. More than one after a discard or an error.
    now: HashMap<u64, Vec<Sector>>,
    /// All values since the last flush, and the one that it made last.
    possible: HashMap<u64, Vec<Sector>>,
    base_sectors: u64,
}

impl Model {
    fn original(&self, sector: u64) -> Sector {
        if sector < self.base_sectors {
            base_sector(sector)
        } else {
            [0; 512]
        }
    }

    fn values(&self, sector: u64) -> Vec<Sector> {
        self.now
            .get(&sector)
            .cloned()
            .unwrap_or_else(|| vec![self.original(sector)])
    }

    /// The sector may now be one of these.
    fn set(&mut self, sector: u64, values: Vec<Sector>) {
        let before = self.values(sector);
        let possible = self.possible.entry(sector).or_insert(before);
        possible.extend_from_slice(&values);
        self.now.insert(sector, values);
    }

    fn flushed(&mut self) {
        self.possible.clear();
    }

    fn after_crash(&self, sector: u64) -> Vec<Sector> {
        self.possible
            .get(&sector)
            .cloned()
            .unwrap_or_else(|| self.values(sector))
    }
}

struct Run {
    random: Random,
    ram: GuestRam,
    capacity: u64,
    store: CrashStore,
    delta: Delta<CrashStore>,
    model: Model,
    written: u64,
    touched: HashSet<u64>,
    crashes: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let cluster_bytes = [4096, 4096, 16_384][usize::try_from(random.below(3)).unwrap()];
        let capacity = (2 * BLOCK_CLUSTERS + 40) * u64::from(cluster_bytes) + 512 * 5;
        let base = capacity - 512 * random.below(100);
        let store = new_store(&header(capacity, base, cluster_bytes));
        Self {
            random,
            ram: ram(),
            capacity,
            delta: open(&store),
            store,
            model: Model {
                now: HashMap::new(),
                possible: HashMap::new(),
                base_sectors: base / SECTOR,
            },
            written: 0,
            touched: HashSet::new(),
            crashes: 0,
        }
    }

    /// Near the start, the end and the borders of map blocks, where mistakes would be.
    fn range(&mut self) -> (u64, u64) {
        let cluster_sectors = self.delta.header().cluster_bytes / 512;
        let sectors = self.capacity / SECTOR;
        let border = u64::from(cluster_sectors) * BLOCK_CLUSTERS;
        let center =
            [0, border, 2 * border, sectors][usize::try_from(self.random.below(4)).unwrap()];
        let start = (center + self.random.below(80))
            .saturating_sub(40)
            .min(sectors - 1);
        let len = (1 + self.random.below(40)).min(sectors - start);
        (start, len)
    }

    fn step(&mut self) {
        let (start, count) = self.range();
        let range = start..start + count;
        self.touched.extend(range.clone());
        let (offset, len) = (start * SECTOR, count * SECTOR);
        match self.random.below(10) {
            0..5 => self.write(start, count),
            5 => {
                let unmap = self.random.below(2) == 0;
                let done = self.delta.write_zeroes(offset, len, unmap).is_ok();
                self.wanted(range, done, |_| [0; 512]);
            }
            6 => {
                let _ = self.delta.discard(offset, len);
                for sector in range {
                    let mut values = self.model.values(sector);
                    values.push([0; 512]);
                    self.model.set(sector, values);
                }
            }
            7 => self.check_live(start, count),
            8 if self.random.below(8) == 0 => {
                // The host's disk is full for a while.
                let budget = self.random.below(6);
                self.store.fail_after(Some(budget));
            }
            _ => {
                if self.delta.flush().is_ok() {
                    self.model.flushed();
                }
                self.store.fail_after(None);
            }
        }
    }

    fn write(&mut self, start: u64, count: u64) {
        let spans = spans(&mut self.random, count * SECTOR);
        let mut values = Vec::new();
        for span in &spans {
            let mut at = span.at;
            for _ in 0..u64::from(span.len) / SECTOR {
                self.written += 1;
                let mut value = [0x77; 512];
                value[..8].copy_from_slice(&self.written.to_le_bytes());
                self.ram.write_bytes(at, &value).unwrap();
                values.push(value);
                at += SECTOR;
            }
        }
        let done = self.delta.write(start * SECTOR, &self.ram, &spans).is_ok();
        self.wanted(start..start + count, done, |index| values[index]);
    }

    fn wanted(&mut self, range: std::ops::Range<u64>, done: bool, value: impl Fn(usize) -> Sector) {
        for (index, sector) in range.enumerate() {
            let mut values = vec![value(index)];
            if !done {
                values.extend(self.model.values(sector));
            }
            self.model.set(sector, values);
        }
    }

    fn check_live(&mut self, start: u64, count: u64) {
        for sector in start..start + count {
            let found = read(&mut self.delta, sector);
            assert!(
                self.model.values(sector).contains(&found),
                "sector {sector}: {:?}",
                &found[..8]
            );
        }
    }

    /// Power goes; what is there is checked, and the run goes on from it.
    fn crash(&mut self) {
        if self.random.below(2) == 0 {
            // In the middle of a flush: before, between or after the writes of map blocks.
            let budget = self.random.below(6);
            self.store.fail_after(Some(budget));
            if self.delta.flush().is_ok() {
                self.model.flushed();
            }
            self.store.fail_after(None);
        }
        for _ in 0..3 {
            let store = self.store.crash(&mut self.random);
            self.check_crashed(&store, false);
        }
        let store = self.store.crash(&mut self.random);
        self.delta = self.check_crashed(&store, true);
        self.store = store;
    }

    fn check_crashed(&mut self, store: &CrashStore, go_on: bool) -> Delta<CrashStore> {
        self.crashes += 1;
        let mut delta = open(store);
        let mut found = HashMap::new();
        for sector in &self.touched {
            let value = read(&mut delta, *sector);
            let possible = self.model.after_crash(*sector);
            assert!(
                possible.contains(&value),
                "sector {sector}: {:?}",
                &value[..8]
            );
            found.insert(*sector, vec![value]);
        }
        if go_on {
            self.model.now = found;
            self.model.possible.clear();
        }
        delta
    }
}

fn read(delta: &mut Delta<CrashStore>, sector: u64) -> Sector {
    let mut value = [0; 512];
    delta.copy(sector * SECTOR, &mut value).unwrap();
    value
}

fn runs(seeds: std::ops::Range<u64>) -> u64 {
    let mut crashes = 0;
    for seed in seeds {
        let mut run = Run::new(seed);
        for _ in 0..12 {
            for _ in 0..run.random.below(12) {
                run.step();
            }
            run.crash();
        }
        crashes += run.crashes;
    }
    crashes
}

#[test]
fn what_was_flushed_is_there_after_any_loss_of_power() {
    assert_eq!(runs(0..150), 150 * 12 * 4);
}

/// A rebase writes the header in place: at no point is it lost.
#[test]
fn the_header_is_the_old_or_the_new_one() {
    let old = header(1 << 20, 1 << 20, 4096);
    for seed in 0..200 {
        let mut random = Random(seed);
        let store = new_store(&old);
        let mut delta = open(&store);
        let mut new = old.clone();
        new.base.path = "/elsewhere".into();
        store.fail_after(Some(random.below(5)));
        let done = delta.replace_header(new.clone()).is_ok();
        let crashed = store.crash(&mut random);
        let mut start = vec![0; 16_384];
        crashed.read_at(0, &mut start).unwrap();
        let found = crate::disk::overlay::Header::parse(&start).unwrap();
        assert!(found.base == new.base || (!done && found.base == old.base));
    }
}
