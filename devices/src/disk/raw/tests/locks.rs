//! Who may have an image at the same time: machines, QEMU's tools, programs with locks of POSIX.

use std::process::{Command, Stdio};

use super::*;

fn reading() -> Access {
    Access {
        read_only: true,
        ..Access::default()
    }
}

fn locked(result: Result<RawDisk, OpenError>) -> bool {
    let problem = result.map_err(|error| error.problem);
    matches!(problem, Err(OpenProblem::Locked))
}

#[test]
fn one_writer_or_many_readers() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 512);
    let open = |read_only| RawDisk::open(&path, read_only);
    let writer = open(false).unwrap();
    assert!(locked(open(false)));
    assert!(locked(open(true)));
    drop(writer);
    let readers = [open(true).unwrap(), open(true).unwrap()];
    assert!(locked(open(false)));
    drop(readers);
    open(false).unwrap();
}

#[test]
fn open_files_are_taken_and_locked_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 512);
    let file = || File::open(&path).unwrap();
    let reader = RawDisk::from_file(file(), &path, reading()).unwrap();
    assert!(reader.geometry().read_only);
    assert!(locked(RawDisk::open(&path, false)));
    let directory = File::open(dir.path()).unwrap();
    let error = RawDisk::from_file(directory, dir.path(), reading()).unwrap_err();
    assert!(matches!(error.problem, OpenProblem::Kind(_)), "{error}");
}

fn engine(read_only: bool, engine: EngineChoice) -> Access {
    Access {
        read_only,
        engine,
        ..Access::default()
    }
}

/// A ring that is gone does not hold the file, and what it held can be had at once.
#[test]
fn an_image_can_be_had_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 4096);
    for _ in 0..50 {
        let mut disk = RawDisk::open_with(&path, engine(false, EngineChoice::IoUring)).unwrap();
        disk.flush().unwrap();
    }
}

/// `qemu-img` leaves an image alone that a machine has, and a machine leaves one alone that
/// `qemu-img` writes to.
#[test]
fn tools_of_qemu_and_machines_see_each_other() {
    if harness::skip::without_program("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 1 << 20);
    let tool = |arguments: &[&str]| {
        let output = Command::new("qemu-img")
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let refused = !output.status.success();
        assert_eq!(refused, text.contains("lock"), "{arguments:?}: {text}");
        !refused
    };
    let copy = || tool(&["convert", "-f", "raw", "-O", "raw", "image", "copy"]);
    let grow = || tool(&["resize", "-q", "-f", "raw", "image", "2M"]);
    assert!(copy(), "nobody has it");
    let writer = RawDisk::open_with(&path, engine(false, EngineChoice::Auto)).unwrap();
    assert!(!copy(), "a writer has it");
    assert!(!grow(), "a writer has it");
    drop(writer);
    let reader = RawDisk::open_with(&path, reading()).unwrap();
    assert!(copy(), "readers share it");
    assert!(!grow(), "a reader's image is not written");
    drop(reader);
    assert!(grow());
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 << 20);
}

/// The whole file locked by a program of POSIX, which knows nothing of single bytes.
#[test]
fn a_lock_of_the_whole_file_is_respected() {
    if harness::skip::without_program("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 512);
    let script = "import fcntl, sys\n\
                  file = open(sys.argv[1], 'r+b')\n\
                  fcntl.lockf(file, fcntl.LOCK_EX)\n\
                  print('locked', flush=True)\n\
                  sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    let mut output = child.stdout.take().unwrap();
    io::Read::read_exact(&mut output, &mut said).unwrap();
    assert!(locked(RawDisk::open(&path, false)));
    assert!(locked(RawDisk::open(&path, true)));
    // The end of its input ends it, and its lock.
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    RawDisk::open(&path, false).unwrap();
}
