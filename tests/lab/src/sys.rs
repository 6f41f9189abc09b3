//! I/O ports from user space: the only unsafe code of the lab.
#![expect(
    unsafe_code,
    reason = "port instructions and the system call that permits them"
)]

use std::io;

/// Writes a byte to an I/O port. Only PID 1 of a throw-away guest does this.
///
/// # Errors
/// When the kernel doesn't permit port instructions.
pub fn write_port(port: u16, value: u8) -> io::Result<()> {
    // SAFETY: iopl changes nothing but what this thread may execute.
    if unsafe { libc::iopl(3) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: an output instruction touches no memory of this program.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack));
    }
    Ok(())
}
