use std::cell::RefCell;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

const ID: DeltaId = [7; 16];
const BLOCKS: u64 = 3;
const CLUSTERS: u64 = 2 * BLOCK_CLUSTERS + 100;

/// The slots of a map, as a file would have them.
type Slots = RefCell<Vec<[Vec<u8>; 2]>>;

fn blank() -> Slots {
    let pair = [vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]];
    RefCell::new(vec![pair; usize::try_from(BLOCKS).unwrap()])
}

fn survey(slots: &Slots) -> Survey {
    let read = |block: u64, pair: &mut [u8]| {
        let slots = slots.borrow();
        pair.copy_from_slice(&slots[usize::try_from(block).unwrap()].concat());
        Ok::<_, Infallible>(())
    };
    Survey::read(CLUSTERS, BLOCKS, &ID, read).unwrap()
}

fn load(slots: &Slots) -> Result<Map, Damaged> {
    survey(slots).sound()
}

fn write(map: &mut Map, slots: &Slots) {
    let put = |block: u64, slot: u64, bytes: &[u8]| {
        let at = (
            usize::try_from(block).unwrap(),
            usize::try_from(slot).unwrap(),
        );
        slots.borrow_mut()[at.0][at.1] = bytes.to_vec();
        Ok::<_, Infallible>(())
    };
    map.write(&ID, put).unwrap();
    map.written();
}

#[test]
fn bits_survive_the_file() {
    let slots = blank();
    let mut map = load(&slots).unwrap();
    assert!(!map.is_dirty() && map.count() == 0);
    for range in [
        0..1,
        63..66,
        BLOCK_CLUSTERS - 1..BLOCK_CLUSTERS + 1,
        CLUSTERS - 1..CLUSTERS,
    ] {
        map.add(range);
        assert!(map.is_dirty());
        write(&mut map, &slots);
    }
    let again = load(&slots).unwrap();
    assert_eq!(again.words, map.words);
    assert_eq!(again.count(), 7);
    assert_eq!(again.run(0, CLUSTERS), (true, 1));
    assert_eq!(again.run(1, CLUSTERS), (false, 62));
    assert!(again.has_all(BLOCK_CLUSTERS - 1..BLOCK_CLUSTERS + 1));
    assert!(!again.has_all(62..66));
}

#[test]
fn writes_alternate_between_the_slots() {
    let slots = blank();
    let mut map = load(&slots).unwrap();
    for turn in 0..4 {
        map.add(turn..turn + 1);
        write(&mut map, &slots);
        let generations = slots.borrow()[0]
            .clone()
            .map(|slot| judge(&slot, &ID, 0).generation());
        let expected = if turn % 2 == 0 {
            [turn + 1, turn]
        } else {
            [turn, turn + 1]
        };
        assert_eq!(generations, expected);
    }
}

/// Three flushes: blocks 0 and 1, block 0, block 0 and 2.
fn three_flushes() -> Slots {
    let slots = blank();
    let mut map = load(&slots).unwrap();
    map.add(0..1);
    map.add(BLOCK_CLUSTERS..BLOCK_CLUSTERS + 1);
    write(&mut map, &slots);
    map.add(1..2);
    write(&mut map, &slots);
    map.add(2..3);
    map.add(CLUSTERS - 1..CLUSTERS);
    write(&mut map, &slots);
    slots
}

#[test]
fn a_write_cut_short_leaves_the_one_before() {
    let slots = three_flushes();
    // The third write of block 0 went to slot 0.
    slots.borrow_mut()[0][0][4000] ^= 1;
    let mut map = load(&slots).unwrap();
    assert_eq!(map.run(0, 10), (true, 2));
    assert_eq!(map.torn(), [(0, 0)]);
    map.mended();
    assert!(map.torn().is_empty());
    // The first write of block 2 of which only the bits came through.
    let slots = three_flushes();
    slots.borrow_mut()[2][0][..64].fill(0);
    let map = load(&slots).unwrap();
    assert!(!map.has(CLUSTERS - 1));
    assert_eq!(map.count(), 4);
}

#[test]
fn the_older_slot_may_be_anything_that_a_write_leaves() {
    let slots = three_flushes();
    // Slot 1 of block 0 is the second write; it would be written next.
    slots.borrow_mut()[0][1][4000] ^= 1;
    let map = load(&slots).unwrap();
    assert_eq!((map.run(0, 10), map.torn()), ((true, 3), &[][..]));
}

#[test]
fn what_no_interrupted_write_does_is_damage() {
    type Harm = fn(&mut [Vec<u8>; 2]);
    let cases: [(usize, Harm, &str); 7] = [
        // Block 1 was written in the first flush, which was over when the second began.
        (1, |pair| pair[0][100] ^= 1, "written completely"),
        (0, |pair| pair[0][0] ^= 1, "checksum of its head"),
        (0, |pair| pair[1][63] ^= 1, "checksum of its head"),
        (0, |pair| pair[1] = pair[0].clone(), "both its copies"),
        (
            0,
            |pair| pair[0] = encode(&[8; 16], 0, 3, &[0; WORDS]),
            "belongs elsewhere",
        ),
        (
            0,
            |pair| pair[0] = encode(&ID, 1, 3, &[0; WORDS]),
            "belongs elsewhere",
        ),
        (
            0,
            |pair| pair[0] = encode(&ID, 0, u64::MAX, &[0; WORDS]),
            "is impossible",
        ),
    ];
    for (block, harm, part) in cases {
        let slots = three_flushes();
        harm(&mut slots.borrow_mut()[block]);
        let damaged = load(&slots).unwrap_err();
        assert_eq!(damaged.block, block as u64, "{part}");
        assert!(damaged.what.contains(part), "{part}: {}", damaged.what);
        assert!(survey(&slots).damaged().len() == 1);
    }
    let slots = three_flushes();
    let mut words = [0; WORDS];
    words[100 / 64] = 1 << (100 % 64);
    slots.borrow_mut()[2][1] = encode(&ID, 2, 9, &words);
    assert!(load(&slots).unwrap_err().what.contains("behind the end"));
}

#[test]
fn any_flipped_bit_is_damage_or_an_older_map() {
    let whole = load(&three_flushes()).unwrap();
    for block in 0..3 {
        for slot in 0..2 {
            for at in (0..BLOCK_BYTES).step_by(7) {
                let slots = three_flushes();
                slots.borrow_mut()[block][slot][at] ^= 0x10;
                if let Ok(map) = load(&slots) {
                    let newer = map.words.iter().zip(&whole.words).any(|(a, b)| a & !b != 0);
                    assert!(!newer, "block {block} slot {slot} byte {at}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Runs and additions against a list of booleans.
    #[test]
    fn runs(ranges in prop::collection::vec((0..400_u64, 0..150_u64), 0..12)) {
        let mut map = Map::empty(600, 1);
        let mut model = vec![false; 600];
        for (start, len) in ranges {
            map.add(start..start + len);
            let at = usize::try_from(start).unwrap();
            model[at..at + usize::try_from(len).unwrap()].fill(true);
        }
        for from in 0..600_usize {
            let alike = model[from..].iter().take_while(|bit| **bit == model[from]).count();
            for most in [1, 2, 63, 64, 65, 600 - from] {
                let most = most.min(600 - from);
                let expected = (model[from], alike.min(most) as u64);
                prop_assert_eq!(map.run(from as u64, most as u64), expected);
            }
        }
        let count = model.iter().filter(|bit| **bit).count();
        prop_assert_eq!(map.count(), count as u64);
    }
}
