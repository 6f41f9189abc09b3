//! A client of DHCP: asks until it is answered, more and more slowly.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with};
use rustix::time::{ClockId, clock_gettime};

use super::INTERFACES;
use super::dhcp::{Answer, Lease, Say, answer, from_server, message};
use crate::sys;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// How long the first answer may take before the question is repeated; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// How often one server is asked before all are again.
const TRIES: u32 = 3;

/// Two sockets: one that speaks on one interface, and one that hears every packet of IPv4, as
/// some servers answer to an address that is not ours yet.
#[derive(Debug)]
pub(super) struct Client {
    socket: UdpSocket,
    ear: OwnedFd,
    mac: [u8; 6],
    id: u32,
}

impl Client {
    /// # Errors
    /// When the interface has no Ethernet address or the kernel refuses a socket.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let text = fs::read_to_string(format!("{INTERFACES}/{name}/address"))?;
        let mac = read_mac(text.trim()).ok_or(io::ErrorKind::InvalidData)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
        socket.set_broadcast(true)?;
        sys::bind_to_interface(&socket, name)?;
        let ear = socket_with(
            AddressFamily::PACKET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(eth::IP),
        )?;
        Ok(Self {
            socket,
            ear,
            mac,
            id: first_id(mac),
        })
    }

    /// An address, that one again where there was one, however long it takes.
    pub(super) fn lease(&mut self, had: Option<&Lease>) -> Lease {
        let kept = had.and_then(|had| self.ask(Say::Keep(had), TRIES, FIRST_WAIT));
        if let Some(Answer::Granted(lease)) = kept {
            return lease;
        }
        let mut wait = FIRST_WAIT;
        loop {
            if let Some(Answer::Offer(offer)) = self.ask(Say::Discover, 1, wait)
                && let Some(Answer::Granted(lease)) = self.ask(Say::Take(&offer), TRIES, FIRST_WAIT)
            {
                return lease;
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Says something so many times until there is an answer to it.
    fn ask(&mut self, say: Say<'_>, tries: u32, mut wait: Duration) -> Option<Answer> {
        self.id = self.id.wrapping_add(1);
        let text = message(say, self.id, self.mac);
        for _ in 0..tries {
            let to = (Ipv4Addr::BROADCAST, SERVER_PORT);
            let sent = self.socket.send_to(&text, to).is_ok();
            let deadline = Instant::now() + wait;
            while let Some(answer) = self.hear(deadline) {
                let offered = matches!(answer, Answer::Offer(_));
                if offered == (say == Say::Discover) && sent {
                    return Some(answer);
                }
            }
            wait *= 2;
        }
        None
    }

    /// The next answer to what was said last, until the deadline.
    fn hear(&self, deadline: Instant) -> Option<Answer> {
        let mut bytes = [0; 1500];
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            let mut wait = [PollFd::new(&self.ear, PollFlags::IN)];
            let _ = poll(&mut wait, Some(&left.try_into().ok()?));
            if let Ok((len, _)) = recv(&self.ear, &mut bytes[..], RecvFlags::DONTWAIT) {
                let text = bytes.get(..len).and_then(from_server);
                let answer = text.and_then(|text| answer(text, self.id, self.mac));
                if answer.is_some() {
                    return answer;
                }
            }
        }
    }
}

/// Starts the numbers of messages where no other start of this guest does.
fn first_id(mac: [u8; 6]) -> u32 {
    let now = clock_gettime(ClockId::Realtime);
    let [_, _, a, b, c, d] = mac;
    let seconds = u32::try_from(now.tv_sec & 0xffff_ffff).unwrap_or_default();
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
    u32::from_be_bytes([a, b, c, d]) ^ seconds.rotate_left(16) ^ nanoseconds
}

fn read_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::read_mac;

    #[test]
    fn ethernet_addresses() {
        let mac = [2, 0xab, 0, 0, 0, 1];
        assert_eq!(read_mac("02:ab:00:00:00:01"), Some(mac));
        for text in ["", "02", "02:ab:00:00:00:01:02", "0g:00:00:00:00:00"] {
            assert_eq!(read_mac(text), None, "{text}");
        }
    }
}
