use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;
use crate::disk::overlay::header::{BaseFormat, COPIES, HEADER_BYTES, Header};
use crate::disk::overlay::{MOST_DELTAS, OverlayDisk, OverlayError};
use crate::disk::{Disk, RawDisk};
use crate::ram::GuestRam;
use crate::virtio::Span;

const SIZE: u64 = 1 << 20;

struct Bench {
    dir: TempDir,
    ram: GuestRam,
}

impl Bench {
    /// A raw base of a pattern, and no delta yet.
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            ram: Arc::new(memory).into(),
        };
        fs::write(bench.path("base"), pattern(SIZE)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn delta(&self, name: &str, base: &str, format: BaseFormat) -> PathBuf {
        let path = self.path(name);
        let new = NewDelta {
            base: self.path(base),
            format,
            capacity: None,
            cluster_bytes: None,
        };
        create(&path, &new).unwrap();
        path
    }

    fn put(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let mut disk = OverlayDisk::open(path, false).unwrap();
        self.ram.write_bytes(0, bytes).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        disk.write(offset, &self.ram, &[Span { at: 0, len }])
            .unwrap();
        disk.flush().unwrap();
    }

    fn content(&self, disk: &mut dyn Disk) -> Vec<u8> {
        let len = disk.geometry().bytes;
        let span = Span {
            at: 0,
            len: u32::try_from(len).unwrap(),
        };
        disk.read(0, &self.ram, &[span]).unwrap();
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.ram.read_bytes(0, &mut bytes).unwrap();
        bytes
    }

    fn read(&self, path: &Path) -> Vec<u8> {
        self.content(&mut OverlayDisk::open(path, true).unwrap())
    }

    /// Nothing but these files is left.
    fn only(&self, names: &[&str]) {
        let entries = self.dir.path().read_dir().unwrap();
        let mut found: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names);
    }
}

fn pattern(len: u64) -> Vec<u8> {
    (0..len)
        .map(|at| (at / 512 + at % 7 + 1).to_le_bytes()[0] | 1)
        .collect()
}

/// The clock of files is too coarse to tell two changes within a few milliseconds apart.
fn later(file: &File) {
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + Duration::from_secs(1))
        .unwrap();
}

fn sound(path: &Path) {
    let verified = verify(path).unwrap();
    assert_eq!(verified.problems, []);
}

#[test]
fn a_clone_is_small_and_reads_as_its_base() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    assert_eq!(bench.read(&delta), pattern(SIZE));
    let info = info(&delta).unwrap();
    assert_eq!(
        (info.clusters, info.own_clusters, info.in_use),
        (256, 0, false)
    );
    assert!(info.allocated_bytes <= 64 << 10, "{}", info.allocated_bytes);
    bench.put(&delta, 8192, &[3; 4096]);
    let mut expected = pattern(SIZE);
    expected[8192..12_288].fill(3);
    assert_eq!(bench.read(&delta), expected);
    assert_eq!(fs::read(bench.path("base")).unwrap(), pattern(SIZE));
    sound(&delta);
    bench.only(&["base", "delta"]);
}

#[test]
fn a_reset_drops_everything_and_keeps_permissions_and_links() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    bench.put(&delta, 0, &[3; 512]);
    fs::set_permissions(&delta, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&delta, bench.path("link")).unwrap();
    reset(&bench.path("link")).unwrap();
    assert_eq!(bench.read(&delta), pattern(SIZE));
    assert_eq!(delta.metadata().unwrap().mode() & 0o7777, 0o640);
    assert!(bench.path("link").is_symlink());
    bench.only(&["base", "delta", "link"]);
}

#[test]
fn discards_give_space_back() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    bench.put(&delta, 0, &vec![3; 1 << 20]);
    let full = info(&delta).unwrap().allocated_bytes;
    let mut disk = OverlayDisk::open(&delta, false).unwrap();
    disk.discard(0, SIZE).unwrap();
    disk.flush().unwrap();
    assert_eq!(bench.content(&mut disk), vec![0; 1 << 20]);
    drop(disk);
    let empty = info(&delta).unwrap().allocated_bytes;
    assert!(full >= SIZE && empty < 128 << 10, "{full} {empty}");
    assert_eq!(bench.read(&delta), vec![0; 1 << 20]);
}

#[test]
fn chains_are_read_through_and_bounded() {
    let bench = Bench::new();
    let mut base = ("base".to_owned(), BaseFormat::Raw);
    let mut expected = pattern(SIZE);
    for depth in 0..MOST_DELTAS {
        let name = format!("delta{depth}");
        let delta = bench.delta(&name, &base.0, base.1);
        let byte = u8::try_from(depth).unwrap();
        bench.put(&delta, depth as u64 * 4096, &[byte; 4096]);
        expected[depth * 4096..][..4096].fill(byte);
        assert_eq!(bench.read(&delta), expected);
        base = (name, BaseFormat::Cow);
    }
    sound(&bench.path(&base.0));
    let new = NewDelta {
        base: bench.path(&base.0),
        format: BaseFormat::Cow,
        capacity: None,
        cluster_bytes: None,
    };
    let error = create(&bench.path("more"), &new).unwrap_err();
    assert!(matches!(error, OverlayError::Deep { .. }), "{error}");
    // The lowest is in use as a base, so nobody writes it.
    let top = OverlayDisk::open(&bench.path(&base.0), false).unwrap();
    for lower in ["delta0", "delta6"] {
        let error = OverlayDisk::open(&bench.path(lower), false).unwrap_err();
        assert!(matches!(error, OverlayError::Locked { .. }), "{error}");
    }
    drop(top);
    OverlayDisk::open(&bench.path("delta0"), false).unwrap();
}

#[test]
fn one_writer_a_delta_and_none_for_a_base_in_use() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    let other = bench.delta("other", "base", BaseFormat::Raw);
    let writer = OverlayDisk::open(&delta, false).unwrap();
    for read_only in [false, true] {
        let error = OverlayDisk::open(&delta, read_only).unwrap_err();
        assert!(matches!(error, OverlayError::Locked { .. }), "{error}");
    }
    assert!(info(&delta).unwrap().in_use);
    assert!(matches!(reset(&delta), Err(OverlayError::Locked { .. })));
    assert!(matches!(commit(&delta), Err(OverlayError::Locked { .. })));
    assert!(RawDisk::open(&bench.path("base"), false).is_err());
    // Another delta over the same base is no trouble.
    let second = OverlayDisk::open(&other, false).unwrap();
    assert!(matches!(commit(&other), Err(OverlayError::Locked { .. })));
    drop((writer, second));
    let base = RawDisk::open(&bench.path("base"), false).unwrap();
    let error = OverlayDisk::open(&delta, false).unwrap_err();
    assert!(matches!(error, OverlayError::Locked { .. }), "{error}");
    drop(base);
    OverlayDisk::open(&delta, false).unwrap();
}

#[test]
fn a_base_that_changed_is_noticed() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    let base = OpenOptions::new()
        .write(true)
        .open(bench.path("base"))
        .unwrap();
    let changed = |field: &str| {
        let error = OverlayDisk::open(&delta, false).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("has changed: {field} is ")),
            "{text}"
        );
        assert!(!verify(&delta).unwrap().is_sound());
    };
    base.write_all_at(b"x", 0).unwrap();
    later(&base);
    changed("its time of change");
    base.set_len(SIZE + 512).unwrap();
    changed("its length");
    let to = Rebase {
        base: bench.path("base"),
        format: BaseFormat::Raw,
        unchecked: true,
    };
    let error = rebase(&delta, &to).unwrap_err();
    assert!(matches!(error, OverlayError::Small { .. }), "{error}");
    base.set_len(SIZE).unwrap();
    rebase(&delta, &to).unwrap();
    assert_eq!(bench.read(&delta)[0], b'x');
    fs::remove_file(bench.path("base")).unwrap();
    let error = OverlayDisk::open(&delta, false).unwrap_err();
    assert!(error.to_string().contains("rebase --unchecked"), "{error}");
}

#[test]
fn a_base_delta_that_changed_is_noticed() {
    let bench = Bench::new();
    let lower = bench.delta("lower", "base", BaseFormat::Raw);
    let upper = bench.delta("upper", "lower", BaseFormat::Cow);
    bench.put(&lower, 0, &[1; 512]);
    later(&File::open(&lower).unwrap());
    let error = OverlayDisk::open(&upper, false).unwrap_err();
    assert!(matches!(error, OverlayError::BaseChanged { .. }), "{error}");
    reset(&lower).unwrap();
    let error = OverlayDisk::open(&upper, false).unwrap_err();
    assert!(error.to_string().contains("its identifier is "), "{error}");
}

#[test]
fn a_commit_merges_and_empties() {
    let bench = Bench::new();
    let lower = bench.delta("lower", "base", BaseFormat::Raw);
    let new = NewDelta {
        base: lower.clone(),
        format: BaseFormat::Cow,
        capacity: None,
        cluster_bytes: Some(65_536),
    };
    let upper = bench.path("upper");
    create(&upper, &new).unwrap();
    bench.put(&upper, 4096, &[5; 100 * 512]);
    let mut disk = OverlayDisk::open(&upper, false).unwrap();
    disk.write_zeroes(SIZE - 65_536, 65_536, true).unwrap();
    drop(disk);
    let expected = bench.read(&upper);
    assert_eq!(commit(&upper).unwrap(), Committed { bytes: 2 * 65_536 });
    assert_eq!(info(&upper).unwrap().own_clusters, 0);
    for delta in [&upper, &lower] {
        assert_eq!(bench.read(delta), expected);
        sound(delta);
    }
    commit(&lower).unwrap();
    assert_eq!(fs::read(bench.path("base")).unwrap(), expected);
    assert_eq!(bench.read(&lower), expected);
    bench.only(&["base", "lower", "upper"]);
}

#[test]
fn a_commit_enlarges_a_smaller_base() {
    let bench = Bench::new();
    let delta = bench.path("delta");
    let new = NewDelta {
        base: bench.path("base"),
        format: BaseFormat::Raw,
        capacity: Some(SIZE + 512),
        cluster_bytes: None,
    };
    create(&delta, &new).unwrap();
    bench.put(&delta, SIZE, &[9; 512]);
    commit(&delta).unwrap();
    let base = fs::read(bench.path("base")).unwrap();
    assert_eq!(base.len() as u64, SIZE + 512);
    assert_eq!(base[..1 << 20], pattern(SIZE));
    assert_eq!(base[1 << 20..], [9; 512]);
    assert_eq!(bench.read(&delta), base);
}

/// As a commit leaves things when it is killed after the mark and some of the copying.
#[test]
fn an_interrupted_commit_can_be_repeated_and_nothing_else_done() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    bench.put(&delta, 0, &[5; 8192]);
    let expected = bench.read(&delta);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&delta)
        .unwrap();
    let mut start = vec![0; HEADER_BYTES * COPIES];
    file.read_exact_at(&mut start, 0).unwrap();
    let mut header = Header::parse(&start).unwrap();
    header.committing = true;
    file.write_all_at(&header.encode().unwrap().repeat(COPIES), 0)
        .unwrap();
    let base = OpenOptions::new()
        .write(true)
        .open(bench.path("base"))
        .unwrap();
    base.write_all_at(&[5; 4096], 0).unwrap();
    later(&base);
    for read_only in [false, true] {
        let error = OverlayDisk::open(&delta, read_only).unwrap_err();
        assert!(matches!(error, OverlayError::Committing { .. }), "{error}");
    }
    assert!(matches!(
        reset(&delta),
        Err(OverlayError::Committing { .. })
    ));
    assert!(!verify(&delta).unwrap().is_sound());
    assert!(info(&delta).unwrap().header.committing);
    let to = Rebase {
        base: bench.path("base"),
        format: BaseFormat::Raw,
        unchecked: true,
    };
    assert!(matches!(
        rebase(&delta, &to),
        Err(OverlayError::Committing { .. })
    ));
    commit(&delta).unwrap();
    assert_eq!(bench.read(&delta), expected);
    assert_eq!(fs::read(bench.path("base")).unwrap(), expected);
}

#[test]
fn an_export_is_all_that_the_delta_shows() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    bench.put(&delta, 512, &[5; 512]);
    let out = bench.path("out");
    export(&delta, &out).unwrap();
    assert_eq!(fs::read(&out).unwrap(), bench.read(&delta));
    let error = export(&delta, &out).unwrap_err();
    assert!(matches!(error, OverlayError::Exists { .. }), "{error}");
}

#[test]
fn a_rebase_changes_nothing_that_is_read() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    bench.put(&delta, 4096, &[5; 4096]);
    let before = bench.read(&delta);
    let mut other = pattern(SIZE);
    other[4096..8192].fill(1);
    other[20_480] ^= 1;
    other.truncate((1 << 20) - 512);
    fs::write(bench.path("other"), other).unwrap();
    let to = Rebase {
        base: bench.path("other"),
        format: BaseFormat::Raw,
        unchecked: false,
    };
    // One cluster differs, one ends early, and one is the delta's own.
    assert_eq!(rebase(&delta, &to).unwrap(), Rebased { copied: 2 });
    fs::remove_file(bench.path("base")).unwrap();
    assert_eq!(bench.read(&delta), before);
    sound(&delta);
}

#[test]
fn what_exists_is_never_replaced_and_what_fails_leaves_nothing() {
    let bench = Bench::new();
    let new = |base: &str, capacity| NewDelta {
        base: bench.path(base),
        format: BaseFormat::Raw,
        capacity,
        cluster_bytes: None,
    };
    let error = create(&bench.path("base"), &new("base", None)).unwrap_err();
    assert!(matches!(error, OverlayError::Exists { .. }), "{error}");
    let error = create_raw(&bench.path("base"), 512).unwrap_err();
    assert!(matches!(error, OverlayError::Exists { .. }), "{error}");
    let delta = bench.path("delta");
    let error = create(&delta, &new("none", None)).unwrap_err();
    assert!(matches!(error, OverlayError::Missing { .. }), "{error}");
    let error = create(&delta, &new("base", Some(512))).unwrap_err();
    assert!(matches!(error, OverlayError::Small { .. }), "{error}");
    let error = create(&delta, &new("base", Some(SIZE + 1))).unwrap_err();
    assert!(matches!(error, OverlayError::Capacity { .. }), "{error}");
    let error = create(&delta, &new("base", Some(1 << 60))).unwrap_err();
    assert!(matches!(error, OverlayError::Capacity { .. }), "{error}");
    fs::write(bench.path("odd"), [1; 700]).unwrap();
    let error = create(&delta, &new("odd", None)).unwrap_err();
    assert!(matches!(error, OverlayError::Length { .. }), "{error}");
    fs::create_dir(bench.path("dir")).unwrap();
    let error = create(&delta, &new("dir", None)).unwrap_err();
    assert!(matches!(error, OverlayError::Kind { .. }), "{error}");
    let error = create(&bench.path("dir/none/delta"), &new("base", None)).unwrap_err();
    assert!(matches!(error, OverlayError::Io { .. }), "{error}");
    bench.only(&["base", "dir", "odd"]);
}

#[test]
fn files_that_are_no_deltas() {
    let bench = Bench::new();
    let open = |name: &str| {
        OverlayDisk::open(&bench.path(name), false)
            .unwrap_err()
            .to_string()
    };
    assert!(open("base").contains("does not start like a delta"));
    fs::write(bench.path("short"), b"CoracleD").unwrap();
    assert!(open("short").contains("is 8 bytes long, shorter than the header"));
    assert!(open("").contains("is not a file"), "{}", open(""));
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    let bytes = fs::read(&delta).unwrap();
    for len in [HEADER_BYTES * COPIES, 1 << 20, bytes.len() - 1] {
        File::options()
            .write(true)
            .open(&delta)
            .unwrap()
            .set_len(len as u64)
            .unwrap();
        assert!(open("delta").contains(&format!("is {len} bytes long, its header needs")));
    }
}

/// A delta as an enemy could hand it over: each byte of what is not data, changed.
#[test]
fn no_changed_byte_of_header_or_map_goes_unnoticed() {
    let bench = Bench::new();
    let delta = bench.delta("delta", "base", BaseFormat::Raw);
    bench.put(&delta, 0, &[5; 4096]);
    bench.put(&delta, 8192, &[5; 4096]);
    let whole = fs::read(&delta).unwrap();
    let file = OpenOptions::new().write(true).open(&delta).unwrap();
    let expected = bench.read(&delta);
    for at in (0..HEADER_BYTES * COPIES + 2 * 4096).step_by(29) {
        file.write_all_at(&[whole[at] ^ 4], at as u64).unwrap();
        let verified = verify(&delta).map(|verified| verified.problems);
        assert!(
            verified.is_err() || !verified.unwrap().is_empty() || at < 64,
            "{at}"
        );
        // One copy of the header, or the last write of the map, can be done without.
        if let Ok(mut disk) = OverlayDisk::open(&delta, true) {
            let found = bench.content(&mut disk);
            assert!(found[..8192] == expected[..8192], "{at}");
        }
        file.write_all_at(&[whole[at]], at as u64).unwrap();
    }
    sound(&delta);
}
