//! The ioctls of tap devices and of network interfaces, as values in and out.

#![expect(
    unsafe_code,
    reason = "these ioctls take structures that no safe wrapper knows"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Room for a name with its closing NUL.
const NAME_BYTES: usize = 16;

/// Linux's `ifreq`: a name and 24 bytes whose meaning the ioctl decides.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    name: [u8; NAME_BYTES],
    value: [u8; 24],
}

impl Request {
    /// A name that does not fit is cut, and then no interface has it.
    fn named(name: &str) -> Self {
        let mut request = Self::default();
        let room = request.name.iter_mut().take(NAME_BYTES - 1);
        room.zip(name.bytes()).for_each(|(to, byte)| *to = byte);
        request
    }

    fn with(name: &str, value: &[u8]) -> Self {
        let mut request = Self::named(name);
        let room = request.value.iter_mut();
        room.zip(value).for_each(|(to, byte)| *to = *byte);
        request
    }

    fn name(&self) -> String {
        let bytes = self.name.iter().take_while(|byte| **byte != 0);
        String::from_utf8_lossy(&bytes.copied().collect::<Vec<_>>()).into_owned()
    }

    fn number(&self) -> i32 {
        i32::from_ne_bytes([self.value[0], self.value[1], self.value[2], self.value[3]])
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.value[0], self.value[1]])
    }
}

/// Makes `fd` a queue of the tap `name` (an empty name: one that the kernel chooses), which is
/// made if there is none: the name it has.
pub(crate) fn attach(fd: impl AsFd, name: &str, flags: i32) -> io::Result<String> {
    let flags = u16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = Request::with(name, &flags.to_ne_bytes());
    call(fd, libc::TUNSETIFF, &mut request)?;
    Ok(request.name())
}

/// Which tap `fd` is a queue of, and the flags that it was attached with.
pub(crate) fn attached(fd: impl AsFd) -> io::Result<(String, i32)> {
    let mut request = Request::default();
    call(fd, libc::TUNGETIFF, &mut request)?;
    Ok((request.name(), request.flags().into()))
}

/// Sets the length of the header before each frame.
pub(crate) fn set_header_bytes(fd: impl AsFd, bytes: i32) -> io::Result<()> {
    let mut request = Request::default();
    // The ioctl takes a pointer to a number; the start of a request is as good as any.
    let room = request.name.iter_mut();
    room.zip(bytes.to_ne_bytes())
        .for_each(|(to, byte)| *to = byte);
    call(fd, libc::TUNSETVNETHDRSZ, &mut request)
}

/// Says which unfinished frames the guest takes (`TUN_F_…`).
pub(crate) fn set_offload(fd: impl AsFd, flags: u32) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and this ioctl takes a number and no pointer.
    match unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Lets frames come through a queue of several, or no longer.
pub(crate) fn set_active(fd: impl AsFd, active: bool) -> io::Result<()> {
    let flag = match active {
        true => libc::IFF_ATTACH_QUEUE,
        false => libc::IFF_DETACH_QUEUE,
    };
    let flag = u16::try_from(flag).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = Request::with("", &flag.to_ne_bytes());
    call(fd, libc::TUNSETQUEUE, &mut request)
}

/// The largest packet of an interface, asked for through any socket.
pub(crate) fn mtu(socket: impl AsFd, name: &str) -> io::Result<i32> {
    let mut request = Request::named(name);
    call(socket, libc::SIOCGIFMTU, &mut request)?;
    Ok(request.number())
}

/// Sets the largest packet of an interface.
pub(crate) fn set_mtu(socket: impl AsFd, name: &str, mtu: i32) -> io::Result<()> {
    let mut request = Request::with(name, &mtu.to_ne_bytes());
    call(socket, libc::SIOCSIFMTU, &mut request)
}

/// The flags of an interface (`IFF_UP` and others).
pub(crate) fn flags(socket: impl AsFd, name: &str) -> io::Result<i32> {
    let mut request = Request::named(name);
    call(socket, libc::SIOCGIFFLAGS, &mut request)?;
    Ok(request.flags().into())
}

/// Sets the flags of an interface.
pub(crate) fn set_flags(socket: impl AsFd, name: &str, flags: i32) -> io::Result<()> {
    let flags = u16::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = Request::with(name, &flags.to_ne_bytes());
    call(socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Whether an interface has a carrier, which a tap has while somebody has it open.
pub(crate) fn carrier(socket: impl AsFd, name: &str) -> io::Result<bool> {
    const ASK_LINK: u32 = 0xa; // ETHTOOL_GLINK
    let mut link = [ASK_LINK, 0];
    let at = link.as_mut_ptr().expose_provenance();
    let mut request = Request::with(name, &at.to_ne_bytes());
    call(socket, libc::SIOCETHTOOL, &mut request)?;
    Ok(link[1] != 0)
}

/// A descriptor that this process was started with, taken again under a number of our own.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the borrow lasts for one system call, which refuses a number that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}

/// One ioctl on a request. All that come here read and write at most an `ifreq`, and one of them
/// the two numbers that it points to.
fn call(fd: impl AsFd, number: libc::Ioctl, request: &mut Request) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    let request: *mut Request = request;
    // SAFETY: the descriptor is open, and the request is as long and as aligned as the largest
    // structure that these ioctls take. It outlives the call, as does what it points to.
    match unsafe { libc::ioctl(fd, number, request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
