//! The map: which clusters the delta has. In memory a bit for each; in the file blocks of 4 KiB
//! with checksums, each in two slots that are written in turn, so that a write cut short leaves
//! the older one.

use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::DeltaId;
use super::layout::{BLOCK_BYTES, BLOCK_CLUSTERS, SLOTS};

const BLOCK_MAGIC: [u8; 8] = *b"CoracleM";
const HEAD_BYTES: usize = size_of::<Head>();
const WORDS: usize = (BLOCK_BYTES - HEAD_BYTES) / 8;
const WORD_BITS: u64 = 64;

/// The start of a map block. It lies within one sector, so that no interrupted write tears it.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    id: DeltaId,
    index: U64,
    generation: U64,
    body_checksum: U32,
    reserved: [u8; 16],
    head_checksum: U32,
}

/// A damaged map block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Damaged {
    /// Which one.
    pub(super) block: u64,
    /// What is wrong with it.
    pub(super) what: &'static str,
}

/// One slot, as the file has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Slot {
    /// Never written, or the first write of it was cut short before its head.
    Blank,
    Good {
        generation: u64,
    },
    /// The head is good, the bits don't match it: cut short, or damaged.
    Broken {
        generation: u64,
    },
    /// No interrupted write does this.
    Damaged(&'static str),
}

impl Slot {
    fn generation(self) -> u64 {
        match self {
            Self::Good { generation } | Self::Broken { generation } => generation,
            Self::Blank | Self::Damaged(_) => 0,
        }
    }
}

/// Which slot of a block counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Choice {
    /// The slot to read the bits from, if any was ever written.
    slot: Option<u64>,
    /// A slot with a write that was cut short, to be wiped before the next write.
    torn: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// The slot that counts.
    slot: u64,
    written: bool,
    dirty: bool,
}

/// The map of a delta.
#[derive(Debug)]
pub(super) struct Map {
    clusters: u64,
    words: Vec<u64>,
    blocks: Vec<Block>,
    dirty_blocks: usize,
    /// What the next write of blocks says.
    generation: u64,
    /// Slots, as block and slot, to wipe before the first write.
    torn: Vec<(u64, u64)>,
}

/// A look at a whole map, sound or not.
#[derive(Debug)]
pub(super) struct Survey {
    map: Map,
    damaged: Vec<Damaged>,
    /// Blocks with a broken copy that would be written next anyway.
    stale: Vec<u64>,
    checksums: u64,
}

impl Survey {
    /// Reads the map; `read` fills a pair of slots, given the block's number.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn read<E>(
        clusters: u64,
        blocks: u64,
        id: &DeltaId,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut map = Map::empty(clusters, blocks);
        let mut pair = vec![0; BLOCK_BYTES.saturating_mul(2)];
        let mut all = Vec::with_capacity(map.blocks.len());
        let (mut newest, mut checksums) = (0, 0_u64);
        for index in 0..blocks {
            read(index, &mut pair)?;
            let (first, second) = pair.split_at(BLOCK_BYTES);
            let slots = [judge(first, id, index), judge(second, id, index)];
            for slot in slots {
                newest = newest.max(slot.generation());
                checksums = checksums.saturating_add(u64::from(slot != Slot::Blank));
            }
            // The bits of the better slot, until all generations are known.
            let (a, b) = (good(slots[0]), good(slots[1]));
            if a.max(b) > 0 {
                let body = if b > a { second } else { first };
                map.take_bits(index, body.get(HEAD_BYTES..).unwrap_or_default());
            }
            all.push(slots);
        }
        let (mut damaged, mut stale) = (Vec::new(), Vec::new());
        for (index, slots) in (0..).zip(all) {
            match choose(slots, newest) {
                Ok(choice) => {
                    let broken = slots.iter().any(|slot| matches!(slot, Slot::Broken { .. }));
                    stale.extend((broken && choice.torn.is_none()).then_some(index));
                    map.settle(index, choice);
                }
                Err(what) => damaged.push(Damaged { block: index, what }),
            }
        }
        damaged.extend(map.check_tail().err());
        map.generation = newest.saturating_add(1);
        Ok(Self {
            map,
            damaged,
            stale,
            checksums,
        })
    }

    /// The map, of which damaged blocks may be missing.
    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// The map, if it is sound.
    ///
    /// # Errors
    /// The first damaged block.
    pub(super) fn sound(self) -> Result<Map, Damaged> {
        match self.damaged.first() {
            Some(damaged) => Err(*damaged),
            None => Ok(self.map),
        }
    }

    /// All damaged blocks.
    pub(super) fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// Blocks whose older copy is broken, which nothing reads.
    pub(super) fn stale(&self) -> &[u64] {
        &self.stale
    }

    /// How many blocks were held against their checksums.
    pub(super) fn checksums(&self) -> u64 {
        self.checksums
    }
}

impl Map {
    /// A map without any cluster.
    pub(super) fn empty(clusters: u64, blocks: u64) -> Self {
        let blocks = usize::try_from(blocks).unwrap_or_default();
        Self {
            clusters,
            words: vec![0; blocks.saturating_mul(WORDS)],
            blocks: vec![Block::default(); blocks],
            dirty_blocks: 0,
            generation: 1,
            torn: Vec::new(),
        }
    }

    fn take_bits(&mut self, index: u64, body: &[u8]) {
        let at = usize::try_from(index)
            .unwrap_or_default()
            .saturating_mul(WORDS);
        let words = self.words.iter_mut().skip(at).take(WORDS);
        for (word, bytes) in words.zip(body.chunks_exact(8)) {
            *word = bytes.try_into().map_or(0, u64::from_le_bytes);
        }
    }

    fn settle(&mut self, index: u64, choice: Choice) {
        self.torn.extend(choice.torn.map(|slot| (index, slot)));
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        if let (Some(block), Some(slot)) = (self.blocks.get_mut(at), choice.slot) {
            (block.slot, block.written) = (slot, true);
        }
    }

    /// Bits behind the last cluster belong to nothing.
    fn check_tail(&self) -> Result<(), Damaged> {
        let whole = self.clusters / WORD_BITS;
        let at = usize::try_from(whole).unwrap_or(usize::MAX);
        let mut rest = self.words.get(at..).unwrap_or_default().iter();
        let partial = self.clusters % WORD_BITS;
        let good = partial == 0 || rest.next().is_none_or(|word| word >> partial == 0);
        if good && rest.all(|word| *word == 0) {
            return Ok(());
        }
        Err(Damaged {
            block: self.clusters / BLOCK_CLUSTERS,
            what: "it has clusters behind the end of the disk",
        })
    }

    /// Whether the delta has the cluster `from`, and how many clusters from there on, `most` at
    /// most, are alike.
    #[inline]
    pub(super) fn run(&self, from: u64, most: u64) -> (bool, u64) {
        let word = |cluster: u64| {
            let at = usize::try_from(cluster / WORD_BITS).unwrap_or(usize::MAX);
            self.words.get(at).copied().unwrap_or_default() >> (cluster % WORD_BITS)
        };
        let present = word(from) & 1 == 1;
        let mut len = 0_u64;
        while len < most {
            let cluster = from.saturating_add(len);
            let here = word(cluster);
            let alike = if present {
                here.trailing_ones()
            } else {
                here.trailing_zeros()
            };
            let left = WORD_BITS.saturating_sub(cluster % WORD_BITS);
            let alike = u64::from(alike).min(left);
            len = len.saturating_add(alike);
            if alike < left {
                break;
            }
        }
        (present, len.min(most))
    }

    /// Whether the delta has all of them.
    #[inline]
    pub(super) fn has_all(&self, clusters: Range<u64>) -> bool {
        let most = clusters.end.saturating_sub(clusters.start);
        most == 0 || self.run(clusters.start, most) == (true, most)
    }

    /// Whether the delta has this one.
    pub(super) fn has(&self, cluster: u64) -> bool {
        self.run(cluster, 1).0
    }

    /// Puts clusters into the delta.
    pub(super) fn add(&mut self, clusters: Range<u64>) {
        let mut at = clusters.start;
        while at < clusters.end {
            let bit = at % WORD_BITS;
            let left = clusters.end.saturating_sub(at);
            let count = WORD_BITS.saturating_sub(bit).min(left);
            let ones = u64::MAX
                .checked_shr(u32::try_from(WORD_BITS.saturating_sub(count)).unwrap_or_default());
            let mask = ones.unwrap_or_default() << bit;
            let index = usize::try_from(at / WORD_BITS).unwrap_or(usize::MAX);
            let changed = self.words.get_mut(index).is_some_and(|word| {
                let before = *word;
                *word |= mask;
                *word != before
            });
            if changed {
                self.mark(index / WORDS);
            }
            at = at.saturating_add(count);
        }
    }

    fn mark(&mut self, block: usize) {
        if let Some(block) = self.blocks.get_mut(block)
            && !block.dirty
        {
            block.dirty = true;
            self.dirty_blocks = self.dirty_blocks.saturating_add(1);
        }
    }

    /// How many clusters the delta has.
    pub(super) fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Whether the file lacks a change.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty_blocks > 0
    }

    /// Slots with a write that was cut short. They must be wiped, and that must last, before
    /// blocks are written.
    pub(super) fn torn(&self) -> &[(u64, u64)] {
        &self.torn
    }

    /// The torn slots are wiped.
    pub(super) fn mended(&mut self) {
        self.torn.clear();
    }

    /// Writes the changed blocks with `write`, which gets the block, the slot and the bytes. Until
    /// [`written`](Self::written) is called, the same slots are written again.
    pub(super) fn write<E>(
        &self,
        id: &DeltaId,
        mut write: impl FnMut(u64, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let blocks = (0_u64..).zip(self.blocks.iter().zip(self.words.chunks(WORDS)));
        for (index, (block, words)) in blocks.filter(|(_, (block, _))| block.dirty) {
            let bytes = encode(id, index, self.generation, words);
            write(index, target(*block), &bytes)?;
        }
        Ok(())
    }

    /// What was written lasts.
    pub(super) fn written(&mut self) {
        for block in self.blocks.iter_mut().filter(|block| block.dirty) {
            *block = Block {
                slot: target(*block),
                written: true,
                dirty: false,
            };
        }
        self.dirty_blocks = 0;
        self.generation = self.generation.saturating_add(1);
    }
}

/// The slot that does not count now.
fn target(block: Block) -> u64 {
    if block.written {
        SLOTS.saturating_sub(1).saturating_sub(block.slot)
    } else {
        0
    }
}

fn good(slot: Slot) -> u64 {
    match slot {
        Slot::Good { generation } => generation,
        _ => 0,
    }
}

fn encode(id: &DeltaId, index: u64, generation: u64, words: &[u64]) -> Vec<u8> {
    let mut body = Vec::with_capacity(BLOCK_BYTES);
    for word in words {
        body.extend_from_slice(&word.to_le_bytes());
    }
    let mut head = Head {
        magic: BLOCK_MAGIC,
        id: *id,
        index: index.into(),
        generation: generation.into(),
        body_checksum: crc32fast::hash(&body).into(),
        reserved: [0; 16],
        head_checksum: 0.into(),
    };
    head.head_checksum = head_checksum(&head).into();
    let mut bytes = head.as_bytes().to_vec();
    bytes.append(&mut body);
    bytes
}

fn head_checksum(head: &Head) -> u32 {
    let bytes = head.as_bytes();
    crc32fast::hash(
        bytes
            .get(..HEAD_BYTES.saturating_sub(4))
            .unwrap_or_default(),
    )
}

/// What a slot's bytes are.
fn judge(bytes: &[u8], id: &DeltaId, index: u64) -> Slot {
    let Ok((head, body)) = Head::ref_from_prefix(bytes) else {
        return Slot::Damaged("it is cut off");
    };
    if head.as_bytes().iter().all(|byte| *byte == 0) {
        return Slot::Blank;
    }
    if head.head_checksum.get() != head_checksum(head) {
        return Slot::Damaged("the checksum of its head is wrong");
    }
    if head.magic != BLOCK_MAGIC || head.id != *id || head.index.get() != index {
        return Slot::Damaged("it belongs elsewhere");
    }
    let generation = head.generation.get();
    if generation == 0 || generation == u64::MAX {
        return Slot::Damaged("its generation is impossible");
    }
    if crc32fast::hash(body) == head.body_checksum.get() {
        Slot::Good { generation }
    } else {
        Slot::Broken { generation }
    }
}

/// Which of two slots counts. Writes of a generation start only when those of the one before
/// last, so a broken slot that is not of the newest generation was damaged, unless the other
/// slot is newer anyway.
fn choose(slots: [Slot; 2], newest: u64) -> Result<Choice, &'static str> {
    const DAMAGED: &str = "its checksum is wrong, and it was written completely";
    let generations = slots.map(good);
    let choice = |slot: usize, torn: Option<u64>| Choice {
        slot: (generations.get(slot).copied() > Some(0)).then_some(slot as u64),
        torn,
    };
    match slots {
        [Slot::Damaged(what), _] | [_, Slot::Damaged(what)] => Err(what),
        [Slot::Broken { .. }, Slot::Broken { .. }] => Err(DAMAGED),
        [Slot::Broken { generation }, _] => {
            let torn = judge_broken(generation, generations[1], newest).ok_or(DAMAGED)?;
            Ok(choice(1, torn.then_some(0)))
        }
        [_, Slot::Broken { generation }] => {
            let torn = judge_broken(generation, generations[0], newest).ok_or(DAMAGED)?;
            Ok(choice(0, torn.then_some(1)))
        }
        [Slot::Good { generation: a }, Slot::Good { generation: b }] if a == b => {
            Err("both its copies say that they are the newer")
        }
        _ => Ok(choice(usize::from(generations[1] > generations[0]), None)),
    }
}

/// Whether a broken slot must be wiped, if it may be broken at all.
fn judge_broken(generation: u64, other: u64, newest: u64) -> Option<bool> {
    if generation < other {
        return Some(false);
    }
    (generation > other && generation >= newest).then_some(true)
}

#[cfg(test)]
mod tests;
