//! The driver's side of a virtio device: a virtio-mmio window (virtio 1.2, 4.2) and its split
//! queues (2.7), polled, with EVENT_IDX where the device offers it.

use crate::machine::{fence, fill, line, read16, read32, write, write16, write32};
use crate::wire;

const EVENT_IDX: u32 = 1 << 29;
/// Bit 0 of the high half: VERSION_1.
const VERSION_1: u32 = 1;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Bytes of a queue of 256 entries.
const QUEUE: u64 = 0x3000;
/// Where buffers begin, behind the queues of 16 devices, 8 each.
pub const BUFFERS: u64 = wire::LOAD + 0x20_0000;

/// The descriptor goes on.
pub const NEXT: u16 = 1;
/// The descriptor is for the device to write.
pub const WRITABLE: u16 = 2;

/// A device that is being set up or runs.
pub struct Device {
    pub window: u64,
    event: bool,
}

impl Device {
    /// Resets the device and agrees on VERSION_1, EVENT_IDX and what of `wanted` it offers.
    pub fn new(window: u64, wanted: u32) -> Device {
        let device = Device { window, event: false };
        device.set(0x70, 0);
        while device.get(0x70) != 0 {}
        device.set(0x70, 3);
        device.set(0x14, 0);
        let features = device.get(0x10) & (wanted | EVENT_IDX);
        for (page, bits) in [(0, features), (1, VERSION_1)] {
            device.set(0x24, page);
            device.set(0x20, bits);
        }
        device.set(0x70, 11);
        Device { window, event: features & EVENT_IDX != 0 }
    }

    pub fn get(&self, register: u64) -> u32 {
        read32(self.window + register)
    }

    fn set(&self, register: u64, value: u32) {
        write32(self.window + register, value);
    }

    /// Hands over queue `number`, if there is one, with at most 256 entries.
    pub fn queue(&self, number: u32) -> Option<Queue> {
        self.set(0x30, number);
        let size = self.get(0x34).min(256);
        if size == 0 {
            return None;
        }
        let first = (self.window >> 12 & 15) * 8;
        let base = wire::LOAD + (first + u64::from(number)) * QUEUE;
        fill(base, 0, QUEUE);
        self.set(0x38, size);
        for (register, at) in [(0x80, 0), (0x90, AVAILABLE), (0xa0, USED)] {
            self.set(register, (base + at) as u32);
            self.set(register + 4, 0);
        }
        self.set(0x44, 1);
        let mut queue = Queue {
            notify: self.window + 0x50,
            number,
            event: self.event,
            base,
            size: size as u16,
            available: 0,
            published: 0,
            used: 0,
            kicks: 0,
        };
        queue.refuse_interrupts();
        Some(queue)
    }

    /// Sets DRIVER_OK.
    pub fn start(&self) {
        self.set(0x70, 15);
    }
}

/// One queue.
pub struct Queue {
    notify: u64,
    number: u32,
    event: bool,
    base: u64,
    pub size: u16,
    available: u16,
    published: u16,
    used: u16,
    pub kicks: u64,
}

impl Queue {
    /// Writes one descriptor.
    pub fn describe(&self, index: u16, at: u64, len: u32, flags: u16) {
        let place = self.base + 16 * u64::from(index);
        write(wire::MEMORY, 8, place, at);
        write32(place + 8, len);
        write16(place + 12, flags);
        write16(place + 14, index + 1);
    }

    /// Puts a chain into the available ring, which [`Queue::publish`] shows to the device.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available & (self.size - 1));
        write16(self.base + AVAILABLE + 4 + 2 * slot, head);
        self.available = self.available.wrapping_add(1);
    }

    /// Shows all offered chains, and kicks the device if it wants that.
    pub fn publish(&mut self) {
        if self.available == self.published {
            return;
        }
        write16(self.base + AVAILABLE + 2, self.available);
        fence();
        let wants = if self.event {
            let event = read16(self.base + USED + 4 + 8 * u64::from(self.size));
            let new = self.available.wrapping_sub(event).wrapping_sub(1);
            new < self.available.wrapping_sub(self.published)
        } else {
            read16(self.base + USED) & 1 == 0
        };
        self.published = self.available;
        if wants {
            self.kicks += 1;
            write32(self.notify, self.number);
        }
    }

    /// The next chain that came back: its head and how many bytes the device wrote.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        if read16(self.base + USED + 2) == self.used {
            return None;
        }
        let entry = self.base + USED + 4 + 8 * u64::from(self.used & (self.size - 1));
        self.used = self.used.wrapping_add(1);
        if self.used & 0x3fff == 0 {
            self.refuse_interrupts();
        }
        Some((read16(entry), read32(entry + 4)))
    }

    /// Nothing is to be interrupted: the event index stays far from the used index.
    fn refuse_interrupts(&mut self) {
        write16(self.base + AVAILABLE, 1);
        let far = self.used.wrapping_sub(0x4000);
        write16(self.base + AVAILABLE + 4 + 2 * u64::from(self.size), far);
    }
}

/// Packets of a [`Sender`] that are under way at most.
pub const SENDING: usize = 64;
/// The headers of a [`Sender`], and how far they are apart.
const HEADERS: u64 = BUFFERS - 0x4000;
const HEADER: u64 = 128;

/// A queue of packets that are a header, each one's own, and bytes of one place for all.
pub struct Sender {
    pub queue: Queue,
    payload: u64,
    free: [u16; SENDING],
    left: usize,
}

impl Sender {
    pub fn new(queue: Queue, payload: u64) -> Sender {
        let free = core::array::from_fn(|slot| 2 * slot as u16);
        Sender { queue, payload, free, left: SENDING }
    }

    /// Where the next packet is to have its header.
    pub fn header(&self) -> u64 {
        HEADERS + HEADER / 2 * u64::from(self.free[self.left - 1])
    }

    /// Sends the next packet; there is always room, since the caller looks.
    pub fn send(&mut self, header: u32, len: u32) {
        let at = self.header();
        self.left -= 1;
        let head = self.free[self.left];
        self.queue.describe(head, at, header, if len > 0 { NEXT } else { 0 });
        self.queue.describe(head + 1, self.payload, len, 0);
        self.queue.offer(head);
    }

    /// Takes back what is sent, so that at least `wanted` packets have room.
    pub fn reclaim(&mut self, wanted: usize) {
        self.queue.publish();
        loop {
            while let Some((head, _)) = self.queue.take() {
                self.free[self.left] = head;
                self.left += 1;
            }
            if self.left >= wanted {
                return;
            }
        }
    }
}

/// Starts a device to be idle; queues whose bits are set in `filled` get buffers to write.
pub fn start_idle(window: u64, filled: u64) {
    let device = Device::new(window, 0);
    let mut queues = [const { None }; 8];
    for (number, place) in queues.iter_mut().enumerate() {
        *place = device.queue(number as u32);
    }
    device.start();
    for (number, queue) in queues.iter_mut().flatten().enumerate() {
        if filled >> number & 1 == 1 {
            for index in 0..16 {
                queue.describe(index, BUFFERS + 4096 * u64::from(index), 4096, WRITABLE);
                queue.offer(index);
            }
            queue.publish();
        }
    }
    line("started", &[u64::from(device.get(8)), u64::from(device.get(0x70))]);
}
