//! The table of what runs in the lab, one file an area. Exit codes are those of
//! `coracle boot --help`.

mod api;
mod boot;
mod disk;
mod misc;
mod net;
mod pci;
mod vsock;

pub(super) use boot::alone;

use lab::script::Case;

const POWERED_OFF: i32 = 0;
const REBOOTED: i32 = 3;
const TRIPLE_FAULT: i32 = 4;
const PANICKED: i32 = 5;

/// Most of what a case takes is emulation, twice over; a busy machine may need ten times as long.
pub(super) const LIMIT_SECONDS: u64 = 120;

/// The areas, in the order in which their cases run. A new one is a file and a line here.
const AREAS: &[fn() -> Vec<Case>] = &[
    api::cases,
    boot::cases,
    disk::cases,
    misc::cases,
    net::cases,
    pci::cases,
    vsock::cases,
];

/// Every case whose name contains `filter`.
pub(super) fn all(filter: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = AREAS.iter().flat_map(|area| area()).collect();
    cases.retain(|case| case.name.contains(filter));
    // What takes long runs only when nothing else has such a name.
    if cases.iter().any(|case| case.seconds <= LIMIT_SECONDS) {
        cases.retain(|case| case.seconds <= LIMIT_SECONDS || case.name == filter);
    }
    cases
}

/// A command line of the program, word for word.
fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A case of the lean kernel with Debian's cloud kernel and its modules instead, over PCI.
fn on_cloud_over_pci(mut case: Case) -> Case {
    for argument in &mut case.arguments {
        *argument = argument
            .replace("/kernels/lean", "/kernels/cloud")
            .replace("/initrds/", "/initrds/cloud-");
    }
    over_pci(case)
}

fn over_pci(mut case: Case) -> Case {
    case.arguments.extend(words(&["--transport", "pci"]));
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_words() {
        let mut names: Vec<String> = all("").into_iter().map(|case| case.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| !name.contains(' ')));
        assert_eq!(all("cloud-4").len(), 1);
        let slow = all("durability");
        assert!(slow.len() > 1 && !names.contains(&slow[0].name));
    }
}
