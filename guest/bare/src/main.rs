//! The bare guest: no kernel, one program. It comes up at CPL 3, where even a weak host runs it at
//! full speed, and does what the operations in its initrd say. This one has the loads of disks and
//! sockets; `net.rs` is the same with that of networks.
#![no_std]
#![no_main]

mod block;
mod device;
mod machine;
mod program;
mod vsock;
#[allow(dead_code, reason = "the host uses the rest")]
mod wire;

/// Runs a load, if it is one of this guest's.
fn load(opcode: u8, window: u64, parameter: impl Fn(u64) -> u64) -> bool {
    match opcode {
        wire::BLOCK => block::run(window, parameter),
        wire::VSOCK => vsock::run(window, parameter),
        _ => return false,
    }
    true
}
