//! Random operations on a file, by each engine and past the page cache, against bytes in memory.

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::*;
use crate::disk::engine::{Begun, Finished, Operation, Task};
use crate::testing::small_ram;

const SECTORS: u64 = 512;
const SECTOR: u64 = crate::disk::SECTOR_BYTES;
/// Memory of an operation that is in the air, from [`FIRST_ARENA`] on. One arena lies across the
/// seam of two regions.
const ARENA: u64 = 0x8000;
const FIRST_ARENA: u64 = 0x8_4000;
const ARENAS: u16 = 32;

/// What is done, where, and how its memory is scattered.
#[derive(Clone, Debug)]
struct Deed {
    task: Task,
    sector: u64,
    sectors: u64,
    /// Everything in whole pages, as good drivers have it.
    aligned: bool,
    skew: u64,
    cuts: Vec<u32>,
    /// Whether what was begun is waited for afterwards.
    wait: bool,
}

fn deed() -> impl Strategy<Value = Deed> {
    let task = prop_oneof![
        20 => Just(Task::Read),
        20 => Just(Task::Write),
        1 => Just(Task::Flush),
        3 => Just(Task::Discard),
        3 => any::<bool>().prop_map(|unmap| Task::Zero { unmap }),
    ];
    let place = (0..SECTORS - 40, 1..40_u64);
    let memory = (
        any::<bool>(),
        0..600_u64,
        prop::collection::vec(1..5000_u32, 0..6),
    );
    (task, place, memory, prop::bool::weighted(0.1)).prop_map(|(task, place, memory, wait)| {
        let (aligned, skew, cuts) = memory;
        let (mut sector, mut sectors) = place;
        if aligned {
            (sector, sectors) = (sector & !7, sectors.next_multiple_of(8));
        }
        Deed {
            task,
            sector,
            sectors,
            aligned,
            skew,
            cuts,
            wait,
        }
    })
}

impl Deed {
    fn moves(&self) -> bool {
        matches!(self.task, Task::Read | Task::Write)
    }

    fn range(&self) -> (u64, u64) {
        match self.task {
            Task::Flush => (0, 0),
            _ => (self.sector * SECTOR, self.sectors * SECTOR),
        }
    }

    /// Its spans in an arena: at most 20 KiB and their gaps.
    fn spans(&self, arena: u64) -> Vec<Span> {
        if !self.moves() {
            return Vec::new();
        }
        let mut at = if self.aligned {
            arena
        } else {
            arena + self.skew
        };
        let mut left = u32::try_from(self.range().1).unwrap();
        let mut spans = Vec::new();
        for cut in self.cuts.iter().chain(&[u32::MAX]) {
            let cut = if self.aligned { 4096 } else { *cut };
            let cut = if spans.len() == self.cuts.len() {
                left
            } else {
                cut
            };
            let len = cut.min(left);
            if len == 0 {
                break;
            }
            spans.push(Span { at, len });
            left -= len;
            at += u64::from(len) + if self.aligned { 0 } else { 7 };
        }
        spans
    }
}

/// An operation in the air.
struct Flying {
    deed: Deed,
    spans: Vec<Span>,
    data: Vec<u8>,
}

struct Play {
    disk: RawDisk,
    ram: GuestRam,
    model: Vec<u8>,
    air: Vec<Option<Flying>>,
    count: u8,
}

impl Play {
    /// The model's part that an operation is about.
    fn part(&mut self, deed: &Deed) -> &mut [u8] {
        let (offset, len) = deed.range();
        let start = usize::try_from(offset).unwrap();
        &mut self.model[start..start + usize::try_from(len).unwrap()]
    }

    fn gather(&self, spans: &[Span]) -> Vec<u8> {
        let mut all = Vec::new();
        for span in spans {
            let mut bytes = vec![0; usize::try_from(span.len).unwrap()];
            self.ram.read_bytes(span.at, &mut bytes).unwrap();
            all.extend_from_slice(&bytes);
        }
        all
    }

    /// Fills the memory of an operation: what a read does not touch stays so, too.
    fn fill(&mut self, arena: u64, deed: &Deed, spans: &[Span]) -> Vec<u8> {
        self.count = self.count.wrapping_add(1);
        let blank = vec![self.count; usize::try_from(ARENA).unwrap()];
        self.ram.write_bytes(arena, &blank).unwrap();
        let len = u64::from(deed.task == Task::Write) * deed.range().1;
        let first = usize::from(self.count);
        let byte = |n: usize| u8::try_from((first * 31 + n * 7 + n / 512) % 251).unwrap();
        let data: Vec<u8> = (0..usize::try_from(len).unwrap()).map(byte).collect();
        let mut rest = &data[..];
        for span in spans.iter().take_while(|_| !data.is_empty()) {
            let (now, later) = rest.split_at(usize::try_from(span.len).unwrap());
            self.ram.write_bytes(span.at, now).unwrap();
            rest = later;
        }
        data
    }

    fn ended(&mut self, flying: Flying, result: Result<(), TransferError>) {
        let Flying { deed, spans, data } = flying;
        let of_ranges = !deed.moves() && deed.task != Task::Flush;
        if let Err(error) = result {
            let unsupported = error.error.kind() == ErrorKind::Unsupported;
            assert!(of_ranges && unsupported, "{deed:?}: {error:?}");
            return;
        }
        match deed.task {
            Task::Read => {
                let found = self.gather(&spans);
                assert!(found == self.part(&deed), "{deed:?} read something else");
            }
            Task::Write => self.part(&deed).copy_from_slice(&data),
            Task::Discard | Task::Zero { .. } => self.part(&deed).fill(0),
            Task::Flush => {}
        }
    }

    fn take_in(&mut self) {
        let mut done = Vec::new();
        if let Some(engine) = self.disk.engine() {
            engine.finished(&mut done);
        }
        for Finished { tag, result } in done {
            let flying = self.air[usize::from(tag)].take();
            self.ended(flying.expect("it was in the air"), result);
        }
    }

    fn drain(&mut self) {
        loop {
            self.take_in();
            let Some(engine) = self.disk.engine() else {
                return;
            };
            engine.submit().unwrap();
            if engine.running() == 0 {
                assert!(self.air.iter().all(Option::is_none));
                return;
            }
            engine.wait(std::time::Duration::from_secs(1));
        }
    }

    /// Whether something in the air has bytes in common with it.
    fn overlaps(&self, deed: &Deed) -> bool {
        let (start, len) = deed.range();
        self.air.iter().flatten().any(|other| {
            let (other_start, other_len) = other.deed.range();
            start < other_start + other_len && other_start < start + len
        })
    }

    fn by_hand(&mut self, deed: &Deed, spans: &[Span]) -> Result<(), TransferError> {
        let (offset, len) = deed.range();
        let whole = |error| TransferError { done: 0, error };
        let Self { disk, ram, .. } = self;
        match deed.task {
            Task::Read => disk.read(offset, ram, spans),
            Task::Write => disk.write(offset, ram, spans),
            Task::Flush => disk.flush().map_err(whole),
            Task::Discard => disk.discard(offset, len).map_err(whole),
            Task::Zero { unmap } => disk.write_zeroes(offset, len, unmap).map_err(whole),
        }
    }

    fn perform(&mut self, deed: &Deed) {
        let free = self.air.iter().position(Option::is_none);
        if free.is_none() || self.overlaps(deed) {
            self.drain();
        }
        let place = self.air.iter().position(Option::is_none).unwrap();
        let tag = u16::try_from(place).unwrap();
        let arena = FIRST_ARENA + u64::from(tag) * ARENA;
        let spans = deed.spans(arena);
        let data = self.fill(arena, deed, &spans);
        let (offset, len) = deed.range();
        let operation = Operation {
            task: deed.task,
            offset,
            len,
            ram: &self.ram,
            spans: &spans,
        };
        let begun = match self.disk.engine() {
            Some(engine) => engine.begin(tag, &operation),
            None => Begun::Refused,
        };
        let flying = Flying {
            deed: deed.clone(),
            spans,
            data,
        };
        match begun {
            Begun::Running => self.air[place] = Some(flying),
            Begun::Over(result) => self.ended(flying, result),
            Begun::Refused => {
                self.drain();
                let result = self.by_hand(deed, &flying.spans);
                self.ended(flying, result);
            }
        }
        if deed.wait {
            self.drain();
        }
    }
}

fn play(path: &Path, access: Access, deeds: &[Deed]) -> Result<(), TestCaseError> {
    let bytes = usize::try_from(SECTORS * SECTOR).unwrap();
    let model: Vec<u8> = (0..bytes)
        .map(|n| u8::try_from(n / 512 % 241).unwrap())
        .collect();
    fs::write(path, &model).unwrap();
    let mut play = Play {
        disk: RawDisk::open_with(path, access).unwrap(),
        ram: small_ram(),
        model,
        air: (0..ARENAS).map(|_| None).collect(),
        count: 0,
    };
    for deed in deeds {
        play.perform(deed);
    }
    play.drain();
    play.disk.flush().unwrap();
    prop_assert!(
        fs::read(path).unwrap() == play.model,
        "the file holds something else"
    );
    Ok(())
}

/// Plays random deeds, or says why this host cannot.
fn check(engine: EngineChoice, direct: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), SECTORS * SECTOR);
    let access = Access {
        read_only: false,
        direct,
        engine,
    };
    match RawDisk::open_with(&path, access) {
        Ok(mut disk) => {
            if engine != EngineChoice::Sync && disk.engine().is_none() {
                return harness::skip::skipped("the host has no io_uring");
            }
        }
        Err(error) if matches!(error.problem, OpenProblem::NotDirect(_)) => {
            return harness::skip::skipped(&format!("no O_DIRECT here: {error}"));
        }
        Err(error) => panic!("{error}"),
    }
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    let deeds = prop::collection::vec(deed(), 1..100);
    let result = runner.run(&deeds, |deeds| play(&path, access, &deeds));
    result.unwrap_or_else(|error| panic!("{engine:?}, direct {direct}: {error}"));
}

/// A kill of the process alone loses nothing that a flush would have saved from a loss of power.
/// So it is looked at another way: a pipe cannot be flushed, and the host says so when it is asked.
#[test]
fn a_flush_reaches_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let (_reader, writer) = io::pipe().unwrap();
    let pipe = Arc::new(File::from(std::os::fd::OwnedFd::from(writer)));
    let mut disk = RawDisk::open(&image(dir.path(), 512), false).unwrap();
    disk.file = Arc::clone(&pipe);
    let refused = Some(rustix::io::Errno::INVAL.raw_os_error());
    assert_eq!(disk.flush().unwrap_err().raw_os_error(), refused);
    let Ok(mut engine) = UringEngine::new(pipe, Ways::default()) else {
        return harness::skip::skipped("the host has no io_uring");
    };
    let operation = Operation {
        task: Task::Flush,
        offset: 0,
        len: 0,
        ram: &small_ram(),
        spans: &[],
    };
    assert!(matches!(engine.begin(0, &operation), Begun::Running));
    let mut ended = Vec::new();
    engine.submit().unwrap();
    while ended.is_empty() {
        engine.wait(std::time::Duration::from_secs(1));
        engine.finished(&mut ended);
    }
    let error = ended.pop().unwrap().result.unwrap_err().error;
    assert_eq!(error.raw_os_error(), refused);
}

#[test]
fn system_calls_move_the_right_bytes() {
    check(EngineChoice::Sync, false);
}

#[test]
fn system_calls_past_the_page_cache_move_the_right_bytes() {
    check(EngineChoice::Sync, true);
}

#[test]
fn the_engine_for_what_waits_moves_the_right_bytes() {
    check(EngineChoice::Auto, false);
}

#[test]
fn the_engine_for_what_waits_moves_the_right_bytes_past_the_page_cache() {
    check(EngineChoice::Auto, true);
}

#[test]
fn io_uring_moves_the_right_bytes() {
    check(EngineChoice::IoUring, false);
}

#[test]
fn io_uring_past_the_page_cache_moves_the_right_bytes() {
    check(EngineChoice::IoUring, true);
}
