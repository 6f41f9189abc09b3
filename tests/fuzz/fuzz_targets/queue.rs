//! Any rings under the queue itself: what is handed out lies in memory and is bounded, each head
//! is handed out once until it is given back, what is given back is in the used ring, and a broken
//! queue stays so.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use coracle_fuzz::device;
use devices::testing::{HOLE, SEAM};
use devices::virtio::queue::QueueSetup;
use devices::virtio::{Chain, Interrupt, Virtqueue, features};
use devices::{GuestRam, IrqLine};
use libfuzzer_sys::fuzz_target;

const TABLE: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x1_1000;
const USED: u64 = 0x1_2000;
const INDIRECT: u64 = 0x8_0000;

thread_local! {
    static LINE: IrqLine = IrqLine::new().unwrap();
}

struct Model {
    ram: GuestRam,
    queue: Virtqueue,
    held: Vec<Chain>,
    back: u16,
    size: u16,
}

/// Takes bytes off the front; what is not there is zero.
fn take<const BYTES: usize>(data: &mut &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let (front, rest) = data.split_at(BYTES.min(data.len()));
    bytes[..front.len()].copy_from_slice(front);
    *data = rest;
    u64::from_le_bytes(bytes)
}

/// An address: mostly a good one.
fn address(data: &mut &[u8]) -> u64 {
    let code = take::<2>(data);
    let near = code & 0xfff;
    match code >> 12 {
        0..=9 => INDIRECT + near,
        10 => SEAM - 0x800 + near,
        11 => HOLE - 0x800 + near,
        12 => TABLE + near,
        13 => u64::MAX - near,
        14 => AVAILABLE + near,
        _ => take::<8>(data),
    }
}

fn descriptor(ram: &GuestRam, table: u64, index: u64, data: &mut &[u8]) {
    let at = address(data);
    let len = match take::<1>(data) {
        byte @ 0..=199 => byte * 16,
        200..=239 => take::<2>(data),
        _ => take::<4>(data),
    };
    let (flags, next) = (take::<1>(data), take::<1>(data));
    let mut bytes = at.to_le_bytes().to_vec();
    bytes.extend(&len.to_le_bytes()[..4]);
    bytes.extend(&flags.to_le_bytes()[..2]);
    bytes.extend(&next.to_le_bytes()[..2]);
    ram.write_bytes(table + index * 16, &bytes).unwrap();
}

impl Model {
    fn new(choice: u64) -> Self {
        let ram = device::ram();
        let size = 1_u16 << (choice & 7).min(6);
        let setup = QueueSetup {
            size: size.into(),
            descriptors: TABLE,
            available: AVAILABLE,
            used: USED,
        };
        let mut accepted = features::VERSION_1;
        for (bit, feature) in [
            (8, features::RING_INDIRECT_DESC),
            (16, features::RING_EVENT_IDX),
        ] {
            if choice & bit != 0 {
                accepted |= feature;
            }
        }
        let line = LINE.with(|line| line.try_clone().unwrap());
        let interrupt = Interrupt::new("queue".into(), line);
        let live = Arc::new(AtomicBool::new(true));
        let queue = Virtqueue::new(0, &setup, 256, accepted, ram.clone(), interrupt, live);
        Self {
            ram,
            queue: queue.unwrap(),
            held: Vec::new(),
            back: 0,
            size,
        }
    }

    fn pop(&mut self) {
        let before = self.queue.broken();
        match self.queue.pop() {
            Ok(Some(chain)) => {
                assert!(before.is_none(), "a broken queue hands out");
                self.check(&chain);
                self.held.push(chain);
                assert!(
                    self.held.len() <= usize::from(self.size),
                    "more than the queue has"
                );
            }
            Ok(None) => assert!(before.is_none()),
            Err(error) => assert!(before.is_none_or(|other| other == error)),
        }
    }

    fn check(&self, chain: &Chain) {
        let spans = chain.readable().iter().chain(chain.writable());
        assert!(spans.clone().count() <= usize::from(self.size));
        for span in spans {
            assert!(span.len > 0 && self.ram.contains(span.at, span.len.into()));
        }
        assert!(chain.readable_bytes() + chain.writable_bytes() <= u32::MAX.into());
    }

    fn complete(&mut self, which: u64, written: u32) {
        if self.held.is_empty() {
            return;
        }
        let index = usize::try_from(which).unwrap() % self.held.len();
        let chain = self.held.swap_remove(index);
        let room = chain.writable_bytes();
        self.queue.complete(chain, written);
        let entry = USED + 4 + u64::from(self.back % self.size) * 8;
        let said: u32 = self.ram.read(entry + 4).unwrap();
        assert!(u64::from(u32::from_le(said)) <= room);
        self.back = self.back.wrapping_add(1);
        let index: u16 = self.ram.read(USED + 2).unwrap();
        assert_eq!(u16::from_le(index), self.back, "the used index");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data.get(..2048).unwrap_or(data);
    let mut model = Model::new(take::<1>(&mut data));
    let mut index = 0_u16;
    while !data.is_empty() {
        match take::<1>(&mut data) % 9 {
            0 | 1 => {
                let slot = take::<1>(&mut data);
                descriptor(&model.ram, TABLE, slot, &mut data);
            }
            2 => {
                let slot = take::<1>(&mut data);
                descriptor(&model.ram, INDIRECT, slot, &mut data);
            }
            3 | 4 => {
                let head = take::<1>(&mut data);
                let entry = AVAILABLE + 4 + u64::from(index % model.size) * 2;
                model
                    .ram
                    .write(entry, &u16::try_from(head).unwrap())
                    .unwrap();
                index = index.wrapping_add(1);
                model.ram.write(AVAILABLE + 2, &index).unwrap();
            }
            5 => {
                let place = take::<1>(&mut data);
                let value = u16::try_from(take::<2>(&mut data)).unwrap();
                model.ram.write(AVAILABLE + place, &value).unwrap();
                index = model.ram.read(AVAILABLE + 2).unwrap();
            }
            6 => model.pop(),
            7 => {
                let (which, written) = (take::<1>(&mut data), take::<2>(&mut data));
                model.complete(which, u32::try_from(written).unwrap() * 0x101);
            }
            _ => model.queue.notify(),
        }
    }
    // A driver that publishes nothing more can make it hand out no more than it published.
    for _ in 0..=u16::MAX {
        let held = model.held.len();
        model.pop();
        if model.held.len() == held {
            break;
        }
    }
    let held = model.held.len();
    (0..held).for_each(|_| model.complete(0, u32::MAX));
});
