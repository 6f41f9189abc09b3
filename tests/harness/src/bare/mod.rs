//! The bare test guest: programs for it, machines that run them, and what they answered.
//!
//! `guest/bare` is a program of ours without a kernel. It does what the [`ops::Program`] in its
//! initrd says, at CPL 3, where even a weak host runs it at full speed, and answers on the serial
//! port in lines.

pub mod answer;
pub mod ops;
#[path = "../../../../guest/bare/src/wire.rs"]
pub mod wire;

use crate::TestVm;
use anyhow::{Context, Result};
use ops::Program;

/// The guest, an ELF for `--kernel`, made by the build script.
pub const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bare.elf"));
/// The same guest with the load of networks, instead of those of disks and sockets.
pub const NET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bare-net.elf"));

/// A machine that runs a program, with the memory that loads need.
///
/// # Errors
/// When there is no room for temporary files.
pub fn machine(program: &Program) -> Result<TestVm> {
    machine_of(IMAGE, program)
}

/// The same with the guest that is given.
///
/// # Errors
/// When there is no room for temporary files.
pub fn machine_of(image: &[u8], program: &Program) -> Result<TestVm> {
    let vm = TestVm::of(image)?;
    let initrd = vm.file("program", &program.encode(ticks()?))?;
    Ok(vm.arg("--initrd").arg(initrd).args(&["--memory", "64M"]))
}

/// TSC ticks in a microsecond, near enough for deadlines.
///
/// # Errors
/// When /proc/cpuinfo does not say.
pub fn ticks() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let megahertz = text
        .lines()
        .find_map(|line| line.strip_prefix("cpu MHz")?.split(':').nth(1));
    let whole = megahertz.and_then(|text| text.trim().split('.').next());
    whole
        .and_then(|whole| whole.parse().ok())
        .context("no `cpu MHz` in /proc/cpuinfo")
}
