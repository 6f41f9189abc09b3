//! The network load: one TCP connection of the host, which the guest accepts, and then takes all
//! of it, fills it with zeroes or sends it back. As much of TCP (RFC 9293) as a wire that loses
//! nothing needs; what is lost all the same is sent again.

use crate::device::{BUFFERS, Device, SENDING, Sender, WRITABLE};
use crate::machine::{copy, fill, line, rdtsc, read, read16, read32, write, write16, write32};
use crate::wire::{self, ECHO, SOURCE};

/// Where things are in a buffer, behind virtio-net's header: Ethernet, IPv4 without options, TCP.
const ETHERNET: u64 = 12;
const IP: u64 = ETHERNET + 14;
const ADDRESSES: u64 = IP + 12;
const TCP: u64 = IP + 20;
const OPTIONS: u64 = TCP + 20;
/// The least segment that is cut by the device or the host, and cut into such (MTU 1500).
const MSS: u32 = 1460;
/// The size of a segment, no operation, and a window scale of 6.
const OUR_OPTIONS: [u32; 2] = [0x0204_0000 | MSS, 0x0103_0306];
/// The peer may have 1 MiB under way: fewer frames than a tap holds.
const WINDOW: u32 = 0x4000;
/// The start of every packet, the zeroes, and how many bytes there are for received frames.
const TEMPLATE: u64 = BUFFERS - 0x1000;
const ZEROES: u64 = BUFFERS;
const RECEIVE: u64 = BUFFERS + 0x1_0000;
const POOL: u64 = 8 << 20;
/// Ticks without an answer until everything is sent again.
const RETRY: u64 = 1 << 29;
/// The feature CSUM: the device finishes checksums.
const CSUM: u64 = 1;

const FIN: u32 = 1;
const SYN: u32 = 2;
const RST: u32 = 4;
const ACK: u32 = 16;

fn get16(at: u64) -> u32 {
    read16(at).swap_bytes().into()
}

fn put16(at: u64, value: u32) {
    write16(at, (value as u16).swap_bytes());
}

fn get32(at: u64) -> u32 {
    read32(at).swap_bytes()
}

fn put32(at: u64, value: u32) {
    write32(at, value.swap_bytes());
}

/// The sum of words (RFC 1071), before it is folded.
fn sum(at: u64, len: u32) -> u32 {
    (0..u64::from(len) / 2).map(|word| get16(at + 2 * word)).sum()
}

fn fold(sum: u32) -> u32 {
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum >> 16) + (sum & 0xffff)
}

struct Connection {
    out: Sender,
    partial: bool,
    /// The number of the next byte to send, of the first that is not acknowledged, and how many
    /// bytes the peer takes from there on.
    next: u32,
    acked: u32,
    room: u32,
    scale: u32,
    /// The number of the peer's next byte.
    heard: u32,
    ended: bool,
}

impl Connection {
    /// Prepares the way back of a SYN, and answers it.
    fn accept(&mut self, at: u64) {
        fill(TEMPLATE, 0, OPTIONS);
        for (to, from, len) in [
            (ETHERNET, ETHERNET + 6, 6),
            (ETHERNET + 6, ETHERNET, 6),
            (ADDRESSES, ADDRESSES + 4, 4),
            (ADDRESSES + 4, ADDRESSES, 4),
            (TCP, TCP + 2, 2),
            (TCP + 2, TCP, 2),
        ] {
            copy(TEMPLATE + to, at + from, len);
        }
        // IPv4, not to be cut into fragments, 64 hops, TCP.
        for (place, value) in [(IP - 2, 0x800), (IP, 0x4500), (IP + 6, 0x4000), (IP + 8, 0x4006)] {
            put16(TEMPLATE + place, value);
        }
        put16(TEMPLATE + TCP + 14, WINDOW);
        put32(TEMPLATE + OPTIONS, OUR_OPTIONS[0]);
        put32(TEMPLATE + OPTIONS + 4, OUR_OPTIONS[1]);
        let mut option = at + OPTIONS;
        // Linux always has a scale among its options, behind others.
        loop {
            match read(wire::MEMORY, 1, option) {
                1 => option += 1,
                3 => break,
                _ => option += read(wire::MEMORY, 1, option + 1),
            }
        }
        self.scale = read(wire::MEMORY, 1, option + 2) as u32;
        self.heard = get32(at + TCP + 4).wrapping_add(1);
        (self.next, self.acked) = (0, 1);
        self.send(SYN | ACK, 0);
        self.next = 1;
    }

    /// Sends a segment of zeroes, for which the caller has seen that there is room.
    fn send(&mut self, flags: u32, len: u32) {
        let at = self.out.header();
        let header = 20 + if flags & SYN != 0 { 8 } else { 0 };
        copy(at, TEMPLATE, OPTIONS + 8);
        put16(at + IP + 2, 20 + header + len);
        put16(at + IP + 10, !fold(sum(at + IP, 20)));
        put32(at + TCP + 4, self.next);
        put32(at + TCP + 8, self.heard);
        put16(at + TCP + 12, header << 10 | flags);
        let pseudo = sum(at + ADDRESSES, 8) + 6 + header + len;
        if self.partial {
            put16(at + TCP + 16, fold(pseudo));
            // The sum starts at TCP and has its place in there; TCPV4, if it is to be cut.
            let cut = if len > MSS { 1 << 8 | 54 << 16 | u64::from(MSS) << 32 } else { 0 };
            write(wire::MEMORY, 8, at, 1 | cut | (TCP - ETHERNET) << 48);
            write16(at + 8, 16);
        } else {
            put16(at + TCP + 16, !fold(pseudo + sum(at + TCP, header)));
        }
        self.out.send(TCP as u32 + header, len);
        self.next = self.next.wrapping_add(len);
    }

    /// Takes a segment; how many new bytes it has, and how many old ones are acknowledged.
    fn hear(&mut self, at: u64) -> (u32, u32) {
        if get16(at + IP - 2) != 0x800 || get16(at + IP + 8) & 0xff != 6 {
            return (0, 0);
        }
        let flags = get16(at + TCP + 12);
        if flags & SYN != 0 {
            self.accept(at);
            return (0, 0);
        }
        // What is left of the connection of an earlier guest.
        if read16(at + TCP) != read16(TEMPLATE + TCP + 2) {
            return (0, 0);
        }
        self.ended |= flags & (FIN | RST) != 0;
        let acked = get32(at + TCP + 8).wrapping_sub(self.acked);
        let acked = if acked < 1 << 31 { acked } else { 0 };
        self.acked = self.acked.wrapping_add(acked);
        self.room = get16(at + TCP + 14) << self.scale;
        let len = get16(at + IP + 2) - 20 - (flags >> 12) * 4;
        if get32(at + TCP + 4) != self.heard {
            return (0, acked);
        }
        self.heard = self.heard.wrapping_add(len);
        (len, acked)
    }

    /// Fills the peer's window with segments of that length, as long as there are bytes `left`.
    fn fill(&mut self, segment: u32, left: u64) {
        loop {
            let sent = self.next.wrapping_sub(self.acked);
            let (room, left) = (self.room.saturating_sub(sent), left - u64::from(sent));
            // No small segments, unless the window is small.
            if room == 0 || left == 0 || sent > 0 && room < segment {
                return;
            }
            self.out.reclaim(1);
            self.send(ACK, segment.min(room).min(left as u32));
        }
    }
}

/// Runs a load and prints `load BYTES TICKS KICKS 0`.
pub fn run(window: u64, parameter: impl Fn(u64) -> u64) {
    let [kind, features, buffer, segment, bytes, ticks] =
        core::array::from_fn(|index| parameter(index as u64));
    let device = Device::new(window, features as u32);
    let (Some(mut incoming), Some(queue)) = (device.queue(0), device.queue(1)) else {
        return line("no queue", &[window]);
    };
    device.start();
    for slot in 0..(POOL / buffer).min(incoming.size.into()) as u16 {
        incoming.describe(slot, RECEIVE + buffer * u64::from(slot), buffer as u32, WRITABLE);
        incoming.offer(slot);
    }
    incoming.publish();
    fill(ZEROES, 0, RECEIVE - ZEROES);
    let (out, partial) = (Sender::new(queue, ZEROES), features & CSUM != 0);
    let (next, acked, room, scale, heard) = (0, 0, 0, 0, 0);
    let mut tcp = Connection { out, partial, next, acked, room, scale, heard, ended: false };
    let begun = rdtsc();
    let (mut started, mut now, mut answered, mut total) = (begun, begun, begun, 0u64);
    while total < bytes && !tcp.ended && now - begun < ticks {
        let (mut came, mut taken) = (0, 0);
        tcp.out.reclaim(SENDING / 2);
        while let Some((slot, _)) = incoming.take() {
            let (new, acked) = tcp.hear(RECEIVE + buffer * u64::from(slot));
            (came, taken) = (came + new, taken + acked);
            incoming.offer(slot);
        }
        incoming.publish();
        now = rdtsc();
        if total == 0 && came + taken > 0 {
            started = now;
        }
        if came + taken > 0 {
            answered = now;
        }
        if kind == SOURCE {
            total += u64::from(taken);
            if now - answered > RETRY {
                (tcp.next, answered) = (tcp.acked, now);
            }
            tcp.fill(segment as u32, bytes - total);
        } else if came > 0 {
            total += u64::from(came);
            tcp.send(ACK, if kind == ECHO { came } else { 0 });
        }
        tcp.out.queue.publish();
    }
    // The machine ends with the program, and the last answer is still to be sent.
    tcp.out.reclaim(SENDING);
    line("load", &[total, now - started, tcp.out.queue.kicks + incoming.kicks, 0]);
}
