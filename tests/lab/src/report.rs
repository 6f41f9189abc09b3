//! What the lab says about its cases: one line each on the console, found again among whatever else
//! the kernel writes there.

use std::fmt;

const MARK: &str = "@lab";

/// One line of the report.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// The lab is up; so many cases follow.
    Cases(usize),
    /// A case begins.
    Begin(String),
    /// A case has ended.
    End {
        /// Its name.
        name: String,
        /// Seconds from start to the first expected text, zero without one.
        ready: f64,
        /// Seconds from start to end.
        seconds: f64,
        /// What is wrong; empty when nothing is.
        problem: String,
    },
    /// A line of what a failed case had written.
    Output(String),
    /// Everything has been run.
    Done,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Cases(count) => write!(f, "{MARK} cases {count}"),
            Line::Begin(name) => write!(f, "{MARK} begin {name}"),
            Line::End {
                name,
                ready,
                seconds,
                problem,
            } => {
                write!(f, "{MARK} end {name} {ready:.3} {seconds:.3} {problem}")
            }
            Line::Output(text) => write!(f, "{MARK} output {text}"),
            Line::Done => write!(f, "{MARK} done"),
        }
    }
}

/// Reads a line of the lab's console; none for a line that isn't the report's.
#[must_use]
pub fn read(line: &str) -> Option<Line> {
    let rest = line.get(line.find(MARK)? + MARK.len()..)?.trim_start();
    let (word, value) = rest.split_once(' ').unwrap_or((rest, ""));
    match word.trim_end() {
        "cases" => Some(Line::Cases(value.trim().parse().ok()?)),
        "begin" => Some(Line::Begin(value.trim().to_owned())),
        "end" => {
            let mut parts = value.splitn(4, ' ');
            let name = parts.next()?.to_owned();
            let ready = parts.next()?.parse().ok()?;
            let seconds = parts.next()?.trim().parse().ok()?;
            let problem = parts.next().unwrap_or_default().trim().to_owned();
            Some(Line::End {
                name,
                ready,
                seconds,
                problem,
            })
        }
        "output" => Some(Line::Output(value.trim_end().to_owned())),
        "done" => Some(Line::Done),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_back() {
        let end = |problem: &str| Line::End {
            name: "cloud-1".to_owned(),
            ready: 1.5,
            seconds: 2.25,
            problem: problem.to_owned(),
        };
        let lines = [
            Line::Cases(12),
            Line::Begin("cloud-1".to_owned()),
            end(""),
            end("exit code 4 instead of 0"),
            Line::Output("[    0.0] a message".to_owned()),
            Line::Done,
        ];
        for line in lines {
            assert_eq!(read(&format!("{line}\r")), Some(line.clone()), "{line}");
            assert_eq!(read(&format!("[ 1.0] noise {line}")), Some(line));
        }
        assert_eq!(read("Linux version 6.1"), None);
    }
}
