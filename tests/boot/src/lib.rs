//! What the tests of `coracle boot` have in common: judging refusals and reading plans. The tests
//! themselves are in `tests/`, one file for each question that they answer.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use api::client::Client;
use harness::Exit;
use harness::TestVm;
use harness::vm::SHORTLY;
use serde_json::Value;

pub mod shell;

/// Exit codes of `coracle boot`, as its help documents them.
pub mod code {
    /// The guest powered off.
    pub const POWERED_OFF: i32 = 0;
    /// The host refused something.
    pub const HOST: i32 = 1;
    /// An argument or an input file is wrong.
    pub const INPUT: i32 = 2;
    /// The guest asked for a reset.
    pub const RESET: i32 = 3;
    /// The guest ended in a triple fault.
    pub const TRIPLE_FAULT: i32 = 4;
    /// KVM gave up on a virtual CPU.
    pub const CPU_FAILURE: i32 = 6;
    /// The guest did not stop in time and was killed.
    pub const KILLED: i32 = 7;
}

/// A client of the machine whose socket is, or will soon be, at `socket`.
///
/// # Errors
/// When nobody answers there in time.
pub fn client(socket: &Path) -> Result<Client> {
    let late = Instant::now() + SHORTLY;
    loop {
        match Client::connect(socket, SHORTLY) {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > late => return Err(error.into()),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Runs it and checks that it is refused: exit code 2, nothing on standard output, and on standard
/// error one line with what is wrong, which contains every one of `words`, and the remedy.
///
/// # Errors
/// Says what is different.
pub fn refused(vm: TestVm, words: &[&str]) -> Result<()> {
    refused_with(vm, code::INPUT, words)
}

/// As `refused`, with another exit code.
///
/// # Errors
/// Says what is different.
pub fn refused_with(vm: TestVm, code: i32, words: &[&str]) -> Result<()> {
    judge(&vm.run()?, code, words)
}

/// Checks how a refused machine ended.
///
/// # Errors
/// Says what is different.
pub fn judge(exit: &Exit, code: i32, words: &[&str]) -> Result<()> {
    let text = &exit.stderr;
    ensure!(exit.code == Some(code), "not refused with {code}: {exit:?}");
    ensure!(
        exit.stdout.is_empty(),
        "writes to standard output: {exit:?}"
    );
    ensure!(text.lines().count() == 1, "not one line: {text}");
    ensure!(
        text.starts_with("coracle: "),
        "does not say who complains: {text}"
    );
    let (problem, _) = text
        .split_once("; hint: ")
        .context("does not say what to do")?;
    for word in words {
        ensure!(problem.contains(word), "does not name {word:?}: {text}");
    }
    if text.contains("panicked") || text.contains("RUST_BACKTRACE") {
        bail!("a panic is no message: {text}");
    }
    Ok(())
}

/// The plan of a machine, as `--print-plan` prints it.
///
/// # Errors
/// When it fails or prints no JSON.
pub fn plan(vm: TestVm) -> Result<Value> {
    let exit = vm.arg("--print-plan").run()?;
    ensure!(exit.code == Some(0), "{exit:?}");
    serde_json::from_slice(&exit.stdout).context("the plan is no JSON")
}
