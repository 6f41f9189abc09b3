//! The block load: one kind of request at one depth against a virtio-blk device.

use crate::device::{BUFFERS, Device, NEXT, WRITABLE};
use crate::machine::{line, rdtsc, read, write, write32};
use crate::wire;

/// Headers of requests with their status bytes behind them. Each request has a cache line of its
/// own, as with Linux: the driver's CPU and the device's do not fight for those of others.
const REQUESTS: u64 = BUFFERS - 0x4000;
const REQUEST: u64 = 64;
const STATUS: u64 = 16;
const SECTOR: u64 = 512;
/// Without it the device must have each write on the disk before it answers (5.2.6.2).
const FLUSH: u32 = 1 << 9;

/// Where the next request goes.
struct Position {
    next: u64,
    seed: u64,
    blocks: u64,
    random: bool,
}

impl Position {
    fn take(&mut self) -> u64 {
        if self.random {
            // xorshift64
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            return (u128::from(self.seed) * u128::from(self.blocks) >> 64) as u64;
        }
        let block = self.next;
        self.next = if block + 1 == self.blocks { 0 } else { block + 1 };
        block
    }
}

/// Runs a load and prints `load REQUESTS TICKS KICKS ERRORS`.
pub fn run(window: u64, parameter: impl Fn(u64) -> u64) {
    let [writes, random, block, depth, span, ticks, count] =
        core::array::from_fn(|index| parameter(index as u64));
    let device = Device::new(window, FLUSH);
    let Some(mut queue) = device.queue(0) else {
        return line("no queue", &[window]);
    };
    device.start();
    let data = if writes != 0 { 0 } else { WRITABLE };
    for slot in 0..depth {
        let head = 3 * slot as u16;
        let header = REQUESTS + REQUEST * slot;
        let status = header + STATUS;
        write32(header, writes as u32);
        write(wire::MEMORY, 1, status, 0xff);
        queue.describe(head, header, 16, NEXT);
        queue.describe(head + 1, BUFFERS + block * slot, block as u32, data | NEXT);
        queue.describe(head + 2, status, 1, WRITABLE);
    }
    let mut position =
        Position { next: 0, seed: rdtsc() | 1, blocks: span / block, random: random != 0 };
    let mut aim = |slot: u64| {
        let sector = position.take() * (block / SECTOR);
        write(wire::MEMORY, 8, REQUESTS + REQUEST * slot + 8, sector);
    };
    let started = rdtsc();
    let (mut sent, mut done, mut errors) = (depth, 0, 0);
    for slot in 0..depth {
        aim(slot);
        queue.offer(3 * slot as u16);
    }
    queue.publish();
    let mut now = started;
    while done < sent {
        while let Some((head, _)) = queue.take() {
            let slot = u64::from(head) / 3;
            done += 1;
            errors += u64::from(read(wire::MEMORY, 1, REQUESTS + REQUEST * slot + STATUS) != 0);
            if now - started < ticks && sent < count {
                aim(slot);
                queue.offer(head);
                sent += 1;
            }
        }
        queue.publish();
        now = rdtsc();
    }
    line("load", &[done, now - started, queue.kicks, errors]);
}
