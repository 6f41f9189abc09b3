//! The machine behind the address: it takes frames of the guest and gives frames for it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};

use crate::counters::{Counters, bump};
use crate::flow::Flow;
use crate::frame::{self, Frame, Mac, Segment};
use crate::port::{Out, Port};
use crate::service::Service;

/// Its Ethernet address, as Firecracker's.
pub const MAC: [u8; 6] = [0x06, 0x01, 0x23, 0x45, 0x67, 0x01];
/// Its address, if no other was asked for.
pub const DEFAULT_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Connections at a time. One more takes the place of the one that has been quiet for longest.
pub const MOST_FLOWS: usize = 30;

const PORT: u16 = 80;
/// The sizes of packets that are sent, whatever the network could carry.
const PACKET_BYTES: (u16, u16) = (68, 1500);
/// A connection whose time has come and that could do nothing waits so long.
const MOMENT: Duration = Duration::from_millis(1);

/// A responder.
pub struct Responder {
    service: Service,
    address: Ipv4Addr,
    engine: Interface,
    since: Instant,
    mtu: u16,
    flows: Vec<Flow>,
    /// Whose turn it is.
    turn: usize,
    out: Out,
    counters: Counters,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder")
            .field("address", &self.address)
            .field("flows", &self.flows.len())
            .finish_non_exhaustive()
    }
}

impl Responder {
    /// What answers at `address` for `service`, with packets of up to `mtu` bytes. `seed` makes the
    /// numbers of its connections differ from those of the last.
    #[must_use]
    pub fn new(service: Service, address: Ipv4Addr, mtu: u16, seed: u64, now: Instant) -> Self {
        let (least, most) = PACKET_BYTES;
        let mtu = mtu.clamp(least, most);
        let (mut out, mut counters) = (Out::default(), Counters::default());
        let mut settings = Config::new(HardwareAddress::Ip);
        settings.random_seed = seed;
        let mut nothing = port(&mut out, &mut counters, [0; 6], mtu, None);
        let zero = smoltcp::time::Instant::ZERO;
        let mut engine = Interface::new(settings, &mut nothing, zero);
        engine.update_ip_addrs(|addresses| {
            // One always fits.
            let _ = addresses.push(IpCidr::new(address.into(), 32));
        });
        Self {
            service,
            address,
            engine,
            since: now,
            mtu,
            flows: Vec::new(),
            turn: 0,
            out,
            counters,
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where a frame of the kind that its header names has the address that it is for; none for
    /// kinds that never are for a responder.
    #[must_use]
    pub fn target_at(kind: [u8; 2]) -> Option<usize> {
        frame::target_at(kind)
    }

    /// Takes a frame of the guest that is for its address.
    pub fn take(&mut self, bytes: &[u8], now: Instant) {
        bump(&mut self.counters.frames);
        match frame::read(bytes) {
            None => bump(&mut self.counters.malformed),
            Some(Frame::Unusual) => bump(&mut self.counters.unusual),
            Some(Frame::Request { mac, address }) => {
                let reply = frame::reply((MAC, self.address), (mac, address));
                self.out.push(reply, &mut self.counters);
            }
            Some(Frame::Segment(segment)) => self.segment(&segment, now),
        }
    }

    fn segment(&mut self, segment: &Segment<'_>, now: Instant) {
        let is_it = |flow: &Flow| flow.peer == segment.peer && segment.port == PORT;
        let place = match self.flows.iter().position(is_it) {
            None if segment.opens && segment.port == PORT => Some(self.open(segment, now)),
            place => place,
        };
        let time = self.time(now);
        let flow = place.and_then(|place| self.flows.get_mut(place));
        let (out, counters) = (&mut self.out, &mut self.counters);
        let mut port = port(out, counters, segment.mac, self.mtu, Some(segment.packet));
        let Some(flow) = flow else {
            // Nobody is there: the engine tells the guest so.
            let mut nobody = SocketSet::new(Vec::new());
            self.engine
                .poll_ingress_single(time, &mut port, &mut nobody);
            return;
        };
        self.engine
            .poll_ingress_single(time, &mut port, &mut flow.sockets);
        flow.stir(segment.mac, now);
    }

    /// Makes a connection, and room for it: where it is.
    fn open(&mut self, segment: &Segment<'_>, now: Instant) -> usize {
        if self.flows.len() >= MOST_FLOWS {
            let flows = self.flows.iter().enumerate();
            if let Some((quietest, _)) = flows.min_by_key(|(_, flow)| flow.tired_at) {
                self.flows.swap_remove(quietest);
                bump(&mut self.counters.replaced);
            }
        }
        bump(&mut self.counters.opened);
        let at = IpListenEndpoint {
            addr: Some(self.address.into()),
            port: PORT,
        };
        let place = self.flows.len();
        self.flows
            .push(Flow::new(at, segment.peer, segment.mac, now));
        place
    }

    /// The next frame for the guest, if there is one now.
    pub fn next(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.out.is_empty() {
            self.work(now);
        }
        let frame = self.out.pop()?;
        bump(&mut self.counters.replies);
        let bytes = u64::try_from(frame.len()).unwrap_or_default();
        self.counters.reply_bytes = self.counters.reply_bytes.saturating_add(bytes);
        Some(frame)
    }

    /// Goes through the connections, beginning with the one whose turn it is, until there is a
    /// frame.
    fn work(&mut self, now: Instant) {
        for _ in 0..self.flows.len() {
            if self.turn >= self.flows.len() {
                self.turn = 0;
            }
            let is_over = self.work_on(self.turn, now);
            if is_over {
                self.flows.swap_remove(self.turn);
            } else {
                self.turn = self.turn.saturating_add(1);
            }
            if !self.out.is_empty() {
                return;
            }
        }
    }

    /// Does what a connection has to do: whether it is over.
    fn work_on(&mut self, place: usize, now: Instant) -> bool {
        let time = self.time(now);
        let Some(flow) = self.flows.get_mut(place) else {
            return false;
        };
        if !flow.dirty && flow.due.is_none_or(|due| due > now) {
            return false;
        }
        flow.tire(now);
        flow.serve(&self.service, &mut self.counters, now);
        let (out, counters) = (&mut self.out, &mut self.counters);
        let mut port = port(out, counters, flow.mac, self.mtu, None);
        self.engine.poll_egress(time, &mut port, &mut flow.sockets);
        flow.dirty = !self.out.is_empty();
        if flow.dirty {
            return false;
        }
        let due = self.engine.poll_at(time, &flow.sockets).map(|due| {
            let wait = Duration::from_micros((due - time).total_micros());
            now.checked_add(wait.max(MOMENT)).unwrap_or(now)
        });
        flow.due = due.into_iter().chain([flow.tired_at]).min();
        flow.is_over()
    }

    /// When [`next`](Self::next) has something to do at the latest; none while it never has.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if !self.out.is_empty() || self.flows.iter().any(|flow| flow.dirty) {
            return Some(now);
        }
        self.flows.iter().filter_map(|flow| flow.due).min()
    }

    /// What it counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.since).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

fn port<'a>(
    out: &'a mut Out,
    counters: &'a mut Counters,
    mac: Mac,
    mtu: u16,
    packet: Option<&'a [u8]>,
) -> Port<'a> {
    Port {
        packet,
        out,
        counters,
        mac,
        mtu,
    }
}

#[cfg(test)]
mod tests;
