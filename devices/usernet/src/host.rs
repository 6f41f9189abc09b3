//! Sockets of the host.

use rustix::fd::OwnedFd;
use rustix::io::{Errno, Result};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
/// Connections that may wait to be accepted.
const WAITING: i32 = 1024;

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    }
}

/// A TCP socket that connects to `to`; true when it is connected already.
pub(crate) fn connect_tcp(to: SocketAddr) -> Result<(OwnedFd, bool)> {
    let socket = net::socket_with(family(to.ip()), SocketType::STREAM, FLAGS, None)?;
    // The guest decides which bytes travel together.
    net::sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, &to) {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        Err(errno) => Err(errno),
    }
}

/// A UDP socket that sends to `to` and hears of nobody else.
pub(crate) fn connect_udp(to: SocketAddr) -> Result<OwnedFd> {
    let socket = net::socket_with(family(to.ip()), SocketType::DGRAM, FLAGS, None)?;
    net::connect(&socket, &to)?;
    Ok(socket)
}

/// A socket for echo requests to `to`, which hosts allow whom they want
/// (`net.ipv4.ping_group_range`).
pub(crate) fn connect_ping(to: IpAddr) -> Result<OwnedFd> {
    let socket = ping_socket(to)?;
    net::connect(&socket, &SocketAddr::new(to, 0))?;
    Ok(socket)
}

pub(crate) fn ping_socket(like: IpAddr) -> Result<OwnedFd> {
    let protocol = match like {
        IpAddr::V4(_) => ipproto::ICMP,
        IpAddr::V6(_) => ipproto::ICMPV6,
    };
    net::socket_with(family(like), SocketType::DGRAM, FLAGS, Some(protocol))
}

/// A socket that is reached at `at`.
pub(crate) fn listen(at: SocketAddr, kind: SocketType) -> Result<OwnedFd> {
    let socket = net::socket_with(family(at.ip()), kind, FLAGS, None)?;
    if at.is_ipv6() {
        // An IPv4 port of the same number is another one.
        net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &at)?;
    if kind == SocketType::STREAM {
        net::listen(&socket, WAITING)?;
    }
    Ok(socket)
}

/// The next connection, and whose it is.
pub(crate) fn accept(socket: impl AsFd) -> Result<(OwnedFd, SocketAddr)> {
    let (socket, peer) = net::acceptfrom_with(socket, FLAGS)?;
    let peer = peer
        .and_then(|peer| SocketAddr::try_from(peer).ok())
        .ok_or(Errno::NOTCONN)?;
    net::sockopt::set_tcp_nodelay(&socket, true)?;
    Ok((socket, peer))
}

/// Lets the other side hear, when the socket is closed, that the connection broke.
pub(crate) fn reset(socket: impl AsFd) {
    // One that is broken already refuses.
    let _ = net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

pub(crate) fn receive(socket: impl AsFd, data: &mut [u8]) -> Result<usize> {
    net::recv(socket, data, RecvFlags::DONTWAIT).map(|(bytes, _)| bytes)
}

pub(crate) fn receive_from(socket: impl AsFd, data: &mut [u8]) -> Result<(usize, SocketAddr)> {
    let (bytes, _, peer) = net::recvfrom(socket, data, RecvFlags::DONTWAIT)?;
    let peer = peer
        .and_then(|peer| SocketAddr::try_from(peer).ok())
        .ok_or(Errno::NOTCONN)?;
    Ok((bytes, peer))
}

pub(crate) fn send(socket: impl AsFd, data: &[u8]) -> Result<usize> {
    net::send(socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

pub(crate) fn send_to(socket: impl AsFd, data: &[u8], to: SocketAddr) -> Result<usize> {
    net::sendto(socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to)
}
