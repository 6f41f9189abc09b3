//! PID 1: brings the guest up, runs the shell or the given command, reaps, and ends the guest.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::process::{Pid, WaitOptions, wait};

use crate::power::{self, Request};
use crate::sys::{self, Signal};
use crate::{console, mounts, net};

/// Blocked for good and taken one at a time by [`supervise`].
const HANDLED: &[Signal] = &[
    Signal(libc::SIGCHLD),
    Signal(libc::SIGUSR1),
    Signal(libc::SIGUSR2),
    Signal(libc::SIGTERM),
    Signal(libc::SIGINT),
    Signal(libc::SIGPWR),
    // The power button, see `console::watch_power_button`.
    Signal(libc::SIGIO),
];

/// Never returns in a guest: the machine ends with it.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    sys::block(HANDLED);
    mounts::mount_all();
    let _button = console::take().and_then(|console| console::watch_power_button(&console));
    set_hostname();
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    net::start(&line);
    match start(command(arguments, &line)) {
        Ok(child) => supervise(child),
        Err(message) => {
            eprintln!("init: {message}");
            power::end(Request::PowerOff)
        }
    }
}

/// A name for the guest unless the kernel was given one (`hostname=` of its command line).
fn set_hostname() {
    let uname = rustix::system::uname();
    if matches!(uname.nodename().to_bytes(), b"" | b"(none)") {
        let _ = rustix::system::sethostname(b"coracle");
    }
}

/// The arguments that the user gave init. The kernel hands over every word of its command line
/// that it does not know, and then those after `--`, which alone are meant.
fn command<'a>(arguments: &'a [String], line: &str) -> &'a [String] {
    let meant = words_after_dashes(line.trim_end());
    arguments
        .get(arguments.len().saturating_sub(meant)..)
        .unwrap_or_default()
}

/// How many words follow `--`; as in the kernel, blanks in double quotes separate nothing.
fn words_after_dashes(line: &str) -> usize {
    let mut quoted = false;
    let blank = |character: char| {
        quoted ^= character == '"';
        character == ' ' && !quoted
    };
    let mut words = line.split(blank).filter(|word| !word.is_empty());
    words.by_ref().find(|word| *word == "--");
    words.count()
}

/// Starts the shell, or the program that follows `--` on the kernel's command line.
fn start(arguments: &[String]) -> Result<Pid, String> {
    let (program, rest) = match arguments.split_first() {
        Some((program, rest)) => (program.as_str(), rest),
        None => ("/bin/sh", [].as_slice()),
    };
    let mut command = Command::new(program);
    command
        .args(rest)
        .current_dir(if fs::metadata("/root").is_ok() {
            "/root"
        } else {
            "/"
        })
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("USER", "root")
        .env("SHELL", "/bin/sh")
        .env("PS1", "\\u@\\h:\\w\\$ ")
        .env(
            "TERM",
            std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned()),
        );
    let child = sys::with_all_signals(&mut command)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| "the kernel gave a process no number".to_owned())
}

/// Waits for signals: children are reaped, the end of `shell` or a request ends the guest.
fn supervise(shell: Pid) -> ! {
    loop {
        match sys::wait(HANDLED).0 {
            libc::SIGCHLD => {
                if let Some(status) = reap(shell) {
                    report(status);
                    power::end(Request::PowerOff);
                }
            }
            libc::SIGTERM | libc::SIGINT => power::end(Request::Reboot),
            _ => power::end(Request::PowerOff),
        }
    }
}

/// Collects every child that ended (orphans become children of PID 1); tells of `shell`.
fn reap(shell: Pid) -> Option<ExitStatus> {
    let mut ended = None;
    while let Ok(Some((id, status))) = wait(WaitOptions::NOHANG) {
        if id == shell {
            ended = Some(ExitStatus::from_raw(status.as_raw()));
        }
    }
    ended
}

/// A command that failed says so before the guest goes, else its end would look like success.
fn report(status: ExitStatus) {
    if !status.success() {
        eprintln!("init: the console's program ended with {status}");
    }
}

#[cfg(test)]
mod tests {
    use super::{command, words_after_dashes};

    #[test]
    fn only_words_after_the_dashes_are_the_command() {
        let table = [
            ("console=ttyS0 noxsave", 0),
            ("quiet -- /bin/busybox uname -a", 3),
            ("quiet --", 0),
            ("-- a", 1),
            ("a \"-- b\" c", 0),
            ("quiet -- sh -c \"echo a  b\"", 3),
            ("", 0),
        ];
        for (line, count) in table {
            assert_eq!(words_after_dashes(line), count, "{line}");
        }
    }

    #[test]
    fn words_that_the_kernel_does_not_know_are_no_command() {
        let words = ["noxsave", "uname", "-a"].map(str::to_owned);
        assert_eq!(
            command(&words, "quiet noxsave -- uname -a\n"),
            ["uname", "-a"]
        );
        assert!(command(&words[..1], "quiet noxsave\n").is_empty());
        assert!(command(&[], "quiet -- lost").is_empty());
    }
}
