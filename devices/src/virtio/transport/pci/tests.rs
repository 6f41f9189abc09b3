//! A function as a driver finds, sets up, moves and breaks it.

use std::thread;

use proptest::prelude::*;

use super::*;
use crate::inspect::Report;
use crate::line::Msi;
use crate::pci::header::field;
use crate::ram::GuestRam;
use crate::state::{BadState, Decode as _, Persist as _};
use crate::testing::{Buffer, Ring, small_ram};
use crate::virtio::queue::QueueSetup;
use crate::virtio::{
    ConfigWrite, Connected, DeviceSlot, Identity, Progress, SlotHandle, StartContext, StartError,
    VirtioDevice, Virtqueue, connect_pci, features,
};

const AT: u32 = 0xd100_0000;
const RUNNING: u64 = 15;

/// Gives every buffer back, filled with nothing, and takes writes to its configuration.
struct Echo {
    config: Arc<ConfigSpace>,
    queues: Vec<Option<Virtqueue>>,
    interrupt: Option<Interrupt>,
    written: Arc<Mutex<Vec<ConfigWrite>>>,
}

impl VirtioDevice for Echo {
    fn identity(&self) -> Identity {
        Identity {
            device_id: 3,
            queue_sizes: vec![8, 16],
            features: 0x21,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn start(&mut self, context: StartContext) -> Result<(), StartError> {
        self.interrupt = Some(context.interrupt);
        self.queues = context.queues;
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize) -> Progress {
        if let Some(Some(queue)) = self.queues.get_mut(queue) {
            while let Ok(Some(chain)) = queue.pop() {
                queue.complete(chain, 0);
            }
            queue.notify();
        }
        if self.config.update(0, &[7])
            && let Some(interrupt) = &self.interrupt
        {
            interrupt.config_changed();
        }
        Progress::Idle
    }

    fn config_written(&mut self, written: ConfigWrite) {
        self.written.lock().unwrap().push(written);
    }

    fn save(&self) -> Vec<u8> {
        vec![u8::try_from(self.config.read(0, 1)).unwrap()]
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        self.config.update(0, &<[u8; 1]>::from_bytes(state)?);
        Ok(())
    }

    fn stop(&mut self) {
        self.queues.clear();
    }

    fn inspect(&self) -> Report {
        Report::new()
    }
}

type Bound = Arc<Mutex<Vec<Option<u64>>>>;

struct Fixture {
    function: PciTransport,
    slot: DeviceSlot,
    handle: SlotHandle,
    ram: GuestRam,
    lines: Vec<IrqLine>,
    place: Place,
    bound: Bound,
    routed: Arc<Mutex<Vec<(u16, Msi)>>>,
    written: Arc<Mutex<Vec<ConfigWrite>>>,
}

fn fixture() -> Fixture {
    fixture_on(small_ram())
}

fn fixture_on(ram: GuestRam) -> Fixture {
    let written = Arc::default();
    let device = Echo {
        config: Arc::new(ConfigSpace::with_writable(
            vec![1, 2, 3, 4, 5, 6],
            std::iter::once(4..6).collect(),
        )),
        queues: Vec::new(),
        interrupt: None,
        written: Arc::clone(&written),
    };
    let lines: Vec<_> = (0..3).map(|_| IrqLine::new().unwrap()).collect();
    let own = lines.iter().map(|line| line.try_clone().unwrap()).collect();
    let (place, bound, routed) = (Place::nowhere(), Bound::default(), Arc::default());
    let (told, routes) = (Arc::clone(&bound), Arc::clone(&routed));
    let attachment = Attachment {
        window: AT,
        within: AddressRange {
            start: AT.into(),
            len: 0x10_0000,
        },
        place: place.clone(),
        lines: own,
        route: Box::new(move |vector, message| {
            let routes: &Mutex<Vec<_>> = &routes;
            routes.lock().unwrap().push((vector, message));
        }),
        bells: Box::new(move |_, at| told.lock().unwrap().push(at)),
    };
    let connected = connect_pci("echo".into(), Box::new(device), ram.clone(), attachment);
    let Connected {
        transport,
        slot,
        handle,
        ..
    } = connected.unwrap();
    Fixture {
        function: transport,
        slot,
        handle,
        ram,
        lines,
        place,
        bound,
        routed,
        written,
    }
}

impl Fixture {
    fn get(&mut self, offset: u64, width: Width) -> u64 {
        self.function.read(offset, width).unwrap()
    }

    fn set(&mut self, offset: u64, width: Width, value: u64) {
        // Only a reset waits for the device.
        thread::scope(|scope| {
            let function = &mut self.function;
            let write = scope.spawn(move || function.write(offset, width, value).unwrap());
            while !write.is_finished() {
                self.slot.step();
                thread::yield_now();
            }
        });
    }

    fn config(&mut self, offset: u16, width: Width) -> u32 {
        self.function.read_config(offset, width)
    }

    fn set_config(&mut self, offset: u16, width: Width, value: u32) {
        self.function.write_config(offset, width, value);
    }

    /// Offset and kind of each capability; 0x11 for MSI-X, else the kind of structure.
    fn capabilities(&mut self) -> Vec<(u16, u32)> {
        let mut list = Vec::new();
        let mut at = self.config(field::CAPABILITIES, Width::Byte);
        while at != 0 {
            let offset = u16::try_from(at).unwrap();
            let id = self.config(offset, Width::Byte);
            let kind = match id {
                9 => self.config(offset + 3, Width::Byte),
                other => other,
            };
            list.push((offset, kind));
            at = self.config(offset + 1, Width::Byte);
        }
        list
    }

    fn capability(&mut self, kind: u32) -> u16 {
        let list = self.capabilities();
        list.iter().find(|(_, one)| *one == kind).unwrap().0
    }

    fn status(&mut self) -> u64 {
        self.get(0x14, Width::Byte)
    }

    fn set_status(&mut self, value: u64) {
        self.set(0x14, Width::Byte, value);
    }

    fn agree(&mut self) {
        self.set_status(0);
        self.set_status(1);
        self.set_status(3);
        for page in 0..2 {
            self.set(0x00, Width::Dword, page);
            let offered = self.get(0x04, Width::Dword);
            self.set(0x08, Width::Dword, page);
            self.set(0x0c, Width::Dword, offered);
        }
        self.set_status(11);
        assert_eq!(self.status(), 11);
    }

    fn set_up(&mut self, queue: u64, vector: u64, setup: &QueueSetup) {
        self.set(0x16, Width::Word, queue);
        self.set(0x18, Width::Word, setup.size.into());
        self.set(0x1a, Width::Word, vector);
        let areas = [setup.descriptors, setup.available, setup.used];
        for (address, at) in areas.into_iter().zip([0x20, 0x28, 0x30]) {
            self.set(at, Width::Dword, address & 0xffff_ffff);
            self.set(at + 4, Width::Dword, address >> 32);
        }
        self.set(0x1c, Width::Word, 1);
    }

    /// Starts the device with both queues: vector 0 for the configuration, 1 and 2 for them.
    fn start(&mut self) -> Ring {
        self.agree();
        let ram = self.ram.clone();
        let first = Ring::new(ram.clone(), 0x1_0000, 8);
        let second = Ring::new(ram, 0x2_0000, 16);
        self.set(0x10, Width::Word, 0);
        self.set_up(0, 1, &first.setup);
        self.set_up(1, 2, &second.setup);
        self.set_status(RUNNING);
        assert_eq!(self.status(), RUNNING);
        first
    }

    /// Unmasks every vector of the table and lets messages out.
    fn unmask(&mut self) {
        for vector in 0..3 {
            let at = MSIX_TABLE + 16 * vector;
            self.set(at, Width::Qword, 0xfee0_0000);
            self.set(at + 8, Width::Qword, 0x30 + vector);
        }
        let msix = self.capability(0x11);
        self.set_config(msix + 2, Width::Word, 0x8000);
    }

    fn run(&mut self) {
        while self.slot.step() {}
    }

    fn took(&self) -> [bool; 3] {
        [0, 1, 2].map(|line: usize| self.lines[line].take())
    }
}

#[test]
fn the_function_says_what_it_is() {
    let mut one = fixture();
    for (offset, width, value) in [
        (field::ID, Width::Dword, 0x1043_1af4),
        (field::COMMAND, Width::Word, 0x0006),
        (field::STATUS, Width::Word, 0x0010),
        (field::REVISION, Width::Dword, 0x0780_0001),
        (0x0e, Width::Byte, 0),
        (field::BAR0, Width::Dword, AT),
        (0x14, Width::Dword, 0),
        (0x24, Width::Dword, 0),
        (field::SUBSYSTEM, Width::Dword, 0x1100_1af4),
        (0x30, Width::Dword, 0),
        (0x3d, Width::Byte, 0),
        (0x100, Width::Dword, u32::MAX),
    ] {
        assert_eq!(one.config(offset, width), value, "{offset:#x}");
    }
}

#[test]
fn every_structure_has_its_capability() {
    let mut one = fixture();
    let list = one.capabilities();
    let kinds: Vec<u32> = list.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 5, 0x11]);
    for ((offset, kind), (len, at, room)) in list.iter().zip([
        (16, COMMON, COMMON_BYTES),
        (20, NOTIFY, 0x1000),
        (16, ISR, 1),
        (16, CONFIG, 0x1000),
        (20, 0, 0),
    ]) {
        let read = |one: &mut Fixture, field, width| u64::from(one.config(offset + field, width));
        assert_eq!(read(&mut one, 2, Width::Byte), len, "{kind}");
        assert_eq!(read(&mut one, 4, Width::Byte), 0, "window of {kind}");
        assert_eq!(read(&mut one, 8, Width::Dword), at, "{kind}");
        assert_eq!(read(&mut one, 12, Width::Dword), room, "{kind}");
    }
    let multiplier = one.capability(2) + 16;
    assert_eq!(one.config(multiplier, Width::Dword), 4);
    let msix = one.capability(0x11);
    assert_eq!(one.config(msix + 2, Width::Word), 2, "three vectors");
    assert_eq!(one.config(msix + 4, Width::Dword), 0x4000);
    assert_eq!(one.config(msix + 8, Width::Dword), 0x5000);
}

/// Every register, read at every width and offset of the common configuration: whole fields
/// read as they are, everything else as zero.
#[test]
fn fields_are_there_as_a_whole() {
    let mut one = fixture();
    one.agree();
    one.set(0x16, Width::Word, 1);
    let known = [
        (0x00, Width::Dword, 1),
        (0x04, Width::Dword, 1),
        (0x08, Width::Dword, 1),
        (0x0c, Width::Dword, 1),
        (0x10, Width::Word, 0xffff),
        (0x12, Width::Word, 2),
        (0x14, Width::Byte, 11),
        (0x16, Width::Word, 1),
        (0x18, Width::Word, 16),
        (0x1a, Width::Word, 0xffff),
        (0x1e, Width::Word, 1),
    ];
    for offset in 0..0x100 {
        for width in [Width::Byte, Width::Word, Width::Dword, Width::Qword] {
            let field = known
                .iter()
                .find(|(at, own, _)| (*at, *own) == (offset, width));
            let value = field.map_or(0, |(.., value)| *value);
            assert_eq!(one.get(offset, width), value, "{offset:#x} {width:?}");
        }
    }
    // Writes at other widths and to what only reads change nothing.
    for (offset, width) in [
        (0x14, Width::Word),
        (0x14, Width::Dword),
        (0x12, Width::Word),
        (0x15, Width::Byte),
        (0x16, Width::Dword),
        (0x18, Width::Byte),
        (0x20, Width::Qword),
        (0x38, Width::Word),
    ] {
        one.set(offset, width, 0);
    }
    assert_eq!((one.status(), one.get(0x18, Width::Word)), (11, 16));
}

#[test]
fn the_state_machine_is_the_one_of_every_transport() {
    let mut one = fixture();
    let offered = features::OFFERED | 0x21;
    assert_eq!(one.get(0x04, Width::Dword), offered & 0xffff_ffff);
    one.set(0x00, Width::Dword, 2);
    assert_eq!(one.get(0x04, Width::Dword), 0);
    one.set(0x0c, Width::Dword, 1);
    assert_eq!(one.get(0x0c, Width::Dword), 0, "no driver yet");
    one.set_status(8);
    assert_eq!(one.status(), 0, "out of order");
    one.agree();
    one.set(0x0c, Width::Dword, 0);
    assert_eq!(one.get(0x0c, Width::Dword), 1, "agreed on");

    let ring = Ring::new(small_ram(), 0x1_0000, 8);
    for size in [0, 3, 16, 0x8000] {
        let setup = QueueSetup { size, ..ring.setup };
        one.set_up(0, 0xffff, &setup);
        assert_eq!(one.get(0x1c, Width::Word), 0, "size {size}");
        assert_eq!(one.get(0x18, Width::Word), u64::from(size));
    }
    // Without a size of the driver's, a queue is as large as it may be.
    one.agree();
    assert_eq!(one.get(0x18, Width::Word), 8);
    one.set_up(0, 0xffff, &ring.setup);
    assert_eq!(one.get(0x1c, Width::Word), 1);
    assert_eq!(one.get(0x20, Width::Dword), ring.setup.descriptors);
    assert_eq!(one.get(0x30, Width::Dword), ring.setup.used);
    one.set(0x1c, Width::Word, 0);
    one.set(0x1c, Width::Word, 2);
    one.set(0x18, Width::Word, 4);
    one.set(0x20, Width::Dword, 0);
    assert_eq!(one.get(0x1c, Width::Word), 1, "only a reset takes it back");
    assert_eq!(one.get(0x18, Width::Word), 8);
    assert_eq!(one.get(0x20, Width::Dword), ring.setup.descriptors);
    // A queue that does not exist.
    one.set(0x16, Width::Word, 2);
    for (offset, value) in [(0x18, 0), (0x1a, 0xffff), (0x1c, 0), (0x1e, 0)] {
        one.set(offset, Width::Word, 1);
        assert_eq!(one.get(offset, Width::Word), value, "{offset:#x}");
    }
    one.set_status(0);
    for (offset, width, value) in [
        (0x00, Width::Dword, 0),
        (0x08, Width::Dword, 0),
        (0x0c, Width::Dword, 0),
        (0x14, Width::Byte, 0),
        (0x16, Width::Word, 0),
        (0x18, Width::Word, 8),
        (0x1c, Width::Word, 0),
        (0x20, Width::Dword, 0),
    ] {
        assert_eq!(one.get(offset, width), value, "{offset:#x} after reset");
    }
}

#[test]
fn vectors_that_do_not_exist_are_refused() {
    let mut one = fixture();
    for (vector, read) in [
        (0, 0),
        (2, 2),
        (3, 0xffff),
        (1, 1),
        (0xffff, 0xffff),
        (0x800, 0xffff),
    ] {
        one.set(0x10, Width::Word, vector);
        assert_eq!(one.get(0x10, Width::Word), read, "{vector}");
        one.set(0x16, Width::Word, 1);
        one.set(0x1a, Width::Word, vector);
        assert_eq!(one.get(0x1a, Width::Word), read, "{vector}");
        one.set(0x16, Width::Word, 0);
        assert_eq!(one.get(0x1a, Width::Word), 0xffff, "the other queue");
    }
}

#[test]
fn a_request_comes_back_with_its_queues_message() {
    let mut one = fixture();
    one.unmask();
    let mut ring = one.start();
    assert_eq!(
        *one.bound.lock().unwrap(),
        [Some(AT.into())],
        "bound once ready"
    );
    one.run();
    assert_eq!(
        one.took(),
        [true, false, false],
        "the configuration changed"
    );
    assert_eq!(one.get(ISR, Width::Dword), 0, "a byte wide");
    assert_eq!(one.get(ISR, Width::Byte), 2);
    let memory = Buffer::writable(0x8_0000, 16);
    ring.add(&[memory]);
    one.set(NOTIFY + 4, Width::Word, 0);
    one.run();
    assert_eq!(ring.take_used(), None, "the other queue's bell");
    one.set(NOTIFY, Width::Word, 0);
    one.run();
    assert!(ring.take_used().is_some());
    assert_eq!(one.took(), [false, true, false]);
    let data: Vec<u32> = one
        .routed
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.1.data)
        .collect();
    assert_eq!(data, [0x30, 0x31, 0x32]);
    assert_eq!(one.get(ISR, Width::Byte), 1);
    assert_eq!(one.get(ISR, Width::Byte), 0, "a read clears it");
    for stray in [
        NOTIFY + 1,
        NOTIFY + 8,
        NOTIFY + 0xffc,
        ISR,
        MSIX_PENDING,
        UNUSED,
    ] {
        one.set(stray, Width::Word, 0xffff);
    }
}

/// A device that is reset says nothing more, not even through a vector that is unmasked later.
#[test]
fn a_reset_forgets_interrupts_and_vectors() {
    let mut one = fixture();
    let mut ring = one.start();
    // The configuration changes before any message can be sent.
    one.run();
    let msix = one.capability(0x11);
    one.set_config(msix + 2, Width::Word, 0xc000);
    assert_eq!(one.config(msix + 2, Width::Word), 0xc002);
    ring.add(&[Buffer::writable(0x8_0000, 16)]);
    one.set(NOTIFY, Width::Dword, 0);
    one.run();
    assert_eq!(one.took(), [false; 3]);
    assert_eq!(one.get(MSIX_PENDING, Width::Qword), 2);
    one.set_status(0);
    assert_eq!(one.status(), 0);
    assert_eq!(one.get(MSIX_PENDING, Width::Qword), 0);
    one.unmask();
    assert_eq!((one.took(), one.get(ISR, Width::Byte)), ([false; 3], 0));
    assert_eq!(one.get(0x10, Width::Word), 0xffff);
    assert_eq!(one.get(0x1a, Width::Word), 0xffff);
    assert_eq!(
        one.get(MSIX_TABLE + 8, Width::Dword),
        0x30,
        "the function's own"
    );
    one.start();
}

#[test]
fn configuration_fields_are_those_of_every_transport() {
    let mut one = fixture();
    assert_eq!(one.get(CONFIG, Width::Dword), 0x0403_0201);
    assert_eq!(one.get(CONFIG + 3, Width::Word), 0x0504);
    assert_eq!(one.get(CONFIG + 0xffc, Width::Dword), 0);
    let generation = one.get(0x15, Width::Byte);
    one.set(CONFIG + 4, Width::Byte, 9);
    assert_eq!(one.get(CONFIG + 4, Width::Byte), 5, "no driver yet");
    one.start();
    one.run();
    assert_eq!(one.get(CONFIG, Width::Byte), 7, "the device's change");
    assert_ne!(one.get(0x15, Width::Byte), generation);
    one.set(CONFIG + 4, Width::Word, 0x0a09);
    one.set(CONFIG + 1, Width::Byte, 0xff);
    one.run();
    assert_eq!(one.get(CONFIG, Width::Qword), 0x0a09_0403_0207);
    let written = one.written.lock().unwrap();
    let expected = ConfigWrite {
        offset: 4,
        len: 2,
        value: 0x0a09,
    };
    assert_eq!(*written, [expected]);
}

#[test]
fn the_window_and_its_doorbells_move_together() {
    let mut one = fixture();
    let to = |one: &mut Fixture, address| one.set_config(field::BAR0, Width::Dword, address);
    assert_eq!(one.place.get(), Some(AT.into()));
    // What a kernel does to learn the size, before there is a driver: nobody is told.
    one.set_config(field::COMMAND, Width::Word, 0);
    assert_eq!(one.place.get(), None);
    to(&mut one, u32::MAX);
    assert_eq!(one.config(field::BAR0, Width::Dword), 0xffff_8000);
    to(&mut one, AT);
    one.set_config(field::COMMAND, Width::Word, 6);
    assert_eq!(one.place.get(), Some(AT.into()));
    assert!(one.bound.lock().unwrap().is_empty());

    one.start();
    to(&mut one, AT + 0x8000);
    assert_eq!(one.place.get(), Some(0xd100_8000));
    for outside in [0, 0xc000_0000, AT + 0x10_0000, 0xfee0_0000] {
        to(&mut one, outside);
        assert_eq!(one.config(field::BAR0, Width::Dword), AT + 0x8000);
        assert_eq!(one.place.get(), Some(0xd100_8000), "{outside:#x}");
    }
    assert_eq!(one.status(), RUNNING, "the function works on");
    one.set_config(field::COMMAND, Width::Byte, 4);
    to(&mut one, 0xe000_0000);
    one.set_config(field::COMMAND, Width::Byte, 6);
    assert_eq!(one.config(field::BAR0, Width::Dword), AT + 0x8000);
    let bound = one.bound.lock().unwrap();
    let moved = Some(0xd100_8000);
    assert_eq!(*bound, [Some(AT.into()), moved, None, moved]);
}

#[test]
fn the_configuration_space_reaches_into_the_window() {
    let mut one = fixture();
    let cap = one.capability(5);
    let aim = |one: &mut Fixture, bar, offset, length| {
        one.set_config(cap + 4, Width::Byte, bar);
        one.set_config(cap + 8, Width::Dword, offset);
        one.set_config(cap + 12, Width::Dword, length);
    };
    // It works with the window off, which is what it is for.
    one.set_config(field::COMMAND, Width::Word, 0);
    aim(&mut one, 0, 0x14, 1);
    one.set_config(cap + 16, Width::Byte, 1);
    assert_eq!(one.config(cap + 16, Width::Byte), 1);
    one.set_config(cap + 16, Width::Dword, 0xffff_ff03);
    assert_eq!(one.status(), 3);
    assert_eq!(one.config(cap + 16, Width::Dword), 3);
    aim(&mut one, 0, 0x12, 2);
    assert_eq!(one.config(cap + 16, Width::Word), 2);
    aim(&mut one, 0, 0x2000, 4);
    assert_eq!(one.config(cap + 16, Width::Dword), 0x0403_0201);
    assert_eq!(one.config(cap + 18, Width::Word), 0x0403);
    for (bar, offset, length) in [
        (1, 0x2000, 4),
        (6, 0x2000, 4),
        (0, 0x2001, 4),
        (0, 0x8000, 4),
        (0, 0x7fff, 2),
        (0, 0xffff_fffc, 4),
        (0, u32::MAX, 4),
        (0, 0x14, 0),
        (0, 0x14, 3),
        (0, 0x14, 8),
        (0, 0x14, u32::MAX),
    ] {
        aim(&mut one, bar, offset, length);
        one.set_config(cap + 16, Width::Dword, 0);
        let read = one.config(cap + 16, Width::Dword);
        assert_eq!(read, u32::MAX, "{bar} {offset:#x} {length}");
    }
    aim(&mut one, 0, 0x7ffc, 4);
    assert_eq!(one.config(cap + 16, Width::Dword), 0);
    assert_eq!(one.status(), 3);
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![
        Just(Width::Byte),
        Just(Width::Word),
        Just(Width::Dword),
        Just(Width::Qword)
    ]
}

proptest! {
    /// Whatever a driver reads and writes where, the function stays in its range and comes
    /// back after a reset.
    #[test]
    fn any_access_leaves_a_working_function(
        accesses in prop::collection::vec(
            (any::<bool>(), 0_u64..0x8000, widths(), any::<u64>()), 0..200),
    ) {
        let mut one = fixture();
        for (space, offset, width, value) in accesses {
            let short = value & (u64::MAX >> (64 - 8 * width.bytes()));
            let (dword, lane) = (u32::try_from(short & 0xffff_ffff).unwrap(), offset & 0xff);
            match u16::try_from(lane) {
                Ok(lane) if space => {
                    one.read_both(lane, width);
                    // A reset through the data field would wait for the device.
                    if !(0x84..0x98).contains(&lane) {
                        one.set_config(lane, width, dword);
                    }
                }
                _ => {
                    one.get(offset, width);
                    one.set(offset, width, short);
                }
            }
            if let Some(at) = one.place.get() {
                prop_assert!(at >= AT.into() && at + 0x8000 <= u64::from(AT) + 0x10_0000);
            }
        }
        one.start();
    }
}

impl Fixture {
    fn read_both(&mut self, offset: u16, width: Width) {
        let value = self.config(offset, width);
        assert!(width.bytes() >= 4 || u64::from(value) >> (8 * width.bytes()) == 0);
    }
}

impl Fixture {
    /// Pauses the device: the state of the function.
    fn save(&mut self) -> Vec<u8> {
        let rest = self.handle.begin_pause().unwrap();
        self.run();
        rest.within(std::time::Duration::ZERO).unwrap().unwrap();
        self.stepping(|function| function.save()).unwrap()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        self.stepping(|function| function.restore(state))
    }

    fn resume(&mut self) {
        self.function.tell_again();
        self.handle.resume().unwrap();
        self.run();
    }

    /// Calls what waits for the device.
    fn stepping<T: Send>(&mut self, call: impl FnOnce(&mut PciTransport) -> T + Send) -> T {
        thread::scope(|scope| {
            let function = &mut self.function;
            let call = scope.spawn(move || call(function));
            while !call.is_finished() {
                self.slot.step();
                thread::yield_now();
            }
            call.join().unwrap()
        })
    }
}

/// A function that was moved, masked in part and asked for something goes on as it was.
#[test]
fn a_function_is_saved_and_restored() {
    let mut one = fixture();
    let fresh = one.save();
    let mut ring = one.start();
    let data_register = one.capability(5) + 8;
    one.set_config(data_register, Width::Dword, 0x18);
    one.set_config(field::BAR0, Width::Dword, AT + 0x8000);
    one.resume();
    one.unmask();
    // One waits behind a mask, one for the device.
    one.set(MSIX_TABLE + 16 + 12, Width::Dword, 1);
    ring.add(&[Buffer::writable(0x8_0000, 8)]);
    one.set(NOTIFY, Width::Word, 0);
    one.run();
    assert_eq!(one.get(MSIX_PENDING, Width::Dword), 2);
    one.took();
    let state = one.save();
    assert_ne!(state, fresh);
    let mut other = fixture_on(one.ram.clone());
    other.restore(&state).unwrap();
    assert_eq!(other.save(), state);
    let window = u64::from(AT) + 0x8000;
    assert_eq!(other.place.get(), Some(window));
    assert_eq!(*other.bound.lock().unwrap(), [Some(window)]);
    let routed = other.routed.lock().unwrap().clone();
    let vectors: Vec<_> = routed.iter().map(|(vector, _)| *vector).collect();
    assert_eq!(vectors, [0, 2], "those that are not masked");
    assert_eq!(other.status(), RUNNING);
    assert_eq!(other.get(MSIX_PENDING, Width::Dword), 2);
    assert_eq!(other.took(), [false; 3]);
    ring.add(&[Buffer::writable(0x8_0000, 8)]);
    other.resume();
    assert_eq!(other.took(), [true, false, true]);
    other.set(MSIX_TABLE + 16 + 12, Width::Dword, 0);
    assert_eq!(other.took(), [false, true, false]);
    let back: Vec<_> = std::iter::from_fn(|| ring.take_used()).collect();
    assert_eq!(back, [(0, 0), (1, 0)]);
    // Bytes that were cut or changed are no state, or one of a function that works.
    for len in 0..state.len() {
        assert!(fixture().restore(&state[..len]).is_err(), "cut after {len}");
    }
    for at in 0..state.len() {
        let mut changed = state.clone();
        changed[at] ^= 1 << (at % 8);
        let mut third = fixture();
        if third.restore(&changed).is_ok() {
            third.resume();
            third.set_status(0);
            third.start();
        }
    }
}
