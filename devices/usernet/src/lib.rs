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
mod fragments;
mod host;
mod link;
mod ndp;
mod net;
mod ping;
mod policy;
mod poller;
mod resolver;
mod sandbox;
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

/// Descriptors that are no flow's: the link, the control, the epoll, the log, and room to spare.
const OWN_DESCRIPTORS: u64 = 64;

/// Runs the network until `frames` or `control` is closed at its other end. Once it is set up, the
/// line `ready` is written to `control`; whatever is written there is answered with a line of the
/// [`Counters`] as JSON.
///
/// From then on the calling thread can open no file and start no program, and has only sockets of
/// the Internet: it is meant to be a process of its own.
///
/// # Errors
/// When the configuration is impossible, a published port cannot be had, or the host is out of
/// something.
pub fn serve(frames: OwnedFd, control: Option<OwnedFd>, config: &Config) -> Result<(), ServeError> {
    let mut config = config.clone();
    if config.dns.servers.is_empty() {
        let text = match std::fs::read_to_string("/etc/resolv.conf") {
            // The same as an empty one (resolv.conf(5)).
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            result => result,
        };
        config.dns = resolver::parse(&text.map_err(ServeError::Resolver)?);
    }
    fit_descriptors(&mut config);
    let ready = control.as_ref().map(OwnedFd::try_clone);
    let ready = ready
        .transpose()
        .map_err(ServeError::host("the control's socket"))?;
    let published = config.publish.clone();
    let mut engine = Engine::new(frames, control, config)?;
    for publish in &published {
        engine.publish(publish)?;
    }
    for line in engine.limits() {
        log::info!("{line}");
    }
    sandbox::enter()?;
    if let Some(ready) = ready {
        // A parent that has gone is seen at the first turn.
        let _ = rustix::io::write(&ready, b"ready\n");
    }
    while engine.turn(None)? == Turn::More {}
    log::debug!("the user-mode network ends: {:?}", engine.counters());
    Ok(())
}

/// Holds no more flows than the host grants descriptors for.
fn fit_descriptors(config: &mut Config) {
    let limits = config.limits;
    let others = [limits.udp_flows, limits.pings, limits.questions];
    let others: u64 = others.into_iter().map(u64::from).sum();
    let published = u64::try_from(config.publish.len()).unwrap_or(u64::MAX);
    let fixed = OWN_DESCRIPTORS
        .saturating_add(published)
        .saturating_add(others);
    let granted = sandbox::raise_descriptors(fixed.saturating_add(limits.tcp_flows.into()));
    let left = u32::try_from(granted.saturating_sub(fixed)).unwrap_or(u32::MAX);
    if left < limits.tcp_flows {
        log::warn!("{left} TCP connections at a time: the host grants {granted} open files");
        config.limits.tcp_flows = left;
    }
}
