//! `--print-plan`: the whole machine as JSON, for every size of memory around the hole, without
//! starting anything.

use boot_tests::plan;
use harness::{TestVm, guests};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const HOLE: u64 = 0xc000_0000;
const ABOVE: u64 = 0x1_0000_0000;

fn machine(arguments: &[&str]) -> Value {
    plan(TestVm::of(&guests::hello_reset()).unwrap().args(arguments)).unwrap()
}

/// A number, or an address written as 0x….
fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => {
            u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("an address")
        }
        other => other.as_u64().expect("a number"),
    }
}

fn ranges(list: &Value) -> Vec<(u64, u64)> {
    let list = list.as_array().unwrap();
    list.iter()
        .map(|range| (number(&range["start"]), number(&range["bytes"])))
        .collect()
}

#[test]
fn memory_goes_around_the_hole() {
    for mib in [16, 128, 2047, 2048, 2049, 3071, 3072, 3073, 4096, 6144] {
        let plan = machine(&["--memory", &format!("{mib}M")]);
        let slots = ranges(&plan["memory"]["slots"]);
        let bytes = mib * MIB;
        assert_eq!(number(&plan["memory"]["bytes"]), bytes);
        assert_eq!(
            slots.iter().map(|(_, length)| length).sum::<u64>(),
            bytes,
            "{mib}: {slots:x?}"
        );
        for (start, length) in &slots {
            let outside = start + length <= HOLE || *start >= ABOVE;
            assert!(
                outside,
                "{mib} MiB: {start:#x} for {length:#x} is in the hole"
            );
        }
    }
}

#[test]
fn nothing_overlaps() {
    let plan = machine(&["--memory", "4G", "--cpus", "4"]);
    for list in [
        &plan["memory"]["slots"],
        &plan["memory"]["map"],
        &plan["placements"],
    ] {
        let mut ranges = ranges(list);
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?} overlap");
        }
    }
    let lines: Vec<u64> = plan["interrupts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| number(&one["line"]))
        .collect();
    let mut unique = lines.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), lines.len(), "{lines:?}");
}

#[test]
fn the_users_words_come_last() {
    let plan = machine(&["--cmdline", "one=1 two=2"]);
    let cmdline = plan["cmdline"].as_str().unwrap();
    assert!(cmdline.ends_with(" one=1 two=2"), "{cmdline}");
    assert!(cmdline.contains("console=ttyS0"), "{cmdline}");
}

#[test]
fn the_same_machine_has_the_same_plan() {
    let vm = TestVm::of(&guests::hello_reset()).unwrap();
    let path = vm.file("again", &guests::hello_reset()).unwrap();
    let again = || plan(TestVm::new().unwrap().arg("--kernel").arg(&path)).unwrap();
    assert_eq!(again(), again());
}
