//! Why the network could not be set up or goes no further.

use crate::config::Publish;
use rustix::io::Errno;
use std::io;

/// Why [`crate::serve`] ends early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration contradicts itself.
    #[error("the user-mode network is configured wrongly: {0}")]
    Config(String),
    /// The host's name servers are unknown.
    #[error("cannot read /etc/resolv.conf: {0}; name servers can be given instead")]
    Resolver(io::Error),
    /// A published port cannot be had.
    #[error("cannot publish {publish}: {source}{}", hint(.source))]
    Publish {
        /// Which.
        publish: Publish,
        /// The host's words.
        source: io::Error,
    },
    /// The host refused something else.
    #[error("user-mode network: {what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// The host's words.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has that port, choose another",
        io::ErrorKind::PermissionDenied => {
            "; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "; the host has no such address",
        _ => "",
    }
}

impl ServeError {
    /// For `map_err`: the host refused `what`.
    pub(crate) fn host<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::Host {
            what,
            source: source.into(),
        }
    }
}

/// True for what only means "not now".
pub(crate) fn is_again(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::INTR | Errno::NOBUFS)
}
