//! What a drive keeps, gives back and leaves alone, with an ext4 on it under a real Linux.

use super::LIMIT_SECONDS;
use lab::script::{Case, Step};
use std::time::SystemTime;

/// The cases of the durability suite, and how often each runs, with other points every time: the
/// emulator now and then stands still, and then only that one begins again.
const DURABILITY: [(&str, &str, u32); 3] = [
    ("sync", "none ,engine=sync", 2),
    ("uring", "none ,engine=io_uring", 2),
    ("cow", "raw -", 4),
];
/// How often the monitor is killed in one of them.
const POINTS: u32 = 40;
/// How long it may take, under an emulator of an emulator.
const KILLS_SECONDS: u64 = 1200;

/// The cases of this area.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        space("raw", "none -"),
        space("queues", "none ,queues=2,engine=io_uring --cpus 2"),
        space("cow-raw", "raw -"),
        space("cow-qcow2", "qcow2 -"),
    ];
    let seed = seed();
    for (name, drive, times) in DURABILITY {
        for number in 1..=times {
            let name = format!("durability-{name}-{number}");
            let line = format!("kills {drive} {POINTS} {}", seed + cases.len() as u64);
            cases.push(case(&name, &line, KILLS_SECONDS));
        }
    }
    cases
}

/// Another one every time, or `$CORACLE_LAB_SEED` to try the same points again.
fn seed() -> u64 {
    let given = std::env::var("CORACLE_LAB_SEED").ok();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    given
        .and_then(|text| text.parse().ok())
        .unwrap_or(now.as_secs())
}

/// A drive is filled and trimmed, and looked at after a reboot; its base, if any, stays as it was.
fn space(name: &str, arguments: &str) -> Case {
    let line = format!("space {arguments}");
    case(&format!("disk-{name}"), &line, LIMIT_SECONDS)
}

fn case(name: &str, line: &str, seconds: u64) -> Case {
    Case {
        name: name.to_owned(),
        steps: vec![Step::Beside(format!("lab-disk {line}"))],
        seconds,
        ..Case::default()
    }
}
