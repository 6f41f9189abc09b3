//! A guest's side of a socket device, one packet at a time: it keeps no rule by itself.

use zerocopy::{FromBytes, IntoBytes};

use super::driver::GuestDriver;
use super::ring::Buffer;
use super::{AFTER_HOLE, END, small_ram};
use crate::ram::GuestRam;
use crate::virtio::VirtioDevice;
use crate::virtio::vsock::wire::{HEADER_BYTES, HOST_CID, Header, op};

/// The queues.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

/// A driver of a socket device.
#[derive(Debug)]
pub struct VsockGuest {
    /// The driver.
    pub driver: GuestDriver,
    cid: u64,
    // Receive buffers that the device has, oldest first, each in one or more pieces.
    given: std::collections::VecDeque<(u16, Vec<Buffer>)>,
    next_buffer: u64,
}

impl VsockGuest {
    /// Starts a device, whose configuration tells the guest's context ID. It has no receive
    /// buffer.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self::on(small_ram(), device)
    }

    /// The same in memory that is there already and is as [`small_ram`].
    pub fn on(ram: GuestRam, device: Box<dyn VirtioDevice>) -> Self {
        let mut driver = GuestDriver::on(ram, device);
        driver.start(u64::MAX);
        let (low, high) = (driver.config(0), driver.config(4));
        Self {
            driver,
            cid: u64::from(low) | u64::from(high) << 32,
            given: std::collections::VecDeque::new(),
            next_buffer: AFTER_HOLE,
        }
    }

    /// The guest's context ID.
    pub fn cid(&self) -> u64 {
        self.cid
    }

    /// How many receive buffers the device has.
    pub fn given(&self) -> usize {
        self.given.len()
    }

    /// The device was reset: it has no receive buffer any more.
    pub fn forget(&mut self) {
        self.given.clear();
    }

    /// Adds a receive buffer of pieces of these lengths, without ringing.
    pub fn add_buffer(&mut self, lengths: &[u32]) {
        let pieces: Vec<Buffer> = lengths.iter().map(|len| self.piece(*len)).collect();
        let head = self.driver.ring(RECEIVE).add(&pieces);
        self.given.push_back((head, pieces));
    }

    fn piece(&mut self, len: u32) -> Buffer {
        if self.next_buffer + u64::from(len) > END {
            self.next_buffer = AFTER_HOLE;
        }
        let at = self.next_buffer;
        self.next_buffer += u64::from(len);
        Buffer::writable(at, len)
    }

    /// Gives the device `count` receive buffers of pieces of these lengths.
    pub fn give(&mut self, count: usize, lengths: &[u32]) {
        for _ in 0..count {
            self.add_buffer(lengths);
        }
        self.driver.kick(RECEIVE);
    }

    /// The next packet that the device has sent.
    ///
    /// # Panics
    /// When it is not as a packet has to be.
    pub fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let (head, written) = self.driver.ring(RECEIVE).take_used()?;
        let (given, pieces) = self.given.pop_front().expect("a buffer that was given");
        assert_eq!(given, head, "buffers come back in their order");
        let bytes: Vec<_> = pieces.iter().map(|p| self.driver.bytes(*p)).collect();
        let bytes = bytes.concat();
        let written = usize::try_from(written).expect("small");
        assert!(written <= bytes.len(), "more than the buffer");
        if written == 0 {
            // Given back unused.
            return self.receive();
        }
        let (header, data) = bytes[..written].split_at(HEADER_BYTES);
        let header = Header::read_from_bytes(header).expect("a header");
        let len = usize::try_from(header.len.get()).expect("small");
        assert_eq!(len, data.len(), "the header's length");
        assert_eq!(header.dst_cid.get(), self.cid);
        // A RST comes from where the guest sent its packet to, and is of its type.
        if header.op.get() != op::RST {
            assert_eq!((header.src_cid.get(), header.kind.get()), (HOST_CID, 1));
        }
        Some((header, data.to_vec()))
    }

    /// A header from the guest's `port` to the host's.
    pub fn header(&self, guest: u32, host: u32, op: u16) -> Header {
        Header {
            src_cid: self.cid.into(),
            dst_cid: HOST_CID.into(),
            src_port: guest.into(),
            dst_port: host.into(),
            kind: 1.into(),
            op: op.into(),
            ..Header::default()
        }
    }

    /// Adds a packet in descriptors of the lengths of `cuts`, and the rest in one more; without
    /// ringing.
    pub fn add_packet(&mut self, header: &Header, data: &[u8], cuts: &[usize]) {
        let bytes = [header.as_bytes(), data].concat();
        let mut rest = bytes.as_slice();
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            if !piece.is_empty() {
                pieces.push(self.driver.holding(piece));
            }
            rest = later;
        }
        if !rest.is_empty() || pieces.is_empty() {
            pieces.push(self.driver.holding(rest));
        }
        self.driver.ring(TRANSMIT).add(&pieces);
    }

    /// Rings for the packets that were added and lets the device run: how many of them it took.
    pub fn ring(&mut self) -> usize {
        self.driver.kick(TRANSMIT);
        self.taken()
    }

    /// How many packets the device has taken since the last look.
    pub fn taken(&mut self) -> usize {
        let ring = self.driver.ring(TRANSMIT);
        std::iter::from_fn(|| ring.take_used()).count()
    }

    /// Sends one packet: whether the device took it.
    pub fn send(&mut self, header: &Header, data: &[u8]) -> bool {
        self.add_packet(header, data, &[HEADER_BYTES]);
        self.ring() == 1
    }
}
