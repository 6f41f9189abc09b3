use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

mod locks;
mod model;

fn image(dir: &Path, bytes: u64) -> PathBuf {
    let path = dir.join("image");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

#[test]
fn what_is_no_disk_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let missing = RawDisk::open(&dir.path().join("none"), false).unwrap_err();
    assert!(matches!(missing.problem, OpenProblem::Open(_)), "{missing}");
    for read_only in [false, true] {
        let error = RawDisk::open(dir.path(), read_only).unwrap_err();
        assert!(
            matches!(error.problem, OpenProblem::Kind("a directory")),
            "{error}"
        );
    }
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let error = RawDisk::open(&fifo, true).unwrap_err();
    assert!(
        matches!(error.problem, OpenProblem::Kind("a FIFO")),
        "{error}"
    );
    let error = RawDisk::open(Path::new("/dev/null"), true).unwrap_err();
    assert!(matches!(error.problem, OpenProblem::Kind(_)), "{error}");
}

#[test]
fn odd_and_empty_lengths_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [1, 511, 513, (1 << 20) + 1] {
        let error = RawDisk::open(&image(dir.path(), bytes), true).unwrap_err();
        assert!(
            matches!(error.problem, OpenProblem::Ragged(found) if found == bytes),
            "{error}"
        );
    }
    let error = RawDisk::open(&image(dir.path(), 0), true).unwrap_err();
    assert!(matches!(error.problem, OpenProblem::Empty), "{error}");
    let disk = RawDisk::open(&image(dir.path(), 1024), true).unwrap();
    let geometry = Geometry {
        bytes: 1024,
        read_only: true,
    };
    assert_eq!(disk.geometry(), geometry);
}

#[test]
fn permissions_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 512);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    if OpenOptions::new().write(true).open(&path).is_ok() {
        // Root may write everything, so there is nothing to see here.
        return;
    }
    let error = RawDisk::open(&path, false).unwrap_err();
    assert!(matches!(error.problem, OpenProblem::ReadOnly(_)), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let error = RawDisk::open(&path, true).unwrap_err();
    assert!(matches!(error.problem, OpenProblem::Open(_)), "{error}");
}

#[test]
fn messages_say_what_to_do() {
    let message = |problem| {
        let path = PathBuf::from("/a/disk");
        OpenError { path, problem }.to_string()
    };
    assert_eq!(
        message(OpenProblem::Ragged(700)),
        "disk /a/disk: is 700 bytes long, which is not a multiple of 512; lengthen it with \
         `truncate -s 1024 /a/disk`; other formats than raw disks must be converted"
    );
    let text = message(OpenProblem::Locked);
    assert!(text.contains("in use by another virtual machine"), "{text}");
}
