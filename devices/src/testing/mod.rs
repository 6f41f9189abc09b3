//! A driver for tests: plays the guest against any virtio device, without a guest, a hypervisor
//! or a thread. It breaks rules on request, and it panics where a device breaks one.

pub mod conformance;
pub mod disk;
pub mod driver;
pub mod late;
pub mod net;
pub mod persistence;
pub mod registers;
pub mod ring;
pub mod vsock;

pub use disk::SharedDisk;
pub use driver::GuestDriver;
pub use late::{Desk, Fate, LateDisk};
pub use net::{FarEnd, NetGuest, TestLink};
pub use ring::{Buffer, Ring};

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::ram::GuestRam;

/// Where the second region of [`small_ram`] begins, right after the first.
pub const SEAM: u64 = 0x10_0000;
/// Where the hole of [`small_ram`] begins.
pub const HOLE: u64 = 0x20_0000;
/// Where the last region of [`small_ram`] begins, after the hole.
pub const AFTER_HOLE: u64 = 0x30_0000;
/// Where [`small_ram`] ends.
pub const END: u64 = 0x40_0000;

/// Guest memory with what real memory has: two regions side by side, a hole, another region.
///
/// # Panics
/// When the host has no memory left.
pub fn small_ram() -> GuestRam {
    let range = |start: u64, end: u64| {
        let len = usize::try_from(end - start).expect("small");
        (GuestAddress(start), len)
    };
    let ranges = [range(0, SEAM), range(SEAM, HOLE), range(AFTER_HOLE, END)];
    let memory = GuestMemoryMmap::from_ranges(&ranges).expect("host memory");
    GuestRam::from(Arc::new(memory))
}

#[cfg(test)]
mod tests;
