//! Every device against a driver that does anything at all.

use proptest::prelude::*;

use super::driver::{RUNNING, register};
use super::*;
use crate::bus::Width;
use crate::disk::{Disk, Geometry, TransferError};
use crate::tty::ConsoleOutput;
use crate::virtio::blk::Block;
use crate::virtio::console::Console;
use crate::virtio::rng::Rng;
use crate::virtio::transport::mmio::{QUEUE_NOTIFY, WINDOW_BYTES};
use crate::virtio::{Span, VirtioDevice};

/// A disk that reads as nothing and forgets what is written.
struct Nothing;

impl Disk for Nothing {
    fn geometry(&self) -> Geometry {
        Geometry {
            bytes: 1 << 20,
            read_only: false,
        }
    }

    fn read(&mut self, _: u64, _: &GuestRam, _: &[Span]) -> Result<(), TransferError> {
        Ok(())
    }

    fn write(&mut self, _: u64, _: &GuestRam, _: &[Span]) -> Result<(), TransferError> {
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> std::io::Result<()> {
        Ok(())
    }
}

fn device(which: usize) -> Box<dyn VirtioDevice> {
    match which {
        0 => Box::new(Block::new(Box::new(Nothing), "id")),
        1 => Box::new(Console::new(
            Box::new(ConsoleOutput::nowhere()),
            None,
            (80, 25),
        )),
        _ => Box::new(Rng::new()),
    }
}

#[derive(Clone, Debug)]
enum Action {
    Write(u64, Width, u64),
    Read(u64, Width),
    Descriptor(usize, u16, (u64, u32), u16, u16),
    Publish(usize, u16),
    Index(usize, u16),
    Memory(u64, Vec<u8>),
    Kick(u32),
    Start(u64),
    Step,
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![
        1 => Just(Width::Byte),
        1 => Just(Width::Word),
        8 => Just(Width::Dword),
        1 => Just(Width::Qword)
    ]
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        0x1_0000_u64..0x1_4000,
        0x8_0000_u64..0x8_0100,
        Just(SEAM - 8),
        Just(HOLE - 8),
        any::<u64>()
    ]
}

fn action() -> impl Strategy<Value = Action> {
    use Action::{Descriptor, Index, Kick, Memory, Publish, Read, Start, Step, Write};
    let offset = || prop_oneof![(0..0x50_u64).prop_map(|n| n * 4), 0..WINDOW_BYTES - 8];
    let value = || prop_oneof![0_u64..16, Just(0x8000_0000), any::<u64>()];
    let len = prop_oneof![0_u32..600, any::<u32>()];
    let next = prop_oneof![0_u16..8, any::<u16>()];
    prop_oneof![
        2 => (offset(), width(), value()).prop_map(|(at, width, value)| {
            let bits = u32::try_from(64 - 8 * width.bytes()).unwrap();
            Write(at, width, value & u64::MAX >> bits)
        }),
        1 => (offset(), width()).prop_map(|(at, width)| Read(at, width)),
        4 => (0..2_usize, 0..8_u16, (address(), len), 0..8_u16, next)
            .prop_map(|(queue, index, place, flags, next)| {
                Descriptor(queue, index, place, flags, next)
            }),
        4 => (0..2_usize, prop_oneof![8 => 0_u16..8, 1 => any::<u16>()])
            .prop_map(|(queue, head)| Publish(queue, head)),
        1 => (0..2_usize, any::<u16>()).prop_map(|(queue, index)| Index(queue, index)),
        1 => (0x8_0000_u64..0x8_0100, prop::collection::vec(any::<u8>(), 1..32))
            .prop_map(|(at, bytes)| Memory(at, bytes)),
        3 => (0..3_u32).prop_map(Kick),
        1 => prop_oneof![Just(u64::MAX), Just(0)].prop_map(Start),
        1 => Just(Step),
    ]
}

fn act(driver: &mut GuestDriver, action: Action) {
    match action {
        Action::Write(at, width, value) => driver.write(at, width, value),
        Action::Read(at, width) => drop(driver.read(at, width)),
        Action::Descriptor(queue, index, place, flags, next) => {
            if let Some(ring) = driver.rings.get(queue) {
                ring.descriptor(index, place, flags, next);
            }
        }
        Action::Publish(queue, head) => {
            if let Some(ring) = driver.rings.get_mut(queue) {
                ring.publish(head);
            }
        }
        Action::Index(queue, index) => {
            if let Some(ring) = driver.rings.get(queue) {
                ring.set_available_index(index);
            }
        }
        Action::Memory(at, bytes) => driver.ram.write_bytes(at, &bytes).unwrap(),
        Action::Kick(queue) => driver.kick(queue),
        Action::Start(features) => driver.start(features),
        Action::Step => drop(driver.step()),
    }
}

proptest! {
    /// Nothing panics or spins, and a reset mends everything.
    #[test]
    fn devices_survive_any_driver(
        which in 0..3_usize,
        actions in prop::collection::vec(action(), 1..120),
    ) {
        let mut driver = GuestDriver::started(device(which));
        for action in actions {
            act(&mut driver, action);
        }
        driver.run();
        driver.start(u64::MAX);
        let queue = u32::from(which == 1);
        let request = [driver.holding(&[0; 16]), driver.room(513)];
        prop_assert!(driver.request(queue, &request).is_some());
        prop_assert_eq!(driver.get(register::STATUS), RUNNING);
        driver.set(QUEUE_NOTIFY, 9);
    }
}
