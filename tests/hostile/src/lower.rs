//! From steps to accesses: what a row means on one transport, in one place of memory.

use devices::Width;
use devices::virtio::transport::pci;
use std::collections::BTreeMap;

use crate::access::{self, Region, Transport};
use crate::step::{
    At, FIRST_RING, Host, MEMORY_BYTES, RING_BYTES, RING_SIZE, Register, Row, Step, Subject,
};

/// Status bits up to FEATURES_OK.
const AGREED: u32 = 1 | 2 | 8;
/// Status bits up to DRIVER_OK.
const RUNNING: u32 = AGREED | 4;
/// The device waits for its reset.
const NEEDS_RESET: u64 = 64;

/// What the machine is that plays a row.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// The transport.
    pub transport: Transport,
    /// Where the row's memory begins.
    pub base: u64,
    /// The first address after it that is no memory.
    pub hole: u64,
    /// Where the device's registers are.
    pub window: u64,
    /// Where the function's configuration space is in memory, if it is there.
    pub config: Option<u64>,
}

impl World {
    /// The address of a place.
    #[must_use]
    pub fn address(&self, at: At) -> u64 {
        match at {
            At::Memory(offset) => self.base.wrapping_add(offset),
            At::Seam(offset) => self
                .base
                .wrapping_add(MEMORY_BYTES)
                .wrapping_add_signed(offset),
            At::Hole(offset) => self.hole.wrapping_add_signed(offset),
            At::Window(offset) => self.window.wrapping_add(offset),
            At::Raw(address) => address,
        }
    }
}

/// What is read in a device's registers and what should be there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    /// Which registers.
    pub region: Region,
    /// The offset.
    pub offset: u64,
    /// The width.
    pub width: Width,
    /// Bits that count.
    pub mask: u64,
    /// What they should be.
    pub value: u64,
}

/// One access.
#[derive(Clone, Debug)]
pub enum Act {
    /// Writes a register.
    Write(Region, u64, Width, u64),
    /// Reads a register once.
    See(Look),
    /// Reads a register until it is so.
    Await(Look),
    /// Puts bytes into memory.
    Copy(u64, Vec<u8>),
    /// Sets memory.
    Fill(u64, u64, u8),
    /// Memory holds these bytes.
    Compare(u64, Vec<u8>),
    /// Two bytes of memory become these.
    AwaitMemory(u64, u16),
    /// The device gets time for all it wants to do.
    Settle,
    /// Whether an interrupt came; only in this process.
    Interrupt(bool),
    /// The host does something; only in this process.
    Host(fn(&mut Host)),
    /// From here on a failure means a device that does not come back.
    Reviving,
}

/// An access and the step of the row that wanted it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The step, counted from zero.
    pub step: usize,
    /// The access.
    pub act: Act,
}

/// What a row means in a world.
#[must_use]
pub fn lower(row: &Row, world: World) -> Vec<Lowered> {
    let mut lowering = Lowering {
        world,
        subject: row.subject,
        queues: BTreeMap::new(),
        acts: Vec::new(),
        step: 0,
    };
    lowering.reset();
    lowering.act(Act::Fill(world.base, MEMORY_BYTES + 0x1000, 0));
    for (number, step) in row.steps.iter().enumerate() {
        lowering.step = number;
        lowering.step(step);
    }
    lowering.acts
}

/// What steps mean by themselves, after whatever was before.
pub fn steps(subject: &'static Subject, steps: &[Step], world: World, take: &mut dyn FnMut(Act)) {
    let mut lowering = Lowering {
        world,
        subject,
        queues: BTreeMap::new(),
        acts: Vec::new(),
        step: 0,
    };
    steps.iter().for_each(|step| lowering.step(step));
    lowering
        .acts
        .into_iter()
        .for_each(|lowered| take(lowered.act));
}

/// What the driver knows of a queue.
#[derive(Clone, Copy, Debug)]
struct Queue {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    next_available: u16,
    seen_used: u16,
}

struct Lowering {
    world: World,
    subject: &'static Subject,
    queues: BTreeMap<u16, Queue>,
    acts: Vec<Lowered>,
    step: usize,
}

impl Lowering {
    fn act(&mut self, act: Act) {
        let step = self.step;
        self.acts.push(Lowered { step, act });
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Reset => self.reset(),
            Step::Status(value) => self.write(Register::Status, *value),
            Step::ExpectStatus(value) => self.see(Register::Status, *value),
            Step::ExpectNeedsReset => {
                let mut look = self.look(Register::Status, 0);
                (look.mask, look.value) = (NEEDS_RESET, NEEDS_RESET);
                self.act(Act::Await(look));
            }
            Step::Features(features) => self.features(*features),
            Step::ExpectOffered { mask, value } => self.offered(*mask, *value),
            Step::Start(features) => self.start(*features),
            Step::Revive => {
                self.act(Act::Reviving);
                self.start(self.subject.features);
                (self.subject.good)()
                    .iter()
                    .for_each(|step| self.step(step));
            }
            Step::Write(register, value) => self.write(*register, *value),
            Step::Expect(register, value) => self.see(*register, *value),
            Step::RawWrite(region, offset, width, value) => {
                self.act(Act::Write(*region, *offset, *width, *value));
            }
            &Step::RawExpect {
                region,
                offset,
                width,
                mask,
                value,
            } => self.act(Act::See(Look {
                region,
                offset,
                width,
                mask,
                value,
            })),
            Step::WriteConfig(field, width, value) => {
                let (region, base) = access::config(self.world.transport);
                self.act(Act::Write(region, base + field, *width, *value));
            }
            Step::ExpectConfig(field, width, value) => {
                let (region, base) = access::config(self.world.transport);
                self.act(Act::See(Look {
                    region,
                    offset: base + field,
                    width: *width,
                    mask: u64::MAX,
                    value: *value,
                }));
            }
            Step::Settle => self.act(Act::Settle),
            Step::ExpectReasons(reasons) => self.reasons(*reasons),
            Step::ExpectInterrupt(wanted) => self.act(Act::Interrupt(*wanted)),
            Step::Host(_, act) => self.act(Act::Host(*act)),
            Step::Memory(at, bytes) => self.copy(*at, 0, bytes.clone()),
            Step::Fill(at, len, byte) => self.act(Act::Fill(self.world.address(*at), *len, *byte)),
            Step::ExpectMemory(at, bytes) => {
                self.act(Act::Compare(self.world.address(*at), bytes.clone()));
            }
            _ => self.queue_step(step),
        }
    }

    fn queue_step(&mut self, step: &Step) {
        match step {
            &Step::Queue {
                queue,
                size,
                descriptors,
                available,
                used,
            } => self.describe(queue, size, [descriptors, available, used]),
            Step::Enable(queue) => {
                self.write(Register::QueueSelect, (*queue).into());
                self.write(Register::QueueEnable, 1);
            }
            Step::ExpectEnabled(queue, enabled) => {
                self.write(Register::QueueSelect, (*queue).into());
                self.see(Register::QueueEnable, (*enabled).into());
            }
            Step::Ring(queue) => self.ring(*queue),
            &Step::Descriptor {
                queue,
                index,
                at,
                len,
                flags,
                next,
            } => {
                let table = At::Raw(self.queue(queue).descriptors);
                self.descriptor(table, index, (at, len), flags, next);
            }
            &Step::Indirect {
                table,
                index,
                at,
                len,
                flags,
                next,
            } => self.descriptor(table, index, (at, len), flags, next),
            Step::Publish(queue, head) => self.publish(*queue, *head),
            Step::AvailableEntry(queue, entry, head) => {
                let ring = At::Raw(self.queue(*queue).available);
                self.copy(ring, 4 + u64::from(*entry) * 2, head.to_le_bytes().into());
            }
            Step::AvailableIndex(queue, index) => {
                self.queue(*queue).next_available = *index;
                let ring = At::Raw(self.queue(*queue).available);
                self.copy(ring, 2, index.to_le_bytes().into());
            }
            Step::AvailableFlags(queue, flags) => {
                let ring = At::Raw(self.queue(*queue).available);
                self.copy(ring, 0, flags.to_le_bytes().into());
            }
            Step::UsedEvent(queue, event) => {
                let queue = *self.queue(*queue);
                let place = 4 + u64::from(queue.size) * 2;
                self.copy(At::Raw(queue.available), place, event.to_le_bytes().into());
            }
            Step::Kick(queue) => self.kick(*queue),
            Step::ExpectUsed(queue, entries) => self.used(*queue, entries),
            Step::ExpectUsedCount(queue, count) => {
                let state = self.queue(*queue);
                state.seen_used = state.seen_used.wrapping_add(*count);
                let (place, index) = (state.used + 2, state.seen_used);
                self.act(Act::AwaitMemory(place, index));
            }
            _ => unreachable!("the others are in the other list"),
        }
    }

    fn look(&self, register: Register, value: u32) -> Look {
        let (region, offset, width) = access::place(self.world.transport, register);
        Look {
            region,
            offset,
            width,
            mask: u64::MAX,
            value: value.into(),
        }
    }

    fn see(&mut self, register: Register, value: u32) {
        let look = self.look(register, value);
        self.act(Act::See(look));
    }

    /// A value is cut to the register's width.
    fn write(&mut self, register: Register, value: u32) {
        let (region, offset, width) = access::place(self.world.transport, register);
        let value = u64::from(value) & (u64::MAX >> (64 - 8 * width.bytes()));
        self.act(Act::Write(region, offset, width, value));
    }

    fn copy(&mut self, at: At, plus: u64, bytes: Vec<u8>) {
        let at = self.world.address(at).wrapping_add(plus);
        self.act(Act::Copy(at, bytes));
    }

    fn reset(&mut self) {
        self.write(Register::Status, 0);
        let look = self.look(Register::Status, 0);
        self.act(Act::Await(look));
        self.queues.clear();
    }

    fn features(&mut self, features: u64) {
        self.vector(0x10, 0);
        for page in 0..2_u32 {
            let part = features >> (32 * page) & 0xffff_ffff;
            self.write(Register::DriverFeatureSelect, page);
            self.write(
                Register::DriverFeatures,
                u32::try_from(part).expect("a page"),
            );
        }
    }

    fn offered(&mut self, mask: u64, value: u64) {
        for page in 0..2_u32 {
            let part = |bits: u64| bits >> (32 * page) & 0xffff_ffff;
            self.write(Register::DeviceFeatureSelect, page);
            let mut look = self.look(Register::DeviceFeatures, 0);
            (look.mask, look.value) = (part(mask), part(value));
            self.act(Act::See(look));
        }
    }

    fn start(&mut self, features: u64) {
        self.reset();
        self.write(Register::Status, 1);
        self.write(Register::Status, 1 | 2);
        self.features(features);
        self.write(Register::Status, AGREED);
        self.see(Register::Status, AGREED);
        (0..self.subject.queues).for_each(|queue| self.ring(queue));
        self.write(Register::Status, RUNNING);
        self.act(Act::Settle);
        self.see(Register::Status, RUNNING);
    }

    fn ring(&mut self, queue: u16) {
        let at = FIRST_RING + u64::from(queue) * RING_BYTES;
        assert!(at < crate::step::BUFFERS, "too many queues");
        let [descriptors, available, used] = [0, 0x1000, 0x2000].map(|part| At::Memory(at + part));
        self.act(Act::Fill(self.world.base + at, RING_BYTES, 0));
        self.describe(queue, RING_SIZE.into(), [descriptors, available, used]);
        self.write(Register::QueueEnable, 1);
        self.see(Register::QueueEnable, 1);
    }

    /// With pci, each kind of interrupt has a vector.
    fn vector(&mut self, field: u64, vector: u16) {
        if self.world.transport == Transport::Pci {
            self.act(Act::Write(
                Region::Common,
                field,
                Width::Word,
                vector.into(),
            ));
        }
    }

    fn describe(&mut self, queue: u16, size: u32, areas: [At; 3]) {
        let [descriptors, available, used] = areas.map(|at| self.world.address(at));
        self.write(Register::QueueSelect, queue.into());
        self.write(Register::QueueSize, size);
        if queue < self.subject.queues {
            self.vector(0x1a, queue + 1);
        }
        for (low, high, address) in [
            (
                Register::DescriptorsLow,
                Register::DescriptorsHigh,
                descriptors,
            ),
            (Register::AvailableLow, Register::AvailableHigh, available),
            (Register::UsedLow, Register::UsedHigh, used),
        ] {
            let half = |bits: u64| u32::try_from(bits & 0xffff_ffff).expect("half");
            self.write(low, half(address));
            self.write(high, half(address >> 32));
        }
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        self.queues.insert(
            queue,
            Queue {
                size,
                descriptors,
                available,
                used,
                next_available: 0,
                seen_used: 0,
            },
        );
    }

    fn queue(&mut self, queue: u16) -> &mut Queue {
        self.queues
            .get_mut(&queue)
            .expect("a queue is set up first")
    }

    fn descriptor(&mut self, table: At, index: u16, (at, len): (At, u32), flags: u16, next: u16) {
        let mut bytes = self.world.address(at).to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.copy(table, u64::from(index) * 16, bytes);
    }

    fn publish(&mut self, queue: u16, head: u16) {
        let state = self.queue(queue);
        let entry = u64::from(state.next_available % state.size);
        state.next_available = state.next_available.wrapping_add(1);
        let (ring, index) = (At::Raw(state.available), state.next_available);
        self.copy(ring, 4 + entry * 2, head.to_le_bytes().into());
        self.copy(ring, 2, index.to_le_bytes().into());
    }

    fn kick(&mut self, queue: u32) {
        let (region, offset, width) = match self.world.transport {
            Transport::Mmio => (Region::Window, 0x50, Width::Dword),
            Transport::Pci => (
                Region::Notify,
                u64::from(queue) * pci::NOTIFY_STEP,
                Width::Word,
            ),
        };
        self.act(Act::Write(region, offset, width, queue.into()));
    }

    fn used(&mut self, queue: u16, entries: &[(u16, u32)]) {
        if entries.is_empty() {
            self.act(Act::Settle);
        }
        let count = u16::try_from(entries.len()).expect("few");
        let state = self.queue(queue);
        let (before, after) = (state.seen_used, state.seen_used.wrapping_add(count));
        state.seen_used = after;
        let (ring, size) = (state.used, state.size);
        self.act(Act::AwaitMemory(ring + 2, after));
        for (place, (head, written)) in (0..).map(|n| before.wrapping_add(n) % size).zip(entries) {
            let mut bytes = u32::from(*head).to_le_bytes().to_vec();
            bytes.extend(written.to_le_bytes());
            self.act(Act::Compare(ring + 4 + u64::from(place) * 8, bytes));
        }
    }

    fn reasons(&mut self, reasons: u32) {
        // What the driver has seen may be ahead of its reason.
        let see = if reasons == 0 {
            self.act(Act::Settle);
            Act::See
        } else {
            Act::Await
        };
        let (region, offset, width) = match self.world.transport {
            Transport::Mmio => (Region::Window, 0x60, Width::Dword),
            Transport::Pci => (Region::Isr, 0, Width::Byte),
        };
        self.act(see(Look {
            region,
            offset,
            width,
            mask: u64::MAX,
            value: reasons.into(),
        }));
        if self.world.transport == Transport::Mmio {
            let all = u32::MAX.into();
            self.act(Act::Write(Region::Window, 0x64, Width::Dword, all));
        }
    }
}
