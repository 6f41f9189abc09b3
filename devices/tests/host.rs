//! A host that runs out of room, takes a part of an image away or cannot give space back: the
//! request fails with the status that the specification has for it, it is counted, and the device
//! lives on. On each engine, with real file systems.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use devices::disk::{Access, EngineChoice, RawDisk};
use devices::inspect::Value;
use devices::testing::{Buffer, GuestDriver};
use devices::virtio::blk::Block;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
const ZEROES: u32 = 13;

const ENGINES: [EngineChoice; 3] = [
    EngineChoice::Sync,
    EngineChoice::Auto,
    EngineChoice::IoUring,
];

/// Says what a child is: the folder that it works in.
const FOLDER: &str = "CORACLE_HOST_FOLDER";

struct Guest(GuestDriver);

impl Guest {
    fn new(path: &Path, engine: EngineChoice) -> Self {
        let access = Access {
            engine,
            ..Access::default()
        };
        let disk = RawDisk::open_with(path, access).unwrap();
        Self(GuestDriver::started(Box::new(Block::new(
            Box::new(disk),
            "",
        ))))
    }

    /// Sends a request and waits for its status, which another thread of the host may bring.
    fn ask(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> u8 {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        let status = Buffer::writable(self.0.holding(&[0x77]).at, 1);
        let mut buffers = vec![self.0.holding(&header)];
        buffers.extend_from_slice(data);
        buffers.push(status);
        let head = self.0.ring(0).add(&buffers);
        self.0.kick(0);
        loop {
            if let Some((used, _)) = self.0.ring(0).take_used() {
                assert_eq!(used, head);
                return self.0.bytes(status)[0];
            }
            self.0.run();
        }
    }

    fn write(&mut self, sector: u64, byte: u8) -> u8 {
        let data = self.0.holding(&[byte; 4096]);
        self.ask(WRITE, sector, &[data])
    }

    /// Reads 4096 bytes, all of them the same: status and byte.
    fn read(&mut self, sector: u64) -> (u8, u8) {
        let room = self.0.room(4096);
        let status = self.ask(READ, sector, &[room]);
        let bytes = self.0.bytes(room);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        (status, bytes[0])
    }

    fn range(&mut self, kind: u32, sector: u64, flags: u32) -> u8 {
        let mut range = sector.to_le_bytes().to_vec();
        range.extend(8_u32.to_le_bytes());
        range.extend(flags.to_le_bytes());
        let range = self.0.holding(&range);
        self.ask(kind, 0, &[range])
    }

    fn host_errors(&self) -> u64 {
        match self.0.handle.inspect().unwrap().find("host_errors") {
            Some(Value::Number(count)) => *count,
            other => panic!("{other:?}"),
        }
    }
}

fn image(folder: &Path, bytes: u64) -> PathBuf {
    let path = folder.join("image");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

/// Runs a test of this program in a shell that first does what `prepare` says, where `$0` is the
/// folder; the test finds it in [`FOLDER`]. False, and reported, when the host does not allow it.
fn child(test: &str, shell: &[&str], prepare: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let (name, arguments) = shell.split_first().unwrap();
    let run = |script: &str| {
        let mut command = Command::new(name);
        let command = command.args(arguments).arg(script).arg(dir.path());
        command.arg(&program).env(FOLDER, dir.path()).output()
    };
    match run(prepare) {
        Ok(output) if output.status.success() => {}
        other => {
            harness::skip::skipped(&format!("the host does not allow `{prepare}`: {other:?}"));
            return false;
        }
    }
    let script = format!("{prepare} && exec \"$1\" --exact {test} --nocapture");
    let output = run(&script).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{text}");
    assert!(said.contains("1 passed"), "{said}\n{text}");
    true
}

/// The folder of a child; none where a test is no child of another.
fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

const NAMESPACES: [&str; 4] = ["unshare", "-Urm", "sh", "-c"];

/// A sparse image on a file system that is smaller: what does not fit fails, what is there can be
/// read, space that is given back can be used.
#[test]
fn a_full_file_system() {
    child(
        "a_full_file_system_in_a_child",
        &NAMESPACES,
        "mount -t tmpfs -o size=256k none \"$0\"",
    );
}

/// No test by itself: what the one above runs, in a mount namespace of its own.
#[test]
fn a_full_file_system_in_a_child() {
    let Some(folder) = folder() else {
        return;
    };
    for engine in ENGINES {
        let path = image(&folder, 1 << 20);
        let mut guest = Guest::new(&path, engine);
        let written: Vec<u8> = (0..256).map(|n| guest.write(n * 8, 0xa5)).collect();
        let fit = written.iter().take_while(|status| **status == OK).count();
        assert!((32..=64).contains(&fit), "{engine:?}: {fit} blocks fit");
        assert!(written.iter().skip(fit).all(|status| *status == IOERR));
        let full = u64::try_from(256 - fit).unwrap();
        assert_eq!(guest.host_errors(), full, "{engine:?}");
        assert_eq!(guest.read(0), (OK, 0xa5));
        assert_eq!(guest.read(255 * 8), (OK, 0));
        assert_eq!(guest.ask(FLUSH, 0, &[]), OK);
        // This file system cannot zero without making holes.
        assert_eq!(guest.range(ZEROES, 0, 0), UNSUPP);
        assert_eq!(guest.range(DISCARD, 0, 0), OK);
        assert_eq!(guest.range(ZEROES, 8, 1), OK);
        assert_eq!(guest.write(200 * 8, 0x5a), OK, "{engine:?}");
        assert_eq!(guest.read(200 * 8), (OK, 0x5a));
        drop(guest);
        fs::remove_file(&path).unwrap();
    }
}

/// A file system that knows no holes: the driver hears that there is no such thing here.
#[test]
fn a_file_system_without_holes() {
    child(
        "a_file_system_without_holes_in_a_child",
        &NAMESPACES,
        "mount -t ramfs none \"$0\"",
    );
}

/// No test by itself: what the one above runs, in a mount namespace of its own.
#[test]
fn a_file_system_without_holes_in_a_child() {
    let Some(folder) = folder() else {
        return;
    };
    for engine in ENGINES {
        let path = image(&folder, 1 << 20);
        let mut guest = Guest::new(&path, engine);
        assert_eq!(guest.write(0, 7), OK);
        assert_eq!(guest.range(DISCARD, 0, 0), UNSUPP, "{engine:?}");
        assert_eq!(guest.range(ZEROES, 0, 0), UNSUPP);
        assert_eq!(guest.range(ZEROES, 0, 1), UNSUPP);
        assert_eq!((guest.host_errors(), guest.read(0)), (0, (OK, 7)));
    }
}

/// No file of this process may be longer than half of the disk (`ulimit -f`). The program
/// ignores the signal that the kernel sends then.
#[test]
fn a_limit_on_the_length_of_files() {
    child(
        "a_limit_on_the_length_of_files_in_a_child",
        &["sh", "-c"],
        "truncate -s 1M \"$0/image\" && trap '' XFSZ && ulimit -f 1024",
    );
}

/// No test by itself: what the one above runs, with a limit.
#[test]
fn a_limit_on_the_length_of_files_in_a_child() {
    let Some(folder) = folder() else {
        return;
    };
    let path = folder.join("image");
    for engine in ENGINES {
        let mut guest = Guest::new(&path, engine);
        assert_eq!(guest.write(1016, 3), OK, "the last block below it");
        assert_eq!(guest.write(1020, 4), IOERR, "half of it: {engine:?}");
        assert_eq!(guest.write(1024, 5), IOERR);
        assert_eq!(guest.host_errors(), 2);
        assert_eq!(guest.read(1024), (OK, 0));
        assert_eq!((guest.write(1016, 3), guest.read(1016)), (OK, (OK, 3)));
    }
}

/// An image that is truncated under its guest: reads beyond the end fail, and say so.
#[test]
fn an_image_that_became_shorter() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), 1 << 20);
        let mut guest = Guest::new(&path, engine);
        assert_eq!(guest.write(0, 1), OK);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(6 << 10).unwrap();
        assert_eq!(guest.read(0), (OK, 1));
        let room = guest.0.room(4096);
        assert_eq!(guest.ask(READ, 8, &[room]), IOERR, "half of it: {engine:?}");
        assert_eq!(guest.ask(READ, 16, &[room]), IOERR);
        assert_eq!(guest.host_errors(), 2);
        file.write_all_at(&[9; 4096], 4096).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(guest.read(8), (OK, 9));
    }
}
