//! Any frames both ways through the network device, with any buffers, commands and moods of the
//! host: what the host gets was agreed on and is from the guest's own address, what the guest gets
//! is well-formed, no spinning, bounded memory, and a reset mends everything. Or, by the first
//! byte, anything that a driver can do.
#![no_main]

use std::io::ErrorKind;

use coracle_fuzz::{bounded, device};
use devices::testing::net::{FarEnd, LinkState, NetGuest, TestLink};
use devices::virtio::net::{Net, Settings};
use devices::virtio::{DeviceCommand, NetCommand};
use hostile::Transport;
use hostile::rows::net::NET;
use hostile::script::Scope;
use libfuzzer_sys::fuzz_target;

/// The most that the device, the guest and the host may take from the heap.
const MOST_BYTES: usize = 16 << 20;
/// Receive buffers that the device has at most, and frames that it may have to send.
const BUFFERS: usize = 32;
const FRAMES: usize = 12;
/// The longest script.
const SCRIPT_BYTES: usize = 512;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RX: u32 = 0;
const TX: u32 = 1;
const CONTROL: u32 = 2;

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
    fn number(&mut self) -> u16 {
        let value = u16::from(self.byte());
        match self.byte() % 4 {
            0 => value,
            1 => 0_u16.wrapping_sub(value),
            2 => value << 8 | u16::from(self.byte()),
            _ => 1514_u16.wrapping_add(value).wrapping_sub(128),
        }
    }

    /// A frame with its header, mostly a good one.
    fn frame(&mut self) -> Vec<u8> {
        let odd = self.byte();
        let mut frame = vec![odd >> 7, [0, 1, 4, 0x81][usize::from(odd >> 5 & 3)]];
        let fields = [54_u16, 1448, 34, 16, 0];
        for (bit, usual) in fields.into_iter().enumerate() {
            let field = match odd >> bit & 1 {
                0 => usual,
                _ => self.number(),
            };
            frame.extend(field.to_le_bytes());
        }
        frame.extend([0xff; 6]);
        let other = self.byte();
        frame.extend(if other.is_multiple_of(16) { [other; 6] } else { MAC });
        frame.extend([8, 0]);
        if other == 7 {
            frame[0] = self.byte();
            frame[1] = self.byte();
        }
        let len = usize::from(self.number());
        frame.resize(len.max(usize::from(other & 31)), odd);
        frame
    }
}

struct World {
    guest: NetGuest,
    far: FarEnd,
    wanted: u64,
    waiting: usize,
}

impl World {
    fn new() -> World {
        let (link, far) = TestLink::new(1, 1500);
        let settings = Settings {
            mac: MAC,
            ..Settings::default()
        };
        let net = Net::new(Box::new(link), &settings).unwrap();
        World {
            guest: NetGuest::on(device::ram(), Box::new(net), u64::MAX),
            far,
            wanted: u64::MAX,
            waiting: 0,
        }
    }

    fn send(&mut self, script: &mut Script<'_>) {
        if self.waiting < FRAMES {
            let frame = script.frame();
            let cuts = [usize::from(script.byte()), usize::from(script.byte())];
            self.guest.add_frame(TX, &frame, &cuts);
            self.guest.driver.kick(TX);
            self.waiting += 1;
        }
        self.waiting -= self.guest.sent(TX);
    }

    /// What reaches the host is from the guest, and asks for nothing but what was agreed on.
    fn come(&mut self) {
        while let Some(frame) = self.far.receive(0) {
            if frame.iter().all(|byte| *byte == 0) {
                // What had filled the link.
                continue;
            }
            assert!((26..=65_562).contains(&frame.len()));
            assert_eq!((frame[0] & !1, &frame[10..12]), (0, &[0, 0][..]));
            assert_eq!(frame[18..24], MAC);
            assert!([0, 1, 4, 0x81, 0x84].contains(&frame[1]));
            assert!(frame[1] == 0 || frame[0] == 1, "segments without checksums");
            let agreed = |bit: u32| self.wanted >> bit & 1 == 1;
            assert!(frame[0] == 0 || agreed(0), "a checksum was not agreed on");
            assert!(frame[1] & 1 == 0 || agreed(11), "segments were not agreed on");
        }
        self.guest.driver.run();
        self.waiting -= self.guest.sent(TX);
    }

    fn give(&mut self, script: &mut Script<'_>) {
        if self.guest.given() < BUFFERS {
            let shapes: [&[u32]; 6] =
                [&[1526], &[12, 2000], &[60], &[1, 11, 9, 500], &[5], &[12, 30_000]];
            let shape = shapes[usize::from(script.byte()) % shapes.len()];
            self.guest.give(RX, 1, shape);
        }
    }

    /// What reaches the guest asks for nothing but what was agreed on.
    fn take(&mut self) {
        while let Some(frame) = self.guest.receive(RX) {
            assert!(frame.len() >= 26);
            let checksums = self.wanted & 2 != 0;
            assert_eq!(frame[0] & if checksums { !3 } else { !0 }, 0);
            assert!(frame[1] == 0 || checksums && frame[0] & 1 == 1);
        }
    }

    fn arrive(&mut self, script: &mut Script<'_>) {
        let frame = script.frame();
        // An empty message is the end of a link.
        if !frame.is_empty() {
            self.far.send(0, &frame);
        }
        self.guest.driver.run();
    }

    fn command(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let mut command = vec![4 + (choice & 1), choice >> 7];
        let bytes = [2, 8, usize::from(choice >> 3 & 15), 8][usize::from(choice >> 1 & 3)];
        command.extend((0..bytes).map(|_| script.byte()));
        if let Some(answer) = self.guest.command(CONTROL, &command) {
            assert!(answer <= 1);
        }
    }

    fn host(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let on = choice & 8 != 0;
        let mut state = self.far.state();
        match choice % 8 {
            0 => {
                drop(state);
                self.far.fill(0);
            }
            1 => state.fail_send = on.then_some(ErrorKind::InvalidInput),
            2 => state.fail_settings = on.then_some(ErrorKind::PermissionDenied),
            _ => {
                drop(state);
                let command = DeviceCommand::Net(NetCommand::Carrier { up: !on });
                self.guest.driver.handle.ask(command).unwrap();
            }
        }
        self.guest.driver.run();
    }

    fn restart(&mut self, script: &mut Script<'_>) {
        self.take();
        let choice = u64::from(script.byte());
        // Bits that depend on each other, left out in any combination.
        let guest = (choice & 3) | (choice & 0x3c) << 5;
        let without = guest | (choice & 0x40) << 9 | (choice & 0x80) << 4;
        self.start(!without);
    }

    fn start(&mut self, wanted: u64) {
        // What was under way may still be as it was agreed on before.
        while self.far.receive(0).is_some() {}
        self.wanted = wanted;
        self.guest.restart(wanted);
        self.waiting = 0;
    }

    /// A fresh start, after which frames go both ways.
    fn revive(&mut self) {
        *self.far.state() = LinkState::default();
        let up = DeviceCommand::Net(NetCommand::Carrier { up: true });
        self.guest.driver.handle.ask(up).unwrap();
        self.start(u64::MAX);
        let mut frame = vec![0; 12];
        frame.extend([0xff; 6]);
        frame.extend(MAC);
        frame.resize(72, 9);
        assert!(self.guest.send(TX, &frame, &[12]), "not taken");
        assert!(self.far.receive(0).as_ref() == Some(&frame), "not sent");
        // Frames that came before may still wait on the link.
        let received = (0..100).any(|_| {
            self.far.send(0, &frame);
            self.guest.restart(u64::MAX);
            self.guest.give(RX, 100, &[1526]);
            let mut all = std::iter::from_fn(|| self.guest.receive(RX));
            all.any(|got| got[12..] == frame[12..])
        });
        assert!(received, "a frame did not come");
    }
}

fn frames(data: &[u8]) {
    let mut world = World::new();
    let mut script = Script(&data[..data.len().min(SCRIPT_BYTES)]);
    while !script.0.is_empty() {
        match script.byte() % 12 {
            0..=2 => world.send(&mut script),
            3 => world.come(),
            4 | 5 => world.give(&mut script),
            6 => world.take(),
            7 | 8 => world.arrive(&mut script),
            9 => world.command(&mut script),
            10 => world.host(&mut script),
            _ => world.restart(&mut script),
        }
    }
    world.revive();
}

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        None => {}
        Some((0..=31, script)) => {
            device::play(&NET, Transport::Mmio, script, Scope::Everything);
        }
        Some((32..=63, script)) => {
            device::play(&NET, Transport::Mmio, script, Scope::Requests);
        }
        Some((_, script)) => bounded(MOST_BYTES, || frames(script)),
    }
});
