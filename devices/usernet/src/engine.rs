//! The network itself: frames of the guest and events of sockets go to the part that they are for.

use crate::config::{Config, Protocol, Publish};
use crate::counters::Counters;
use crate::dhcp::{self, Dhcp, dhcp_answer};
use crate::dns::{self, Dns};
use crate::error::ServeError;
use crate::fragments::Fragments;
use crate::link::{HEADER_BYTES, Link, MAX_MESSAGE_BYTES, Received};
use crate::net::Net;
use crate::ping::Ping;
use crate::poller::{EventFlags, Token};
use crate::tcp::Tcp;
use crate::udp::Udp;
use crate::wire::build;
use crate::wire::{
    ARP, BROADCAST, Bad, Datagram, ETHERNET_BYTES, Ethernet, ICMP, ICMPV6, IPV4, IPV6, Packet,
    Piece, TCP, UDP,
};
use crate::{arp, ndp};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Bytes taken from the guest before the connections that they belong to are worked on.
const BYTES_A_TURN: usize = 256 << 10;
const MESSAGES_A_TURN: usize = 128;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There will be more.
    More,
    /// The guest's end, or the control's, is closed.
    End,
}

/// A network for one guest.
#[derive(Debug)]
pub struct Engine {
    net: Net,
    tcp: Tcp,
    udp: Udp,
    dns: Dns,
    ping: Ping,
    fragments: Fragments,
    control: Option<OwnedFd>,
    message: Vec<u8>,
    watched: EventFlags,
    /// When the router was last told of.
    advertised: Option<Instant>,
}

impl Engine {
    /// Sets a network up: from then on published ports can be connected to.
    ///
    /// # Errors
    /// When the configuration is impossible, a published port cannot be had, or the host is out of
    /// something.
    pub fn new(
        frames: OwnedFd,
        control: Option<OwnedFd>,
        config: Config,
    ) -> Result<Self, ServeError> {
        config.check()?;
        let link = Link::new(frames, config.offloads)?;
        let net = Net::new(config, link)?;
        let watch = ServeError::host("watching the guest's socket");
        let watched = EventFlags::IN;
        net.poller
            .add(&net.link, Token::Link, watched)
            .map_err(&watch)?;
        if let Some(control) = &control {
            net.poller
                .add(control, Token::Control, EventFlags::IN)
                .map_err(&watch)?;
        }
        let limits = net.config.limits;
        Ok(Self {
            tcp: Tcp::new(&net.config, net.now)?,
            udp: Udp::new(limits.udp_flows),
            dns: Dns::new(limits.questions),
            ping: Ping::new(limits.pings),
            fragments: Fragments::default(),
            net,
            control,
            message: vec![0; MAX_MESSAGE_BYTES + 1],
            watched,
            advertised: None,
        })
    }

    /// Publishes a port of the guest and returns where it is reached.
    ///
    /// # Errors
    /// When the host refuses the port.
    pub fn publish(&mut self, publish: &Publish) -> Result<SocketAddr, ServeError> {
        let at = match publish.protocol {
            Protocol::Tcp => self.tcp.publish(&self.net, publish),
            Protocol::Udp => self.udp.publish(&self.net, publish),
        };
        at.map_err(|source| ServeError::Publish {
            publish: *publish,
            source: source.into(),
        })
    }

    /// What this host keeps the network from, in words.
    #[must_use]
    pub fn limits(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if crate::host::ping_socket(Ipv4Addr::LOCALHOST.into()).is_err() {
            lines.push(
                "pings beyond the gateway are refused: net.ipv4.ping_group_range does not have \
                    this user's group"
                    .to_owned(),
            );
        }
        if self.net.config.dns.servers.is_empty() {
            lines.push("no name is found: the host has no name server".to_owned());
        }
        lines
    }

    /// What passed so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.net.counters
    }

    /// Waits for something to do, at most `most`, and does it.
    ///
    /// # Errors
    /// When the host's sockets fail in a way that nothing explains.
    pub fn turn(&mut self, most: Option<Duration>) -> Result<Turn, ServeError> {
        let is_busy = self.tcp.is_dirty() && self.net.link.has_room();
        let most = if is_busy { Some(Duration::ZERO) } else { most };
        let events = self.net.poller.wait(Instant::now(), most)?;
        self.net.now = Instant::now();
        for (token, flags) in events {
            if self.event(token, flags)? == Turn::End {
                return Ok(Turn::End);
            }
        }
        while let Some(token) = self.net.poller.due(self.net.now) {
            self.due(token);
        }
        self.tcp.work(&mut self.net);
        self.watch_link()?;
        Ok(Turn::More)
    }

    fn event(&mut self, token: Token, flags: EventFlags) -> Result<Turn, ServeError> {
        let net = &mut self.net;
        match token {
            Token::Link => {
                net.link.flush();
                let ends = EventFlags::IN | EventFlags::HUP | EventFlags::ERR;
                if flags.intersects(ends) {
                    return self.receive();
                }
            }
            Token::Control => return Ok(self.control()),
            Token::Listener(place) => self.tcp.accept(net, place),
            Token::Port(place) => self.udp.port_ready(net, place),
            Token::Tcp(id) => self.tcp.ready(net, id, flags),
            Token::Udp(id) => self.udp.ready(net, id),
            Token::Question(id) => self.dns.ready(net, id),
            Token::Ping(id) => self.ping.ready(net, id),
        }
        Ok(Turn::More)
    }

    fn due(&mut self, token: Token) {
        let net = &mut self.net;
        match token {
            Token::Tcp(id) => self.tcp.due(id),
            Token::Udp(id) => self.udp.due(net, id),
            Token::Question(id) => self.dns.due(net, id),
            Token::Ping(id) => self.ping.due(net, id),
            Token::Link | Token::Control | Token::Listener(_) | Token::Port(_) => {}
        }
    }

    /// Watches the guest's end for what matters now.
    fn watch_link(&mut self) -> Result<(), ServeError> {
        let link = &self.net.link;
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, !link.is_clogged());
        wanted.set(EventFlags::OUT, !link.has_room());
        if wanted != self.watched {
            let changed = self.net.poller.change(link, Token::Link, wanted);
            changed.map_err(ServeError::host("watching the guest's socket"))?;
            self.watched = wanted;
        }
        Ok(())
    }

    /// Answers whoever asks for the numbers: any bytes are a question.
    fn control(&mut self) -> Turn {
        let Some(control) = &self.control else {
            return Turn::End;
        };
        let mut question = [0; 256];
        match rustix::io::read(control, &mut question) {
            Ok(0) => Turn::End,
            Ok(_) => {
                if let Ok(mut text) = serde_json::to_vec(&self.net.counters) {
                    text.push(b'\n');
                    // Who does not read the answer does without it.
                    let _ = crate::host::send(control, &text);
                }
                Turn::More
            }
            Err(errno) if crate::error::is_again(errno) => Turn::More,
            Err(_) => Turn::End,
        }
    }

    /// Takes messages of the guest, for one turn.
    fn receive(&mut self) -> Result<Turn, ServeError> {
        let mut message = std::mem::take(&mut self.message);
        let mut bytes = 0;
        let mut turn = Turn::More;
        for _ in 0..MESSAGES_A_TURN {
            if bytes >= BYTES_A_TURN || self.net.link.is_clogged() {
                break;
            }
            let received = self.net.link.receive(&mut message);
            match received.map_err(ServeError::host("receiving the guest's frames"))? {
                None => break,
                Some(Received::End) => {
                    turn = Turn::End;
                    break;
                }
                Some(Received::Offloads(offloads)) => self.net.link.offloads = offloads,
                Some(Received::Message(length)) => {
                    bytes += length;
                    self.message(message.get(..length).unwrap_or_default());
                }
            }
        }
        self.message = message;
        Ok(turn)
    }

    /// Takes one message: virtio-net's header and a frame.
    fn message(&mut self, message: &[u8]) {
        let counters = &mut self.net.counters;
        counters.tx_packets += 1;
        let bytes = message.len().saturating_sub(HEADER_BYTES);
        counters.tx_bytes += u64::try_from(bytes).unwrap_or(0);
        let Some((header, frame)) = message.split_first_chunk::<HEADER_BYTES>() else {
            counters.drops.malformed += 1;
            return;
        };
        if message.len() > MAX_MESSAGE_BYTES {
            counters.drops.malformed += 1;
            return;
        }
        match offload(header, frame) {
            Some(partial) => {
                if let Err(bad) = self.frame(frame, partial) {
                    self.net.drop(bad);
                }
            }
            None => counters.drops.offload += 1,
        }
    }

    fn frame(&mut self, frame: &[u8], partial: bool) -> Result<(), Bad> {
        let ethernet = Ethernet::parse(frame).ok_or(Bad::Malformed)?;
        let data = frame.get(ETHERNET_BYTES..).ok_or(Bad::Malformed)?;
        let is_group = |mac: [u8; 6]| mac[0] & 1 != 0;
        let is_ours = ethernet.to == self.net.config.gateway_mac || is_group(ethernet.to);
        let is_own = ethernet.from == self.net.config.gateway_mac;
        if !is_ours || is_own || is_group(ethernet.from) {
            self.net.counters.drops.foreign += 1;
            return Ok(());
        }
        self.net.guest_mac = ethernet.from;
        self.advertise_again();
        match ethernet.kind {
            ARP => arp::take(&mut self.net, data),
            IPV4 => match Packet::ipv4(data) {
                Err(Bad::Fragment) => self.piece(Piece::ipv4(data)),
                packet => self.ipv4(&packet?, partial),
            },
            IPV6 if self.net.config.subnet6.is_some() => match Packet::ipv6(data) {
                Err(Bad::Fragment) => self.piece(Piece::ipv6(data)),
                packet => self.ipv6(&packet?, partial),
            },
            _ => {
                self.net.counters.drops.unknown += 1;
                Ok(())
            }
        }
    }

    /// Takes a piece of a packet, and the packet when it is whole.
    fn piece(&mut self, piece: Option<Piece<'_>>) -> Result<(), Bad> {
        let piece = piece.ok_or(Bad::Fragment)?;
        let (now, lost) = (self.net.now, &mut self.net.counters.drops.fragment);
        let Some(whole) = self.fragments.take(&piece, now, lost)? else {
            return Ok(());
        };
        match piece.from {
            IpAddr::V4(_) => self.ipv4(&Packet::ipv4(&whole)?, false),
            IpAddr::V6(_) => self.ipv6(&Packet::ipv6(&whole)?, false),
        }
    }

    /// Tells of the router anew before its time is over, when the guest is awake anyway.
    fn advertise_again(&mut self) {
        let due = self.advertised.map(|before| before + ndp::AGAIN);
        if due.is_some_and(|due| due <= self.net.now) {
            self.advertised = Some(self.net.now);
            ndp::advertise(&mut self.net);
        }
    }

    fn ipv4(&mut self, packet: &Packet<'_>, partial: bool) -> Result<(), Bad> {
        let (IpAddr::V4(from), IpAddr::V4(to)) = (packet.from, packet.to) else {
            return Err(Bad::Malformed);
        };
        let subnet = self.net.config.subnet4;
        let to_server = [Ipv4Addr::BROADCAST, subnet.broadcast(), subnet.gateway].contains(&to);
        if packet.protocol == UDP && to_server {
            let datagram = Datagram::parse(packet, partial)?;
            if datagram.to == dhcp::SERVER_PORT {
                return self.dhcp(datagram.data);
            }
        }
        if !self.net.is_guest4(from) {
            self.net.counters.drops.spoofed += 1;
            return Ok(());
        }
        if to.is_broadcast() || to == subnet.broadcast() || to.is_multicast() {
            self.net.counters.drops.unknown += 1;
            return Ok(());
        }
        self.ip(packet, partial)
    }

    fn ipv6(&mut self, packet: &Packet<'_>, partial: bool) -> Result<(), Bad> {
        let (IpAddr::V6(from), IpAddr::V6(to)) = (packet.from, packet.to) else {
            return Err(Bad::Malformed);
        };
        if packet.protocol == ICMPV6 {
            if !packet.sum_is_right() && !partial {
                return Err(Bad::Checksum);
            }
            if let Some(asked) = ndp::take(&mut self.net, packet) {
                if let ndp::Asked::Router = asked? {
                    self.advertised = Some(self.net.now);
                }
                return Ok(());
            }
        }
        if to.is_multicast() {
            self.net.counters.drops.unknown += 1;
            return Ok(());
        }
        if !self.net.is_guest6(from) {
            self.net.counters.drops.spoofed += 1;
            return Ok(());
        }
        self.ip(packet, partial)
    }

    fn ip(&mut self, packet: &Packet<'_>, partial: bool) -> Result<(), Bad> {
        match (packet.protocol, packet.to) {
            (TCP, _) => self.tcp.take(&mut self.net, packet, partial),
            (UDP, _) => self.udp(packet, partial),
            (ICMP, IpAddr::V4(_)) if !packet.sum_is_right() && !partial => Err(Bad::Checksum),
            (ICMP, IpAddr::V4(_)) | (ICMPV6, IpAddr::V6(_)) => {
                self.ping.take(&mut self.net, packet)
            }
            _ => {
                self.net.counters.drops.unknown += 1;
                Ok(())
            }
        }
    }

    fn udp(&mut self, packet: &Packet<'_>, partial: bool) -> Result<(), Bad> {
        let datagram = Datagram::parse(packet, partial)?;
        let guest = SocketAddr::new(packet.from, datagram.from);
        let remote = SocketAddr::new(packet.to, datagram.to);
        let net = &mut self.net;
        if remote.port() == dns::PORT && net.is_name_server(remote.ip()) {
            self.dns.take(net, guest, remote, datagram.data);
        } else {
            self.udp.take(net, (guest, remote), datagram.data, packet);
        }
        Ok(())
    }

    fn dhcp(&mut self, data: &[u8]) -> Result<(), Bad> {
        let answer = match dhcp_answer(&self.net.config, data) {
            Dhcp::Answer(answer) => answer,
            Dhcp::Silent => return Ok(()),
            Dhcp::Malformed => return Err(Bad::Malformed),
        };
        self.net.counters.dhcp_answers += 1;
        let mut macs = self.net.macs();
        if answer.to.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            macs.to = BROADCAST;
        }
        let gateway = self.net.config.subnet4.gateway.into();
        let from = SocketAddr::new(gateway, dhcp::SERVER_PORT);
        self.net
            .send(&build::udp(macs, from, answer.to, &answer.data));
        Ok(())
    }
}

/// Whether a frame's sum is partial; none for an offload that the network does not have.
fn offload(header: &[u8; HEADER_BYTES], frame: &[u8]) -> Option<bool> {
    const NEEDS_CHECKSUM: u8 = 1;
    const NONE: u8 = 0;
    const TCPV4: u8 = 1;
    const TCPV6: u8 = 4;
    const ECN: u8 = 0x80;
    let [flags, kind, _, _, size_low, size_high, ..] = *header;
    let partial = flags & NEEDS_CHECKSUM != 0;
    let size = u16::from_le_bytes([size_low, size_high]);
    if partial {
        let [.., start_low, start_high, offset_low, offset_high, _, _] = *header;
        let start = usize::from(u16::from_le_bytes([start_low, start_high]));
        let offset = usize::from(u16::from_le_bytes([offset_low, offset_high]));
        if start < ETHERNET_BYTES || start + offset + 2 > frame.len() {
            return None;
        }
    }
    match kind & !ECN {
        NONE => Some(partial),
        // A segment to be cut has a partial sum and says how to cut it.
        TCPV4 | TCPV6 if partial && size > 0 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
