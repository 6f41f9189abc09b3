//! What the TCP engine sees as its network device: one packet comes in, and one frame at a time
//! goes out.

use std::collections::VecDeque;

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::phy::{RxToken, TxToken};
use smoltcp::time::Instant;

use crate::counters::{Counters, bump};
use crate::frame::{ETHERNET_BYTES, IPV4, Mac, head};
use crate::responder::MAC;

/// Frames that wait for the guest to take them; more are dropped.
const MOST_FRAMES: usize = 64;

/// Frames for the guest.
#[derive(Debug, Default)]
pub(crate) struct Out {
    frames: VecDeque<Vec<u8>>,
}

impl Out {
    /// Adds a frame, or drops it.
    pub(crate) fn push(&mut self, frame: Vec<u8>, counters: &mut Counters) {
        if self.frames.len() >= MOST_FRAMES {
            bump(&mut counters.dropped);
        } else {
            self.frames.push_back(frame);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// The guest's side for one connection, for one turn.
#[derive(Debug)]
pub(crate) struct Port<'a> {
    pub(crate) packet: Option<&'a [u8]>,
    pub(crate) out: &'a mut Out,
    pub(crate) counters: &'a mut Counters,
    /// Whom frames go to.
    pub(crate) mac: Mac,
    /// The largest packet.
    pub(crate) mtu: u16,
}

impl Port<'_> {
    fn room(&mut self) -> Room<'_> {
        Room {
            out: self.out,
            counters: self.counters,
            mac: self.mac,
        }
    }
}

impl Device for Port<'_> {
    type RxToken<'a>
        = Packet<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Room<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Packet<'_>, Room<'_>)> {
        let packet = self.packet.take()?;
        Some((Packet(packet), self.room()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        self.out.is_empty().then(|| self.room())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// What comes from the guest never was on a wire, and its sums may be unfinished.
fn capabilities(mtu: u16) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu.into();
    capabilities.checksum = ChecksumCapabilities::ignored();
    capabilities.checksum.ipv4 = Checksum::Both;
    capabilities.checksum.tcp = Checksum::Tx;
    capabilities
}

#[derive(Debug)]
pub(crate) struct Packet<'a>(&'a [u8]);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Room<'a> {
    out: &'a mut Out,
    counters: &'a mut Counters,
    mac: Mac,
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = head(MAC, self.mac, IPV4).to_vec();
        frame.resize(ETHERNET_BYTES.saturating_add(length), 0);
        // The head is that long, so that there is a place behind it.
        let (_, packet) = frame.split_at_mut(ETHERNET_BYTES);
        let result = fill(packet);
        self.out.push(frame, self.counters);
        result
    }
}
