//! A process that writes through a delta is killed with SIGKILL, again and again: what it flushed
//! is there, the rest is as it was or as it was wanted, and the delta is sound.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use devices::GuestRam;
use devices::disk::overlay::{BaseFormat, NewDelta, OverlayDisk, create, reset, verify};
use devices::disk::{Disk, SECTOR_BYTES};
use devices::virtio::Span;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const SECTORS: u64 = 8192;
const KILLS: u64 = 240;
/// The environment of the process that is killed.
const DELTA: &str = "CORACLE_KILLED_DELTA";
const FIRST: &str = "CORACLE_KILLED_FIRST";

/// What step `number` does, on how many sectors from where.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write { start: u64, count: u64 },
    Zero { start: u64, count: u64 },
    Flush,
}

fn step(number: u64) -> Step {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let start = (x >> 8) % SECTORS;
    let count = (1 + (x >> 32) % 24).min(SECTORS - start);
    match x % 8 {
        0 => Step::Flush,
        1 => Step::Zero { start, count },
        _ => Step::Write { start, count },
    }
}

fn value(number: u64, sector: u64) -> [u8; 512] {
    let mut bytes = [0x5a; 512];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn ram() -> GuestRam {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap();
    Arc::new(memory).into()
}

/// No test by itself: the process that the test below starts and kills.
#[test]
fn the_process_that_is_killed() {
    let (Some(path), Ok(first)) = (std::env::var_os(DELTA), std::env::var(FIRST)) else {
        return;
    };
    let mut disk = OverlayDisk::open(Path::new(&path), false).unwrap();
    let ram = ram();
    let mut out = std::io::stdout();
    for number in first.parse::<u64>().unwrap().. {
        match step(number) {
            Step::Write { start, count } => {
                for sector in 0..count {
                    let at = sector * SECTOR_BYTES;
                    ram.write_bytes(at, &value(number, start + sector)).unwrap();
                }
                let len = u32::try_from(count * SECTOR_BYTES).unwrap();
                let span = Span { at: 0, len };
                disk.write(start * SECTOR_BYTES, &ram, &[span]).unwrap();
            }
            Step::Zero { start, count } => {
                let (offset, len) = (start * SECTOR_BYTES, count * SECTOR_BYTES);
                disk.write_zeroes(offset, len, number.is_multiple_of(2))
                    .unwrap();
            }
            Step::Flush => {
                disk.flush().unwrap();
                out.write_all(format!("\nflushed {number}\n").as_bytes())
                    .unwrap();
                out.flush().unwrap();
            }
        }
    }
}

/// Runs the writer from step `first` on and kills it: the last step that it flushed.
fn run_and_kill(path: &Path, first: u64, flushes: u64) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(DELTA, path)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).filter_map(|line| {
        let number = line.strip_prefix("flushed ")?;
        number.parse::<u64>().ok()
    });
    let mut last = None;
    let mut seen = 0;
    for number in told {
        last = Some(number);
        seen += 1;
        if seen == flushes {
            // SIGKILL; what it still says until then counts too.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    last
}

fn contents(path: &Path) -> Vec<[u8; 512]> {
    let mut disk = OverlayDisk::open(path, true).unwrap();
    let ram = ram();
    let len = u32::try_from(SECTORS * SECTOR_BYTES).unwrap();
    disk.read(0, &ram, &[Span { at: 0, len }]).unwrap();
    let sector = |number: u64| {
        let mut bytes = [0; 512];
        ram.read_bytes(number * SECTOR_BYTES, &mut bytes).unwrap();
        bytes
    };
    (0..SECTORS).map(sector).collect()
}

/// Each sector has the value of a step after the last one that was flushed, or that one's.
fn check(before: &[[u8; 512]], after: &[[u8; 512]], first: u64, flushed: Option<u64>) -> u64 {
    let mut possible: Vec<Vec<[u8; 512]>> = before.iter().map(|value| vec![*value]).collect();
    // Nobody knows how far it came after that; far more steps than it can have done.
    let end = flushed.unwrap_or(first) + 4000;
    for number in first..end {
        let kept = flushed.is_some_and(|flushed| number <= flushed);
        let (start, count, zero) = match step(number) {
            Step::Write { start, count } => (start, count, false),
            Step::Zero { start, count } => (start, count, true),
            Step::Flush => continue,
        };
        for sector in start..start + count {
            let values = &mut possible[usize::try_from(sector).unwrap()];
            if kept {
                values.clear();
            }
            values.push(if zero {
                [0; 512]
            } else {
                value(number, sector)
            });
        }
    }
    for (sector, found) in after.iter().enumerate() {
        let values = &possible[sector];
        assert!(
            values.contains(found),
            "sector {sector}: {:02x?}",
            &found[..16]
        );
    }
    end
}

#[test]
fn what_was_flushed_outlives_a_kill_at_any_point() {
    let dir = tempfile::tempdir().unwrap();
    let [base, path] = ["base", "delta"].map(|name| dir.path().join(name));
    let bytes: Vec<u8> = (0..SECTORS)
        .flat_map(|sector| value(u64::MAX, sector))
        .collect();
    std::fs::write(&base, bytes).unwrap();
    let new = NewDelta {
        base,
        format: BaseFormat::Raw,
        capacity: None,
        cluster_bytes: Some(4096),
    };
    create(&path, &new).unwrap();
    let (mut first, mut flushes) = (0, 0);
    let mut before = contents(&path);
    for kill in 0..KILLS {
        if kill.is_multiple_of(12) {
            reset(&path).unwrap();
            before = contents(&path);
        }
        let flushed = run_and_kill(&path, first, 1 + kill % 9);
        flushes += u64::from(flushed.is_some());
        let verified = verify(&path).unwrap();
        assert!(verified.is_sound(), "{verified:?}");
        let after = contents(&path);
        first = check(&before, &after, first, flushed);
        before = after;
    }
    assert!(flushes > KILLS / 2, "{flushes}");
}
