//! The embedded guest, on whatever KVM this host has: from the command to a shell, and back.

use boot_tests::code;
use boot_tests::shell::{self, COMMAND};
use harness::pty::OnTerminal;
use harness::{TestVm, skip};

fn shell(arguments: &[&str]) -> OnTerminal {
    let vm = TestVm::new().unwrap().args(arguments);
    shell::start(&vm.command().unwrap(), 97, 31).unwrap()
}

fn run(terminal: &mut OnTerminal, command: &str, wanted: &str) {
    shell::run(terminal, command, wanted).unwrap();
}

#[test]
fn a_shell_that_runs_commands_and_powers_off() {
    if skip::without_kvm() {
        return;
    }
    let mut terminal = shell(&[]);
    run(&mut terminal, "echo $((6 * 7))", "42");
    run(&mut terminal, "cat /proc/1/comm", "init");
    // The shell hears of its children and of Ctrl-C.
    run(&mut terminal, "true & wait; echo waited $?", "waited 0");
    let sleeps = b"sh -c 'echo ready $((6 * 8)); exec sleep 1000'\r";
    terminal.type_keys(sleeps).unwrap();
    terminal.expect("ready 48", COMMAND).unwrap();
    terminal.type_keys(b"\x03").unwrap();
    run(&mut terminal, "echo $((6 * 9))", "54");
    leave(&mut terminal);
}

#[test]
fn a_virtio_console_follows_the_window() {
    if skip::without_kvm() {
        return;
    }
    let mut terminal = shell(&["--console-device", "virtio"]);
    run(&mut terminal, "stty size", "31 97");
    terminal.resize(101, 41).unwrap();
    run(&mut terminal, "stty size", "41 101");
    leave(&mut terminal);
}

#[test]
fn two_cpus() {
    if skip::without_kvm() {
        return;
    }
    let mut terminal = shell(&["--cpus", "2"]);
    run(
        &mut terminal,
        "echo cpus=$(grep -c ^processor /proc/cpuinfo)",
        "cpus=2",
    );
    leave(&mut terminal);
}

fn leave(terminal: &mut OnTerminal) {
    terminal.type_keys(b"poweroff\r").unwrap();
    assert_eq!(
        terminal.exit(COMMAND).unwrap().code(),
        Some(code::POWERED_OFF)
    );
    assert!(terminal.is_as_before().unwrap());
}
