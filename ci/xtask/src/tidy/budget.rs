//! The unsafe budget: how often each module may say `unsafe`, in ci/unsafe-budget.toml. A change
//! that needs more edits that file, which is what reviewers look at.

use super::Problem;
use super::source::Source;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

const BUDGET: &str = "ci/unsafe-budget.toml";

/// Crates whose root says `#![forbid(unsafe_code)]`.
const FORBIDDING: &[&str] = &[
    "api/src/lib.rs",
    "arch/src/lib.rs",
    "ci/xtask/src/main.rs",
    "cli/src/main.rs",
    "devices/usernet/src/lib.rs",
    "guest/proto/src/lib.rs",
    "oci/src/lib.rs",
    "tests/harness/src/lib.rs",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    /// Path of a file, or of a folder with a slash at its end, to the number it may use.
    modules: BTreeMap<String, usize>,
}

/// Compares what the sources use with what they may use.
pub(super) fn check(root: &Path, sources: &[Source], problems: &mut Vec<Problem>) -> Result<()> {
    let text = std::fs::read_to_string(root.join(BUDGET)).with_context(|| BUDGET.to_owned())?;
    let budget: Budget = toml::from_str(&text).with_context(|| format!("reading {BUDGET}"))?;
    compare(&budget.modules, sources, problems);
    for file in FORBIDDING {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        if !text.contains("#![forbid(unsafe_code)]") {
            let message = "this crate says #![forbid(unsafe_code)]".to_owned();
            problems.push(Problem {
                file: (*file).to_owned(),
                line: 1,
                message,
            });
        }
    }
    Ok(())
}

fn compare(modules: &BTreeMap<String, usize>, sources: &[Source], problems: &mut Vec<Problem>) {
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.unsafe_count > 0) {
        let covers = |place: &&String| {
            source.name == **place || (place.ends_with('/') && source.name.starts_with(*place))
        };
        let place = modules
            .keys()
            .find(covers)
            .map_or(source.name.as_str(), String::as_str);
        *used.entry(place).or_default() += source.unsafe_count;
    }
    for (place, count) in used {
        let allowed = modules.get(place).copied().unwrap_or(0);
        if count > allowed {
            let message = format!("{count} uses of unsafe, {BUDGET} allows {allowed}");
            problems.push(Problem {
                file: place.to_owned(),
                line: 1,
                message,
            });
        } else if count < allowed {
            println!("tidy: note: {place}: {count} uses of unsafe, {BUDGET} could say so");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_budget_is_a_problem() {
        let file = |name: &str| Source::parse(name.to_owned(), "fn f() { unsafe {} }").unwrap();
        let sources = [
            file("a/sys.rs"),
            file("a/kvm/x.rs"),
            file("a/kvm/y.rs"),
            file("b.rs"),
        ];
        let modules = BTreeMap::from([("a/sys.rs".to_owned(), 1), ("a/kvm/".to_owned(), 1)]);
        let mut problems = Vec::new();
        compare(&modules, &sources, &mut problems);
        let files: Vec<&str> = problems
            .iter()
            .map(|problem| problem.file.as_str())
            .collect();
        assert_eq!(files, ["a/kvm/", "b.rs"]);
    }
}
