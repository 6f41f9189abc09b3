//! The driver's side of a split virtqueue (virtio 1.2, 2.7), written without any check.

use crate::ram::GuestRam;
use crate::virtio::queue::QueueSetup;

/// Descriptor flag: another descriptor follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: for the device to write.
pub const WRITE: u16 = 2;
/// Descriptor flag: a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A piece of guest memory in a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Buffer {
    /// The guest-physical address.
    pub at: u64,
    /// The length in bytes.
    pub len: u32,
    /// Whether the device is to write it.
    pub writable: bool,
}

impl Buffer {
    /// For the device to read.
    pub fn readable(at: u64, len: u32) -> Self {
        let writable = false;
        Self { at, len, writable }
    }

    /// For the device to write.
    pub fn writable(at: u64, len: u32) -> Self {
        let writable = true;
        Self { at, len, writable }
    }

    fn flags(self) -> u16 {
        if self.writable { WRITE } else { 0 }
    }
}

/// A ring in guest memory with the driver's indices.
#[derive(Debug)]
pub struct Ring {
    ram: GuestRam,
    /// Where it lies.
    pub setup: QueueSetup,
    next_descriptor: u16,
    available: u16,
    used: u16,
}

impl Ring {
    /// The bytes to leave for a ring of up to 256 descriptors.
    pub const BYTES: u64 = 0x3000;

    /// A zeroed ring of `size` descriptors from `at` on, which is aligned to a page.
    pub fn new(ram: GuestRam, at: u64, size: u16) -> Self {
        let zeroes = vec![0; usize::try_from(Self::BYTES).expect("small")];
        ram.write_bytes(at, &zeroes).expect("the ring is memory");
        let setup = QueueSetup {
            size: size.into(),
            descriptors: at,
            available: at + 0x1000,
            used: at + 0x2000,
        };
        Self {
            ram,
            setup,
            next_descriptor: 0,
            available: 0,
            used: 0,
        }
    }

    fn size(&self) -> u16 {
        u16::try_from(self.setup.size).expect("a real size")
    }

    /// Writes descriptor `index` of the ring's table.
    pub fn descriptor(&self, index: u16, (at, len): (u64, u32), flags: u16, next: u16) {
        self.descriptor_in(self.setup.descriptors, index, (at, len), flags, next);
    }

    /// Writes descriptor `index` of the table at `table`.
    pub fn descriptor_in(
        &self,
        table: u64,
        index: u16,
        (at, len): (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let place = table + u64::from(index) * 16;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
        self.ram
            .write_bytes(place, &bytes)
            .expect("the table is memory");
    }

    /// Writes a table of the descriptors of one chain at `table`.
    pub fn indirect_table(&self, table: u64, buffers: &[Buffer]) {
        for (index, buffer) in (0..).zip(buffers) {
            let last = usize::from(index) + 1 == buffers.len();
            let next = if last { 0 } else { NEXT };
            let place = (buffer.at, buffer.len);
            self.descriptor_in(table, index, place, buffer.flags() | next, index + 1);
        }
    }

    /// Writes a chain into the next descriptors, going round: the first one's index. The
    /// device does not know of it yet.
    pub fn chain(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (count, buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size();
            let more = count + 1 < buffers.len();
            let flags = buffer.flags() | if more { NEXT } else { 0 };
            let place = (buffer.at, buffer.len);
            self.descriptor(index, place, flags, self.next_descriptor);
        }
        head
    }

    /// Makes a chain available to the device.
    pub fn publish(&mut self, head: u16) {
        let slot = u64::from(self.available % self.size());
        let entry = self.setup.available + 4 + slot * 2;
        self.ram
            .write(entry, &head.to_le())
            .expect("the ring is memory");
        self.available = self.available.wrapping_add(1);
        self.set_available_index(self.available);
    }

    /// Writes and publishes a chain.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.chain(buffers);
        self.publish(head);
        head
    }

    /// How far the driver says it has gone.
    pub fn set_available_index(&self, index: u16) {
        let place = self.setup.available + 2;
        self.ram
            .write(place, &index.to_le())
            .expect("the ring is memory");
    }

    /// The available ring's flags: 1 asks for no interrupts.
    pub fn set_flags(&self, flags: u16) {
        let place = self.setup.available;
        self.ram
            .write(place, &flags.to_le())
            .expect("the ring is memory");
    }

    /// With event indices: interrupt when the device's used index passes `index`.
    pub fn set_used_event(&self, index: u16) {
        let place = self.setup.available + 4 + u64::from(self.size()) * 2;
        self.ram
            .write(place, &index.to_le())
            .expect("the ring is memory");
    }

    /// With event indices: where the device wants to be rung.
    pub fn available_event(&self) -> u16 {
        let place = self.setup.used + 4 + u64::from(self.size()) * 8;
        u16::from_le(self.ram.read(place).expect("the ring is memory"))
    }

    /// The used ring's flags: 1 means that the device need not be rung.
    pub fn used_flags(&self) -> u16 {
        u16::from_le(self.ram.read(self.setup.used).expect("the ring is memory"))
    }

    /// The used index: how many chains the device has given back.
    pub fn used_index(&self) -> u16 {
        u16::from_le(
            self.ram
                .read(self.setup.used + 2)
                .expect("the ring is memory"),
        )
    }

    /// The next chain that the device gave back: its head and how much is written.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if self.used == self.used_index() {
            return None;
        }
        let entry = self.setup.used + 4 + u64::from(self.used % self.size()) * 8;
        self.used = self.used.wrapping_add(1);
        let head = u32::from_le(self.ram.read(entry).expect("the ring is memory"));
        let written = u32::from_le(self.ram.read(entry + 4).expect("the ring is memory"));
        Some((
            u16::try_from(head).expect("a head is a descriptor"),
            written,
        ))
    }
}
