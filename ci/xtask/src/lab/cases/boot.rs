//! Starts and ends of machines: kernels, numbers of vCPUs, sizes of memory, and every way that a
//! guest can end.

use super::{LIMIT_SECONDS, PANICKED, POWERED_OFF, REBOOTED, TRIPLE_FAULT, words};
use lab::script::{Case, Step};

/// Ways to end: name, what the guest is told, more kernel arguments, the exit code that is right.
const ENDS: &[(&str, &str, &str, i32)] = &[
    ("reboot", "reboot", "", REBOOTED),
    ("poweroff", "poweroff", "", POWERED_OFF),
    ("power-button", "button", "", POWERED_OFF),
    ("acpi-reset", "reboot", "reboot=a", REBOOTED),
    ("i8042", "reboot", "reboot=k", REBOOTED),
    ("triple-fault", "reboot", "reboot=t", TRIPLE_FAULT),
    ("panic", "panic", "panic=-1", PANICKED),
];

/// Ends that a kernel without ACPI knows.
const PLAIN_ENDS: [&str; 3] = ["i8042", "triple-fault", "panic"];

/// Sizes of memory in MiB around the hole below 4 GiB.
const SIZES: [u32; 8] = [2047, 2048, 2049, 3071, 3072, 3073, 4096, 6144];

/// The cases of this area.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kernel in ["cloud", "generic", "lean"] {
        for cpus in [1, 2, 4] {
            let name = format!("{kernel}-{cpus}");
            cases.push(linux(&name, kernel, cpus, 256, "reboot", "", REBOOTED));
        }
    }
    for (name, end, arguments, exit) in ENDS {
        cases.push(linux(
            &format!("cloud-{name}"),
            "cloud",
            1,
            256,
            end,
            arguments,
            *exit,
        ));
        if PLAIN_ENDS.contains(name) {
            cases.push(linux(
                &format!("lean-{name}"),
                "lean",
                1,
                256,
                end,
                arguments,
                *exit,
            ));
        }
    }
    cases.push(linux(
        "generic-poweroff",
        "generic",
        2,
        256,
        "poweroff",
        "",
        POWERED_OFF,
    ));
    cases.push(linux(
        "generic-power-button",
        "generic",
        2,
        256,
        "button",
        "",
        POWERED_OFF,
    ));
    for mib in SIZES {
        cases.push(linux(
            &format!("lean-{mib}M"),
            "lean",
            1,
            mib,
            "reboot",
            "",
            REBOOTED,
        ));
    }
    cases.extend([1, 4].map(embedded));
    cases.push(doctor());
    cases
}

/// The names of the cases in which `kernel` has one vCPU and 256 MiB.
pub(in crate::lab) fn alone(kernel: &str) -> Vec<String> {
    let named = ENDS.iter().map(|(name, ..)| *name);
    named
        .chain(["1"])
        .map(|name| format!("{kernel}-{name}"))
        .collect()
}

/// A guest with an initrd and a disk that says what it found and ends as it is told.
pub(super) fn linux(
    name: &str,
    kernel: &str,
    cpus: u32,
    mib: u32,
    end: &str,
    arguments: &str,
    exit: i32,
) -> Case {
    let text = format!("lab.disk=1 lab.end={end} {arguments}");
    let mut steps = vec![
        Step::Expect("lab-guest: user space".to_owned()),
        Step::Expect(format!("lab-guest: ready cpus={cpus} disk=ok")),
    ];
    if end == "button" {
        steps.push(Step::Expect("waiting for the button".to_owned()));
        steps.push(Step::Terminate);
        steps.push(Step::Expect("the button was pressed".to_owned()));
    }
    let arguments = [
        "boot",
        "--kernel",
        &format!("/kernels/{kernel}"),
        "--initrd",
        &format!("/initrds/{kernel}"),
        "--disk",
        "/disks/disk",
        "--cpus",
        &cpus.to_string(),
        "--memory",
        &format!("{mib}M"),
        "--cmdline",
        text.trim_end(),
    ];
    Case {
        name: name.to_owned(),
        arguments: words(&arguments),
        steps,
        exit,
        seconds: LIMIT_SECONDS,
    }
}

/// The embedded guest: a shell that computes and powers off.
fn embedded(cpus: u32) -> Case {
    let cpus = cpus.to_string();
    Case {
        name: format!("embedded-{cpus}"),
        arguments: words(&["boot", "--cpus", &cpus]),
        steps: vec![
            Step::Expect("# ".to_owned()),
            Step::Send("echo $((6 * 7)) is the answer".to_owned()),
            Step::Expect("42 is the answer".to_owned()),
            Step::Send("poweroff".to_owned()),
        ],
        exit: POWERED_OFF,
        seconds: LIMIT_SECONDS,
    }
}

/// What the program says about a stock host.
fn doctor() -> Case {
    Case {
        name: "doctor".to_owned(),
        arguments: words(&["doctor"]),
        steps: vec![Step::Expect("`coracle boot` works here".to_owned())],
        exit: 0,
        seconds: LIMIT_SECONDS,
    }
}
