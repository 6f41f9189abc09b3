//! `cargo xtask lab`: one boot of a stock Debian kernel with stock KVM under an emulator, and in it
//! every case of the table, each a run of `coracle boot`. The truth about stock KVM on a machine
//! that has none: it says what is correct, not how fast.

mod cases;
mod cpio;
mod debian;
mod emulator;
mod image;
mod packages;

use crate::repo;
use crate::steps::{Counts, cargo};
use anyhow::{Context, Result, bail};
use lab::report::Line;
use lab::script::Case;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the lab may say nothing: longer than its longest case. The emulator's threads now and
/// then wait for each other for ever; the lab is then booted again for what is left.
const SILENCE: Duration = Duration::from_secs(cases::LIMIT_SECONDS + 40);
/// How often the lab is booted at most, and how often a case that the clock ended is tried.
const MOST_BOOTS: u32 = 5;
const MOST_TRIES: u32 = 2;

/// What the lab needs of this host, and the packages it is in.
const PROGRAMS: [(&str, &str); 3] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// What became of one case.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    name: String,
    passed: bool,
    tries: u32,
    ready_seconds: f64,
    seconds: f64,
    problem: String,
}

/// Why the lab cannot run on this host; none when it can.
pub(crate) fn missing() -> Option<String> {
    for (program, package) in PROGRAMS {
        if repo::find_program(program).is_none() {
            return Some(format!("{program} is missing: apt-get install {package}"));
        }
    }
    for package in [packages::CLOUD, packages::GENERIC] {
        if let Err(error) = packages::unpacked(package) {
            return Some(format!("{error:#}"));
        }
    }
    None
}

/// Builds what the lab needs and runs the cases whose name contains `filter`. True when all pass.
pub(crate) fn run(filter: &str) -> Result<bool> {
    if let Some(why) = missing() {
        bail!("{why}");
    }
    let mut build = cargo(&["build", "--release", "--package", "lab"]);
    if std::env::var_os("CORACLE_BIN").is_none() {
        build.args(["--package", "coracle"]);
    }
    if !build.status().context("building for the lab")?.success() {
        bail!("building for the lab fails");
    }
    Ok(counted(filter)?.failed == 0)
}

/// Runs the cases with programs that are already built, prints the table and counts.
pub(crate) fn counted(filter: &str) -> Result<Counts> {
    let folder = repo::target().join("lab");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let cloud = packages::unpacked(packages::CLOUD)?;
    let generic = packages::unpacked(packages::GENERIC)?;
    let archive = folder.join("lab.cpio");
    let mut ledger = Ledger::new(cases::all(filter))?;
    for boot in 1..=MOST_BOOTS {
        if ledger.waiting.is_empty() {
            break;
        }
        image::write(&archive, &ledger.waiting, &cloud, &generic)?;
        let log = folder.join(format!("console-{boot}.log"));
        let problem = emulator::boot(&cloud.kernel, &archive, &log, SILENCE, |line| {
            ledger.hear(line);
        })?;
        ledger.settle(problem.as_deref(), boot == MOST_BOOTS);
    }
    ledger.finish()
}

/// Cases that wait and outcomes so far.
struct Ledger {
    waiting: Vec<Case>,
    /// Outcomes of the present boot, in the order of `waiting`.
    ended: Vec<Outcome>,
    outcomes: Vec<Outcome>,
    tries: BTreeMap<String, u32>,
    started: Instant,
    booted: Instant,
}

impl Ledger {
    fn new(waiting: Vec<Case>) -> Result<Ledger> {
        if waiting.is_empty() {
            bail!("the lab has no such case");
        }
        let now = Instant::now();
        Ok(Ledger {
            waiting,
            ended: Vec::new(),
            outcomes: Vec::new(),
            tries: BTreeMap::new(),
            started: now,
            booted: now,
        })
    }

    /// Takes a line of the report.
    fn hear(&mut self, line: Line) {
        match line {
            Line::Cases(count) => {
                let seconds = self.booted.elapsed().as_secs_f64();
                println!("lab: stock KVM is up after {seconds:.1} s, {count} cases");
            }
            Line::Output(text) => println!("    | {text}"),
            Line::Begin(name) => *self.tries.entry(name).or_default() += 1,
            Line::End {
                name,
                ready,
                seconds,
                problem,
            } => {
                let tries = self.tries.get(&name).copied().unwrap_or(1);
                let passed = problem.is_empty();
                let ready_seconds = ready;
                let outcome = Outcome {
                    name,
                    passed,
                    tries,
                    ready_seconds,
                    seconds,
                    problem,
                };
                outcome.print();
                self.ended.push(outcome);
            }
            Line::Done => {}
        }
    }

    /// After a boot: keeps what is decided and lets the rest wait for the next boot, if there is
    /// one. A case that the clock ended, its own or the lab's, is tried again.
    fn settle(&mut self, problem: Option<&str>, last: bool) {
        let problem = problem.unwrap_or("the lab ended before it");
        // A lab in which not one case has begun will do no better the next time.
        let last = last || self.tries.is_empty();
        let mut ended = std::mem::take(&mut self.ended).into_iter();
        for case in std::mem::take(&mut self.waiting) {
            let outcome = ended.next();
            let tries = self.tries.get(&case.name).copied().unwrap_or_default();
            let timed_out = outcome
                .as_ref()
                .is_none_or(|one| one.problem == lab::TIMED_OUT);
            if timed_out && tries < MOST_TRIES && !last {
                println!(
                    "lab: {:<28} again ({tries} of {MOST_TRIES} tries)",
                    case.name
                );
                self.waiting.push(case);
                continue;
            }
            self.outcomes.push(outcome.unwrap_or_else(|| {
                let problem = problem.to_owned();
                let (ready_seconds, seconds) = (0.0, 0.0);
                let name = case.name;
                let lost = Outcome {
                    name,
                    passed: false,
                    tries,
                    ready_seconds,
                    seconds,
                    problem,
                };
                lost.print();
                lost
            }));
        }
        self.booted = Instant::now();
    }

    /// Writes the results and counts them.
    fn finish(&self) -> Result<Counts> {
        let results = repo::target().join("lab/results.json");
        let text = serde_json::to_string_pretty(&self.outcomes).context("results of the lab")?;
        std::fs::write(&results, text).with_context(|| results.display().to_string())?;
        let passed = self
            .outcomes
            .iter()
            .filter(|outcome| outcome.passed)
            .count();
        let failed = self.outcomes.len() - passed;
        let seconds = self.started.elapsed().as_secs_f64();
        println!("lab: {passed} passed, {failed} failed in {seconds:.0} s");
        compare_boots(&self.outcomes);
        println!("lab: results in {}", results.display());
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Counts {
            passed: count(passed),
            failed: count(failed),
            skipped: 0,
        })
    }
}

impl Outcome {
    fn print(&self) {
        let Outcome {
            name,
            ready_seconds,
            seconds,
            problem,
            ..
        } = self;
        let word = match (self.passed, self.tries) {
            (true, 0 | 1) => "ok",
            (true, _) => "ok, 2nd",
            (false, _) => "FAILED",
        };
        println!(
            "lab: {name:<22} {word:<7} ready {ready_seconds:>6.2} s end {seconds:>6.2} s {problem}"
        );
    }
}

/// Prints how the lean kernel's way to user space, and the embedded guest's to its prompt, compare
/// with the way of Debian's cloud kernel to user space.
///
/// Medians over the cases with one vCPU: a single one varies by a factor of two, as the emulator
/// translates what it has not seen before.
fn compare_boots(outcomes: &[Outcome]) {
    let Some(cloud) = median_ready(outcomes, &cases::alone("cloud")) else {
        return;
    };
    for (names, what) in [
        (cases::alone("lean"), "lean kernel to user space"),
        (vec!["embedded-1".to_owned()], "command to prompt"),
    ] {
        if let Some(seconds) = median_ready(outcomes, &names) {
            let share = seconds / cloud;
            println!(
                "lab: {what} {seconds:.2} s, {share:.2} of Debian's cloud kernel, {cloud:.2} s"
            );
        }
    }
}

/// The median time to the first sign of life of those of the named cases that passed.
fn median_ready(outcomes: &[Outcome], names: &[String]) -> Option<f64> {
    let chosen = outcomes
        .iter()
        .filter(|outcome| outcome.passed && names.contains(&outcome.name));
    let mut seconds: Vec<f64> = chosen.map(|outcome| outcome.ready_seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let middle = |index: usize| seconds.get(index).copied();
    let last = seconds.len().checked_sub(1)?;
    Some((middle(last / 2)? + middle(last.div_ceil(2))?) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_count_what_passed_only() {
        let outcome = |name: &str, passed, ready_seconds| Outcome {
            name: name.to_owned(),
            passed,
            tries: 1,
            ready_seconds,
            seconds: 9.0,
            problem: String::new(),
        };
        let all = [
            outcome("a", true, 3.0),
            outcome("b", true, 1.0),
            outcome("c", false, 90.0),
            outcome("d", true, 2.0),
            outcome("e", true, 8.0),
        ];
        let median = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            median_ready(&all, &names)
        };
        assert_eq!(median(&["a", "b", "c", "d"]), Some(2.0));
        assert_eq!(median(&["a", "b", "d", "e"]), Some(2.5));
        assert_eq!(median(&["c"]), None);
    }

    fn ledger(names: &[&str]) -> Ledger {
        let case = |name: &&str| Case {
            name: (*name).to_owned(),
            ..Case::default()
        };
        Ledger::new(names.iter().map(case).collect()).unwrap()
    }

    fn play(ledger: &mut Ledger, name: &str, problem: Option<&str>) {
        ledger.hear(Line::Begin(name.to_owned()));
        if let Some(problem) = problem {
            let (name, problem) = (name.to_owned(), problem.to_owned());
            ledger.hear(Line::End {
                name,
                ready: 1.0,
                seconds: 2.0,
                problem,
            });
        }
    }

    #[test]
    fn only_what_the_clock_ended_is_tried_again_and_only_once() {
        let mut ledger = ledger(&["good", "slow", "wrong", "stuck", "unseen"]);
        play(&mut ledger, "good", Some(""));
        play(&mut ledger, "slow", Some(lab::TIMED_OUT));
        play(&mut ledger, "wrong", Some("exit code 4"));
        play(&mut ledger, "stuck", None);
        ledger.settle(Some("silence"), false);
        let waiting: Vec<&str> = ledger
            .waiting
            .iter()
            .map(|case| case.name.as_str())
            .collect();
        assert_eq!(waiting, ["slow", "stuck", "unseen"]);
        play(&mut ledger, "slow", Some(lab::TIMED_OUT));
        play(&mut ledger, "stuck", Some(""));
        play(&mut ledger, "unseen", Some(""));
        ledger.settle(None, false);
        assert!(ledger.waiting.is_empty());
        let passed: Vec<(&str, bool)> = ledger
            .outcomes
            .iter()
            .map(|one| (one.name.as_str(), one.passed))
            .collect();
        let expected = [
            ("good", true),
            ("wrong", false),
            ("slow", false),
            ("stuck", true),
            ("unseen", true),
        ];
        assert_eq!(passed, expected);
    }
}
