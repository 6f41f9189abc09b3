//! Interfaces, addresses and routes, set by messages to the kernel (rtnetlink(7)).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// Kinds of messages.
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const REMOVE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
/// The kernel's answer to each.
const ANSWER: u16 = 2;

/// A request that is to be answered.
const REQUEST: u16 = 1 | 4;
/// It makes something, or takes the place of what there is.
const MAKE: u16 = 0x100 | 0x400;

const IPV4: u8 = 2;
const MAIN_TABLE: u8 = 254;
/// Who made a route: the boot.
const BY_BOOT: u8 = 3;
const UNICAST: u8 = 1;
const UP: u32 = 1;

/// Attributes, each of its message.
const LINK_MTU: u16 = 4;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
const OUT: u16 = 4;
const GATEWAY: u16 = 5;

/// A socket to the kernel's routing.
#[derive(Debug)]
pub(super) struct Route {
    socket: OwnedFd,
    sequence: u32,
}

impl Route {
    /// # Errors
    /// When this kernel has no such sockets.
    pub(super) fn open() -> io::Result<Self> {
        // Routing is the protocol that has the number 0.
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn up(&mut self, name: &str) -> io::Result<()> {
        let body = link(self.index(name)?, UP);
        self.ask(NEW_LINK, 0, &body)
    }

    /// Sets the largest packet of an interface.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn set_mtu(&mut self, name: &str, mtu: u16) -> io::Result<()> {
        let mut body = link(self.index(name)?, 0);
        attribute(&mut body, LINK_MTU, &u32::from(mtu).to_ne_bytes());
        self.ask(NEW_LINK, 0, &body)
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn add_address(&mut self, name: &str, at: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let body = address(self.index(name)?, at, prefix);
        self.ask(NEW_ADDRESS, MAKE, &body)
    }

    /// Takes an address from an interface, and what was routed because of it.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn remove_address(
        &mut self,
        name: &str,
        at: Ipv4Addr,
        prefix: u8,
    ) -> io::Result<()> {
        let body = address(self.index(name)?, at, prefix);
        self.ask(REMOVE_ADDRESS, 0, &body)
    }

    /// Sends what is for nobody nearer to `router`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn add_default(&mut self, name: &str, router: Ipv4Addr) -> io::Result<()> {
        let index = self.index(name)?;
        let mut body = vec![IPV4, 0, 0, 0, MAIN_TABLE, BY_BOOT, 0, UNICAST, 0, 0, 0, 0];
        attribute(&mut body, GATEWAY, &router.octets());
        attribute(&mut body, OUT, &index.to_ne_bytes());
        self.ask(NEW_ROUTE, MAKE, &body)
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        Ok(name_to_index(&self.socket, name)?)
    }

    /// Sends one request and waits for the kernel's answer, which comes before the call returns.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = message(kind, REQUEST | flags, self.sequence, body);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &message, SendFlags::empty(), &kernel)?;
        let mut bytes = [0; 512];
        loop {
            let (len, _) = recv(&self.socket, &mut bytes[..], RecvFlags::empty())?;
            let answer = bytes.get(..len).unwrap_or_default();
            if let Some(result) = result(answer, self.sequence) {
                return result;
            }
        }
    }
}

/// A header and what follows it.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// What the kernel answers to a request; none where this is about something else.
fn result(answer: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let about = u32::from_ne_bytes(*answer.get(8..)?.first_chunk()?);
    if kind != ANSWER || about != sequence {
        return None;
    }
    let error = i32::from_ne_bytes(*answer.get(16..)?.first_chunk()?);
    Some(match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
    })
}

/// `ifinfomsg`: an interface, and those of its flags that are to be set.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

/// `ifaddrmsg`: an address with its network.
fn address(index: u32, at: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![IPV4, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, LOCAL, &at.octets());
    attribute(&mut body, ADDRESS, &at.octets());
    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    // Networks of one or two hosts have no address for all.
    if hosts > 1 {
        let all = Ipv4Addr::from_bits(at.to_bits() | hosts);
        attribute(&mut body, BROADCAST, &all.octets());
    }
    body
}

/// Adds an attribute of whole words.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_kernels_form() {
        let body = address(3, Ipv4Addr::new(10, 0, 2, 15), 24);
        let text = message(NEW_ADDRESS, REQUEST | MAKE, 9, &body);
        assert_eq!(
            text[..16],
            [48, 0, 0, 0, 20, 0, 5, 5, 9, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(text[16..24], [2, 24, 0, 0, 3, 0, 0, 0]);
        assert_eq!(text[24..32], [8, 0, 2, 0, 10, 0, 2, 15]);
        assert_eq!(text[40..], [8, 0, 4, 0, 10, 0, 2, 255]);
        assert_eq!(address(3, Ipv4Addr::new(10, 0, 2, 15), 31).len(), 24);
        assert_eq!(link(1, UP)[4..], [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn answers() {
        let error = |number: i32| {
            let mut text = message(ANSWER, 0, 4, &number.to_ne_bytes());
            text.extend([0; 16]);
            text
        };
        assert!(result(&error(0), 4).unwrap().is_ok());
        let refused = result(&error(-17), 4).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(17));
        assert!(result(&error(0), 5).is_none());
        assert!(result(&message(NEW_LINK, 0, 4, &[0; 20]), 4).is_none());
        for len in 0..20 {
            assert!(result(&error(0)[..len], 4).is_none());
        }
    }
}
