//! The script of the lab: cases as plain lines, written by `cargo xtask lab` and read by the lab's
//! PID 1. One word names the line, the rest of the line is its value, taken as it is.

use std::fmt::Write;

/// Where the lab's PID 1 finds the script.
pub const PATH: &str = "/lab/cases";

/// Where the API of a case's program listens, if it was told to.
pub const SOCKET: &str = "/tmp/api.sock";

/// One run of the coracle program; without arguments, only the programs beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// A name without spaces.
    pub name: String,
    /// Arguments of the program.
    pub arguments: Vec<String>,
    /// What to wait for and to do, in order.
    pub steps: Vec<Step>,
    /// The exit code that is right.
    pub exit: i32,
    /// Seconds until the case is given up.
    pub seconds: u64,
}

/// One step of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait until this stands on the console.
    Expect(String),
    /// Type this and a newline.
    Send(String),
    /// Send SIGTERM to the program.
    Terminate,
    /// Run another program of the lab's /bin beside it, with these arguments, to its end.
    Beside(String),
    /// Ask the program's API, which listens at [`SOCKET`].
    Ask(Request),
    /// Give a file this many bytes.
    Resize(String, u64),
}

/// A request to the program's API and the status that is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The status.
    pub status: u16,
    /// `GET`, `PUT` or `PATCH`.
    pub method: String,
    /// The path.
    pub path: String,
    /// The body, in one line; empty for none.
    pub body: String,
}

/// The script as text.
#[must_use]
pub fn write(cases: &[Case]) -> String {
    let mut text = String::new();
    for case in cases {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "case {}\nseconds {}", case.name, case.seconds);
        for argument in &case.arguments {
            let _ = writeln!(text, "argument {argument}");
        }
        for step in &case.steps {
            let _ = match step {
                Step::Expect(wanted) => writeln!(text, "expect {wanted}"),
                Step::Send(keys) => writeln!(text, "send {keys}"),
                Step::Terminate => writeln!(text, "terminate"),
                Step::Beside(line) => writeln!(text, "beside {line}"),
                Step::Ask(Request {
                    status,
                    method,
                    path,
                    body,
                }) => writeln!(text, "ask {status} {method} {path} {body}"),
                Step::Resize(path, bytes) => writeln!(text, "resize {bytes} {path}"),
            };
        }
        let _ = writeln!(text, "exit {}", case.exit);
    }
    text
}

/// Reads a script.
///
/// # Errors
/// Names the line that makes no sense.
pub fn read(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        let (word, value) = line.split_once(' ').unwrap_or((line, ""));
        if word == "case" {
            cases.push(Case {
                name: value.to_owned(),
                ..Case::default()
            });
            continue;
        }
        let odd = || format!("the lab's script: {line:?}");
        let case = cases.last_mut().ok_or_else(odd)?;
        match word {
            "seconds" => case.seconds = value.parse().map_err(|_| odd())?,
            "argument" => case.arguments.push(value.to_owned()),
            "expect" => case.steps.push(Step::Expect(value.to_owned())),
            "send" => case.steps.push(Step::Send(value.to_owned())),
            "beside" => case.steps.push(Step::Beside(value.to_owned())),
            "terminate" => case.steps.push(Step::Terminate),
            "ask" => case.steps.push(Step::Ask(request(value).ok_or_else(odd)?)),
            "resize" => {
                let (bytes, path) = value.split_once(' ').ok_or_else(odd)?;
                let bytes = bytes.parse().map_err(|_| odd())?;
                case.steps.push(Step::Resize(path.to_owned(), bytes));
            }
            "exit" => case.exit = value.parse().map_err(|_| odd())?,
            _ => return Err(odd()),
        }
    }
    Ok(cases)
}

fn request(value: &str) -> Option<Request> {
    let mut words = value.splitn(4, ' ');
    let mut word = || words.next().map(str::to_owned);
    Some(Request {
        status: word()?.parse().ok()?,
        method: word()?,
        path: word()?,
        body: word()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let case = Case {
            name: "reboot".to_owned(),
            arguments: vec![
                "boot".to_owned(),
                "--cmdline".to_owned(),
                "a=b c".to_owned(),
            ],
            steps: vec![
                Step::Expect("ready up".to_owned()),
                Step::Send(String::new()),
                Step::Beside("a-program with arguments".to_owned()),
                Step::Terminate,
                Step::Ask(Request {
                    status: 204,
                    method: "PATCH".to_owned(),
                    path: "/a".to_owned(),
                    body: "{\"a\": 1}".to_owned(),
                }),
                Step::Resize("/a b".to_owned(), 512),
            ],
            exit: 3,
            seconds: 60,
        };
        let cases = vec![
            case.clone(),
            Case {
                name: "again".to_owned(),
                ..case
            },
        ];
        assert_eq!(read(&write(&cases)), Ok(cases));
        for bad in ["exit 3", "case a\nexit x", "case a\nfly", "case a\nask x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
