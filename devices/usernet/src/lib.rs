//! The user-mode network: frames of one guest on one side, ordinary sockets of the host on the
//! other. It needs no rights and nothing installed, and runs in a process of its own.
//!
//! Nothing here knows virtio, guest memory or KVM: [`serve`] gets one end of a socket pair
//! (`AF_UNIX`, `SOCK_SEQPACKET`) on which each message is a frame behind its 12-byte
//! `virtio_net_hdr_v1`, and ends when the other end is closed. What the guest sends is data: it is
//! answered as its protocol says, or dropped and counted.
#![forbid(unsafe_code)]

mod config;
mod error;
mod link;

pub use config::{
    Action, BadText, Cidr, Config, Dns, Limits, MAX_MTU, MIN_MTU, Offloads, Policy, Protocol,
    Publish, Rule, Subnet4, Subnet6, Target,
};
pub use error::ServeError;
pub use link::{HEADER_BYTES, MAX_MESSAGE_BYTES, OFFLOADS_BYTES, offloads_message};

use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Runs the network until `frames` or `control` is closed at its other end. Once it is set up, the
/// line `ready` is written to `control`.
///
/// # Errors
/// When the configuration is impossible, a published port cannot be had, or the host is out of
/// something.
pub fn serve(frames: OwnedFd, control: Option<OwnedFd>, config: &Config) -> Result<(), ServeError> {
    config.check()?;
    let mut link = link::Link::new(frames)?;
    let control = control;
    if let Some(control) = &control {
        // A parent that has gone is seen below.
        let _ = rustix::io::write(control, b"ready\n");
    }
    loop {
        let mut watched = vec![PollFd::new(&link, PollFlags::IN)];
        if let Some(control) = &control {
            watched.push(PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN));
        }
        rustix::event::poll(&mut watched, None).map_err(ServeError::host("waiting for frames"))?;
        if watched.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            return Ok(());
        }
        while let Some(received) = link
            .receive()
            .map_err(ServeError::host("receiving frames"))?
        {
            log::trace!("from the guest: {received:?}");
            if received == link::Received::End {
                return Ok(());
            }
        }
    }
}
