//! Streams between programs of guest and host: Linux's own driver, checked byte for byte.

use super::{LIMIT_SECONDS, REBOOTED, on_cloud_over_pci, words};
use lab::script::{Case, Step};

/// Bytes each way in the everyday run, and in the long one.
const EVERYDAY: u64 = 32 << 20;
const LONG: u64 = 4 << 30;
/// How long the long one may take, under an emulator of an emulator.
const LONG_SECONDS: u64 = 3600;

/// The cases of this area.
pub(super) fn cases() -> Vec<Case> {
    let down = |bytes| format!("down={bytes}");
    let up = |bytes| format!("up={bytes}");
    vec![
        case(
            "vsock-streams",
            &[down(EVERYDAY), up(EVERYDAY)],
            LIMIT_SECONDS,
        ),
        case(
            "vsock-connections",
            &["guest=100000", "halves=100000", "parallel=200", "nobody=1"].map(str::to_owned),
            LIMIT_SECONDS,
        ),
        on_cloud_over_pci(case(
            "cloud-pci-vsock",
            &["down=2000000", "up=2000000", "guest=100000", "parallel=20"].map(str::to_owned),
            LIMIT_SECONDS,
        )),
        case("vsock-4g-down", &[down(LONG)], LONG_SECONDS),
        case("vsock-4g-up", &[up(LONG)], LONG_SECONDS),
    ]
}

fn case(name: &str, tests: &[String], seconds: u64) -> Case {
    let tests = tests.join(" ");
    let arguments = [
        "boot",
        "--kernel",
        "/kernels/lean",
        "--initrd",
        "/initrds/vsock",
        "--memory",
        "256M",
        "--vsock",
        "cid=3,path=/tmp/vsock",
    ];
    Case {
        name: name.to_owned(),
        arguments: words(&arguments),
        steps: vec![
            Step::Expect("lab-vsock: listening".to_owned()),
            Step::Beside(format!("lab-vsock /tmp/vsock {tests} quit=1")),
        ],
        exit: REBOOTED,
        seconds,
    }
}
