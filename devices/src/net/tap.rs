//! Tap devices of Linux: opened, made or taken over, with a clear word for every way in which one
//! can't be had. One descriptor is one queue.

mod error;
mod link;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::sys::tap as ioctl;

pub use error::{TapError, TapProblem};

/// Where Linux hands out taps.
const TUN: &str = "/dev/net/tun";
/// Longest name of an interface.
pub const MAX_NAME_BYTES: usize = 15;
/// The most queues that Linux gives a tap.
pub const MAX_QUEUES: u16 = 256;

/// How each queue is attached: frames without Linux's own prefix, with the header of virtio-net.
const ATTACH: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// The header of virtio-net with its count of buffers.
const HEADER_BYTES: i32 = 12;

/// Which tap, and how it is to be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TapRequest {
    /// Its name; without one the kernel chooses `tap0` and so on.
    pub name: Option<String>,
    /// Descriptors of its queues that the process was started with, instead of opening it.
    pub fds: Vec<RawFd>,
    /// How many queues; the number of descriptors where there are some.
    pub queues: u16,
    /// The largest packet; without it, that of the tap as it is.
    pub mtu: Option<u16>,
}

/// A tap whose queues this process has.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<OwnedFd>,
    /// Which of them frames may come through; attaching a queue that is attached is an error.
    active: Vec<bool>,
    mtu: u16,
}

impl Tap {
    /// Opens a tap, or makes it where there is none and this user may; takes over what descriptors
    /// stand for. It is up afterwards.
    ///
    /// # Errors
    /// [`TapError`] says why it can't be had and what mends that.
    pub fn open(request: &TapRequest) -> Result<Self, TapError> {
        let asked = request.name.as_deref().unwrap_or_default();
        let refuse = |problem| TapError::new(asked, problem);
        check_name(asked).map_err(refuse)?;
        let control = control().map_err(|cause| refuse(TapProblem::refused(CONTROL, cause)))?;
        let (name, queues) = match request.fds.as_slice() {
            [] => open_queues(&control, asked, request.queues).map_err(refuse)?,
            fds => adopt(fds).map_err(refuse)?,
        };
        let refuse = |problem| TapError::new(&name, problem);
        for queue in &queues {
            prepare(queue).map_err(refuse)?;
        }
        let mtu = settle_mtu(&control, &name, request.mtu).map_err(refuse)?;
        bring_up(&control, &name).map_err(refuse)?;
        Ok(Self {
            active: vec![true; queues.len()],
            name,
            queues,
            mtu,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

const CONTROL: &str = "opening a socket for its settings";
const OPEN: &str = "opening /dev/net/tun";

/// A socket for the ioctls of interfaces.
fn control() -> io::Result<OwnedFd> {
    let made = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    );
    Ok(made?)
}

/// Names that Linux doesn't give to an interface. An empty one leaves the choice to it.
fn check_name(name: &str) -> Result<(), TapProblem> {
    if name.len() > MAX_NAME_BYTES {
        return Err(TapProblem::NameTooLong);
    }
    match is_name(name) {
        true => Ok(()),
        false => Err(TapProblem::BadName),
    }
}

/// Whether Linux would give an interface this name, were it not too long.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let odd = |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control();
    let odd = |byte: u8| odd(byte) || b"/:%".contains(&byte);
    !name.bytes().any(odd) && name != "." && name != ".."
}

/// What an interface was before it was opened here.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// Somebody has it open.
    in_use: bool,
}

/// Opens all queues of the tap `asked`: its name and the queues.
fn open_queues(
    control: &OwnedFd,
    asked: &str,
    count: u16,
) -> Result<(String, Vec<OwnedFd>), TapProblem> {
    let before = match asked {
        "" => None,
        name => ioctl::flags(control, name).ok().map(|_| Before {
            in_use: ioctl::carrier(control, name).unwrap_or(false),
        }),
    };
    let file = open_tun(Path::new(TUN))?;
    let (name, first, many) = attach_first(file, asked, count, before)?;
    let mut queues = vec![first];
    for _ in 1..count {
        let file = open_tun(Path::new(TUN))?;
        let attached = ioctl::attach(&file, &name, ATTACH | many);
        attached.map_err(|cause| judge(cause, before.is_some()))?;
        queues.push(file);
    }
    Ok((name, queues))
}

fn open_tun(path: &Path) -> Result<OwnedFd, TapProblem> {
    crate::host::open(path, OFlags::RDWR).map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => TapProblem::NoDriver,
        Errno::ACCESS | Errno::PERM => TapProblem::DriverDenied,
        other => TapProblem::refused(OPEN, other.into()),
    })
}

/// Attaches the first queue: the tap's name, the queue, and the flag with which the others are
/// attached. A tap that exists has one queue or may have many, and says so only by refusing.
fn attach_first(
    file: OwnedFd,
    asked: &str,
    count: u16,
    before: Option<Before>,
) -> Result<(String, OwnedFd, i32), TapProblem> {
    let wanted = match count {
        0 | 1 => 0,
        _ => libc::IFF_MULTI_QUEUE,
    };
    let invalid = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match ioctl::attach(&file, asked, ATTACH | wanted) {
        Ok(name) => {
            not_shared(before, wanted)?;
            Ok((name, file, wanted))
        }
        Err(error) if invalid(&error) && before.is_some() => {
            let other = wanted ^ libc::IFF_MULTI_QUEUE;
            match ioctl::attach(&file, asked, ATTACH | other) {
                Ok(_) if wanted != 0 => Err(TapProblem::SingleQueue { asked: count }),
                Ok(name) => {
                    not_shared(before, other)?;
                    Ok((name, file, other))
                }
                // It may be a tap of one queue that is in use, too.
                Err(error) => Err(judge(error, true)),
            }
        }
        Err(error) => Err(judge(error, before.is_some())),
    }
}

/// Linux lets several programs share the queues of one tap, each with a part of the frames, which
/// is never what is wanted here.
fn not_shared(before: Option<Before>, many: i32) -> Result<(), TapProblem> {
    match before {
        Some(Before { in_use: true }) if many != 0 => Err(TapProblem::Busy),
        _ => Ok(()),
    }
}

/// What a refused attachment means, for a name that was there before or not.
fn judge(error: io::Error, existed: bool) -> TapProblem {
    match (error.raw_os_error(), existed) {
        (Some(libc::EBUSY), _) => TapProblem::Busy,
        (Some(libc::E2BIG), _) => TapProblem::TooManyQueues,
        (Some(libc::EPERM | libc::EACCES), true) => TapProblem::Denied,
        (Some(libc::EPERM | libc::EACCES), false) => TapProblem::Missing,
        (Some(libc::EINVAL), true) => TapProblem::NotATap,
        _ => TapProblem::refused("attaching to it", error),
    }
}

/// Takes over descriptors of a tap's queues.
fn adopt(fds: &[RawFd]) -> Result<(String, Vec<OwnedFd>), TapProblem> {
    let mut name = None;
    let mut queues = Vec::with_capacity(fds.len());
    for &fd in fds {
        let queue = ioctl::inherited(fd).map_err(|_| TapProblem::NotOpen { fd })?;
        let (tap, flags) = ioctl::attached(&queue).map_err(|_| TapProblem::NotAQueue { fd })?;
        if flags & ATTACH != ATTACH {
            return Err(TapProblem::WrongFlags { fd });
        }
        if *name.get_or_insert_with(|| tap.clone()) != tap {
            return Err(TapProblem::AnotherTap { fd });
        }
        let nonblocking = rustix::io::ioctl_fionbio(&queue, true);
        let attempt = "making its descriptor non-blocking";
        nonblocking.map_err(|cause| TapProblem::refused(attempt, cause.into()))?;
        queues.push(queue);
    }
    Ok((name.unwrap_or_default(), queues))
}

/// Sets what frames look like. A tap that stays keeps the offloads of its last user.
fn prepare(queue: &OwnedFd) -> Result<(), TapProblem> {
    let sized = ioctl::set_header_bytes(queue, HEADER_BYTES);
    sized.map_err(|cause| TapProblem::refused("setting the header of its frames", cause))?;
    let plain = ioctl::set_offload(queue, 0);
    plain.map_err(|cause| TapProblem::refused("setting its offloads", cause))
}

/// The largest packet that goes through: what was asked for, or what the tap has.
fn settle_mtu(control: &OwnedFd, name: &str, wanted: Option<u16>) -> Result<u16, TapProblem> {
    let has = ioctl::mtu(control, name);
    let has = has.map_err(|cause| TapProblem::refused("reading its MTU", cause))?;
    let has = u16::try_from(has).unwrap_or(u16::MAX);
    let Some(wanted) = wanted.filter(|wanted| *wanted != has) else {
        return Ok(has);
    };
    match ioctl::set_mtu(control, name, wanted.into()) {
        // A guest may send less than the tap takes.
        Ok(()) => Ok(wanted),
        Err(_) if wanted < has => Ok(wanted),
        Err(_) => Err(TapProblem::Mtu { wanted, has }),
    }
}

fn bring_up(control: &OwnedFd, name: &str) -> Result<(), TapProblem> {
    let flags = ioctl::flags(control, name);
    let flags = flags.map_err(|cause| TapProblem::refused("reading its state", cause))?;
    if flags & libc::IFF_UP != 0 {
        return Ok(());
    }
    ioctl::set_flags(control, name, flags | libc::IFF_UP).map_err(|_| TapProblem::Down)
}
