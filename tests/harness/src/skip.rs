//! The account of tests that this host cannot run: loud on standard error, and counted.

use std::fs::OpenOptions;
use std::io::Write;

/// Reports that the running test is skipped, and why: a line on standard error, past the capture
/// of the test harness, and one in the file that `CORACLE_SKIPS` names, which `cargo xtask test`
/// counts.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // A report that cannot be written must not fail the test.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os("CORACLE_SKIPS")
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = file.write_all(format!("{test}: {why}\n").as_bytes());
    }
}

/// True, and reported, when /dev/kvm cannot be opened.
#[must_use]
pub fn without_kvm() -> bool {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => false,
        Err(error) => {
            skipped(&format!("cannot open /dev/kvm: {error}"));
            true
        }
    }
}

/// True, and reported, when a program that the test needs is not on the PATH.
#[must_use]
pub fn without_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    if !found {
        skipped(&format!("the program {name} is missing"));
    }
    !found
}
