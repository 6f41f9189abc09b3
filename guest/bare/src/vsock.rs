//! The vsock load: the guest listens, the host connects, and one of them sends a stream (5.10).

use crate::device::{BUFFERS, Device, Sender, WRITABLE};
use crate::machine::{line, rdtsc, read, read16, read32, write, write16, write32};
use crate::wire;

const HEADER: u32 = 44;
/// Payload of a packet at most, and the distance of buffers, which hold a header as well.
const CHUNK: u32 = 64 << 10;
const STRIDE: u64 = 68 << 10;
const RECEIVE: u16 = 64;
/// Where all packets to send have their payload.
const PAYLOAD: u64 = BUFFERS + STRIDE * RECEIVE as u64;
/// How much the peer may have under way.
const CREDIT: u32 = 1 << 20;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const UPDATE: u16 = 6;
const ASK: u16 = 7;

/// The one connection and the queue that it sends on.
struct Stream {
    out: Sender,
    cid: u64,
    peer: u64,
    ports: (u32, u32),
    received: u32,
    told: u32,
}

impl Stream {
    /// Sends one packet, for which the caller has seen that there is room.
    fn send(&mut self, operation: u16, len: u32) {
        let at = self.out.header();
        write(wire::MEMORY, 8, at, self.cid);
        write(wire::MEMORY, 8, at + 8, self.peer);
        write32(at + 16, self.ports.0);
        write32(at + 20, self.ports.1);
        write32(at + 24, len);
        write16(at + 28, 1);
        write16(at + 30, operation);
        write32(at + 32, if operation == SHUTDOWN { 3 } else { 0 });
        write32(at + 36, CREDIT);
        write32(at + 40, self.received);
        self.told = self.received;
        self.out.send(HEADER, len);
    }
}

/// Runs a load and prints `load BYTES TICKS KICKS 0`.
pub fn run(window: u64, parameter: impl Fn(u64) -> u64) {
    let (port, sends, bytes) = (parameter(0) as u32, parameter(1) != 0, parameter(2));
    let device = Device::new(window, 0);
    let (Some(mut incoming), Some(queue)) = (device.queue(0), device.queue(1)) else {
        return line("no queue", &[window]);
    };
    device.queue(2);
    device.start();
    let cid = read(wire::MEMORY, 4, window + 0x100);
    let out = Sender::new(queue, PAYLOAD);
    let mut stream = Stream { out, cid, peer: 0, ports: (0, 0), received: 0, told: 0 };
    for slot in 0..RECEIVE {
        incoming.describe(slot, BUFFERS + STRIDE * u64::from(slot), CHUNK + HEADER, WRITABLE);
        incoming.offer(slot);
    }
    incoming.publish();
    line("mark", &[rdtsc()]);
    let (mut started, mut total, mut sent, mut room) = (0, 0u64, 0u32, (0u32, 0u32));
    let (mut open, mut closed, mut ended) = (false, false, false);
    while !ended {
        while let Some((slot, _)) = incoming.take() {
            let at = BUFFERS + STRIDE * u64::from(slot);
            let operation = read16(at + 30);
            room = (read32(at + 36), read32(at + 40));
            stream.out.reclaim(2);
            match operation {
                REQUEST if read32(at + 20) == port => {
                    stream.peer = read(wire::MEMORY, 8, at);
                    stream.ports = (port, read32(at + 16));
                    stream.send(RESPONSE, 0);
                    (started, open) = (rdtsc(), true);
                }
                DATA => {
                    stream.received = stream.received.wrapping_add(read32(at + 24));
                    total += u64::from(read32(at + 24));
                }
                ASK => stream.send(UPDATE, 0),
                SHUTDOWN => stream.send(RESET, 0),
                _ => {}
            }
            ended |= matches!(operation, SHUTDOWN | RESET);
            incoming.offer(slot);
        }
        incoming.publish();
        stream.out.reclaim(0);
        if stream.received.wrapping_sub(stream.told) > CREDIT / 2 {
            stream.out.reclaim(1);
            stream.send(UPDATE, 0);
        }
        while sends && open && total < bytes && room.0 - sent.wrapping_sub(room.1) >= CHUNK {
            stream.out.reclaim(1);
            stream.send(DATA, CHUNK);
            sent = sent.wrapping_add(CHUNK);
            total += u64::from(CHUNK);
        }
        if sends && total >= bytes && !closed {
            stream.out.reclaim(1);
            stream.send(SHUTDOWN, 0);
            closed = true;
        }
        stream.out.queue.publish();
        ended |= !sends && total >= bytes;
    }
    line("load", &[total, rdtsc() - started, stream.out.queue.kicks + incoming.kicks, 0]);
}
