//! What pages name as tests is there: docs/faults.md in every line, and the modules and tests of
//! docs/SPECIFICATION.md.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// Rust sources below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every test with the folders and modules that it is in, and every module, as lists of names.
struct Known {
    places: Vec<Vec<String>>,
    rows: HashSet<String>,
    cases: String,
}

impl Known {
    fn look() -> Known {
        let root = root();
        let mut files = Vec::new();
        for folder in ["api", "arch", "cli", "devices", "guest", "tests", "vmm"] {
            sources(&root.join(folder), &mut files);
        }
        let mut places = Vec::new();
        for path in files {
            let module = module(path.strip_prefix(&root).unwrap());
            let text = fs::read_to_string(&path).unwrap();
            places.extend(tests_in(&text).map(|test| [&module[..], &[test]].concat()));
            places.push(module);
        }
        let mut files = Vec::new();
        sources(&root.join("ci/xtask/src/lab/cases"), &mut files);
        let cases = files.iter().map(|path| fs::read_to_string(path).unwrap());
        Known {
            places,
            rows: hostile::rows::all().into_iter().map(|row| row.id).collect(),
            cases: cases.collect(),
        }
    }

    /// Whether there is what a page calls so.
    fn has(&self, name: &str) -> bool {
        if let Some(target) = name.strip_prefix("fuzz/") {
            let file = format!("tests/fuzz/fuzz_targets/{target}.rs");
            return root().join(file).is_file();
        }
        if let Some(case) = name.strip_prefix("lab/") {
            // Some names begin with that of a kernel.
            let ends = case.match_indices('-').map(|(at, _)| &case[at + 1..]);
            let mut names = ends.chain([case]);
            return names.any(|name| self.cases.contains(&format!("\"{name}\"")));
        }
        if name.contains("::") {
            let wanted: Vec<&str> = name.split("::").collect();
            return self.places.iter().any(|place| is_in(&wanted, place));
        }
        self.rows.contains(name)
    }
}

/// `devices/src/virtio/blk/mod.rs` is devices, src, virtio, blk.
fn module(path: &Path) -> Vec<String> {
    let names = path.iter().map(|name| name.to_str().unwrap());
    let mut names: Vec<String> = names
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect();
    names.pop_if(|name| name == "mod");
    names
}

/// The names of functions that are tests.
fn tests_in(text: &str) -> impl Iterator<Item = String> {
    text.split("#[test]").skip(1).filter_map(|rest| {
        let (_, rest) = rest.split_once("fn ")?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        Some(rest[..end].to_owned())
    })
}

/// Whether a place has these names in this order, the last one at its end. Inline modules called
/// `tests` are in no path.
fn is_in(wanted: &[&str], place: &[String]) -> bool {
    if place.last().map(String::as_str) != wanted.last().copied() {
        return false;
    }
    let mut names = place.iter();
    let mut wanted = wanted.iter();
    wanted.all(|name| *name == "tests" || names.any(|other| other == name))
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_known_fault_has_its_tests_or_its_reason() {
    let known = Known::look();
    let page = page("faults.md");
    let mut numbers = HashSet::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, number, fault, shown, _] = cells[..] else {
            panic!("three cells, please: {line}");
        };
        if number == "no." {
            continue;
        }
        assert!(numbers.insert(number), "{number} is there twice");
        assert!(!fault.is_empty(), "{number} names no fault");
        let reason = ["Cannot occur", "Not there yet"];
        let reasoned = reason.iter().any(|start| shown.starts_with(start));
        let names = quoted(shown).filter(|name| !name.starts_with("cargo "));
        let mut count = 0;
        for name in names {
            assert!(known.has(name), "{number}: there is no {name}");
            count += 1;
        }
        assert!(reasoned || count > 0, "{number} has no test and no reason");
    }
    assert!(numbers.len() > 50, "the table is not read");
}

#[test]
fn every_promise_names_tests_that_are_there() {
    let known = Known::look();
    for line in page("SPECIFICATION.md").lines() {
        for name in quoted(line).filter(|name| name.contains("::")) {
            assert!(known.has(name), "there is no {name}: {line}");
        }
    }
}

#[test]
fn names_that_are_gone_are_noticed() {
    let known = Known::look();
    for name in [
        "devices::virtio::queue::tests::no_such_test",
        "vmm::virtio::queue::tests::descriptors_are_read_once",
        "devices::no_such_module",
        "ring-999",
        "fuzz/no_such_target",
        "lab/no-such-case",
        "something",
    ] {
        assert!(!known.has(name), "{name}");
    }
}
