//! I/O ports, addresses of vsock and the trimming of file systems from user space: the only unsafe
//! code of the lab.
#![expect(
    unsafe_code,
    reason = "port instructions and what permits them; addresses and requests without safe wrappers"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// A context ID and a port of `AF_VSOCK`.
#[derive(Clone, Copy, Debug)]
pub struct VsockAddress {
    /// The context ID.
    pub cid: u32,
    /// The port.
    pub port: u32,
}

// SAFETY: the pointer that `f` gets is that of a whole `sockaddr_vm`, which lives as long as the
// call.
unsafe impl SocketAddrArg for VsockAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default();
        let address = libc::sockaddr_vm {
            svm_family: family,
            svm_reserved1: 0,
            svm_port: self.port,
            svm_cid: self.cid,
            svm_zero: [0; 4],
        };
        let len = SocketAddrLen::try_from(size_of_val(&address)).unwrap_or_default();
        f((&raw const address).cast(), len)
    }
}

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

/// Asks the file system below an open folder to tell its device what it does not use: `fstrim`.
/// Returns how many bytes that were.
///
/// # Errors
/// When the file system or the device cannot.
pub fn trim(folder: &File) -> io::Result<u64> {
    // FITRIM, and its `struct fstrim_range`: start, length, least length.
    const TRIM: libc::Ioctl = 0xc018_5879;
    let mut range = [0, u64::MAX, 0];
    // SAFETY: the descriptor is open, and the request writes no more than the three words.
    if unsafe { libc::ioctl(folder.as_raw_fd(), TRIM, range.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let [_, trimmed, _] = range;
    Ok(trimmed)
}
