//! Configuration that changes under its driver, and that its driver changes.

use devices::Width;
use devices::inspect::Report;
use devices::virtio::{
    CommandError, ConfigSpace, ConfigWrite, DeviceCommand, Identity, Interrupt, Progress,
    StartContext, StartError, VirtioDevice, Virtqueue,
};
use std::sync::Arc;

use super::{F_VERSION_1, List, buffer, request, revive, start, used};
use crate::step::{Fixture, Register, Row, Step, Subject};

/// Four bytes that the host changes, four that nobody does, four that the driver may write, and
/// four in which the device shows what it heard of that.
const HOST: u64 = 0;
const OWN: u64 = 8;
const HEARD: u64 = 12;

/// Gives every request back at once, and counts up in its configuration with each command.
pub static CHANGER: Subject = Subject {
    name: "changer",
    queues: 1,
    features: F_VERSION_1,
    make: || {
        let writable = std::iter::once(8..12).collect();
        let bytes = vec![0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0, 0, 0, 0];
        Fixture::alone(Changer {
            config: Arc::new(ConfigSpace::with_writable(bytes, writable)),
            running: None,
            count: 0,
        })
    },
    good: one,
    boot: None,
};

#[derive(Debug)]
struct Changer {
    config: Arc<ConfigSpace>,
    running: Option<(Virtqueue, Interrupt)>,
    count: u32,
}

impl VirtioDevice for Changer {
    fn identity(&self) -> Identity {
        Identity {
            device_id: 43,
            queue_sizes: vec![64],
            features: 0,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        self.running = Some((context.take_queue(0)?, context.interrupt));
        Ok(())
    }

    fn queue_ready(&mut self, _: usize) -> Progress {
        if let Some((queue, _)) = &mut self.running {
            while let Ok(Some(chain)) = queue.pop() {
                queue.complete(chain, 0);
            }
            queue.notify();
        }
        Progress::Idle
    }

    fn config_written(&mut self, written: ConfigWrite) {
        let ConfigWrite { offset, len, value } = written;
        let offset = u8::try_from(offset).unwrap_or(0xff);
        let len = u8::try_from(len).unwrap_or(0xff);
        let [low, next, ..] = value.to_le_bytes();
        self.config.update(12, &[offset, len, low, next]);
    }

    /// Resize counts up; anything else changes nothing and says that it did.
    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        let DeviceCommand::Rescan = command else {
            self.config.update(0, &self.count.to_le_bytes());
            return Ok(());
        };
        self.count += 1;
        let changed = self.config.update(0, &self.count.to_le_bytes());
        if let Some((_, interrupt)) = self.running.as_ref().filter(|_| changed) {
            interrupt.config_changed();
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn inspect(&self) -> Report {
        Report::new()
    }
}

fn one() -> Vec<Step> {
    [request(0, 0, &[(buffer(0), 8, true)]), used(&[(0, 0)])].concat()
}

/// The host changes the configuration.
fn change() -> Vec<Step> {
    vec![Step::Host("the configuration changes", |host| {
        host.handle.send(DeviceCommand::Rescan).expect("a device");
    })]
}

/// The host sets the configuration to what it is.
fn no_change() -> Vec<Step> {
    vec![Step::Host(
        "the configuration is set to what it is",
        |host| {
            let same = DeviceCommand::Resize {
                columns: 0,
                rows: 0,
            };
            host.handle.send(same).expect("a device");
        },
    )]
}

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("config");
    generations(&mut list);
    writes(&mut list);
    list.rows()
}

fn generations(list: &mut List) {
    let spec = "2.5.3";
    let generation = |value| vec![Step::Expect(Register::ConfigGeneration, value)];
    let see = |value| vec![Step::ExpectConfig(HOST, Width::Dword, value)];
    let told = || vec![Step::ExpectReasons(2), Step::ExpectInterrupt(true)];
    let nothing = || vec![Step::ExpectReasons(0), Step::ExpectInterrupt(false)];
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&CHANGER, spec, about, parts);
    add(
        "a change has another generation, and tells the driver",
        vec![
            start(0),
            generation(0),
            change(),
            see(1),
            generation(1),
            told(),
            revive(),
        ],
    );
    add(
        "two changes have two generations and are one reason",
        vec![
            start(0),
            change(),
            change(),
            see(2),
            generation(2),
            told(),
            nothing(),
            revive(),
        ],
    );
    add(
        "what is set to what it is has no other generation",
        vec![
            start(0),
            change(),
            told(),
            no_change(),
            see(1),
            generation(1),
            nothing(),
            revive(),
        ],
    );
    add(
        "a change before there is a driver tells nobody",
        vec![change(), see(1), generation(1), nothing(), revive()],
    );
    add(
        "a change between the features and the start tells nobody",
        vec![
            vec![
                Step::Status(1),
                Step::Status(3),
                Step::Features(F_VERSION_1),
                Step::Status(11),
            ],
            change(),
            see(1),
            nothing(),
            revive(),
        ],
    );
    add(
        "a change after a reset tells nobody",
        vec![
            start(0),
            vec![Step::Reset],
            change(),
            see(1),
            nothing(),
            revive(),
        ],
    );
    add(
        "a reset leaves the configuration as it is",
        vec![
            start(0),
            change(),
            vec![Step::Reset],
            see(1),
            generation(1),
            revive(),
        ],
    );
    add(
        "a reset takes the reason away that a change gave",
        vec![
            start(0),
            change(),
            vec![Step::ExpectInterrupt(true), Step::Reset],
            nothing(),
            revive(),
        ],
    );
    add(
        "a change and a request are two reasons",
        vec![
            start(0),
            change(),
            one(),
            vec![Step::ExpectReasons(3), Step::ExpectInterrupt(true)],
            nothing(),
            revive(),
        ],
    );
    add(
        "three hundred changes: the generation goes on and differs each time",
        vec![
            start(0),
            (0..300).flat_map(|_| change()).collect(),
            see(300),
            told(),
            revive(),
        ],
    );
    add(
        "a change while the device needs a reset is there after it",
        vec![
            start(0),
            vec![
                Step::AvailableIndex(0, 0x4000),
                Step::Kick(0),
                Step::ExpectNeedsReset,
            ],
            change(),
            see(1),
            vec![Step::Reset],
            see(1),
            revive(),
        ],
    );
}

fn writes(list: &mut List) {
    let spec = "2.5.1";
    let write = |field, width, value| vec![Step::WriteConfig(field, width, value), Step::Settle];
    let own = |value| vec![Step::ExpectConfig(OWN, Width::Dword, value)];
    let heard = |offset: u64, len: u64, value: u64| {
        vec![Step::ExpectConfig(
            HEARD,
            Width::Dword,
            offset | len << 8 | value << 16,
        )]
    };
    let silent = || vec![Step::ExpectConfig(HEARD, Width::Dword, 0)];
    let hello = || vec![Step::Status(1), Step::Status(3)];
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&CHANGER, spec, about, parts);
    add(
        "a field that the driver may write keeps it, and the device hears of it",
        vec![
            start(0),
            write(OWN, Width::Dword, 0x8765_4321),
            own(0x8765_4321),
            heard(8, 4, 0x4321),
            revive(),
        ],
    );
    add(
        "one byte of such a field",
        vec![
            start(0),
            write(OWN + 2, Width::Byte, 0x5a),
            own(0x005a_0000),
            heard(10, 1, 0x5a),
            revive(),
        ],
    );
    add(
        "two bytes in the middle of such a field",
        vec![
            start(0),
            write(OWN + 1, Width::Word, 0xa55a),
            own(0x00a5_5a00),
            heard(9, 2, 0xa55a),
            revive(),
        ],
    );
    for (field, width, what) in [
        (OWN - 1, Width::Word, "that begins before such a field"),
        (OWN + 3, Width::Word, "that ends after such a field"),
        (OWN, Width::Qword, "longer than such a field"),
        (OWN - 4, Width::Qword, "over such a field from before it"),
        (0, Width::Dword, "of a field of the device's"),
        (4, Width::Dword, "of a field that never changes"),
        (HEARD, Width::Dword, "right behind such a field"),
        (16, Width::Dword, "behind all fields"),
        (0xdf8, Width::Qword, "at the end of the window"),
    ] {
        let about = format!("a write {what} is ignored as a whole");
        let parts = vec![
            start(0),
            write(field, width, u64::MAX >> (64 - 8 * width.bytes())),
            own(0),
            silent(),
            vec![Step::ExpectConfig(4, Width::Dword, 0x4433_2211)],
            revive(),
        ];
        add(&about, parts);
    }
    add(
        "a write before there is a driver is ignored",
        vec![
            write(OWN, Width::Dword, 7),
            vec![Step::Status(1)],
            write(OWN, Width::Dword, 7),
            own(0),
            silent(),
            revive(),
        ],
    );
    add(
        "a write by a driver that has not agreed on features yet is taken",
        vec![
            hello(),
            write(OWN, Width::Dword, 7),
            own(7),
            heard(8, 4, 7),
            revive(),
        ],
    );
    add(
        "a write changes no generation",
        vec![
            start(0),
            vec![
                Step::WriteConfig(OWN, Width::Dword, 7),
                Step::Expect(Register::ConfigGeneration, 0),
            ],
            revive(),
        ],
    );
    let flood: Vec<_> = (0..2000_u64)
        .map(|n| Step::WriteConfig(OWN, Width::Dword, n))
        .collect();
    add(
        "two thousand writes in a row: the last one counts, and the device is heard",
        vec![
            start(0),
            flood,
            vec![Step::Settle],
            own(1999),
            heard(8, 4, 1999),
            one(),
            revive(),
        ],
    );
    add(
        "a write and a reset right after it",
        vec![
            start(0),
            vec![Step::WriteConfig(OWN, Width::Dword, 9), Step::Reset],
            own(9),
            revive(),
        ],
    );
}
