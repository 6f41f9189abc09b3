//! The pages that the guest has given up: each is counted once and goes back to the host once.

use std::collections::BTreeMap;

use crate::ram::GuestRam;
use crate::state::BadState;

/// The page of the balloon, whatever pages the guest or the host has (virtio 1.2, 5.5.6).
pub(super) const PAGE_BYTES: u64 = 4096;
/// The pages of a block.
const BLOCK_PAGES: u64 = 512;
const BLOCK_BYTES: u64 = BLOCK_PAGES * PAGE_BYTES;

/// What became of pages that the guest gave up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Given {
    /// Bytes that went back to the host.
    pub(super) discarded: u64,
    /// Pages that are not guest memory.
    pub(super) invalid: u64,
    /// Pages that the guest had given up before.
    pub(super) repeated: u64,
    /// Times that the host refused.
    pub(super) host_errors: u64,
}

/// A set of pages: a bit each, kept for the blocks of 2 MiB that hold any, so that it never
/// takes more than a thirty-thousandth of the guest's memory.
#[derive(Debug, Default)]
pub(super) struct Pages {
    blocks: BTreeMap<u64, [u64; 8]>,
    count: u64,
}

impl Pages {
    /// The number of pages.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Forgets all of them: the driver has them back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The blocks that hold any, in their order.
    pub(super) fn save(&self) -> Vec<(u64, [u64; 8])> {
        let blocks = self.blocks.iter();
        blocks.map(|(block, words)| (*block, *words)).collect()
    }

    /// The set of such blocks, which holds no more than `most` pages.
    pub(super) fn restore(saved: &[(u64, [u64; 8])], most: u32) -> Result<Self, BadState> {
        let mut pages = Self::default();
        for (block, words) in saved {
            let last = pages.blocks.last_key_value().map(|(block, _)| *block);
            let number = block.saturating_mul(BLOCK_PAGES);
            let possible = last < Some(*block) && number <= u32::MAX.into();
            BadState::unless(possible, "a block of a balloon's pages", *block)?;
            let count: u32 = words.iter().map(|word| word.count_ones()).sum();
            BadState::unless(count > 0, "the pages of a balloon's block", count)?;
            pages.count = pages.count.saturating_add(count.into());
            pages.blocks.insert(*block, *words);
        }
        BadState::unless(pages.count <= most.into(), "a balloon's pages", pages.count)?;
        Ok(pages)
    }

    /// Takes pages that the guest gives up and gives the host back what is behind them.
    pub(super) fn give_up(&mut self, ram: &GuestRam, numbers: &mut [u32]) -> Given {
        numbers.sort_unstable();
        let mut given = Given::default();
        let mut run = Run::default();
        for number in numbers.iter().map(|number| u64::from(*number)) {
            let at = number.saturating_mul(PAGE_BYTES);
            let host_page = ram.page_bytes(at).filter(|_| ram.contains(at, PAGE_BYTES));
            let Some(host_page) = host_page else {
                given.invalid = given.invalid.saturating_add(1);
                continue;
            };
            if !self.insert(number) {
                given.repeated = given.repeated.saturating_add(1);
            } else if host_page == PAGE_BYTES {
                run.add(ram, at, PAGE_BYTES, &mut given);
            } else if let Some(whole) = self.whole(at, host_page) {
                run.add(ram, whole, host_page, &mut given);
            }
        }
        run.flush(ram, &mut given);
        given
    }

    /// Takes pages that the guest uses again: how many of them it had not given up.
    pub(super) fn take_back(&mut self, numbers: &[u32]) -> u64 {
        let unknown = numbers.iter().filter(|number| !self.remove(**number));
        u64::try_from(unknown.count()).unwrap_or(u64::MAX)
    }

    /// Whether the page was not there before.
    fn insert(&mut self, number: u64) -> bool {
        let (block, word, bit) = place(number);
        let words = self.blocks.entry(block).or_default();
        let word = words.get_mut(word);
        let new = word.is_some_and(|word| {
            let new = *word & bit == 0;
            *word |= bit;
            new
        });
        self.count = self.count.saturating_add(new.into());
        new
    }

    /// Whether the page was there.
    fn remove(&mut self, number: u32) -> bool {
        let (block, word, bit) = place(number.into());
        let Some(words) = self.blocks.get_mut(&block) else {
            return false;
        };
        let there = words.get_mut(word).is_some_and(|word| {
            let there = *word & bit != 0;
            *word &= !bit;
            there
        });
        if words.iter().all(|word| *word == 0) {
            self.blocks.remove(&block);
        }
        self.count = self.count.saturating_sub(there.into());
        there
    }

    /// The start of the host's large page around `at`, if the guest has given up all of it.
    fn whole(&self, at: u64, host_page: u64) -> Option<u64> {
        let start = at & !host_page.saturating_sub(1);
        let first = start / BLOCK_BYTES;
        let blocks = first..first.saturating_add(host_page / BLOCK_BYTES);
        let full = |block| self.blocks.get(&block) == Some(&[u64::MAX; 8]);
        // The block of this very page first: mostly it is not full.
        (full(at / BLOCK_BYTES) && blocks.clone().all(full)).then_some(start)
    }
}

/// Neighbours that go back to the host with one call.
#[derive(Debug, Default)]
struct Run {
    at: u64,
    len: u64,
}

impl Run {
    fn add(&mut self, ram: &GuestRam, at: u64, len: u64, given: &mut Given) {
        if self.at.saturating_add(self.len) != at {
            self.flush(ram, given);
            self.at = at;
        }
        self.len = self.len.saturating_add(len);
    }

    fn flush(&mut self, ram: &GuestRam, given: &mut Given) {
        let len = std::mem::take(&mut self.len);
        if len == 0 {
            return;
        }
        match ram.discard(self.at, len) {
            Ok(bytes) => given.discarded = given.discarded.saturating_add(bytes),
            Err(_) => given.host_errors = given.host_errors.saturating_add(1),
        }
    }
}

/// Where a page's bit is: its block, the word in it, the bit in that.
fn place(number: u64) -> (u64, usize, u64) {
    let within = number % BLOCK_PAGES;
    let word = usize::try_from(within / 64).unwrap_or_default();
    (number / BLOCK_PAGES, word, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{AFTER_HOLE, END, HOLE, small_ram};

    fn page(at: u64) -> u32 {
        u32::try_from(at / PAGE_BYTES).unwrap()
    }

    #[test]
    fn neighbours_over_the_seam_go_and_others_stay() {
        let ram = small_ram();
        let mut pages = Pages::default();
        ram.write_bytes(0xf_f000, &[0xaa; 0x3000]).unwrap();
        let mut numbers = [page(0x10_0000), page(0xf_f000), page(0x10_0000)];
        let given = pages.give_up(&ram, &mut numbers);
        let expected = Given {
            discarded: 0x2000,
            repeated: 1,
            ..Given::default()
        };
        assert_eq!((given, pages.count()), (expected, 2));
        assert_eq!(ram.read::<u8>(0xf_f000), Ok(0));
        assert_eq!(ram.read::<u8>(0x10_0fff), Ok(0));
        assert_eq!(ram.read::<u8>(0x10_1000), Ok(0xaa));
    }

    /// faults.md 96 and 97: what is no memory is ignored and counted.
    #[test]
    fn pages_that_are_no_memory_are_only_counted() {
        let ram = small_ram();
        let mut pages = Pages::default();
        let mut numbers = [page(HOLE), page(AFTER_HOLE - 1), page(END), u32::MAX];
        assert_eq!(pages.give_up(&ram, &mut numbers).invalid, 4);
        assert_eq!(pages.count(), 0);
        assert_eq!(pages.take_back(&numbers), 4);
    }

    proptest! {
        /// Against a plain set: no page is counted or discarded twice, whatever is taken back.
        #[test]
        fn a_set_is_a_set(
            moves in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(0_u32..0x500, 1..40)),
                1..20,
            )
        ) {
            let ram = small_ram();
            let (mut pages, mut model) = (Pages::default(), BTreeSet::new());
            for (out, mut numbers) in moves {
                let memory = |n: &u32| ram.contains(u64::from(*n) * PAGE_BYTES, PAGE_BYTES);
                if out {
                    let given = pages.give_up(&ram, &mut numbers);
                    let before = model.len();
                    model.extend(numbers.iter().copied().filter(memory));
                    let new = (model.len() - before) as u64;
                    prop_assert_eq!(given.discarded, new * PAGE_BYTES);
                    prop_assert_eq!(
                        given.invalid + given.repeated + new,
                        numbers.len() as u64
                    );
                } else {
                    let unknown = pages.take_back(&numbers);
                    let known = numbers.iter().filter(|n| model.remove(*n)).count();
                    prop_assert_eq!(unknown + known as u64, numbers.len() as u64);
                }
                prop_assert_eq!(pages.count(), model.len() as u64);
            }
            pages.clear();
            prop_assert_eq!(pages.count(), 0);
        }
    }

    /// Memory of large pages gives a page back when the guest has given up the last of it.
    #[test]
    fn large_pages_go_when_they_are_whole() {
        let mut pages = Pages::default();
        for number in 512..1023 {
            assert!(pages.insert(number));
            assert_eq!(pages.whole(number * PAGE_BYTES, BLOCK_BYTES), None);
        }
        assert!(pages.insert(1023));
        assert_eq!(pages.whole(1023 << 12, BLOCK_BYTES), Some(BLOCK_BYTES));
        assert_eq!(pages.whole(1023 << 12, 2 * BLOCK_BYTES), None);
        assert!(pages.remove(700));
        assert_eq!(pages.whole(1023 << 12, BLOCK_BYTES), None);
    }
}
