//! Bad input: each is refused with one line that names the field and the value, exit code 2, and
//! nothing left behind. None of these machines needs /dev/kvm before it is refused.

use anyhow::Result;
use boot_tests::{code, judge, refused, refused_with};
use harness::elf::Elf;
use harness::{TestVm, guests, skip};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn good() -> TestVm {
    TestVm::of(&guests::hello_reset()).unwrap()
}

fn kernel(image: &[u8]) -> TestVm {
    TestVm::of(image).unwrap()
}

#[track_caller]
fn check(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        panic!("{what}: {error:#}");
    }
}

#[test]
fn kernels_that_are_no_files() {
    let missing = TestVm::new()
        .unwrap()
        .args(&["--kernel", "/no/such/kernel"]);
    check("missing", refused(missing, &["kernel", "/no/such/kernel"]));
    let folder = TestVm::new().unwrap().args(&["--kernel", "/"]);
    check("a directory", refused(folder, &["kernel", "/"]));
    check("empty", refused(kernel(&[]), &["kernel"]));
    check(
        "a device",
        refused(
            TestVm::new().unwrap().args(&["--kernel", "/dev/zero"]),
            &["kernel"],
        ),
    );
}

#[test]
fn a_fifo_as_kernel_is_refused_and_not_waited_for() {
    let vm = TestVm::new().unwrap();
    let fifo = vm.folder().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    check(
        "a FIFO",
        refused(vm.arg("--kernel").arg(&fifo), &["kernel", "fifo"]),
    );
}

#[test]
fn kernels_cut_short_anywhere() {
    if skip::without_kvm() {
        return;
    }
    let image = guests::hello_reset();
    // Every byte of the headers, then some of the padding and all of the code.
    let headers = 0..220;
    let rest = (220..image.len()).step_by(211);
    let code = image.len() - 16..image.len();
    for length in headers.chain(rest).chain(code) {
        let cut = image.get(..length).unwrap();
        check(
            &format!("cut to {length} bytes"),
            refused(kernel(cut), &["kernel"]),
        );
    }
}

#[test]
fn kernels_with_one_field_wrong() {
    let good = Elf::of(vec![0xf4; 16]);
    let patched = |offset: usize, bytes: &[u8]| {
        let mut image = good.image();
        image.splice(offset..offset + bytes.len(), bytes.iter().copied());
        image
    };
    let load = 64;
    let table: &[(&str, Vec<u8>)] = &[
        ("text", b"#!/bin/sh\necho no kernel\n".repeat(100)),
        ("zeros", vec![0; 8192]),
        ("32-bit", patched(4, &[1])),
        ("big endian", patched(5, &[2])),
        ("another machine", patched(18, &[183, 0])),
        ("a relocatable object", patched(16, &[1, 0])),
        ("no program headers", patched(56, &[0, 0])),
        ("65535 program headers", patched(56, &[0xff, 0xff])),
        (
            "program headers beyond the end",
            patched(32, &u64::MAX.to_le_bytes()),
        ),
        ("odd program headers", patched(54, &[55, 0])),
        (
            "a segment beyond the file",
            patched(load + 32, &(1u64 << 40).to_le_bytes()),
        ),
        (
            "a segment that wraps",
            patched(load + 24, &(u64::MAX - 4).to_le_bytes()),
        ),
        ("a segment in the first page", patched(load + 24, &[0; 8])),
        (
            "a segment over the hole",
            patched(load + 24, &0xbfff_fff8u64.to_le_bytes()),
        ),
        (
            "a segment in the hole",
            patched(load + 24, &0xd000_0000u64.to_le_bytes()),
        ),
        (
            "a segment beyond memory",
            patched(load + 24, &(1u64 << 33).to_le_bytes()),
        ),
        (
            "a segment larger than memory",
            patched(load + 40, &(1u64 << 36).to_le_bytes()),
        ),
        (
            "a segment smaller than its file",
            patched(load + 40, &[8, 0, 0, 0, 0, 0, 0, 0]),
        ),
    ];
    for (what, image) in table {
        check(what, refused(kernel(image), &["kernel"]));
    }
}

#[test]
fn formats_are_not_confused() {
    let elf = good().args(&["--kernel-format", "bzimage"]);
    check("ELF as bzImage", refused(elf, &["kernel"]));
    let mut image = vec![0; 4096];
    image.splice(0x1fe..0x200, [0x55, 0xaa]);
    image.splice(0x202..0x206, *b"HdrS");
    let claimed = kernel(&image).args(&["--kernel-format", "elf"]);
    check("bzImage as ELF", refused(claimed, &["kernel"]));
    check(
        "bzImage with an empty header",
        refused(kernel(&image), &["kernel"]),
    );
}

#[test]
fn initrds() {
    let missing = good().args(&["--initrd", "/no/such/initrd"]);
    check("missing", refused(missing, &["initrd", "/no/such/initrd"]));
    let vm = good();
    let empty = vm.file("initrd", &[]).unwrap();
    check("empty", refused(vm.arg("--initrd").arg(empty), &["initrd"]));
    let vm = good();
    let huge = vm.file("initrd", &[]).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&huge)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    check(
        "larger than memory",
        refused(vm.arg("--initrd").arg(huge), &["initrd"]),
    );
    check(
        "a directory",
        refused(good().args(&["--initrd", "/"]), &["initrd", "/"]),
    );
}

#[test]
fn command_lines() {
    let long = "x".repeat(4096);
    check(
        "too long",
        refused(good().args(&["--cmdline", &long]), &["cmdline", "2047"]),
    );
    check(
        "a newline",
        refused(good().args(&["--cmdline", "a\nb"]), &["cmdline", "newline"]),
    );
}

#[test]
fn sizes_of_memory() {
    let table: &[(&str, &[&str])] = &[
        ("0", &["memory", "0"]),
        ("1", &["memory", "1"]),
        ("1M", &["memory", "1"]),
        ("33554433", &["memory"]),
        ("-1", &[]),
        ("lots", &["memory", "lots"]),
        ("", &["memory"]),
        ("99999999999999999999", &["memory"]),
        ("16E", &["memory"]),
        ("1000T", &["memory", "1000"]),
        ("500G", &["memory", "500"]),
    ];
    for (size, words) in table {
        let vm = good().arg(format!("--memory={size}"));
        // clap's own refusals may have more than one line.
        let outcome = if words.is_empty() {
            exits_with_input(vm)
        } else {
            refused(vm, words)
        };
        check(&format!("memory {size:?}"), outcome);
    }
}

#[test]
fn numbers_of_cpus() {
    for count in ["0", "65", "1000000"] {
        check(
            count,
            refused(good().args(&["--cpus", count]), &["cpus", count]),
        );
    }
    for text in ["-1", "two", ""] {
        check(text, exits_with_input(good().arg(format!("--cpus={text}"))));
    }
}

#[test]
fn unknown_arguments() {
    check("a flag", exits_with_input(good().arg("--no-such-flag")));
    check("a word", exits_with_input(good().arg("word")));
    check(
        "a console",
        exits_with_input(good().args(&["--console", "telephone"])),
    );
}

/// Arguments that the parser itself refuses: exit code 2 and a message of any length.
fn exits_with_input(vm: TestVm) -> Result<()> {
    let exit = vm.run()?;
    anyhow::ensure!(exit.code == Some(code::INPUT), "{exit:?}");
    anyhow::ensure!(
        !exit.stderr.is_empty() && exit.stdout.is_empty(),
        "{exit:?}"
    );
    Ok(())
}

#[test]
fn disks() {
    let missing = good().args(&["--disk", "/no/such/disk"]);
    check("missing", refused(missing, &["disk", "/no/such/disk"]));
    let vm = good();
    let odd = vm.file("odd", &[0; 1000]).unwrap();
    check("odd", refused(vm.arg("--disk").arg(odd), &["disk", "512"]));
    let vm = good();
    let empty = vm.file("none", &[]).unwrap();
    check("empty", refused(vm.arg("--disk").arg(empty), &["disk"]));
    check(
        "a directory",
        refused(good().args(&["--disk", "/"]), &["disk", "/"]),
    );
    let vm = good();
    let disk = vm.file("disk", &[0; 512]).unwrap();
    let option = format!("{},readwrite", disk.display());
    check(
        "an unknown option",
        exits_with_input(vm.arg("--disk").arg(option)),
    );
    let vm = good();
    let disk = vm.file("disk", &[0; 512]).unwrap();
    let twice = vm.arg("--disk").arg(&disk).arg("--disk").arg(&disk);
    check("twice", refused(twice, &["disk"]));
}

#[test]
fn a_disk_has_one_user() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::of(&guests::halt()).unwrap();
    let disk = vm.file("disk", &[0; 512]).unwrap();
    let mut first = vm.arg("--disk").arg(&disk).boot().unwrap();
    first.expect(guests::HELLO, harness::vm::SHORTLY).unwrap();
    check(
        "locked",
        refused(good().arg("--disk").arg(&disk), &["disk", "in use"]),
    );
    let reader = format!("{},ro", disk.display());
    check(
        "locked for a reader",
        refused(good().arg("--disk").arg(reader), &["disk", "in use"]),
    );
}

#[test]
fn two_readers_share_a_disk() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::of(&guests::halt()).unwrap();
    let disk = format!("{},ro", vm.file("disk", &[0; 512]).unwrap().display());
    let mut first = vm.arg("--disk").arg(&disk).boot().unwrap();
    first.expect(guests::HELLO, harness::vm::SHORTLY).unwrap();
    let second = good().arg("--disk").arg(&disk).run().unwrap();
    assert_eq!(second.code, Some(code::RESET), "{second:?}");
}

/// Runs coracle as nobody, with a copy of the program that nobody may execute. None when this test
/// isn't root, and reported.
fn as_nobody(vm: &TestVm, arguments: &[&str]) -> Option<harness::Exit> {
    if !rustix::process::geteuid().is_root() {
        skip::skipped("only root can become another user");
        return None;
    }
    if skip::without_program("setpriv") {
        return None;
    }
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(vm.folder(), everyone).unwrap();
    let copy = vm.folder().join("coracle");
    // Copied by another process: while this one holds a program open for writing, a child that
    // another test starts would inherit that, and nobody could execute the program.
    let copied = Command::new("cp")
        .arg(harness::coracle().unwrap())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(copied.success());
    let identity = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = Command::new("setpriv");
    command
        .args(identity)
        .arg(&copy)
        .arg("boot")
        .args(arguments);
    Some(run(&mut command))
}

fn run(command: &mut Command) -> harness::Exit {
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    harness::Exit {
        code: output.status.code(),
        signal: None,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn files_without_permission() {
    let vm = good();
    let disk = vm.file("secret", &[0; 512]).unwrap();
    let path = disk.to_str().unwrap();
    std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o400)).unwrap();
    let kernel = vm.folder().join("kernel");
    let kernel = kernel.to_str().unwrap();
    let Some(exit) = as_nobody(&vm, &["--kernel", kernel, "--disk", path]) else {
        return;
    };
    check(
        "unreadable",
        judge(&exit, code::INPUT, &["disk", "secret", "ermission"]),
    );
    std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o444)).unwrap();
    let Some(exit) = as_nobody(&vm, &["--kernel", kernel, "--disk", path]) else {
        return;
    };
    check(
        "read-only",
        judge(&exit, code::INPUT, &["disk", "secret", "writing"]),
    );
}

#[test]
fn no_permission_on_kvm() {
    if skip::without_kvm() {
        return;
    }
    let mode = std::fs::metadata("/dev/kvm").unwrap().permissions().mode();
    if mode & 0o006 != 0 {
        skip::skipped("/dev/kvm is open to everyone here");
        return;
    }
    let vm = good();
    let kernel = vm.folder().join("kernel");
    let Some(exit) = as_nobody(&vm, &["--kernel", kernel.to_str().unwrap()]) else {
        return;
    };
    check(
        "no permission",
        judge(&exit, code::HOST, &["/dev/kvm", "ermission"]),
    );
}

/// Runs a good machine in a mount namespace where /dev/kvm is something else.
fn with_other_kvm(before: &str) -> Option<harness::Exit> {
    if !rustix::process::geteuid().is_root() {
        skip::skipped("only root can put something else at /dev/kvm");
        return None;
    }
    if !std::path::Path::new("/dev/kvm").exists() {
        skip::skipped("there is no /dev/kvm to put something else at");
        return None;
    }
    let vm = good();
    let kernel = vm.folder().join("kernel");
    let script = format!("{before} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command
        .arg(harness::coracle().unwrap())
        .arg("boot")
        .arg("--kernel")
        .arg(kernel);
    Some(run(&mut command))
}

#[test]
fn no_kvm() {
    if let Some(exit) = with_other_kvm("mount -t tmpfs none /dev") {
        check("no /dev/kvm", judge(&exit, code::HOST, &["/dev/kvm"]));
    }
    if let Some(exit) = with_other_kvm("mount --bind /dev/null /dev/kvm") {
        check("not KVM", judge(&exit, code::HOST, &["/dev/kvm"]));
    }
}

#[test]
fn another_version_of_kvms_interface() {
    if skip::without_kvm() || skip::without_program("strace") {
        return;
    }
    let vm = good();
    let kernel = vm.folder().join("kernel");
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", "trace=ioctl"]);
    command.args(["-e", "inject=ioctl:retval=11:when=1"]);
    command
        .arg(harness::coracle().unwrap())
        .arg("boot")
        .arg("--kernel")
        .arg(kernel);
    let exit = run(&mut command);
    check("version 11", judge(&exit, code::HOST, &["11", "12"]));
}

#[test]
fn more_memory_than_the_host_commits() {
    // An address space of 256 MiB stands for a host that refuses to overcommit.
    if skip::without_kvm() || skip::without_program("prlimit") {
        return;
    }
    let vm = good();
    let kernel = vm.folder().join("kernel");
    let mut command = Command::new("prlimit");
    command
        .arg("--as=268435456")
        .arg(harness::coracle().unwrap());
    command
        .args(["boot", "--memory", "1G", "--kernel"])
        .arg(kernel);
    check(
        "overcommit",
        judge(&run(&mut command), code::HOST, &["memory"]),
    );
}

#[test]
fn help_into_a_closed_pipe_is_quiet() {
    for arguments in [&["--help"][..], &["boot", "--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(harness::coracle().unwrap());
        let output = command.args(arguments).stdout(writer).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("panicked"), "{text}");
    }
    let vm = good().arg("--print-plan");
    let mut command = vm.command().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = output.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn no_machine_is_left_behind() {
    // A refused machine has made no file beside the one it was given.
    let vm = good();
    let folder = vm.folder().to_path_buf();
    let kept = tempfile::tempdir().unwrap();
    let mut command = vm.args(&["--cpus", "0"]).command().unwrap();
    let exit = run(command.current_dir(kept.path()));
    assert_eq!(exit.code, Some(code::INPUT));
    assert_eq!(std::fs::read_dir(kept.path()).unwrap().count(), 0);
    assert!(!folder.join("coracle").exists());
    check(
        "again",
        refused_with(good().args(&["--cpus", "0"]), code::INPUT, &["cpus", "0"]),
    );
}
