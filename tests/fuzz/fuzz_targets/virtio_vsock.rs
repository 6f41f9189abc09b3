//! Any packets to the socket device, with any buffers and host programs: every packet is taken
//! once, what comes back is well-formed, no spinning, bounded memory, and a reset mends everything.
//! Or, by the first byte, anything that a driver can do.
#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use coracle_fuzz::{bounded, device};
use devices::testing::vsock::VsockGuest;
use devices::virtio::vsock::wire::{Header, op};
use devices::virtio::vsock::{SocketFile, Vsock};
use hostile::Transport;
use hostile::rows::vsock::{HostFolder, VSOCK};
use hostile::script::Scope;
use libfuzzer_sys::fuzz_target;

/// The most that the device, the guest and the host may take from the heap.
const MOST_BYTES: usize = 64 << 20;
/// Receive buffers that the device has at most.
const BUFFERS: usize = 32;
/// The longest script.
const SCRIPT_BYTES: usize = 512;
const PORTS: [u32; 4] = [7, 8, 1 << 30, u32::MAX];

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number that is often small, or near a border.
    fn number(&mut self) -> u32 {
        let value = u32::from(self.byte());
        match self.byte() % 5 {
            0 => value,
            1 => value << 12,
            2 => 0_u32.wrapping_sub(value),
            3 => (1 << 31) - value,
            _ => value << 24 | u32::from(self.byte()) << 8,
        }
    }
}

struct World {
    guest: VsockGuest,
    folder: Rc<HostFolder>,
    streams: Vec<UnixStream>,
}

impl World {
    fn new() -> World {
        let folder = HostFolder::serving(PORTS[0]);
        let file = SocketFile::listen(&folder.device()).unwrap();
        World {
            guest: VsockGuest::on(device::ram(), Box::new(Vsock::new(3, file).unwrap())),
            folder,
            streams: Vec::new(),
        }
    }

    fn packet(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let guest = PORTS[usize::from(choice & 3)];
        let host = PORTS[usize::from(choice >> 2 & 3)];
        let mut header = self
            .guest
            .header(guest, host, u16::from(script.byte() % 10));
        let data = vec![script.byte(); usize::from(script.byte()) << (choice >> 6)];
        header.len = u32::try_from(data.len()).unwrap().into();
        header.buf_alloc = (256 << 10).into();
        let odd = script.byte();
        if odd & 1 != 0 {
            header.buf_alloc = script.number().into();
        }
        if odd & 2 != 0 {
            header.fwd_cnt = script.number().into();
        }
        if odd & 4 != 0 {
            header.flags = script.number().into();
        }
        if odd & 0x18 == 0x18 {
            header.len = script.number().into();
        }
        if odd & 0xe0 == 0xe0 {
            header.src_cid = u64::from(script.number()).into();
        } else if odd & 0xe0 == 0xc0 {
            header.dst_cid = u64::from(script.number()).into();
        } else if odd & 0xe0 == 0xa0 {
            header.kind = u16::from(script.byte()).into();
        }
        let cuts = [usize::from(script.byte()), usize::from(script.byte())];
        self.guest.add_packet(&header, &data, &cuts);
        assert_eq!(self.guest.ring(), 1, "a packet is not taken");
    }

    fn give(&mut self, script: &mut Script<'_>) {
        if self.guest.given() < BUFFERS {
            let shapes: [&[u32]; 5] = [&[44, 4096], &[1000], &[45], &[1, 43, 9, 500], &[44]];
            let shape = shapes[usize::from(script.byte()) % shapes.len()];
            self.guest.give(1, shape);
        }
    }

    fn host(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let index = usize::from(script.byte());
        if self.streams.is_empty() || choice % 8 == 0 {
            self.connect(script, choice);
        } else {
            let index = index % self.streams.len();
            let mut stream = &self.streams[index];
            match choice % 8 {
                1 | 2 => drop(stream.write(&vec![choice; usize::from(script.byte()) << 6])),
                3 | 4 => drop(stream.read(&mut vec![0; usize::from(script.byte()) << 8])),
                5 => drop(stream.shutdown(Shutdown::Write)),
                6 => drop(stream.shutdown(Shutdown::Read)),
                _ => drop(self.streams.swap_remove(index)),
            }
        }
        self.guest.driver.run();
    }

    fn connect(&mut self, script: &mut Script<'_>, choice: u8) {
        if let Ok((stream, _)) = self.folder.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            self.streams.push(stream);
        } else if self.streams.len() < 16 {
            let Ok(mut stream) = UnixStream::connect(self.folder.device()) else {
                return;
            };
            stream.set_nonblocking(true).unwrap();
            let lines: [&[u8]; 4] = [b"CONNECT 7\n", b"CONNECT 8\nearly", b"CONN", b"nonsense\n"];
            let _ = stream.write(lines[usize::from(choice >> 3) % lines.len()]);
            let _ = stream.write(&[script.byte()]);
            self.streams.push(stream);
        }
    }

    fn take(&mut self) {
        while self.guest.receive().is_some() {}
    }

    /// A fresh start, after which a request to nobody is refused.
    fn revive(&mut self) {
        self.take();
        self.guest.driver.start(u64::MAX);
        let header = self.guest.header(1, 99, op::REQUEST);
        self.guest.forget();
        self.guest.give(1, &[44, 100]);
        assert!(self.guest.send(&header, &[]));
        let (answer, _) = self.guest.receive().expect("an answer");
        assert_eq!(Header::default().len, answer.len);
        assert_eq!(answer.op.get(), op::RST);
    }
}

fn packets(data: &[u8]) {
    let mut world = World::new();
    let mut script = Script(&data[..data.len().min(SCRIPT_BYTES)]);
    while !script.0.is_empty() {
        match script.byte() % 8 {
            0..=3 => world.packet(&mut script),
            4 => world.give(&mut script),
            5 => world.take(),
            _ => world.host(&mut script),
        }
    }
    world.revive();
}

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        None => {}
        Some((0..=63, script)) => {
            device::play(&VSOCK, Transport::Mmio, script, Scope::Everything);
        }
        Some((_, script)) => bounded(MOST_BYTES, || packets(script)),
    }
});
