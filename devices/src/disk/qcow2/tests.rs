use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;

/// A version 3 header of a 1 GiB disk with 64 KiB clusters, as qemu-img writes it.
fn header() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [MAGIC, 3, 0, 0, 0, 16] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend((1_u64 << 30).to_be_bytes());
    for word in [0_u32, 2] {
        bytes.extend(word.to_be_bytes());
    }
    for word in [0x3_0000_u64, 0x1_0000] {
        bytes.extend(word.to_be_bytes());
    }
    for word in [1_u32, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend([0; 8]);
    bytes.extend([0; 24]);
    for word in [4_u32, 104] {
        bytes.extend(word.to_be_bytes());
    }
    assert_eq!(bytes.len(), HEADER_BYTES);
    bytes
}

const FILE_BYTES: u64 = 0x4_0000;

#[test]
fn headers_within_the_bounds() {
    assert_eq!(check_header(&header(), FILE_BYTES), Ok(1 << 30));
    let mut second = header();
    second[7] = 2;
    assert_eq!(check_header(&second[..72], FILE_BYTES), Ok(1 << 30));
}

/// Every field with values that it must not have.
#[test]
fn every_bad_field_is_named_with_its_value() {
    let cases: &[(&str, usize, usize, &[u64])] = &[
        ("version", 4, 4, &[0, 1, 4, 0xffff_ffff]),
        ("cluster_bits", 20, 4, &[0, 8, 22, 31, 32, 63, 0xffff_ffff]),
        ("size", 24, 8, &[0, 1, 511, (64 << 40) + 512, u64::MAX]),
        ("l1_size", 36, 4, &[0, 1, (4 << 20) + 1, 0xffff_ffff]),
        (
            "l1_table_offset",
            40,
            8,
            &[0, 512, 0x3_0001, 0x4_0000, u64::MAX, !0xffff],
        ),
        ("refcount_table_offset", 48, 8, &[1, 512, u64::MAX]),
        ("refcount_order", 96, 4, &[7, 64, 0xffff_ffff]),
        (
            "header_length",
            100,
            4,
            &[0, 72, 103, 105, 4104, 0xffff_ffff],
        ),
    ];
    for (name, at, size, values) in cases {
        for value in *values {
            let mut bytes = header();
            bytes[*at..at + size].copy_from_slice(&value.to_be_bytes()[8 - size..]);
            match check_header(&bytes, FILE_BYTES) {
                Err(HeaderProblem::Field {
                    field, value: told, ..
                }) => {
                    assert_eq!((field, told), (*name, *value));
                }
                other => panic!("{name} = {value}: {other:?}"),
            }
        }
    }
    for (at, expected) in [
        (0, "is no qcow2 image"),
        (15, "has a backing file"),
        (19, "has a backing file"),
        (35, "is encrypted (method 1)"),
    ] {
        let mut bytes = header();
        bytes[at] ^= 1;
        let error = check_header(&bytes, FILE_BYTES).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    for bit in 0..64 {
        let mut bytes = header();
        bytes[72..80].copy_from_slice(&(1_u64 << bit).to_be_bytes());
        let error = check_header(&bytes, FILE_BYTES).unwrap_err();
        assert!(
            matches!(error, HeaderProblem::Features { .. }),
            "{bit}: {error}"
        );
    }
}

#[test]
fn headers_cut_at_any_length() {
    for len in 0..HEADER_BYTES {
        let error = check_header(&header()[..len], FILE_BYTES).unwrap_err();
        assert_eq!(error, HeaderProblem::Short { bytes: len });
    }
}

/// What the tables of the largest disks would take is refused, before anything is read.
#[test]
fn tables_are_bounded() {
    let mut bytes = header();
    bytes[20..24].copy_from_slice(&21_u32.to_be_bytes());
    bytes[24..32].copy_from_slice(&(64_u64 << 40).to_be_bytes());
    bytes[36..40].copy_from_slice(&128_u32.to_be_bytes());
    bytes[40..48].copy_from_slice(&(2_u64 << 20).to_be_bytes());
    bytes[48..56].copy_from_slice(&(4_u64 << 20).to_be_bytes());
    let error = check_header(&bytes, 1 << 30).unwrap_err();
    assert!(
        matches!(
            error,
            HeaderProblem::Field {
                field: "cluster_bits",
                ..
            }
        ),
        "{error}"
    );
}

/// True, and said, where there is no qemu-img to compare with.
fn without_oracle() -> bool {
    harness::skip::without_program("qemu-img")
}

struct Bench {
    dir: TempDir,
    ram: GuestRam,
}

impl Bench {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            ram: Arc::new(memory).into(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn qemu(&self, program: &str, words: &[&str]) {
        let output = Command::new(program)
            .args(words)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
    }

    fn open(&self, name: &str) -> Result<Qcow2Disk, Qcow2Error> {
        Qcow2Disk::from_file(File::open(self.path(name)).unwrap(), &self.path(name))
    }

    /// Both ways of reading, in odd pieces.
    fn compare(&self, name: &str, expected: &[u8]) {
        let mut disk = self.open(name).unwrap();
        assert_eq!(disk.geometry().bytes, expected.len() as u64);
        let mut copy = vec![0; expected.len()];
        disk.copy(0, &mut copy).unwrap();
        assert!(copy == expected, "{name}");
        let step = 512 * 77;
        for (index, part) in expected.chunks(step).enumerate() {
            let half = u32::try_from(part.len() / 1024 * 512).unwrap();
            let rest = u32::try_from(part.len()).unwrap() - half;
            let spans = [(0x1000, half), (0x10_0000, rest)].map(|(at, len)| Span { at, len });
            Disk::read(&mut disk, (index * step) as u64, &self.ram, &spans).unwrap();
            for (span, part) in spans
                .iter()
                .zip([&part[..half as usize], &part[half as usize..]])
            {
                let mut found = vec![0; part.len()];
                self.ram.read_bytes(span.at, &mut found).unwrap();
                assert!(found == part, "{name} at {}", index * step);
            }
        }
    }
}

/// Text-like bytes (which compress), a hole, and noise.
fn content() -> Vec<u8> {
    let mut state = 1_u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let mut bytes: Vec<u8> = (0..3_u32 << 20)
        .map(|at| (at / 900).to_le_bytes()[0])
        .collect();
    bytes.extend(vec![0; 2 << 20]);
    bytes.extend((0..(1 << 20) + 512).map(|_| noise()));
    bytes
}

#[test]
fn images_of_qemu_img_read_as_it_says() {
    if without_oracle() {
        return;
    }
    let bench = Bench::new();
    let content = content();
    fs::write(bench.path("raw"), &content).unwrap();
    for version in ["0.10", "1.1"] {
        for cluster in ["512", "4096", "65536", "2097152"] {
            for compressed in [false, true] {
                let options = format!("compat={version},cluster_size={cluster}");
                let mut words = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", &options];
                if compressed {
                    words.push("-c");
                }
                words.extend(["raw", "image"]);
                bench.qemu("qemu-img", &words);
                bench.compare("image", &content);
            }
        }
    }
}

#[test]
fn zero_clusters_and_preallocation() {
    if without_oracle() || harness::skip::without_program("qemu-io") {
        return;
    }
    let bench = Bench::new();
    let mut content = content();
    fs::write(bench.path("raw"), &content).unwrap();
    bench.qemu(
        "qemu-img",
        &["convert", "-O", "qcow2", "-f", "raw", "raw", "image"],
    );
    for (at, len) in [(0, 65_536), (131_072, 196_608), (5 << 20, 65_536)] {
        let command = format!("write -z {at} {len}");
        bench.qemu("qemu-io", &["-f", "qcow2", "-c", &command, "image"]);
        content[at..at + len].fill(0);
    }
    bench.qemu(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -z -u 1M 1M", "image"],
    );
    content[1 << 20..2 << 20].fill(0);
    bench.compare("image", &content);
    let options = "preallocation=metadata";
    bench.qemu(
        "qemu-img",
        &["create", "-f", "qcow2", "-o", options, "empty", "3M"],
    );
    bench.compare("empty", &vec![0; 3 << 20]);
}

#[test]
fn what_needs_more_than_the_image_is_refused() {
    if without_oracle() {
        return;
    }
    let bench = Bench::new();
    fs::write(bench.path("raw"), [1; 4096]).unwrap();
    let create = |options: &str, name: &str| {
        bench.qemu(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-o", options, name, "1M"],
        );
        bench.open(name).unwrap_err().to_string()
    };
    let error = create("backing_file=raw,backing_fmt=raw", "backed");
    assert!(
        error.contains("has a backing file, which is never opened"),
        "{error}"
    );
    let error = create("data_file=other,data_file_raw=on", "split");
    assert!(error.contains("its data is in another file"), "{error}");
    let error = create("extended_l2=on,cluster_size=65536", "extended");
    assert!(error.contains("subclusters"), "{error}");
    let error = create("compression_type=zstd", "zstd");
    assert!(error.contains("otherwise than with zlib"), "{error}");
    let error = bench.open("raw").unwrap_err().to_string();
    assert!(error.contains("is no qcow2 image"), "{error}");
}

/// Any single byte of header and tables: an error, a refusal or other content, no more.
#[test]
fn changed_tables_do_no_harm() {
    if without_oracle() {
        return;
    }
    let bench = Bench::new();
    fs::write(bench.path("raw"), content()).unwrap();
    let options = "cluster_size=4096";
    let words = [
        "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, "raw", "image",
    ];
    bench.qemu("qemu-img", &words);
    let whole = fs::read(bench.path("image")).unwrap();
    let mut piece = vec![0; 65_536];
    for at in (0..40_000_usize.min(whole.len())).step_by(37) {
        for value in [0xff, 0x80, 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= value;
            fs::write(bench.path("image"), &bytes).unwrap();
            let Ok(mut disk) = bench.open("image") else {
                continue;
            };
            for offset in (0..disk.bytes.min(6 << 20)).step_by(512 << 10) {
                let len = usize::try_from(disk.bytes - offset)
                    .unwrap()
                    .min(piece.len());
                let _ = disk.copy(offset, &mut piece[..len]);
            }
        }
    }
    for len in (0..whole.len()).step_by(whole.len() / 100) {
        fs::write(bench.path("image"), &whole[..len]).unwrap();
        if let Ok(mut disk) = bench.open("image") {
            let _ = disk.copy(0, &mut piece);
        }
    }
}

#[test]
fn it_is_locked_against_writers() {
    if without_oracle() {
        return;
    }
    let bench = Bench::new();
    bench.qemu("qemu-img", &["create", "-q", "-f", "qcow2", "image", "1M"]);
    let readers = [bench.open("image").unwrap(), bench.open("image").unwrap()];
    let writer = File::options()
        .read(true)
        .write(true)
        .open(bench.path("image"))
        .unwrap();
    assert!(lock(&writer, false).is_err());
    drop(readers);
    lock(&writer, false).unwrap();
    let error = bench.open("image").unwrap_err();
    assert!(matches!(error, Qcow2Error::Locked { .. }), "{error}");
}
