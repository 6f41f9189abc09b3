//! A guest made of nothing but frames, for tests and benchmarks: its end of the link with a small
//! TCP of its own, which relies on a link that loses nothing and so finds out when one does.

mod stream;
mod wire;

pub use stream::{Stream, StreamId};
pub use wire::Wire;

use crate::link::HEADER_BYTES;
use crate::wire::build::{self, Macs};
use crate::wire::tcp::{ACK, SYN, Segment};
use crate::wire::{ETHERNET_BYTES, Mac, Packet, TCP, UDP, be16};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// A packet that is for no stream, as the guest got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// virtio-net's header and the frame.
    pub message: Vec<u8>,
}

impl Other {
    /// The IP packet: its sender, its protocol and what is in it.
    #[must_use]
    pub fn ip(&self) -> Option<(IpAddr, u8, &[u8])> {
        let data = self.message.get(HEADER_BYTES + ETHERNET_BYTES..)?;
        let packet = parse(data)?;
        Some((packet.from, packet.protocol, packet.payload))
    }

    /// A UDP datagram: sender, receiver's port, data.
    #[must_use]
    pub fn udp(&self) -> Option<(SocketAddr, u16, &[u8])> {
        let (from, protocol, payload) = self.ip()?;
        if protocol != UDP {
            return None;
        }
        let from = SocketAddr::new(from, be16(payload, 0)?);
        Some((from, be16(payload, 2)?, payload.get(8..)?))
    }

    /// Kind of the frame.
    #[must_use]
    pub fn kind(&self) -> Option<u16> {
        be16(&self.message, HEADER_BYTES + 12)
    }
}

fn parse(data: &[u8]) -> Option<Packet<'_>> {
    match data.first()? >> 4 {
        4 => Packet::ipv4(data).ok(),
        _ => Packet::ipv6(data).ok(),
    }
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    wire: Wire,
    macs: Macs,
    ip4: Ipv4Addr,
    ip6: Ipv6Addr,
    mtu: u16,
    streams: Vec<Option<Stream>>,
    ports: HashMap<(u16, SocketAddr), usize>,
    next_port: u16,
    /// Ports on which connections are taken.
    listening: Vec<u16>,
    accepted: Vec<StreamId>,
    others: Vec<Other>,
    room: Vec<u8>,
    /// How much each stream takes before its program reads it.
    window: u32,
    /// False: frames are no larger than the MTU.
    large: bool,
}

impl Guest {
    /// A guest with the addresses that it would get by default.
    #[must_use]
    pub fn new(wire: Wire, gateway_mac: Mac) -> Self {
        let from = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        Self {
            wire,
            macs: Macs {
                from,
                to: gateway_mac,
            },
            ip4: Ipv4Addr::new(10, 0, 2, 15),
            ip6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x15),
            mtu: 1500,
            streams: Vec::new(),
            ports: HashMap::new(),
            next_port: 0,
            listening: Vec::new(),
            accepted: Vec::new(),
            others: Vec::new(),
            room: vec![0; crate::link::MAX_MESSAGE_BYTES],
            window: 4 << 20,
            large: true,
        }
    }

    /// Largest IP packet, and whether segments beyond it are sent to be cut.
    pub fn set_mtu(&mut self, mtu: u16, large: bool) {
        self.mtu = mtu;
        self.large = large;
    }

    /// How much streams made from now on take before it is read.
    pub fn set_window(&mut self, window: u32) {
        self.window = window;
    }

    /// Sends bytes as they are: virtio-net's header and a frame.
    ///
    /// # Errors
    /// The host's.
    pub fn send_raw(&mut self, message: &[u8]) -> io::Result<()> {
        self.wire.send(message)
    }

    /// Sends an IP packet with a sum.
    ///
    /// # Errors
    /// The host's.
    pub fn send_ip(&mut self, to: IpAddr, protocol: u8, payload: &[u8]) -> io::Result<()> {
        let message = build::ip(self.macs, self.own(to), to, protocol, payload);
        self.wire.send(&message)
    }

    /// Sends a UDP datagram.
    ///
    /// # Errors
    /// The host's.
    pub fn send_udp(&mut self, port: u16, to: SocketAddr, data: &[u8]) -> io::Result<()> {
        let from = SocketAddr::new(self.own(to.ip()), port);
        self.wire.send(&build::udp(self.macs, from, to, data))
    }

    fn own(&self, like: IpAddr) -> IpAddr {
        match like {
            IpAddr::V4(_) => self.ip4.into(),
            IpAddr::V6(_) => self.ip6.into(),
        }
    }

    /// Starts a connection.
    ///
    /// # Errors
    /// The host's.
    pub fn connect(&mut self, to: SocketAddr) -> io::Result<StreamId> {
        const FIRST: u16 = 10_000;
        loop {
            self.next_port = self.next_port.wrapping_add(1).max(FIRST);
            if !self.ports.contains_key(&(self.next_port, to)) {
                break;
            }
        }
        let local = SocketAddr::new(self.own(to.ip()), self.next_port);
        let mut stream = Stream::new(local, to, self.window, self.mss(to.ip()));
        stream.open(&mut self.wire, self.macs, SYN)?;
        Ok(self.add(stream))
    }

    /// Takes connections to a port.
    pub fn listen(&mut self, port: u16) {
        self.listening.push(port);
    }

    /// The next connection that was taken.
    pub fn accept(&mut self) -> Option<StreamId> {
        (!self.accepted.is_empty()).then(|| self.accepted.remove(0))
    }

    fn mss(&self, ip: IpAddr) -> u16 {
        self.mtu - if ip.is_ipv4() { 40 } else { 60 }
    }

    fn add(&mut self, stream: Stream) -> StreamId {
        let key = (stream.local.port(), stream.remote);
        let free = self.streams.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.streams.push(None);
            self.streams.len() - 1
        });
        self.streams[place] = Some(stream);
        self.ports.insert(key, place);
        StreamId(place)
    }

    /// A stream that was not forgotten.
    ///
    /// # Panics
    /// When it was.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> &Stream {
        self.streams[id.0]
            .as_ref()
            .expect("the stream is not forgotten")
    }

    fn stream_mut(&mut self, id: StreamId) -> &mut Stream {
        self.streams[id.0]
            .as_mut()
            .expect("the stream is not forgotten")
    }

    /// Forgets a stream.
    pub fn forget(&mut self, id: StreamId) {
        if let Some(stream) = self.streams[id.0].take() {
            self.ports.remove(&(stream.local.port(), stream.remote));
        }
    }

    /// Sends as much as the other side takes, and returns how much that was.
    ///
    /// # Errors
    /// The host's.
    pub fn send(&mut self, id: StreamId, data: &[u8]) -> io::Result<usize> {
        let (macs, large) = (self.macs, self.large);
        let stream = self.streams[id.0]
            .as_mut()
            .expect("the stream is not forgotten");
        stream.send(&mut self.wire, macs, large, data)
    }

    /// Sends the end of the stream.
    ///
    /// # Errors
    /// The host's.
    pub fn close(&mut self, id: StreamId) -> io::Result<()> {
        let macs = self.macs;
        let stream = self.streams[id.0]
            .as_mut()
            .expect("the stream is not forgotten");
        stream.close(&mut self.wire, macs)
    }

    /// Breaks the stream.
    ///
    /// # Errors
    /// The host's.
    pub fn abort(&mut self, id: StreamId) -> io::Result<()> {
        let macs = self.macs;
        let stream = self.streams[id.0]
            .as_mut()
            .expect("the stream is not forgotten");
        stream.abort(&mut self.wire, macs)
    }

    /// Takes what has been received, which makes room for more.
    ///
    /// # Errors
    /// The host's.
    pub fn read(&mut self, id: StreamId) -> io::Result<Vec<u8>> {
        let macs = self.macs;
        let stream = self.streams[id.0]
            .as_mut()
            .expect("the stream is not forgotten");
        stream.read(&mut self.wire, macs)
    }

    /// Counts what a stream receives from now on and keeps nothing of it.
    pub fn only_count(&mut self, id: StreamId) {
        self.stream_mut(id).only_count();
    }

    /// Packets that were for no stream.
    pub fn others(&mut self) -> Vec<Other> {
        std::mem::take(&mut self.others)
    }

    /// Takes everything that has arrived, after waiting for it for up to `patience`.
    ///
    /// # Errors
    /// The host's.
    pub fn work(&mut self, patience: Duration) -> io::Result<usize> {
        self.wire.wait(patience)?;
        let mut room = std::mem::take(&mut self.room);
        let mut taken = 0;
        // Answers are sent for a batch of frames, as a driver would.
        for _ in 0..16 {
            let Some(bytes) = self.wire.receive(&mut room)? else {
                break;
            };
            taken += 1;
            self.take(&room[..bytes])?;
        }
        self.room = room;
        let macs = self.macs;
        for stream in self.streams.iter_mut().flatten() {
            stream.acknowledge(&mut self.wire, macs)?;
        }
        Ok(taken)
    }

    /// Works until something is so.
    ///
    /// # Errors
    /// The host's, or when nothing arrives for ten seconds.
    pub fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let mut last = Instant::now();
        while !done(self) {
            if self.work(Duration::from_millis(100))? > 0 {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing arrives"));
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &[u8]) -> io::Result<()> {
        let segment = message
            .get(HEADER_BYTES + ETHERNET_BYTES..)
            .and_then(parse)
            .filter(|packet| packet.protocol == TCP && (packet.to == self.own(packet.to)));
        let Some(packet) = segment else {
            self.others.push(Other {
                message: message.to_vec(),
            });
            return Ok(());
        };
        let Some(segment) = Segment::fields(packet.payload) else {
            return Err(io::Error::other("a TCP segment that makes no sense"));
        };
        wire::check(message, &packet, &segment, self.mtu)?;
        let remote = SocketAddr::new(packet.from, segment.from);
        let key = (segment.to, remote);
        if let Some(place) = self.ports.get(&key)
            && let Some(stream) = self.streams[*place].as_mut()
        {
            return stream.take(&segment, packet.payload);
        }
        if self.listening.contains(&segment.to) && segment.flags & (SYN | ACK) == SYN {
            let local = SocketAddr::new(packet.to, segment.to);
            let mut stream = Stream::new(local, remote, self.window, self.mss(remote.ip()));
            stream.take(&segment, packet.payload)?;
            stream.open(&mut self.wire, self.macs, SYN | ACK)?;
            let id = self.add(stream);
            self.accepted.push(id);
            return Ok(());
        }
        self.others.push(Other {
            message: message.to_vec(),
        });
        Ok(())
    }
}
