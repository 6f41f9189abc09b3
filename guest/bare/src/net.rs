//! The bare guest with a network: what `main.rs` is, with a load of TCP for a network device.
#![no_std]
#![no_main]

mod device;
mod machine;
mod program;
mod tcp;
#[allow(dead_code, reason = "the host uses the rest")]
mod wire;

/// Runs the load, if it is this guest's.
fn load(opcode: u8, window: u64, parameter: impl Fn(u64) -> u64) -> bool {
    if opcode == wire::NET {
        tcp::run(window, parameter);
    }
    opcode == wire::NET
}
