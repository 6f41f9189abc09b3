use std::fs;
use std::os::unix::net::UnixListener;

use api::spec::{DiskSpec, KernelSpec, MachineSpec};
use tempfile::TempDir;

use rustix::fs::Mode;

use super::*;

const BUILT_IN: BuiltIn = BuiltIn {
    kernel: b"kernel",
    system: &[7; 1024],
};

/// A folder with one of each kind of file.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("full"), [1; 1024]).unwrap();
    fs::write(dir.path().join("ragged"), [1; 1000]).unwrap();
    fs::write(dir.path().join("empty"), []).unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
    std::os::unix::fs::symlink("full", dir.path().join("link")).unwrap();
    drop(UnixListener::bind(dir.path().join("socket")).unwrap());
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    dir
}

fn refuse(spec: &MachineSpec) -> (String, String) {
    let config = Config::try_from(spec).unwrap();
    let error = Files::open(&config, BUILT_IN).unwrap_err();
    (error.to_string(), error.remedy())
}

#[test]
fn the_built_in_guest_needs_no_file() {
    let config = Config::try_from(&MachineSpec::default()).unwrap();
    let files = Files::open(&config, BUILT_IN).unwrap();
    assert_eq!(files.system, Some(BUILT_IN.system));
    assert!(files.disks.is_empty());
}

#[test]
fn kernels_and_initrds_that_are_refused() {
    let dir = folder();
    for (name, part, remedy) in [
        (
            "missing",
            "can't be opened: no such file or directory",
            "check the path",
        ),
        ("full/sub", "can't be opened: not a directory", "check that"),
        ("loop", "can't be opened: ", "check that"),
        (
            "dir",
            "is a directory, not a file",
            "give the path of a file",
        ),
        ("fifo", "is a FIFO, not a file", "give the path of a file"),
        ("socket", "can't be opened: no such device", "check that"),
        ("empty", "is empty", "written completely"),
    ] {
        let path = dir.path().join(name);
        let kernel = MachineSpec {
            kernel: Some(KernelSpec {
                path: path.clone(),
                format: Default::default(),
                protocol: Default::default(),
            }),
            ..MachineSpec::default()
        };
        let initrd = MachineSpec {
            initrd: Some(path.clone()),
            ..MachineSpec::default()
        };
        for (field, spec) in [("kernel", kernel), ("initrd", initrd)] {
            let (error, hint) = refuse(&spec);
            assert!(
                error.starts_with(&format!("{field} {}: {part}", path.display())),
                "{error}"
            );
            assert!(hint.contains(remedy), "{hint}");
            assert!(
                !error.contains('\n') && !error.contains("os error"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_device_is_no_kernel() {
    let spec = MachineSpec {
        initrd: Some("/dev/null".into()),
        ..MachineSpec::default()
    };
    assert_eq!(
        refuse(&spec).0,
        "initrd /dev/null: is a character device, not a file"
    );
}

#[test]
fn disks_that_are_refused() {
    let dir = folder();
    for (name, read_only, part) in [
        (
            "missing",
            false,
            "can't be opened: no such file or directory",
        ),
        (
            "missing",
            true,
            "can't be opened: no such file or directory",
        ),
        ("dir", false, "is a directory"),
        ("dir", true, "is a directory"),
        ("fifo", false, "is a FIFO"),
        ("fifo", true, "is a FIFO"),
        ("empty", true, "is empty"),
        (
            "ragged",
            true,
            "is 1000 bytes long, which is not a multiple of 512",
        ),
    ] {
        let path = dir.path().join(name);
        let disk = DiskSpec {
            path: path.clone(),
            read_only,
            ..DiskSpec::default()
        };
        let (error, _) = refuse(&MachineSpec {
            disks: vec![disk],
            ..MachineSpec::default()
        });
        assert!(
            error.starts_with(&format!("disk {}: {part}", path.display())),
            "{error}"
        );
    }
}

#[test]
fn a_ragged_disk_says_how_to_mend_it() {
    let dir = folder();
    let disk = DiskSpec {
        path: dir.path().join("ragged"),
        read_only: true,
        ..DiskSpec::default()
    };
    let (_, hint) = refuse(&MachineSpec {
        disks: vec![disk],
        ..MachineSpec::default()
    });
    assert!(
        hint.starts_with("lengthen it with `truncate -s 1024 "),
        "{hint}"
    );
}

#[test]
fn links_are_followed() {
    let dir = folder();
    let spec = MachineSpec {
        initrd: Some(dir.path().join("link")),
        ..MachineSpec::default()
    };
    let files = Files::open(&Config::try_from(&spec).unwrap(), BUILT_IN).unwrap();
    assert_eq!(files.initrd.unwrap().len, 1024);
}
