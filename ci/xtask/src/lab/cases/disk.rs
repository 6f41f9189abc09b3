//! What a drive keeps, gives back and leaves alone, with an ext4 on it under a real Linux.

use super::LIMIT_SECONDS;
use lab::script::{Case, Step};
use std::time::SystemTime;

/// How often the monitor is killed in one case of the durability suite.
const POINTS: u32 = 100;
/// How long such a case may take, under an emulator of an emulator.
const KILLS_SECONDS: u64 = 1800;

/// The cases of this area.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        space("raw", "none -"),
        space("cow-raw", "raw -"),
        space("cow-qcow2", "qcow2 -"),
    ];
    let seed = seed();
    for (name, drive) in [
        ("raw-1", "none -"),
        ("raw-2", "none -"),
        ("cow-1", "raw -"),
        ("cow-2", "raw -"),
    ] {
        let line = format!("kills {drive} {POINTS} {seed}{}", cases.len());
        cases.push(case(&format!("durability-{name}"), &line, KILLS_SECONDS));
    }
    cases
}

/// Another one every time, or `$CORACLE_LAB_SEED` to try the same points again.
fn seed() -> String {
    let given = std::env::var("CORACLE_LAB_SEED").ok();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    given.unwrap_or_else(|| now.as_millis().to_string())
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
