//! What the bare guest answers, parsed.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;

/// How one row went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The row's number.
    pub row: u64,
    /// Which of its steps failed, counted from zero.
    pub step: u64,
    /// What was there instead; for memory, the index of the byte in the upper 56 bits.
    pub found: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { row, step, found } = self;
        write!(f, "row {row} fails at step {step}: {found:#x}")
    }
}

/// What a load did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests that came back, or bytes of payload.
    pub done: u64,
    /// TSC ticks that it took.
    pub ticks: u64,
    /// How often the device was notified.
    pub kicks: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// Everything that a program answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Rows that passed.
    pub passed: Vec<u64>,
    /// Rows that failed.
    pub failed: Vec<Failure>,
    /// Loads, in order.
    pub loads: Vec<Load>,
    /// Values of the TSC.
    pub marks: Vec<u64>,
}

impl Answer {
    /// Reads the lines of a program that has ended.
    ///
    /// # Errors
    /// When the guest had a fault, when it did not get to its end, or says what no guest says.
    pub fn parse(console: &[u8]) -> Result<Answer> {
        let text = String::from_utf8_lossy(console);
        let mut answer = Answer::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let word = words.next().unwrap_or_default();
            let numbers: Vec<u64> = words
                .map(|number| u64::from_str_radix(number, 16))
                .collect::<Result<_, _>>()
                .with_context(|| format!("the guest says {line:?}"))?;
            match (word, numbers.as_slice()) {
                ("ok", &[row]) => answer.passed.push(row),
                ("bad", &[row, step, found]) => answer.failed.push(Failure { row, step, found }),
                ("mark", &[tsc]) => answer.marks.push(tsc),
                ("started", _) => {}
                ("load", &[done, ticks, kicks, errors]) => answer.loads.push(Load {
                    done,
                    ticks,
                    kicks,
                    errors,
                }),
                ("end", &[rows, bad]) => {
                    let (passed, failed) = (answer.passed.len() as u64, answer.failed.len() as u64);
                    ensure!(
                        passed + failed == rows && failed == bad,
                        "lines are lost: {rows} rows, {bad} bad, but {passed} and {failed} came"
                    );
                    return Ok(answer);
                }
                _ => bail!("the guest says {line:?}, after {answer:?}"),
            }
        }
        bail!("the guest stopped after {answer:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_results() {
        let answer = Answer::parse(b"ok 1\nbad 2 0 ff\nload 10 20 3 0\nmark a\nend 2 1\n").unwrap();
        assert_eq!(answer.passed, [1]);
        assert_eq!(
            answer.failed,
            [Failure {
                row: 2,
                step: 0,
                found: 0xff
            }]
        );
        assert_eq!((answer.loads[0].done, answer.marks[0]), (16, 10));
        for text in [
            "",
            "ok 1\n",
            "ok 1\nend 2 0\n",
            "fault d 1 2 3\n",
            "ok x\nend 1 0\n",
        ] {
            assert!(Answer::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
