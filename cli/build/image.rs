//! The tree of the embedded guest's system image; pure apart from what it is given.

use oci::rootfs::erofs::{self, Options};
use oci::rootfs::tree::{Content, Meta, Tree};

/// A static busybox and the paths of its applets, without a leading slash.
pub(crate) struct Busybox {
    pub(crate) program: Vec<u8>,
    pub(crate) applets: Vec<String>,
}

const DIRECTORIES: &[(&str, u16)] = &[
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
];

const FILES: &[(&str, &str)] = &[
    ("etc/group", "root:x:0:\ntty:x:5:\nnobody:x:65534:\n"),
    ("etc/hostname", "coracle\n"),
    ("etc/hosts", "127.0.0.1 localhost coracle\n::1 localhost\n"),
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    ),
    ("etc/shells", "/bin/sh\n"),
    (
        "etc/os-release",
        "ID=coracle\nNAME=Coracle\nPRETTY_NAME=\"Coracle guest\"\n",
    ),
];

/// What changes at run time points to where it can.
const LINKS: &[(&str, &str)] = &[
    ("etc/mtab", "/proc/self/mounts"),
    ("etc/resolv.conf", "/run/resolv.conf"),
    ("var/log", "/run"),
    ("var/run", "/run"),
    ("var/tmp", "/tmp"),
];

/// Further names of init; busybox's own would be as good, but these are always there.
const INIT_NAMES: &[&str] = &["sbin/poweroff", "sbin/reboot", "sbin/halt"];

/// The bytes of the image.
pub(crate) fn build(init: &[u8], busybox: Option<&Busybox>) -> Result<Vec<u8>, String> {
    let tree = tree(init, busybox).map_err(|error| error.to_string())?;
    let options = Options {
        volume_name: *b"coracle\0\0\0\0\0\0\0\0\0",
        ..Options::default()
    };
    erofs::write(&tree, &options).map_err(|error| error.to_string())
}

fn tree(init: &[u8], busybox: Option<&Busybox>) -> Result<Tree, oci::rootfs::tree::TreeError> {
    let mut tree = Tree::new(Meta::root(0o755));
    for (path, mode) in DIRECTORIES {
        tree.add(path, Meta::root(*mode), Content::Directory)?;
    }
    for (path, text) in FILES {
        tree.add(
            path,
            Meta::root(0o644),
            Content::File(text.as_bytes().to_vec()),
        )?;
    }
    for (path, target) in LINKS {
        tree.add(
            path,
            Meta::root(0o777),
            Content::Symlink(target.as_bytes().to_vec()),
        )?;
    }
    tree.add("sbin/init", Meta::root(0o755), Content::File(init.to_vec()))?;
    for name in INIT_NAMES {
        tree.link(name, "sbin/init")?;
    }
    let Some(busybox) = busybox else {
        tree.link("bin/sh", "sbin/init")?;
        return Ok(tree);
    };
    tree.add(
        "bin/busybox",
        Meta::root(0o755),
        Content::File(busybox.program.clone()),
    )?;
    for applet in &busybox.applets {
        // Names that are taken stay; applets in folders that the image lacks are left out.
        if tree.find(applet).is_none() && has_parent(&tree, applet) {
            tree.link(applet, "bin/busybox")?;
        }
    }
    Ok(tree)
}

fn has_parent(tree: &Tree, path: &str) -> bool {
    path.rsplit_once('/')
        .is_some_and(|(above, _)| tree.find(above).is_some())
}

/// Whether an ELF program needs no interpreter (program header type 3), so that it runs in an
/// image without libraries.
pub(crate) fn is_static(program: &[u8]) -> bool {
    let u16_at = |at: usize| {
        Some(u16::from_le_bytes(
            program.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let u32_at = |at: usize| {
        Some(u32::from_le_bytes(
            program.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let headers = program
        .get(32..40)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes);
    let (Some(start), Some(size), Some(count)) = (
        headers.and_then(|at| usize::try_from(at).ok()),
        u16_at(54),
        u16_at(56),
    ) else {
        return false;
    };
    (0..usize::from(count)).all(|index| {
        index
            .checked_mul(usize::from(size))
            .and_then(|offset| offset.checked_add(start))
            .and_then(u32_at)
            .is_some_and(|kind| kind != 3)
    })
}
