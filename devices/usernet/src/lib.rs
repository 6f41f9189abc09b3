//! The user-mode network: frames of one guest on one side, ordinary sockets of the host on the
//! other. It needs no rights and nothing installed, and runs in a process of its own.
//!
//! Nothing here knows virtio, guest memory or KVM: [`serve`] gets one end of a socket pair
//! (`AF_UNIX`, `SOCK_SEQPACKET`) on which each message is a frame behind its 12-byte
//! `virtio_net_hdr_v1`, and ends when the other end is closed. What the guest sends is data: it is
//! answered as its protocol says, or dropped and counted.
#![forbid(unsafe_code)]

mod arp;
mod config;
mod counters;
mod dhcp;
mod dns;
mod engine;
mod error;
mod host;
mod link;
mod ndp;
mod net;
mod ping;
mod policy;
mod poller;
mod resolver;
mod slab;
mod tcp;
pub mod testing;
mod udp;
mod wire;

pub use config::{
    Action, BadText, Cidr, Config, Dns, Limits, MAX_MTU, MIN_MTU, Offloads, Policy, Protocol,
    Publish, Rule, Subnet4, Subnet6, Target,
};
pub use counters::{Counters, Drops};
pub use dhcp::{Dhcp, DhcpAnswer, dhcp_answer};
pub use dns::{Addresses, Failure, Question};
pub use engine::{Engine, Turn};
pub use error::ServeError;
pub use link::{HEADER_BYTES, MAX_MESSAGE_BYTES, OFFLOADS_BYTES, offloads_message};

use std::os::fd::OwnedFd;

/// Runs the network until `frames` or `control` is closed at its other end. Once it is set up, the
/// line `ready` is written to `control`; whatever is written there is answered with a line of the
/// [`Counters`] as JSON.
///
/// # Errors
/// When the configuration is impossible, a published port cannot be had, or the host is out of
/// something.
pub fn serve(frames: OwnedFd, control: Option<OwnedFd>, config: &Config) -> Result<(), ServeError> {
    let mut config = config.clone();
    if config.dns.servers.is_empty() {
        let text = std::fs::read_to_string("/etc/resolv.conf").map_err(ServeError::Resolver)?;
        config.dns = resolver::parse(&text);
    }
    let ready = control.as_ref().map(OwnedFd::try_clone);
    let ready = ready
        .transpose()
        .map_err(ServeError::host("the control's socket"))?;
    let published = config.publish.clone();
    let mut engine = Engine::new(frames, control, config)?;
    for publish in &published {
        engine.publish(publish)?;
    }
    if let Some(ready) = ready {
        // A parent that has gone is seen at the first turn.
        let _ = rustix::io::write(&ready, b"ready\n");
    }
    while engine.turn(None)? == Turn::More {}
    log::debug!("the user-mode network ends: {:?}", engine.counters());
    Ok(())
}
