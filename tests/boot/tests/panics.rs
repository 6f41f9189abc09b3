//! A panic of the monitor ends the whole process at once, by SIGABRT, and leaves the terminal as it
//! was. Nothing that a guest or a user does is meant to cause one, so the host has to: with hardly
//! any room left for a thread's stacks, Rust's own start of a thread panics.

use boot_tests::code;
use harness::pty::OnTerminal;
use harness::vm::SHORTLY;
use harness::{TestVm, guests, skip};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// Steps of the limit: what the kernel maps by.
const PAGE_KIB: u64 = 4;
/// How far below the least room that is enough a panic is looked for.
const MOST_PAGES: u64 = 64;

struct Ended {
    status: ExitStatus,
    screen: String,
    as_before: bool,
}

impl Ended {
    fn panicked(&self) -> bool {
        self.screen.contains("panicked at")
    }
}

/// Runs a machine on a terminal with so much address space. Without a backtrace: Rust waits for
/// itself when it has no memory for one.
fn run_within(kib: u64) -> Ended {
    let vm = TestVm::of(&guests::hello_reset())
        .unwrap()
        .args(&["--memory", "16M"]);
    let machine = vm.command().unwrap();
    let script = "ulimit -c 0; ulimit -v \"$0\"; unset RUST_BACKTRACE; exec \"$@\"";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(kib.to_string());
    command.arg(machine.get_program()).args(machine.get_args());
    let mut terminal = OnTerminal::start(&command, 80, 25).unwrap();
    let status = terminal.exit(SHORTLY).unwrap();
    let as_before = terminal.is_as_before().unwrap();
    if status.signal() == Some(Signal::ABORT.as_raw()) {
        // The note is the last that Rust writes: what comes before it is on the screen with it.
        // Where even its memory is missing the screen is judged as it is.
        let _ = terminal.expect("RUST_BACKTRACE", SHORTLY);
    }
    Ended {
        status,
        screen: terminal.screen.text(),
        as_before,
    }
}

/// Between too little (exclusive) and enough (inclusive): the least that is enough, or nearly.
fn least_that_is_enough() -> u64 {
    let (mut little, mut enough) = (1024 / PAGE_KIB, 1024 * 1024 / PAGE_KIB);
    while enough - little > 1 {
        let middle = little.midpoint(enough);
        match run_within(middle * PAGE_KIB).status.code() {
            Some(code::RESET) => enough = middle,
            _ => little = middle,
        }
    }
    enough
}

#[test]
fn a_panic_aborts_and_leaves_the_terminal_as_before() {
    if skip::without_kvm() {
        return;
    }
    let program = harness::coracle().unwrap();
    if program
        .parent()
        .is_some_and(|folder| folder.ends_with("debug"))
    {
        skip::skipped("the program under test is a debug build, whose panics unwind");
        return;
    }
    let enough = least_that_is_enough();
    for pages in (enough - MOST_PAGES..=enough + PAGE_KIB).rev() {
        let ended = run_within(pages * PAGE_KIB);
        let (status, screen) = (ended.status, &ended.screen);
        let aborted = status.signal() == Some(Signal::ABORT.as_raw());
        let known = matches!(status.code(), Some(code::RESET | code::HOST | code::INPUT));
        assert!(aborted || known, "{pages} pages: {status}: {screen}");
        if ended.panicked() {
            assert!(aborted, "{pages} pages: {status}: {screen}");
            assert!(ended.as_before, "{pages} pages: {screen}");
            return;
        }
    }
    skip::skipped("no limit of the address space made a thread panic");
}
