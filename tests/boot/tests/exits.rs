//! Every way that a guest can end has its own exit code, and every way out leaves nothing behind.

use boot_tests::code;
use harness::vm::SHORTLY;
use harness::{TestVm, guests, skip};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn each_end_has_its_code() {
    if skip::without_kvm() {
        return;
    }
    let table: &[(&str, Vec<u8>, i32)] = &[
        ("i8042 reset", guests::hello_reset(), code::RESET),
        ("ACPI reset register", guests::acpi_reset(), code::RESET),
        ("ACPI power-off", guests::acpi_poweroff(), code::POWERED_OFF),
        ("triple fault", guests::triple_fault(), code::TRIPLE_FAULT),
    ];
    for (name, image, code) in table {
        let exit = TestVm::of(image).unwrap().run().unwrap();
        assert_eq!(exit.code, Some(*code), "{name}: {exit:?}");
        assert_eq!(exit.stdout, guests::HELLO.as_bytes(), "{name}: {exit:?}");
    }
}

/// Checks that the guest ran until KVM gave up, and that one line says where and what to do.
fn gives_up(image: &[u8], words: &str) {
    let exit = TestVm::of(image).unwrap().run().unwrap();
    assert_eq!(exit.code, Some(code::CPU_FAILURE), "{exit:?}");
    assert_eq!(exit.stdout, guests::HELLO.as_bytes(), "{exit:?}");
    let text = &exit.stderr;
    assert_eq!(text.lines().count(), 1, "{text}");
    let (problem, remedy) = text.split_once("; hint: ").unwrap();
    assert!(
        problem.starts_with("coracle: vCPU 0 cannot go on"),
        "{text}"
    );
    assert!(problem.contains(words), "{text}");
    assert!(remedy.contains("try another kernel"), "{text}");
}

#[test]
fn a_cpu_that_kvm_gives_up_on_has_its_code() {
    if skip::without_kvm() {
        return;
    }
    gives_up(&guests::nowhere(), &format!("{:#x}", guests::NOWHERE));
}

#[test]
fn what_a_weak_kvm_cannot_do_is_named_with_its_bytes() {
    if skip::without_kvm() {
        return;
    }
    let mut doctor = Command::new(harness::coracle().unwrap());
    let report = doctor.arg("doctor").output().unwrap().stdout;
    if !String::from_utf8_lossy(&report).contains("which emulates the guest's kernel") {
        skip::skipped("this host's KVM runs kernel mode itself, SSE included");
        return;
    }
    let bytes = guests::KERNEL_SSE.map(|byte| format!("{byte:02x}"));
    gives_up(&guests::kernel_sse(), &bytes.join(" "));
}

#[test]
fn the_same_through_the_pvh_entry() {
    if skip::without_kvm() {
        return;
    }
    for (image, code) in [
        (guests::hello_reset(), code::RESET),
        (guests::acpi_poweroff(), code::POWERED_OFF),
    ] {
        let vm = TestVm::of(&image)
            .unwrap()
            .args(&["--kernel-protocol", "pvh"]);
        let exit = vm.run().unwrap();
        assert_eq!(exit.code, Some(code), "{exit:?}");
        assert_eq!(exit.stdout, guests::HELLO.as_bytes(), "{exit:?}");
    }
}

#[test]
fn a_deaf_guest_is_killed_at_the_deadline() {
    if skip::without_kvm() {
        return;
    }
    for image in [guests::halt(), guests::spin()] {
        let vm = TestVm::of(&image).unwrap().args(&["--stop-timeout", "1"]);
        let mut machine = vm.boot().unwrap();
        machine.expect(guests::HELLO, SHORTLY).unwrap();
        let asked = Instant::now();
        machine.signal(Signal::TERM).unwrap();
        let exit = machine.exit(SHORTLY).unwrap();
        assert_eq!(exit.code, Some(code::KILLED), "{exit:?}");
        assert!(
            asked.elapsed() >= Duration::from_millis(900),
            "killed before its deadline"
        );
    }
}

#[test]
fn a_second_signal_kills_at_once() {
    if skip::without_kvm() {
        return;
    }
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let vm = TestVm::of(&guests::halt())
            .unwrap()
            .args(&["--stop-timeout", "600"]);
        let mut machine = vm.boot().unwrap();
        machine.expect(guests::HELLO, SHORTLY).unwrap();
        machine.signal(first).unwrap();
        // Two signals of a kind that arrive together are one.
        let early = machine.process.wait(Duration::from_millis(300)).unwrap();
        assert_eq!(early, None);
        machine.signal(second).unwrap();
        let exit = machine.exit(SHORTLY).unwrap();
        assert_eq!(exit.code, Some(code::KILLED), "{exit:?}");
    }
}

#[test]
fn other_cpus_end_with_the_first() {
    if skip::without_kvm() {
        return;
    }
    for cpus in ["2", "4", "16"] {
        let vm = TestVm::of(&guests::hello_reset())
            .unwrap()
            .args(&["--cpus", cpus]);
        let exit = vm.run().unwrap();
        assert_eq!(exit.code, Some(code::RESET), "{cpus} vCPUs: {exit:?}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_nothing_badly() {
    if skip::without_kvm() {
        return;
    }
    // As in `coracle boot | head -c 1`: the console is lost, the guest goes on and ends by itself.
    let vm = TestVm::of(&guests::hello_reset()).unwrap();
    let mut command = vm.command().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command.stdin(std::process::Stdio::null()).stdout(writer);
    let output = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code::RESET), "{output:?}");
}
