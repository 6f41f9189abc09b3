//! A small shell for images without another: one command a line, quotes, `$?`, no pipes.

mod builtins;
mod words;

use std::io::{self, BufRead, Write};
use std::process::{Command, ExitCode};

use crate::sys::{self, Signal};

/// Keys that end or stop the foreground program must not end the shell.
const KEYS: &[Signal] = &[
    Signal(libc::SIGINT),
    Signal(libc::SIGQUIT),
    Signal(libc::SIGTSTP),
];

/// What running one line means for the shell.
enum Next {
    Line(u8),
    Leave(u8),
}

/// `sh`, or `sh -c TEXT` (each line of the text in turn).
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    sys::block(KEYS);
    match arguments {
        [flag, text, ..] if flag == "-c" => ExitCode::from(run_all(&mut text.as_bytes(), None)),
        _ => ExitCode::from(run_all(&mut io::stdin().lock(), Some(prompt))),
    }
}

fn prompt() {
    let here = std::env::current_dir().unwrap_or_default();
    print!("{} # ", here.display());
    drop(io::stdout().flush());
}

/// Runs lines until the input or an `exit` ends it; returns the last status.
fn run_all(input: &mut dyn BufRead, prompt: Option<fn()>) -> u8 {
    let mut status = 0;
    let mut line = Vec::new();
    loop {
        if let Some(prompt) = prompt {
            prompt();
        }
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return status,
            Ok(_) => {}
        }
        match run_line(&String::from_utf8_lossy(&line), status) {
            Next::Line(code) => status = code,
            Next::Leave(code) => return code,
        }
    }
}

fn run_line(line: &str, status: u8) -> Next {
    let words = match words::split(line, status) {
        Ok(words) => words,
        Err(message) => {
            eprintln!("sh: {message}");
            return Next::Line(2);
        }
    };
    let Some((name, arguments)) = words.split_first() else {
        return Next::Line(status);
    };
    if name == "exit" {
        let code = arguments.first().and_then(|text| text.parse().ok());
        return Next::Leave(code.unwrap_or(status));
    }
    if let Some(builtin) = builtins::find(name) {
        return Next::Line(match builtin(arguments) {
            Ok(()) => 0,
            Err(message) => {
                eprintln!("{name}: {message}");
                1
            }
        });
    }
    Next::Line(run_program(name, arguments))
}

fn run_program(name: &str, arguments: &[String]) -> u8 {
    match sys::with_all_signals(Command::new(name).args(arguments)).status() {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(128),
        Err(error) => {
            eprintln!("sh: {name}: {error} (`help` lists what is built in)");
            127
        }
    }
}
