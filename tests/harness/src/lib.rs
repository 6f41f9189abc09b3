//! Drives the `coracle` program from outside: tiny guests, machines with a deadline on every wait,
//! pseudo-terminals, and the account of tests that a host cannot run. Uses no crate of ours.
#![forbid(unsafe_code)]

pub mod asm;
pub mod bare;
pub mod elf;
pub mod guests;
pub mod netns;
pub mod output;
pub mod process;
pub mod pty;
pub mod skip;
pub mod vm;

pub use process::Exit;
pub use vm::{Machine, TestVm};

use std::path::PathBuf;

/// The program under test: `$CORACLE_BIN`, or what cargo built beside the running test, release
/// first.
///
/// # Errors
/// When there is neither; the message says how to build it.
pub fn coracle() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("CORACLE_BIN") {
        return Ok(path.into());
    }
    // A test is in target/x86_64-unknown-linux-gnu/debug/deps, another program one folder higher.
    let program = std::env::current_exe()?;
    program
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|folder| ["release", "debug"].map(|profile| folder.join(profile)))
        .map(|profile| profile.join("coracle"))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow::anyhow!("no coracle program: run `cargo build --release` first"))
}
