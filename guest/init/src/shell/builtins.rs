//! The commands built into the small shell: enough to look around in a guest.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::power::{self, Request};

/// A command: its arguments in, a message for the user when it failed.
type Builtin = fn(&[String]) -> Result<(), String>;

const TABLE: &[(&str, Builtin, &str)] = &[
    ("cat", cat, "FILE…: print files"),
    ("cd", cd, "[DIRECTORY]: change the working directory"),
    ("dmesg", dmesg, ": print the kernel's messages"),
    ("echo", echo, "WORD…: print words"),
    ("free", free, ": memory in KiB"),
    ("help", help, ": this list"),
    ("ls", ls, "[PATH…]: list directories"),
    (
        "mount",
        mount,
        "[-t TYPE DEVICE DIRECTORY]: show or make mounts",
    ),
    ("poweroff", poweroff, ": end the guest"),
    ("ps", ps, ": list processes"),
    ("pwd", pwd, ": print the working directory"),
    ("reboot", reboot, ": restart the guest"),
    ("umount", umount, "DIRECTORY: take a mount away"),
    ("uname", uname, ": kernel name and version"),
];

pub(super) fn find(name: &str) -> Option<Builtin> {
    TABLE
        .iter()
        .find(|entry| entry.0 == name)
        .map(|entry| entry.1)
}

/// Prints and tells when the console is gone, instead of a panic.
fn show(text: &[u8]) -> Result<(), String> {
    io::stdout()
        .write_all(text)
        .map_err(|error| error.to_string())
}

fn help(_: &[String]) -> Result<(), String> {
    let mut text = String::from("Programs of the image run by their name. Built in:\n");
    for (name, _, what) in TABLE {
        let _ = writeln!(text, "  {name} {what}");
    }
    text.push_str("  exit [STATUS]: leave; on the console this ends the guest\n");
    show(text.as_bytes())
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{path}: {error}"))
}

fn cat(arguments: &[String]) -> Result<(), String> {
    arguments.iter().try_for_each(|path| show(&read(path)?))
}

fn cd(arguments: &[String]) -> Result<(), String> {
    let to = arguments.first().map_or("/root", String::as_str);
    std::env::set_current_dir(to).map_err(|error| format!("{to}: {error}"))
}

fn pwd(_: &[String]) -> Result<(), String> {
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    show(format!("{}\n", here.display()).as_bytes())
}

fn echo(arguments: &[String]) -> Result<(), String> {
    show(format!("{}\n", arguments.join(" ")).as_bytes())
}

fn uname(_: &[String]) -> Result<(), String> {
    let names = rustix::system::uname();
    let parts = [
        names.sysname(),
        names.nodename(),
        names.release(),
        names.version(),
    ];
    let parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy()).collect();
    show(
        format!(
            "{} {}\n",
            parts.join(" "),
            names.machine().to_string_lossy()
        )
        .as_bytes(),
    )
}

fn ls(arguments: &[String]) -> Result<(), String> {
    let here = [".".to_owned()];
    let paths = if arguments.is_empty() {
        here.as_slice()
    } else {
        arguments
    };
    for path in paths {
        let mut names: Vec<_> = match fs::read_dir(path) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => vec![path.into()],
            Err(error) => return Err(format!("{path}: {error}")),
        };
        names.sort();
        for name in names {
            show(list_line(&name).as_bytes())?;
        }
    }
    Ok(())
}

/// Kind, permissions, owner, size and name of one file; the target of a link.
fn list_line(path: &Path) -> String {
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy();
    let Ok(about) = fs::symlink_metadata(path) else {
        return format!("? {name}\n");
    };
    let kind = about.file_type();
    let letter = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () => '-',
    };
    let target = fs::read_link(path).map(|to| format!(" -> {}", to.display()));
    let (mode, uid, size) = (about.mode() & 0o7777, about.uid(), about.size());
    format!(
        "{letter} {mode:04o} {uid:>5} {size:>10} {name}{}\n",
        target.unwrap_or_default()
    )
}

fn ps(_: &[String]) -> Result<(), String> {
    let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let mut ids: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    show(b"  PID COMMAND\n")?;
    for id in ids {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        let what = if line.is_empty() {
            format!("[{}]", name.trim_end())
        } else {
            line
        };
        show(format!("{id:>5} {what}\n").as_bytes())?;
    }
    Ok(())
}

fn free(_: &[String]) -> Result<(), String> {
    let table = String::from_utf8_lossy(&read("/proc/meminfo")?).into_owned();
    let wanted = [
        "MemTotal:",
        "MemFree:",
        "MemAvailable:",
        "Cached:",
        "SwapTotal:",
    ];
    table
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
        .try_for_each(|line| show(format!("{line}\n").as_bytes()))
}

fn dmesg(_: &[String]) -> Result<(), String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut log = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open("/dev/kmsg")
        .map_err(|error| format!("/dev/kmsg: {error}"))?;
    let mut record = vec![0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                let text = String::from_utf8_lossy(record.get(..len).unwrap_or_default());
                show(format!("{}\n", message_of(&text)).as_bytes())?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(format!("/dev/kmsg: {error}")),
        }
    }
}

/// A record of /dev/kmsg is "priority,number,microseconds,flags;text" and more lines.
fn message_of(record: &str) -> String {
    let (head, text) = record.split_once(';').unwrap_or(("", record));
    let micros: u64 = head
        .split(',')
        .nth(2)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let line = text.lines().next().unwrap_or_default();
    format!(
        "[{:>5}.{:06}] {line}",
        micros / 1_000_000,
        micros % 1_000_000
    )
}

fn mount(arguments: &[String]) -> Result<(), String> {
    match arguments {
        [] => show(&read("/proc/mounts")?),
        [flag, kind, device, at] if flag == "-t" => rustix::mount::mount(
            device.as_str(),
            at.as_str(),
            kind.as_str(),
            MountFlags::empty(),
            None,
        )
        .map_err(|error| format!("{device} on {at}: {error}")),
        [device, at] => mount_any(device, at),
        _ => Err("mount [-t TYPE] DEVICE DIRECTORY".to_owned()),
    }
}

/// Tries the file systems that a disk of this guest can carry.
fn mount_any(device: &str, at: &str) -> Result<(), String> {
    let mut last = Errno::NODEV;
    for (kind, flags) in [("ext4", MountFlags::empty()), ("erofs", MountFlags::RDONLY)] {
        match rustix::mount::mount(device, at, kind, flags, None) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(format!(
        "{device} on {at}: {last} (neither ext4 nor erofs?)"
    ))
}

fn umount(arguments: &[String]) -> Result<(), String> {
    arguments.iter().try_for_each(|at| {
        rustix::mount::unmount(at.as_str(), UnmountFlags::empty())
            .map_err(|error| format!("{at}: {error}"))
    })
}

fn poweroff(_: &[String]) -> Result<(), String> {
    power::ask(Request::PowerOff);
    Ok(())
}

fn reboot(_: &[String]) -> Result<(), String> {
    power::ask(Request::Reboot);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{TABLE, find, message_of};

    #[test]
    fn the_table_is_sorted_and_found() {
        assert!(TABLE.is_sorted_by_key(|entry| entry.0));
        assert!(find("ls").is_some());
        assert!(find("vi").is_none());
    }

    #[test]
    fn kernel_records_are_shortened() {
        assert_eq!(
            message_of("6,12,1234567,-;hello\n SUBSYSTEM=x\n"),
            "[    1.234567] hello"
        );
        assert_eq!(message_of("garbage"), "[    0.000000] garbage");
    }
}
