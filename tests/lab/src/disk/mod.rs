//! Cases about what a drive keeps: an ext4 on it, mounted by a real Linux, is filled, trimmed, and
//! written while the monitor is killed. One end is PID 1 of a guest, the other runs in the lab and
//! starts the program as often as it needs.

pub mod guest;
pub mod kills;
pub mod model;
pub mod space;

mod machine;

/// Where the guest calls, over the socket device.
const PORT: u32 = 77;
/// Where the guest mounts its disk.
const MOUNT: &str = "/disk";
/// A file that stays and its length.
const KEPT: (&str, u64) = ("kept", 1 << 20);
/// A file that goes again.
const LARGE: (&str, u64) = ("large", 16 << 20);
