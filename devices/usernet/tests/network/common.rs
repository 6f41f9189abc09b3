//! A network in a thread with a guest made of frames, and hosts that listen on loopback.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use usernet::testing::{Guest, Wire};
use usernet::{Config, Counters, Engine, Publish, Turn};

/// A network that runs.
pub(crate) struct Network {
    pub(crate) guest: Guest,
    pub(crate) config: Config,
    /// Where the published ports are.
    pub(crate) published: Vec<SocketAddr>,
    thread: JoinHandle<Counters>,
}

/// The gateway is the host's loopback, so that what listens there can be reached.
pub(crate) fn open() -> Config {
    let mut config = Config::default();
    config.policy.host = true;
    config
}

impl Network {
    pub(crate) fn start(config: Config) -> Self {
        let (wire, theirs) = Wire::pair().unwrap();
        let guest = Guest::new(wire, config.gateway_mac);
        let (engine, published) = engine(theirs, &config);
        let thread = std::thread::spawn(move || {
            let mut engine = engine;
            while engine.turn(None).unwrap() == Turn::More {}
            engine.counters().clone()
        });
        Self {
            guest,
            config,
            published,
            thread,
        }
    }

    /// Ends the network, as a monitor does by going away.
    pub(crate) fn end(self) -> Counters {
        drop(self.guest);
        self.thread.join().unwrap()
    }

    /// How the guest reaches a host that listens on loopback.
    pub(crate) fn to(&self, host: SocketAddr) -> SocketAddr {
        let gateway = match host {
            SocketAddr::V4(_) => self.config.subnet4.gateway.into(),
            SocketAddr::V6(_) => "fd00::2".parse().unwrap(),
        };
        SocketAddr::new(gateway, host.port())
    }
}

pub(crate) fn engine(theirs: OwnedFd, config: &Config) -> (Engine, Vec<SocketAddr>) {
    let mut engine = Engine::new(theirs, None, config.clone()).unwrap();
    let publish = |publish: &Publish| engine.publish(publish).unwrap();
    let published = config.publish.iter().map(publish).collect();
    (engine, published)
}

/// Bytes that no shift or repetition leaves the same.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data
}
