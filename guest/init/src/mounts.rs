//! The file systems that every guest has, and taking them down again at the end.

use std::fs;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// One mount of the table below.
struct Mount {
    kind: &'static str,
    at: &'static str,
    flags: MountFlags,
    data: Option<&'static std::ffi::CStr>,
    /// Made first when it is not part of the image (below a mount of this table).
    make: bool,
}

const NOTHING: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const DATA: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// In the order of mounting. /dev is mounted by the kernel (CONFIG_DEVTMPFS_MOUNT) unless an
/// initramfs is the root, hence its place in the table and the silence about EBUSY.
const TABLE: &[Mount] = &[
    Mount {
        kind: "devtmpfs",
        at: "/dev",
        flags: MountFlags::NOSUID,
        data: None,
        make: false,
    },
    Mount {
        kind: "proc",
        at: "/proc",
        flags: NOTHING,
        data: None,
        make: false,
    },
    Mount {
        kind: "sysfs",
        at: "/sys",
        flags: NOTHING,
        data: None,
        make: false,
    },
    Mount {
        kind: "tmpfs",
        at: "/run",
        flags: DATA,
        data: Some(c"mode=755"),
        make: false,
    },
    Mount {
        kind: "tmpfs",
        at: "/tmp",
        flags: DATA,
        data: Some(c"mode=1777"),
        make: false,
    },
    Mount {
        kind: "tmpfs",
        at: "/root",
        flags: DATA,
        data: Some(c"mode=700"),
        make: false,
    },
    Mount {
        kind: "devpts",
        at: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: Some(c"mode=620,ptmxmode=666,gid=5"),
        make: true,
    },
    Mount {
        kind: "tmpfs",
        at: "/dev/shm",
        flags: DATA,
        data: Some(c"mode=1777"),
        make: true,
    },
    Mount {
        kind: "cgroup2",
        at: "/sys/fs/cgroup",
        flags: NOTHING,
        data: None,
        make: false,
    },
];

/// Links that programs expect in /dev.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts the table. A failure is told and not fatal: a shell with less is better than none.
pub(crate) fn mount_all() {
    for entry in TABLE {
        if entry.make {
            let _ = fs::create_dir(entry.at);
        }
        match mount(entry.kind, entry.at, entry.kind, entry.flags, entry.data) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => eprintln!("init: cannot mount {} on {}: {error}", entry.kind, entry.at),
        }
    }
    for (target, link) in LINKS {
        let _ = rustix::fs::symlinkat(*target, CWD, *link);
    }
}

/// Mount points of a mount table (the text of /proc/mounts) whose contents outlive the guest,
/// the last mounted first: those on a device. Octal escapes are undone.
pub(crate) fn lasting(table: &str) -> Vec<String> {
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let device = fields.next()?;
            let at = fields.next()?;
            (device.starts_with("/dev/") && at != "/").then(|| unescape(at))
        })
        .collect();
    found.reverse();
    found
}

/// Undoes the octal escapes (`\040`) of /proc/mounts.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Unmounts what lasts; what is still in use is made read-only by the kernel's own sync.
pub(crate) fn unmount_lasting() {
    let table = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for at in lasting(&table) {
        if let Err(error) = unmount(Path::new(&at), UnmountFlags::empty()) {
            eprintln!("init: cannot unmount {at}: {error}; detaching it");
            let _ = unmount(Path::new(&at), UnmountFlags::DETACH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{lasting, unescape};

    #[test]
    fn only_devices_are_unmounted_and_the_last_comes_first() {
        let table = "/dev/root / erofs ro 0 0\nproc /proc proc rw 0 0\n\
                     /dev/vdb /mnt ext4 rw 0 0\n/dev/vdc /mnt/a\\040b ext4 rw 0 0\n";
        assert_eq!(lasting(table), ["/mnt/a b", "/mnt"]);
        assert!(lasting("").is_empty());
        assert!(lasting("garbage\n\n").is_empty());
    }

    #[test]
    fn escapes_that_are_not_octal_stay() {
        assert_eq!(unescape("a\\zzzb"), "a\\zzzb");
        assert_eq!(unescape("end\\04"), "end\\04");
        assert_eq!(unescape("tab\\011"), "tab\t");
    }
}
