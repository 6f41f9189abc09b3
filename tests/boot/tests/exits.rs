//! Every way that a guest can end has its own exit code, and every way out leaves nothing behind.

use boot_tests::code;
use harness::vm::SHORTLY;
use harness::{TestVm, guests, skip};
use rustix::process::Signal;
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
