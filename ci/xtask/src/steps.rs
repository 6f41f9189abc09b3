//! Runs the programs of a task one after another, each with a time limit, and counts tests.
//!
//! Tests that cannot run on this host are not silently green: a test reports why through the file
//! named by `CORACLE_SKIPS`, one line each, and is counted as skipped instead of passed.

use crate::repo;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// One finished step.
#[derive(Debug)]
struct Row {
    name: String,
    counts: Counts,
    seconds: f64,
}

/// The steps of a task so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    reasons: Vec<String>,
}

impl Report {
    /// Runs `command`. A step that prints no test summary counts as one test by its exit status.
    pub(crate) fn run(&mut self, name: &str, limit: Duration, command: &mut Command) -> Result<()> {
        announce(name, command);
        let skips = skip_file()?;
        let started = Instant::now();
        let ended = stream(command.env("CORACLE_SKIPS", &skips), limit)?;
        let mut counts = ended.counts;
        if counts == Counts::default() || (!ended.success && counts.failed == 0) {
            if ended.success {
                counts.passed += 1;
            } else {
                counts.failed += 1;
            }
        }
        let reasons = std::fs::read_to_string(&skips).unwrap_or_default();
        for reason in reasons.lines() {
            counts.passed = counts.passed.saturating_sub(1);
            counts.skipped += 1;
            self.reasons.push(format!("{name}: {reason}"));
        }
        if let Some(problem) = ended.problem {
            println!("xtask: {name}: {problem}");
        }
        self.push(name, counts, started.elapsed());
        Ok(())
    }

    /// Runs a check that is part of this program as one test.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<bool>) {
        println!("\n== {name}");
        let started = Instant::now();
        let passed = check().unwrap_or_else(|error| {
            println!("xtask: {name}: {error:#}");
            false
        });
        let counts = Counts {
            passed: u32::from(passed),
            failed: u32::from(!passed),
            skipped: 0,
        };
        self.push(name, counts, started.elapsed());
    }

    /// Adds tests that were counted elsewhere.
    pub(crate) fn push(&mut self, name: &str, counts: Counts, time: Duration) {
        self.rows.push(Row {
            name: name.to_owned(),
            counts,
            seconds: time.as_secs_f64(),
        });
    }

    /// Says that a whole step cannot run here.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        println!("\n== {name}\nSKIPPED {name}: {why}");
        self.reasons.push(format!("{name}: {why}"));
        self.push(
            name,
            Counts {
                skipped: 1,
                ..Counts::default()
            },
            Duration::ZERO,
        );
    }

    /// Prints the table, every reason of a skipped test and, alone on the last line, the totals.
    /// True when nothing failed.
    pub(crate) fn finish(&self) -> bool {
        println!(
            "\n{:<28} {:>7} {:>7} {:>8} {:>8}",
            "step", "passed", "failed", "skipped", "s"
        );
        let mut total = Counts::default();
        for row in &self.rows {
            let Counts {
                passed,
                failed,
                skipped,
            } = row.counts;
            let (name, seconds) = (&row.name, row.seconds);
            println!("{name:<28} {passed:>7} {failed:>7} {skipped:>8} {seconds:>8.1}");
            total.add(row.counts);
        }
        for reason in &self.reasons {
            println!("SKIPPED {reason}");
        }
        let Counts {
            passed,
            failed,
            skipped,
        } = total;
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        failed == 0
    }
}

/// A command of cargo, run at the top of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(repo::root()).args(arguments);
    command
}

fn announce(name: &str, command: &Command) {
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    println!(
        "\n== {name}: {} {}",
        command.get_program().to_string_lossy(),
        words.join(" ")
    );
}

fn skip_file() -> Result<PathBuf> {
    let folder = repo::target();
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("making the folder {}", folder.display()))?;
    let file = folder.join("skipped-tests");
    std::fs::write(&file, "").with_context(|| format!("emptying {}", file.display()))?;
    Ok(file)
}

/// What is known once a program has ended.
struct Ended {
    success: bool,
    counts: Counts,
    problem: Option<String>,
}

/// Runs a program, shows its standard output as it comes and counts test summaries in it.
fn stream(command: &mut Command, limit: Duration) -> Result<Ended> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
    let lines = lines_of(&mut child);
    let deadline = Instant::now() + limit;
    let mut counts = Counts::default();
    let mut problem = None;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                counts.add(summary(&line).unwrap_or_default());
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                problem = Some(format!("killed, not done after {} s", limit.as_secs()));
                kill_tree(child.id());
                break;
            }
        }
    }
    let status = child.wait().context("waiting for a program to end")?;
    if problem.is_none() && !status.success() {
        problem = Some(format!("failed, {status}"));
    }
    Ok(Ended {
        success: problem.is_none(),
        counts,
        problem,
    })
}

/// The lines of a program's standard output as they come; it ends with the program.
pub(crate) fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
    }
    receiver
}

/// Counts of one `test result:` line of the standard test harness.
fn summary(line: &str) -> Option<Counts> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let mut counts = Counts::default();
    for part in rest.split(['.', ';']) {
        let mut words = part.split_whitespace();
        let (Some(number), Some(what)) = (words.next(), words.next()) else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.skipped = number,
            _ => {}
        }
    }
    Some(counts)
}

/// Kills a process and everything that it started.
pub(crate) fn kill_tree(root: u32) {
    let mut doomed = vec![root];
    let mut next = 0;
    while let Some(&parent) = doomed.get(next) {
        doomed.extend(children(parent));
        next += 1;
    }
    for pid in doomed {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // A process that has ended meanwhile is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "PID (name, which may hold anything) state parent ..."
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; \
                    9 filtered out; finished in 0.02s";
        let counts = Counts {
            passed: 3,
            failed: 1,
            skipped: 2,
        };
        assert_eq!(summary(line), Some(counts));
        assert_eq!(summary("running 3 tests"), None);
    }

    #[test]
    fn own_parent_is_found() {
        assert_eq!(
            parent_of(std::process::id()),
            Some(std::os::unix::process::parent_id())
        );
    }
}
