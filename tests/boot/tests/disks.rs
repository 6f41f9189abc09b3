//! Copy-on-write disks through the command line: `coracle disk` and `--disk …,format=cow`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use boot_tests::{code, refused};
use harness::vm::SHORTLY;
use harness::{TestVm, guests, skip};

fn disk(words: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(harness::coracle().unwrap());
    let command = command.arg("disk").args(words).current_dir(folder);
    command.output().unwrap()
}

fn done(words: &[&str], folder: &Path) -> String {
    let output = disk(words, folder);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// One line that names the file and what to do, exit code 2.
fn failed(words: &[&str], folder: &Path, part: &str) {
    let output = disk(words, folder);
    assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(part) && text.contains("; hint: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// A delta over a raw base in the folder of a machine.
fn clone_in(vm: &TestVm) -> PathBuf {
    vm.file("base", &[7; 1 << 20]).unwrap();
    let words = ["create", "--base", "base", "--base-format", "raw", "delta"];
    done(&words, vm.folder());
    vm.folder().join("delta")
}

#[test]
fn from_clone_to_commit() {
    let vm = TestVm::new().unwrap();
    clone_in(&vm);
    let folder = vm.folder();
    let info = done(&["info", "--format", "json", "delta"], folder);
    assert!(info.contains("\"own_clusters\": 0"), "{info}");
    done(&["verify", "delta"], folder);
    done(&["create", "--size", "2M", "other"], folder);
    failed(
        &["create", "--size", "2M", "other"],
        folder,
        "exists already",
    );
    let words = ["rebase", "--base", "other", "--base-format", "raw", "delta"];
    failed(&words, folder, "more than the delta's");
    done(&["commit", "--into", "whole", "delta"], folder);
    assert_eq!(std::fs::read(folder.join("whole")).unwrap(), [7; 1 << 20]);
    let words = ["rebase", "--base", "whole", "--base-format", "raw", "delta"];
    assert_eq!(
        done(&words, folder),
        "0 clusters copied from the old base\n"
    );
    done(&["reset", "delta"], folder);
    done(&["commit", "delta"], folder);
    std::fs::write(folder.join("delta"), [0; 20_000]).unwrap();
    failed(&["verify", "delta"], folder, "does not start like a delta");
    failed(&["info", "none"], folder, "no such file");
    failed(
        &["create", "--base", "whole", "new"],
        folder,
        "--base-format",
    );
    failed(&["info", "--format", "xml", "whole"], folder, "text, json");
}

#[test]
fn a_delta_has_one_machine_and_its_base_no_writer() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::of(&guests::halt()).unwrap();
    let delta = format!("{},format=cow", clone_in(&vm).display());
    let base = vm.folder().join("base");
    let mut first = vm.arg("--disk").arg(&delta).boot().unwrap();
    first.expect(guests::HELLO, SHORTLY).unwrap();
    let good = || TestVm::of(&guests::hello_reset()).unwrap().arg("--disk");
    refused(good().arg(&delta), &["delta", "in use"]).unwrap();
    refused(good().arg(&base), &["base", "in use"]).unwrap();
    // To read it is no trouble.
    let reader = format!("{},ro", base.display());
    let exit = good().arg(reader).run().unwrap();
    assert_eq!(exit.code, Some(code::RESET), "{exit:?}");
    let folder = base.parent().unwrap();
    failed(&["commit", "delta"], folder, "in use");
    assert!(done(&["info", "delta"], folder).contains("in use"));
}

#[test]
fn formats_are_named_and_never_guessed() {
    let vm = TestVm::of(&guests::hello_reset()).unwrap();
    let qcow2 = vm.file("image", b"QFI\xfb").unwrap();
    let value = format!("{},format=qcow2", qcow2.display());
    refused(vm.arg("--disk").arg(value), &["image", "only read"]).unwrap();
    if skip::without_kvm() {
        return;
    }
    for (format, what) in [
        ("cow", "does not start like"),
        ("qcow2,ro", "no qcow2 image"),
    ] {
        let vm = TestVm::of(&guests::hello_reset()).unwrap();
        let raw = vm.file("image", &[1; 20_480]).unwrap();
        let value = format!("{},format={format}", raw.display());
        refused(vm.arg("--disk").arg(value), &["image", what]).unwrap();
    }
    // A delta that is not said to be one is a raw disk.
    let vm = TestVm::of(&guests::hello_reset()).unwrap();
    let delta = clone_in(&vm);
    let exit = vm.arg("--disk").arg(delta).run().unwrap();
    assert_eq!(exit.code, Some(code::RESET), "{exit:?}");
}
