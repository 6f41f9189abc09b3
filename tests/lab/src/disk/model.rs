//! What the three writers of the durability cases do, each step known from a seed and its number,
//! and what may be found of it after the monitor was killed.
//!
//! A step is done before the next begins and is told of once its data was flushed. So what is found
//! is the state after some number of steps, at least as many as were told of.

use crate::stream::Bytes;
use std::collections::BTreeMap;

/// The name of the file that the second writer appends to.
pub const LOG: &str = "log";
/// The name of the file that the third writer writes in place.
pub const PAGES: &str = "pages";
/// How many pages that has.
pub const PAGE_COUNT: usize = 32;
/// How large one is.
pub const PAGE_BYTES: usize = 4096;

const FILE_COUNT: usize = 8;
const SECTOR_BYTES: usize = 512;
/// How many steps may have been done whose telling died with the monitor.
const UNTOLD: u64 = 64;

/// The files of one round by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What is wrong with what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// What was told of and is not there.
    pub lost: u64,
    /// What is there and was never written so.
    pub torn: u64,
}

/// A number that depends on both in no obvious way.
#[must_use]
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut x = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A number below `limit`.
#[must_use]
pub fn below(random: u64, limit: usize) -> usize {
    usize::try_from(random % (limit as u64)).unwrap_or_default()
}

/// The name of a file of the first writer.
#[must_use]
pub fn file_name(number: usize) -> String {
    format!("f{number}")
}

/// A step of the first writer: which file, and its new content, or that it goes.
#[must_use]
pub fn file_step(seed: u64, step: u64) -> (usize, Option<Vec<u8>>) {
    let random = mix(seed, step);
    let number = below(random, FILE_COUNT);
    if (random >> 8).is_multiple_of(6) {
        return (number, None);
    }
    let mut content = content(random, 8 + below(random >> 16, 20_000));
    stamp(&mut content, step);
    (number, Some(content))
}

/// A step of the second writer: the record that is appended.
#[must_use]
pub fn record(seed: u64, step: u64) -> Vec<u8> {
    let random = mix(seed, step);
    content(random, 1 + below(random >> 16, 6000))
}

/// A step of the third writer: which page, and its new content, with the step in each sector.
#[must_use]
pub fn page(seed: u64, step: u64) -> (usize, Vec<u8>) {
    let random = mix(seed, step);
    let mut content = content(random, PAGE_BYTES);
    for sector in content.chunks_mut(SECTOR_BYTES) {
        stamp(sector, step);
    }
    (below(random, PAGE_COUNT), content)
}

fn content(key: u64, len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    Bytes::keyed(key).fill(&mut content);
    content
}

/// The step's number at the beginning.
fn stamp(content: &mut [u8], step: u64) {
    for (to, from) in content.iter_mut().zip(step.to_le_bytes()) {
        *to = from;
    }
}

fn stamped(content: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*content.first_chunk()?))
}

/// Compares what is found with what the writers had told of.
#[must_use]
pub fn check(seed: u64, told: [u64; 3], files: &Files) -> Damage {
    let [files_told, log_told, pages_told] = told;
    let all = [
        check_files(seed, files_told, files),
        check_log(seed, log_told, files),
        check_pages(seed, pages_told, files),
    ];
    Damage {
        lost: all.iter().map(|one| one.lost).sum(),
        torn: all.iter().map(|one| one.torn).sum(),
    }
}

fn check_files(seed: u64, told: u64, files: &Files) -> Damage {
    let mut found = [None; FILE_COUNT];
    let mut damage = Damage::default();
    for (number, step) in found.iter_mut().enumerate() {
        let Some(content) = files.get(&file_name(number)) else {
            continue;
        };
        *step = stamped(content);
        let whole = step.map(|step| file_step(seed, step));
        if whole.is_none_or(|whole| whole != (number, Some(content.clone()))) {
            damage.torn += 1;
        }
    }
    if damage.torn > 0 {
        return damage;
    }
    let mut state = [None; FILE_COUNT];
    for step in 0..told + UNTOLD {
        if step >= told && state == found {
            return Damage::default();
        }
        if step == told {
            let differ = state.iter().zip(&found).filter(|(a, b)| a != b).count();
            damage.lost = differ as u64;
        }
        let (number, content) = file_step(seed, step);
        if let Some(file) = state.get_mut(number) {
            *file = content.map(|_| step);
        }
    }
    damage
}

/// What comes behind the records that were told of was not flushed, and may be anything.
fn check_log(seed: u64, told: u64, files: &Files) -> Damage {
    let mut rest = files.get(LOG).map(Vec::as_slice).unwrap_or_default();
    let mut damage = Damage::default();
    for step in 0..told {
        let record = record(seed, step);
        let (found, behind) = rest.split_at_checked(record.len()).unwrap_or((rest, &[]));
        if found.len() < record.len() {
            damage.lost += 1;
        } else if found != record {
            damage.torn += 1;
        }
        rest = behind;
    }
    damage
}

fn check_pages(seed: u64, told: u64, files: &Files) -> Damage {
    let pages = files.get(PAGES).map(Vec::as_slice).unwrap_or_default();
    if pages.len() != PAGE_COUNT * PAGE_BYTES {
        return Damage { lost: 1, torn: 0 };
    }
    let mut damage = Damage::default();
    let mut found = Vec::new();
    for (number, page) in pages.chunks(PAGE_BYTES).enumerate() {
        for (at, sector) in page.chunks(SECTOR_BYTES).enumerate() {
            let step = written(seed, number, at, sector);
            damage.torn += u64::from(step.is_none());
            found.push(step.unwrap_or_default());
        }
    }
    if damage.torn > 0 {
        return damage;
    }
    let mut state = [None; PAGE_COUNT];
    for step in 0..told + UNTOLD {
        let (number, _) = page(seed, step);
        // The page that is under way may have come through in part.
        let wrong = wrong_sectors(&found, &state, (number, step));
        if step >= told && wrong == 0 {
            return Damage::default();
        }
        if step == told {
            damage.lost = wrong;
        }
        if let Some(page) = state.get_mut(number) {
            *page = Some(step);
        }
    }
    damage
}

/// The step that wrote a sector, `Some(None)` for one that was never written; none for bytes that
/// no step has written there.
fn written(seed: u64, number: usize, at: usize, sector: &[u8]) -> Option<Option<u64>> {
    if sector.iter().all(|byte| *byte == 0) {
        return Some(None);
    }
    let step = stamped(sector)?;
    let (right, content) = page(seed, step);
    let expected = content.chunks(SECTOR_BYTES).nth(at)?;
    (number == right && sector == expected).then_some(Some(step))
}

fn wrong_sectors(
    found: &[Option<u64>],
    state: &[Option<u64>],
    (number, step): (usize, u64),
) -> u64 {
    let pages = found
        .chunks(PAGE_BYTES / SECTOR_BYTES)
        .zip(state)
        .enumerate();
    let wrong = pages.map(|(at, (sectors, last))| {
        let right =
            |sector: &&Option<u64>| *sector == last || (at == number && **sector == Some(step));
        sectors.len() - sectors.iter().filter(right).count()
    });
    wrong.sum::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;

    /// What is there after so many steps of each writer.
    fn after(steps: [u64; 3]) -> Files {
        let mut files = Files::new();
        for step in 0..steps[0] {
            match file_step(SEED, step) {
                (number, Some(content)) => files.insert(file_name(number), content),
                (number, None) => files.remove(&file_name(number)),
            };
        }
        let log = (0..steps[1]).flat_map(|step| record(SEED, step)).collect();
        files.insert(LOG.to_owned(), log);
        let mut pages = vec![0; PAGE_COUNT * PAGE_BYTES];
        for step in 0..steps[2] {
            let (number, content) = page(SEED, step);
            pages[number * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(&content);
        }
        files.insert(PAGES.to_owned(), pages);
        files
    }

    #[test]
    fn what_was_told_of_and_what_came_after_it_is_right() {
        for told in [0, 1, 2, 30, 100] {
            for more in [0, 1, 5, 40] {
                let files = after([told + more; 3]);
                assert_eq!(check(SEED, [told; 3], &files), Damage::default());
            }
        }
        // The step under way came through in part: some sectors of a page, bytes of a record.
        let mut files = after([20; 3]);
        let (number, content) = page(SEED, 20);
        let pages = files.get_mut(PAGES).unwrap();
        pages[number * PAGE_BYTES + 512..][..1024].copy_from_slice(&content[512..1536]);
        files.get_mut(LOG).unwrap().extend([0; 9]);
        files.insert("t".to_owned(), vec![1]);
        assert_eq!(check(SEED, [20; 3], &files), Damage::default());
    }

    #[test]
    fn what_is_missing_is_lost() {
        for writer in 0..3 {
            let mut steps = [100; 3];
            steps[writer] = 99;
            let damage = check(SEED, [100; 3], &after(steps));
            assert!(damage.lost > 0 && damage.torn == 0, "{writer}: {damage:?}");
        }
        for name in [LOG, PAGES] {
            let mut files = after([10; 3]);
            files.remove(name);
            assert!(check(SEED, [10; 3], &files).lost > 0, "{name}");
        }
        // A page that is older than what was told of, and not the one under way.
        let (old, new) = (after([50; 3]), after([51; 3]));
        assert!(check(SEED, [51; 3], &old).lost > 0);
        assert_eq!(check(SEED, [50; 3], &new), Damage::default());
    }

    #[test]
    fn what_was_never_written_is_torn() {
        let whole = after([100; 3]);
        for name in whole.keys() {
            for at in [0, 600] {
                let mut files = whole.clone();
                let content = files.get_mut(name).unwrap();
                let at = at.min(content.len() - 1);
                content[at] ^= 0x80;
                let damage = check(SEED, [100; 3], &files);
                let unwritten = name == PAGES && whole[name][at] == 0;
                assert!(damage.torn > 0 || unwritten, "{name} at {at}: {damage:?}");
            }
        }
    }
}
