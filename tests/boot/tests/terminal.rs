//! The terminal: raw while the guest runs, as before on every way out, escape keys, help.

use boot_tests::code;
use harness::pty::OnTerminal;
use harness::vm::SHORTLY;
use harness::{TestVm, guests, skip};
use rustix::process::Signal;

const ESCAPE: u8 = 0x1d;

/// A machine on a terminal of its own whose guest has said hello.
fn start(image: &[u8], arguments: &[&str]) -> (OnTerminal, TestVm) {
    let vm = TestVm::of(image).unwrap().args(arguments);
    let mut terminal = OnTerminal::start(&vm.command().unwrap(), 80, 25).unwrap();
    terminal.expect(guests::HELLO, SHORTLY).unwrap();
    (terminal, vm)
}

#[test]
fn raw_while_the_guest_runs_and_as_before_when_it_ends() {
    if skip::without_kvm() {
        return;
    }
    let (mut terminal, _vm) = start(&guests::echo(), &[]);
    assert!(terminal.is_raw().unwrap());
    // Ctrl-C belongs to the guest.
    terminal.type_keys(b"\x03ab").unwrap();
    terminal.expect("\x03ab", SHORTLY).unwrap();
    terminal.type_keys(b"q").unwrap();
    assert_eq!(terminal.exit(SHORTLY).unwrap().code(), Some(code::RESET));
    assert!(terminal.is_as_before().unwrap());
}

#[test]
fn as_before_after_every_signal_that_can_be_caught() {
    if skip::without_kvm() {
        return;
    }
    let signals = [
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::ABORT,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::POWER,
        Signal::XCPU,
    ];
    for signal in signals {
        let (mut terminal, _vm) = start(&guests::halt(), &["--stop-timeout", "0"]);
        assert!(terminal.is_raw().unwrap());
        terminal.process.signal(signal).unwrap();
        let status = terminal.exit(SHORTLY).unwrap();
        assert_eq!(status.code(), Some(code::KILLED), "{signal:?}: {status}");
        assert!(terminal.is_as_before().unwrap(), "{signal:?}");
    }
}

#[test]
fn as_before_after_an_error() {
    let vm = TestVm::of(b"no kernel at all").unwrap();
    let mut terminal = OnTerminal::start(&vm.command().unwrap(), 80, 25).unwrap();
    assert_eq!(terminal.exit(SHORTLY).unwrap().code(), Some(code::INPUT));
    assert!(terminal.is_as_before().unwrap());
}

#[test]
fn escape_keys() {
    if skip::without_kvm() {
        return;
    }
    let (mut terminal, _vm) = start(&guests::echo(), &["--stop-timeout", "1"]);
    terminal.type_keys(&[ESCAPE, b'?']).unwrap();
    terminal.expect("quit", SHORTLY).unwrap();
    // Twice is once for the guest.
    terminal.type_keys(&[ESCAPE, ESCAPE]).unwrap();
    terminal.expect("\x1d", SHORTLY).unwrap();
    terminal.type_keys(&[ESCAPE, b'q']).unwrap();
    assert_eq!(terminal.exit(SHORTLY).unwrap().code(), Some(code::KILLED));
    assert!(terminal.is_as_before().unwrap());
}

#[test]
fn a_pseudo_terminal_of_its_own() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::of(&guests::echo())
        .unwrap()
        .args(&["--console", "pty"]);
    let machine = vm.boot().unwrap();
    let named = machine
        .stderr
        .wait_for(b"/dev/pts/", 0, SHORTLY)
        .or_else(|| machine.stdout.wait_for(b"/dev/pts/", 0, SHORTLY));
    assert!(
        named.is_some(),
        "no name: {} {}",
        machine.stdout.text(),
        machine.stderr.text()
    );
}

#[test]
fn a_console_in_a_file() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::of(&guests::hello_reset()).unwrap();
    let file = vm.folder().join("console");
    let vm = vm.arg("--console").arg(format!("file:{}", file.display()));
    let status = vm.command().unwrap().status().unwrap();
    assert_eq!(status.code(), Some(code::RESET));
    assert_eq!(std::fs::read(&file).unwrap(), guests::HELLO.as_bytes());
}
