use std::process::Command;

use proptest::prelude::*;

use super::{ErofsError, MAGIC, Options, crc32c, write};
use crate::rootfs::tree::{Content, DeviceNumber, Meta, Tree};

fn small() -> Tree {
    let mut tree = Tree::new(Meta::root(0o755));
    let file = |len: usize| Content::File((0..251).cycle().take(len).collect());
    let add = |tree: &mut Tree, path: &str, mode, content| {
        tree.add(path, Meta::root(mode), content).expect(path);
    };
    add(&mut tree, "bin", 0o755, Content::Directory);
    for len in [
        0, 1, 31, 32, 4063, 4064, 4065, 4095, 4096, 4097, 8191, 8192, 12_345,
    ] {
        add(&mut tree, &format!("bin/f{len}"), 0o644, file(len));
    }
    add(&mut tree, "bin/suid", 0o4755, file(10));
    add(&mut tree, "!before-dot", 0o644, file(3));
    add(
        &mut tree,
        "link",
        0o777,
        Content::Symlink(b"bin/f1".to_vec()),
    );
    add(&mut tree, "long", 0o777, Content::Symlink(vec![b'x'; 4095]));
    let number = DeviceNumber { major: 1, minor: 3 };
    add(&mut tree, "null", 0o666, Content::CharDevice(number));
    let number = DeviceNumber {
        major: 259,
        minor: 1_000,
    };
    add(&mut tree, "disk", 0o660, Content::BlockDevice(number));
    add(&mut tree, "pipe", 0o600, Content::Fifo);
    add(&mut tree, "socket", 0o600, Content::Socket);
    add(&mut tree, "many", 0o755, Content::Directory);
    for i in 0..500 {
        add(
            &mut tree,
            &format!("many/{i}-{}", "n".repeat(i % 200)),
            0o600,
            file(i),
        );
    }
    let meta = Meta {
        mode: 0o640,
        uid: 70_000,
        gid: 5,
        mtime_s: 1_700_000_000,
    };
    tree.add("large-ids", meta, file(4090)).expect("a file");
    tree.link("hard", "bin/f12345").expect("a link");
    tree
}

/// Runs fsck.erofs, and unpacks into `into` when given. Loud when the tool is missing.
fn fsck(image: &[u8], into: Option<&std::path::Path>) -> std::process::Output {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    std::fs::write(&path, image).expect("the image");
    let mut command = Command::new("fsck.erofs");
    if let Some(into) = into {
        command.arg(format!("--extract={}", into.display()));
    }
    command
        .arg(&path)
        .output()
        .expect("fsck.erofs did not start; install it: sudo apt-get install erofs-utils")
}

fn assert_clean(image: &[u8]) {
    let result = fsck(image, None);
    let text = String::from_utf8_lossy(&result.stderr).into_owned()
        + &String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success() && !text.contains("error"), "{text}");
}

#[test]
fn the_checker_of_erofs_utils_finds_no_fault() {
    let image = write(&small(), &Options::default()).expect("an image");
    assert_eq!(image.len() % 4096, 0);
    assert_eq!(image[1024..1028], MAGIC.to_le_bytes());
    assert_clean(&image);
}

#[test]
fn the_checker_notices_a_changed_byte() {
    let mut image = write(&small(), &Options::default()).expect("an image");
    image[1024 + 40] ^= 1;
    let result = fsck(&image, None);
    assert!(!result.status.success() || !result.stderr.is_empty());
}

#[test]
fn extraction_gives_the_files_back() {
    let mut tree = Tree::new(Meta::root(0o755));
    tree.add("d", Meta::root(0o755), Content::Directory)
        .expect("a directory");
    let sizes = [0_usize, 1, 4064, 4065, 4096, 9_000, 70_000];
    let bytes = |len: usize| -> Vec<u8> { (0..=250).rev().cycle().take(len).collect() };
    for len in sizes {
        let content = Content::File(bytes(len));
        tree.add(&format!("d/{len}"), Meta::root(0o644), content)
            .expect("a file");
    }
    tree.add("s", Meta::root(0o777), Content::Symlink(b"d/1".to_vec()))
        .expect("a link");
    let image = write(&tree, &Options::default()).expect("an image");
    let dir = tempfile::tempdir().expect("a directory");
    let into = dir.path().join("out");
    let result = fsck(&image, Some(&into));
    assert!(result.status.success(), "{result:?}");
    for len in sizes {
        let got = std::fs::read(into.join(format!("d/{len}"))).expect("a file");
        assert!(got == bytes(len), "{len} bytes differ");
    }
    let target = std::fs::read_link(into.join("s")).expect("a link");
    assert_eq!(target, std::path::Path::new("d/1"));
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let options = Options {
        uuid: [7; 16],
        build_time_s: 9,
        ..Options::default()
    };
    let first = write(&small(), &options).expect("an image");
    let second = write(&small(), &options).expect("an image");
    assert!(first == second);
}

#[test]
fn an_empty_tree_is_one_block() {
    let tree = Tree::new(Meta::root(0o755));
    let image = write(&tree, &Options::default()).expect("an image");
    assert_eq!(image.len(), 4096);
    assert_clean(&image);
}

#[test]
fn device_numbers_that_linux_has_not_are_refused() {
    for (major, minor) in [(4096, 0), (0, 1 << 20)] {
        let mut tree = Tree::new(Meta::root(0o755));
        let number = DeviceNumber { major, minor };
        tree.add("d", Meta::root(0), Content::CharDevice(number))
            .expect("a device");
        let refused = write(&tree, &Options::default());
        assert!(matches!(refused, Err(ErofsError::BadDevice { .. })));
    }
}

#[test]
fn the_checksum_is_the_kernels() {
    // CRC-32C of "123456789" is 0xe3069283; the kernel's form lacks the final inversion.
    assert_eq!(!crc32c(b"123456789".iter().copied()), 0xe306_9283);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_passes_the_checker(
        files in proptest::collection::btree_map("[ -.0-~]{1,40}", 0_usize..9_000, 0..60),
        deep in 0_usize..5,
    ) {
        let mut tree = Tree::new(Meta::root(0o755));
        let mut at = String::new();
        for level in 0..deep {
            at = format!("{at}/{level}");
            tree.add(&at, Meta::root(0o700), Content::Directory).expect("a directory");
        }
        for (name, len) in files {
            if !matches!(name.as_str(), "." | "..") {
                let content = Content::File(vec![1; len]);
                let path = format!("{at}/{name}");
                // A file of the upper levels may have the name of a directory.
                drop(tree.add(&path, Meta::root(0o644), content));
            }
        }
        assert_clean(&write(&tree, &Options::default()).expect("an image"));
    }
}
