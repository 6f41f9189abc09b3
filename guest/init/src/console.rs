//! The guest's console: finds the terminal behind /dev/console and takes it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::sys;

/// Makes the console this process's controlling terminal and its three standard streams.
///
/// PID 1 itself becomes the session leader and the foreground process group, and what it starts
/// stays in that group: a shell finds itself in the foreground at once, so no second process
/// and no race is needed for job control. Returns the console's name.
pub(crate) fn take() -> Option<String> {
    // Fails only when this process leads a session already, which is as good.
    let _ = setsid();
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let Some(terminal) = open(&active) else {
        eprintln!(
            "init: no terminal among the consoles ({}); no job control",
            active.trim()
        );
        return None;
    };
    let _ = ioctl_tiocsctty(&terminal);
    let _ = dup2_stdin(&terminal);
    let _ = dup2_stdout(&terminal);
    let _ = dup2_stderr(&terminal);
    set_size(terminal.as_fd());
    // The monitor holds input back until the guest says something: now nothing is lost.
    let _ = (&terminal).write_all(b"\r");
    preferred(&active).map(str::to_owned)
}

/// Lets input on the serial port, where that is not the console, raise SIGIO: it is the power
/// button. Nothing polls and no process waits for it. The button works while the file is open.
pub(crate) fn watch_power_button(console: &str) -> Option<File> {
    let path = proto::power::BUTTON_TERMINAL;
    if path.strip_prefix("/dev/") == Some(console) {
        return None;
    }
    let button = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOCTTY)
        .open(path)
        .ok()?;
    // Raw, so that nothing is echoed into the monitor's output.
    let mut modes = tcgetattr(&button).ok()?;
    modes.make_raw();
    tcsetattr(&button, OptionalActions::Now, &modes).ok()?;
    sys::signal_input(&button).ok()?;
    Some(button)
}

/// The kernel lists its consoles with the one behind /dev/console last.
fn preferred(active: &str) -> Option<&str> {
    active.split_whitespace().next_back()
}

fn open(active: &str) -> Option<File> {
    let path = format!("/dev/{}", preferred(active)?);
    OpenOptions::new().read(true).write(true).open(path).ok()
}

/// A serial line does not know how large the terminal at its other end is. The kernel hands
/// `LINES=` and `COLUMNS=` of its command line to init as environment; a virtio console
/// reports its size itself and follows changes.
fn set_size(terminal: std::os::fd::BorrowedFd<'_>) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u16>().ok())
    };
    let (Some(rows), Some(columns)) = (number("LINES"), number("COLUMNS")) else {
        return;
    };
    if tcgetwinsize(terminal).is_ok_and(|size| size.ws_row == 0) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let _ = tcsetwinsize(terminal, size);
    }
}

#[cfg(test)]
mod tests {
    use super::preferred;

    #[test]
    fn the_last_console_is_the_preferred_one() {
        assert_eq!(preferred("ttyS0\n"), Some("ttyS0"));
        assert_eq!(preferred("ttyS0 hvc0\n"), Some("hvc0"));
        assert_eq!(preferred("\n"), None);
    }
}
