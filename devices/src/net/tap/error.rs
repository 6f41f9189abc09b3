//! Why a tap can't be had, and the commands that mend it.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use super::{MAX_NAME_BYTES, MAX_QUEUES};
use crate::host::reason;

/// A tap that can't be had.
#[derive(Debug)]
pub struct TapError {
    /// Its name; empty for one that the kernel was to choose.
    pub name: String,
    /// Why it can't be had.
    pub problem: TapProblem,
}

impl TapError {
    pub(super) fn new(name: &str, problem: TapProblem) -> Self {
        let name = name.to_owned();
        Self { name, problem }
    }

    /// What to do instead, as a sentence without its full stop.
    #[must_use]
    pub fn remedy(&self) -> String {
        self.problem.remedy(&self.name)
    }
}

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "tap: {}", self.problem),
            name => write!(f, "tap {name}: {}", self.problem),
        }
    }
}

impl std::error::Error for TapError {}

/// Why a tap can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TapProblem {
    /// A name that is too long for an interface.
    #[error("the name is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong,
    /// A name that no interface can have.
    #[error("no interface can have that name")]
    BadName,
    /// The kernel has no taps, or this container hides them.
    #[error("this host has no /dev/net/tun")]
    NoDriver,
    /// The user may not use taps at all.
    #[error("this user may not open /dev/net/tun")]
    DriverDenied,
    /// There is no such tap, and the user may not make one.
    #[error("there is no such tap, and this user may not make one")]
    Missing,
    /// The tap is another user's.
    #[error("it is there, but belongs to another user")]
    Denied,
    /// An interface of another kind has the name.
    #[error("it is an interface of another kind")]
    NotATap,
    /// Another process has it open.
    #[error("another process uses it")]
    Busy,
    /// It was made for one queue.
    #[error("it was made with one queue, and {asked} are asked for")]
    SingleQueue {
        /// How many were asked for.
        asked: u16,
    },
    /// More queues than a tap has.
    #[error("it has no more queues")]
    TooManyQueues,
    /// It is down, and the user may not bring it up.
    #[error("it is down, and this user may not bring it up")]
    Down,
    /// Packets as large as asked for do not go through.
    #[error("it takes packets of {has} bytes, not of {wanted}, and this user may not change that")]
    Mtu {
        /// What was asked for.
        wanted: u16,
        /// What it has.
        has: u16,
    },
    /// A number that is no open descriptor.
    #[error("fd {fd} is not open")]
    NotOpen {
        /// The number.
        fd: RawFd,
    },
    /// A descriptor of something else.
    #[error("fd {fd} is no queue of a tap")]
    NotAQueue {
        /// The number.
        fd: RawFd,
    },
    /// A queue whose frames look otherwise.
    #[error("fd {fd} was attached without IFF_TAP, IFF_NO_PI and IFF_VNET_HDR")]
    WrongFlags {
        /// The number.
        fd: RawFd,
    },
    /// A queue of another tap than the first descriptor's.
    #[error("fd {fd} is a queue of another tap")]
    AnotherTap {
        /// The number.
        fd: RawFd,
    },
    /// Anything else that the host refuses.
    #[error("{attempt} failed: {}", reason(cause))]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// The host's reason.
        cause: io::Error,
    },
}

impl TapProblem {
    pub(super) fn refused(attempt: &'static str, cause: io::Error) -> Self {
        Self::Refused { attempt, cause }
    }

    /// What to do instead, as a sentence without its full stop: commands where some mend it.
    #[must_use]
    pub fn remedy(&self, name: &str) -> String {
        let shown = if name.is_empty() { "tap0" } else { name };
        match self {
            Self::NameTooLong => format!("choose a name of up to {MAX_NAME_BYTES} bytes"),
            Self::BadName => "choose a name such as tap0".into(),
            Self::NoDriver => "run `sudo modprobe tun`; in a container, start it with \
                               `--device /dev/net/tun`; or use --net user"
                .into(),
            Self::DriverDenied => {
                "run `sudo setfacl -m u:$USER:rw /dev/net/tun`, or use --net user".into()
            }
            Self::Missing => {
                format!("run `{}`, or use --net user", make(shown))
            }
            Self::Denied => format!(
                "run `sudo ip tuntap del dev {shown} mode tap multi_queue; {}`",
                make(shown)
            ),
            Self::NotATap => {
                "choose another name; `ip -details link` tells what there is".to_owned()
            }
            Self::Busy => format!(
                "end the process that has it (`sudo grep -l \"iff:.*{shown}$\" \
                 /proc/[0-9]*/fdinfo/*` finds it), or choose another tap"
            ),
            Self::SingleQueue { .. } => format!(
                "leave queues= out, or run `sudo ip tuntap del dev {shown} mode tap; {}`",
                make(shown)
            ),
            Self::TooManyQueues => format!("ask for at most {MAX_QUEUES} queues in all"),
            Self::Down => format!("run `sudo ip link set dev {shown} up`"),
            Self::Mtu { wanted, has } => format!(
                "run `sudo ip link set dev {shown} mtu {wanted}`, or ask for at most mtu={has}"
            ),
            Self::NotOpen { .. } => "give the number of a descriptor that stays open over the \
                                     start of coracle"
                .into(),
            Self::NotAQueue { .. } | Self::WrongFlags { .. } => {
                "open /dev/net/tun and attach it by TUNSETIFF with IFF_TAP, IFF_NO_PI and \
                 IFF_VNET_HDR"
                    .into()
            }
            Self::AnotherTap { .. } => "give the queues of one tap".into(),
            Self::Refused { .. } => "`coracle net doctor` tells what this host lacks".into(),
        }
    }
}

/// Makes a tap for this user.
fn make(name: &str) -> String {
    format!(
        "sudo ip tuntap add dev {name} mode tap multi_queue user $USER; \
         sudo ip link set dev {name} up"
    )
}
