//! Status, features, queue registers and resets, in every order.

use devices::Width;

use super::subjects::{BLOCK, RNG};
use super::{
    F_EVENT_IDX, F_INDIRECT, F_VERSION_1, INDIRECT, List, WRITE, buffer, chain, d, latched,
    request, revive, start, used,
};
use crate::access::Transport;
use crate::step::{At, FIRST_RING, Register, Row, Step};

const TABLE: At = At::Memory(FIRST_RING);
const AVAILABLE: At = At::Memory(FIRST_RING + 0x1000);
const USED: At = At::Memory(FIRST_RING + 0x2000);

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("state");
    first_status(&mut list);
    next_status(&mut list);
    failed(&mut list);
    features(&mut list);
    pages(&mut list);
    phases(&mut list);
    queues(&mut list);
    bad_queues(&mut list);
    frozen(&mut list);
    resets(&mut list);
    reasons(&mut list);
    list.rows()
}

/// The states of a device on its way, with how a driver gets there and what the status reads.
fn states() -> Vec<(&'static str, Vec<Step>, u32)> {
    let to = |values: &[u32]| -> Vec<Step> { values.iter().map(|v| Step::Status(*v)).collect() };
    let agreed = || [to(&[1, 3]), vec![Step::Features(F_VERSION_1)], to(&[11])].concat();
    let break_it = vec![
        Step::AvailableIndex(0, 0x8000),
        Step::Kick(0),
        Step::ExpectNeedsReset,
    ];
    vec![
        ("fresh", vec![], 0),
        ("acknowledged", to(&[1]), 1),
        ("with a driver", to(&[1, 3]), 3),
        ("agreed", agreed(), 11),
        (
            "with a queue set up",
            [agreed(), vec![Step::Ring(0)]].concat(),
            11,
        ),
        ("running", start(0), 15),
        ("in need of a reset", [start(0), break_it].concat(), 15 | 64),
        ("given up", [to(&[1, 3]), to(&[128])].concat(), 128 | 3),
    ]
}

/// Resets and goes on to where features are written.
fn hello() -> Vec<Step> {
    vec![Step::Reset, Step::Status(1), Step::Status(3)]
}

/// Resets and agrees on features.
fn agree(features: u64) -> Vec<Step> {
    let rest = vec![
        Step::Features(F_VERSION_1 | features),
        Step::Status(11),
        Step::ExpectStatus(11),
    ];
    [hello(), rest].concat()
}

/// The driver is ready, a request is answered.
fn works() -> Vec<Step> {
    let ready = vec![Step::Status(15), Step::ExpectStatus(15)];
    [
        ready,
        request(0, 0, &[(buffer(0), 8, true)]),
        used(&[(0, 8)]),
    ]
    .concat()
}

/// The first status that a driver writes: all there is of the four steps.
fn first_status(list: &mut List) {
    for value in 1..16_u32 {
        let (becomes, what) = match value {
            1 | 3 => (value, "is taken"),
            // Features were never written, so VERSION_1 is not among them.
            11 | 15 => (value & 3, "goes as far as the driver"),
            _ => (0, "is out of order and ignored"),
        };
        if value == 15 {
            continue;
        }
        let about = format!("a first status of {value:#x} {what}");
        let steps = vec![Step::Status(value), Step::ExpectStatus(becomes)];
        list.add(&RNG, "3.1.1", about, [steps, revive()]);
    }
    for (bit, name) in [
        (16, "the first reserved bit"),
        (32, "the second reserved bit"),
    ] {
        let steps = vec![
            Step::Status(1 | bit),
            Step::ExpectStatus(0),
            Step::Status(1),
            Step::ExpectStatus(1),
        ];
        list.add(
            &RNG,
            "2.1",
            format!("{name} makes a status that is ignored"),
            [steps, revive()],
        );
    }
    let own = vec![
        Step::Status(64),
        Step::ExpectStatus(0),
        Step::Status(1 | 64),
        Step::ExpectStatus(1),
    ];
    list.add(
        &RNG,
        "2.1.2",
        "the device's own bit, written by the driver, is nothing",
        [own, revive()],
    );
}

fn next_status(list: &mut List) {
    let status = |values: &[(u32, u32)]| -> Vec<Step> {
        let pair =
            |&(value, becomes): &(u32, u32)| [Step::Status(value), Step::ExpectStatus(becomes)];
        values.iter().flat_map(pair).collect()
    };
    let spec = "2.1.1";
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&RNG, spec, about, parts);
    add(
        "a driver cannot take back that it is there",
        vec![status(&[(1, 1), (3, 3), (1, 3), (2, 3)]), revive()],
    );
    add(
        "a driver that is ready before the features are agreed on",
        vec![hello(), status(&[(7, 3), (15, 3)]), revive()],
    );
    add(
        "features agreed on without any",
        vec![hello(), status(&[(11, 3)]), revive()],
    );
    add(
        "features and readiness in one write: features first",
        vec![
            hello(),
            vec![Step::Features(F_VERSION_1)],
            status(&[(15, 11)]),
            vec![Step::Ring(0)],
            status(&[(15, 15)]),
            revive(),
        ],
    );
    add(
        "the features' bit alone, without the bits before it",
        vec![
            hello(),
            vec![Step::Features(F_VERSION_1)],
            status(&[(8, 3), (9, 3), (10, 3), (11, 11)]),
            revive(),
        ],
    );
    add(
        "features cannot be taken back",
        vec![agree(0), status(&[(3, 11), (1, 11), (8, 11)]), revive()],
    );
    add(
        "the same status again is no news",
        vec![
            agree(0),
            status(&[(11, 11), (11, 11)]),
            vec![Step::Ring(0)],
            works(),
            revive(),
        ],
    );
    add(
        "readiness cannot be taken back, and the device works on",
        vec![
            start(0),
            status(&[(11, 15), (3, 15), (1, 15), (4, 15)]),
            request(0, 0, &[(buffer(0), 8, true)]),
            used(&[(0, 8)]),
            revive(),
        ],
    );
    add(
        "ready a second time is no second start",
        vec![
            start(0),
            request(0, 0, &[(buffer(0), 8, true)]),
            used(&[(0, 8)]),
            status(&[(15, 15)]),
            request(0, 1, &[(buffer(0), 8, true)]),
            used(&[(1, 8)]),
            revive(),
        ],
    );
    add(
        "the device's own bit written to a running device is nothing",
        vec![
            start(0),
            status(&[(15 | 64, 15)]),
            request(0, 0, &[(buffer(0), 8, true)]),
            used(&[(0, 8)]),
            revive(),
        ],
    );
    let break_it = vec![
        Step::AvailableIndex(0, 0x8000),
        Step::Kick(0),
        Step::ExpectNeedsReset,
    ];
    add(
        "a driver cannot take the need of a reset away",
        vec![
            start(0),
            break_it.clone(),
            status(&[(15, 15 | 64), (11, 15 | 64)]),
            revive(),
        ],
    );
    add(
        "a driver cannot start a device again that needs a reset",
        vec![
            start(0),
            break_it,
            status(&[(15 | 64, 15 | 64), (3, 15 | 64)]),
            revive(),
        ],
    );
    add(
        "ready without any queue: the device says that it cannot",
        vec![
            agree(0),
            vec![Step::Status(15), Step::ExpectNeedsReset],
            revive(),
        ],
    );
    let second = vec![Step::Queue {
        queue: 0,
        size: 16,
        descriptors: TABLE,
        available: AVAILABLE,
        used: USED,
    }];
    add(
        "ready with a queue that is described and not handed over",
        vec![
            agree(0),
            second,
            vec![Step::Status(15), Step::ExpectNeedsReset],
            revive(),
        ],
    );
    list.only(Transport::Mmio);
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&RNG, spec, about, parts);
    add(
        "a status with a bit beyond the eighth is ignored",
        vec![
            start(0),
            vec![
                Step::Status(0x100),
                Step::ExpectStatus(15),
                Step::Status(0x8000_0000),
                Step::ExpectStatus(15),
                Step::Status(0x10f),
                Step::ExpectStatus(15),
            ],
            revive(),
        ],
    );
    list.only(None);
}

fn failed(list: &mut List) {
    for (name, steps, status) in states() {
        if name == "given up" {
            continue;
        }
        let about = format!("a driver gives a device up that is {name}: final until the reset");
        let give_up = vec![Step::Status(128), Step::ExpectStatus(status | 128)];
        let on = vec![
            Step::Status(1),
            Step::Status(3),
            Step::Status(11),
            Step::Status(15),
            Step::ExpectStatus(status | 128),
        ];
        list.add(
            &RNG,
            "2.1.1",
            about,
            [
                vec![Step::Reset],
                steps,
                give_up,
                on,
                vec![Step::Reset, Step::ExpectStatus(0)],
                revive(),
            ],
        );
    }
    let with = vec![
        Step::Status(1 | 2 | 128),
        Step::ExpectStatus(128),
        Step::Status(3),
        Step::ExpectStatus(128),
    ];
    list.add(
        &RNG,
        "2.1.1",
        "given up in the same write that says there is a driver",
        [with, revive()],
    );
}

fn features(list: &mut List) {
    let refused = || vec![Step::Status(11), Step::ExpectStatus(3)];
    let accept = |features| vec![Step::Features(features)];
    let spec = "2.2.2";
    let parts = [
        hello(),
        accept(F_EVENT_IDX | F_INDIRECT),
        refused(),
        revive(),
    ];
    list.add(&RNG, "6.1", "everything but VERSION_1 is refused", parts);
    for (bit, name) in [
        (0, "a device's own that this one has not"),
        (23, "the last of the device's own"),
        (24, "NOTIFY_ON_EMPTY, which is legacy"),
        (27, "ANY_LAYOUT, which is legacy"),
        (30, "bit 30, which is nothing"),
        (31, "the last of the first page"),
        (33, "ACCESS_PLATFORM"),
        (34, "RING_PACKED"),
        (35, "IN_ORDER"),
        (36, "ORDER_PLATFORM"),
        (37, "SR_IOV"),
        (38, "NOTIFICATION_DATA"),
        (39, "NOTIF_CONFIG_DATA"),
        (40, "RING_RESET"),
        (50, "the first of the device's second range"),
        (63, "the last of 64"),
    ] {
        let bit = 1_u64 << bit;
        let offered = vec![Step::ExpectOffered {
            mask: bit,
            value: 0,
        }];
        let about = format!("{name} is not offered, and refused when it is accepted");
        list.add(
            &RNG,
            spec,
            about,
            [
                hello(),
                offered,
                accept(F_VERSION_1 | bit),
                refused(),
                revive(),
            ],
        );
    }
    for (wanted, name) in [
        (0, "nothing but VERSION_1"),
        (F_INDIRECT, "indirect descriptors alone"),
        (F_EVENT_IDX, "event indices alone"),
        (F_INDIRECT | F_EVENT_IDX, "both features of rings"),
    ] {
        let parts = [agree(wanted), vec![Step::Ring(0)], works(), revive()];
        list.add(
            &RNG,
            spec,
            format!("a driver that accepts {name} is served"),
            parts,
        );
    }
    let both = F_VERSION_1 | F_INDIRECT | F_EVENT_IDX;
    let offered = |status: Vec<Step>| {
        [
            status,
            vec![Step::ExpectOffered {
                mask: both,
                value: both,
            }],
            revive(),
        ]
    };
    for (name, steps, _) in states() {
        let about = format!("the features offered read the same when the device is {name}");
        list.add(
            &RNG,
            "2.2.1",
            about,
            offered([vec![Step::Reset], steps].concat()),
        );
    }
    let parts = [
        hello(),
        accept(F_VERSION_1 | 1 << 40),
        refused(),
        accept(F_VERSION_1),
        vec![Step::Status(11), Step::ExpectStatus(11), Step::Ring(0)],
        works(),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "a driver that asks for less after a refusal is served",
        parts,
    );
    let parts = [
        agree(0),
        accept(F_VERSION_1 | F_INDIRECT),
        vec![Step::Ring(0), Step::Status(15)],
        vec![d(0, buffer(0x100), 16, INDIRECT, 0)],
        vec![Step::Publish(0, 0), Step::Kick(0)],
        latched(),
    ];
    list.add(
        &RNG,
        spec,
        "a feature accepted after the agreement is not there",
        parts,
    );
    let parts = [
        agree(F_INDIRECT),
        accept(F_VERSION_1),
        vec![Step::Ring(0), Step::Status(15)],
        vec![
            d(0, buffer(0x100), 16, INDIRECT, 0),
            super::t(buffer(0x100), 0, buffer(0), 8, WRITE, 0),
        ],
        vec![Step::Publish(0, 0), Step::Kick(0)],
        used(&[(0, 8)]),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "a feature given back after the agreement is still there",
        parts,
    );
    let parts = [
        vec![Step::Reset, Step::Status(1)],
        accept(F_VERSION_1),
        vec![Step::Status(3)],
        refused(),
        revive(),
    ];
    list.add(
        &RNG,
        "3.1.1",
        "features accepted before there is a driver are not there",
        parts,
    );
    let parts = [
        start(0),
        vec![Step::Reset, Step::Status(1), Step::Status(3)],
        refused(),
        revive(),
    ];
    list.add(&RNG, "2.4", "a reset forgets what was accepted", parts);
}

fn pages(list: &mut List) {
    let spec = "4.2.2";
    let write = |register, value| Step::Write(register, value);
    let select = |page| write(Register::DriverFeatureSelect, page);
    let accept = |value| write(Register::DriverFeatures, value);
    let good = || vec![select(1), accept(1)];
    let taken = || vec![Step::Status(11), Step::ExpectStatus(11)];
    let refused = || vec![Step::Status(11), Step::ExpectStatus(3)];
    for (page, name) in [
        (2, "the third page"),
        (7, "a later page"),
        (u32::MAX, "the last page"),
    ] {
        let alien = vec![select(page), accept(1)];
        let parts = [hello(), good(), alien, refused(), revive()];
        list.add(
            &RNG,
            spec,
            format!("a feature accepted in {name} of 32 is refused"),
            parts,
        );
        let nothing = vec![select(page), accept(0)];
        let parts = [hello(), good(), nothing, taken(), revive()];
        list.add(
            &RNG,
            spec,
            format!("nothing accepted in {name} of 32 is nothing"),
            parts,
        );
        let read = vec![
            write(Register::DeviceFeatureSelect, page),
            Step::Expect(Register::DeviceFeatures, 0),
        ];
        list.add(
            &RNG,
            spec,
            format!("{name} of 32 offers nothing"),
            [hello(), read, revive()],
        );
    }
    let parts = [
        hello(),
        vec![select(1), accept(0xffff), accept(1)],
        taken(),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "the last write of a page of features counts",
        parts,
    );
    let parts = [
        hello(),
        vec![
            select(1),
            accept(1),
            select(0),
            accept(0x3000_0000),
            select(1),
            accept(1),
        ],
        taken(),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "pages of features keep each other's bits",
        parts,
    );
    let parts = [
        hello(),
        vec![accept(1)],
        refused(),
        vec![select(1), accept(1), select(0), accept(0)],
        taken(),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "after a reset the first page of features is selected",
        parts,
    );
    let parts = [
        hello(),
        vec![write(Register::DeviceFeatureSelect, 1), select(0)],
        vec![Step::Expect(Register::DeviceFeatures, 1)],
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "what is selected to read and to write are two things",
        parts,
    );
}

/// What registers do in each state of the device.
fn phases(list: &mut List) {
    for (name, steps, status) in states() {
        let begin = || [vec![Step::Reset], steps.clone()].concat();
        let set_up = status == 11 && !name.contains("queue");
        // A queue other than the one that is set up there, if the subject had it.
        let describe = vec![
            Step::Queue {
                queue: 0,
                size: 8,
                descriptors: TABLE,
                available: AVAILABLE,
                used: USED,
            },
            Step::Enable(0),
        ];
        if !name.contains("queue") && status & 4 == 0 {
            let what = if set_up { "is taken" } else { "is ignored" };
            let about = format!("a queue handed over to a device that is {name} {what}");
            let parts = [
                begin(),
                describe,
                vec![Step::ExpectEnabled(0, set_up), Step::ExpectStatus(status)],
                revive(),
            ];
            list.add(&RNG, "3.1.1", about, parts);
        }
        if status & 4 == 0 {
            let about = format!("a doorbell of a device that is {name} does nothing");
            let quiet = vec![
                Step::Kick(0),
                Step::Settle,
                Step::ExpectStatus(status),
                Step::ExpectReasons(0),
                Step::ExpectInterrupt(false),
            ];
            list.add(&RNG, "2.1.2", about, [begin(), quiet, revive()]);
        }
        let about = format!("configuration written to a device that is {name} stays what it is");
        let config = vec![
            Step::WriteConfig(0, Width::Dword, 0xffff_ffff),
            Step::WriteConfig(0x20, Width::Byte, 0xff),
            Step::Settle,
            Step::ExpectConfig(0, Width::Dword, 0),
            Step::ExpectStatus(status),
        ];
        list.add(&RNG, "2.5", about, [begin(), config, revive()]);
        let about = format!("a device that is {name} is reset and starts");
        let fresh = vec![
            Step::Reset,
            Step::ExpectStatus(0),
            Step::ExpectEnabled(0, false),
            Step::ExpectReasons(0),
        ];
        list.add(&RNG, "2.4", about, [begin(), fresh, revive()]);
    }
    let early = [
        agree(0),
        vec![Step::Ring(0)],
        request(0, 0, &[(buffer(0), 8, true)]),
    ]
    .concat();
    let nothing = vec![Step::ExpectUsed(0, vec![]), Step::ExpectReasons(0)];
    let ready = vec![Step::Status(15)];
    let parts = [
        early.clone(),
        nothing.clone(),
        ready.clone(),
        used(&[(0, 8)]),
        vec![Step::ExpectReasons(1)],
        revive(),
    ];
    list.add(
        &RNG,
        "2.1.2",
        "a request before the driver is ready waits, and is answered then",
        parts,
    );
    let silent = [
        agree(0),
        vec![Step::Ring(0)],
        chain(0, 0, &[(buffer(0), 8, true)]),
        vec![Step::Publish(0, 0)],
    ]
    .concat();
    let parts = [silent, ready.clone(), used(&[(0, 8)]), revive()];
    list.add(
        &RNG,
        "2.1.2",
        "a request published before the driver is ready needs no doorbell",
        parts,
    );
    let parts = [
        early,
        vec![
            Step::Reset,
            Step::Status(1),
            Step::Status(3),
            Step::Features(F_VERSION_1),
            Step::Status(11),
            Step::Status(15),
            Step::ExpectNeedsReset,
        ],
        revive(),
    ];
    list.add(
        &RNG,
        "2.4",
        "an early request of before a reset is nothing after it",
        parts,
    );
    let broken = [
        agree(0),
        vec![
            Step::Ring(0),
            Step::AvailableIndex(0, 0x4000),
            Step::Kick(0),
        ],
        nothing,
        ready,
        vec![Step::ExpectNeedsReset],
        revive(),
    ];
    list.add(
        &RNG,
        "2.1.2",
        "a broken ring is found when the driver is ready, not before",
        broken,
    );
}

fn set(queue: u16, size: u32, [descriptors, available, used]: [At; 3]) -> Vec<Step> {
    vec![
        Step::Queue {
            queue,
            size,
            descriptors,
            available,
            used,
        },
        Step::Enable(queue),
    ]
}

fn queues(list: &mut List) {
    let areas = [TABLE, AVAILABLE, USED];
    let enabled = |on| vec![Step::ExpectEnabled(0, on)];
    let max = |queue, max| {
        vec![
            Step::Write(Register::QueueSelect, queue),
            Step::Expect(Register::QueueMax, max),
        ]
    };
    let spec = "4.2.3.2";
    list.add(
        &RNG,
        spec,
        "a queue that does not exist has no size",
        [hello(), max(1, 0), revive()],
    );
    list.add(
        &RNG,
        spec,
        "queue number 0xffff has no size",
        [hello(), max(0xffff, 0), revive()],
    );
    let parts = [
        agree(0),
        set(1, 16, areas),
        vec![Step::ExpectEnabled(1, false)],
        enabled(false),
        vec![Step::Ring(0)],
        works(),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "a queue that does not exist cannot be handed over",
        parts,
    );
    let parts = [
        agree(0),
        set(0xffff, 16, areas),
        vec![Step::ExpectEnabled(0xffff, false)],
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "queue number 0xffff cannot be handed over",
        parts,
    );
    let parts = [
        agree(0),
        vec![Step::Queue {
            queue: 0,
            size: 16,
            descriptors: TABLE,
            available: AVAILABLE,
            used: USED,
        }],
        vec![
            Step::Write(Register::QueueSelect, 5),
            Step::Write(Register::QueueEnable, 1),
        ],
        enabled(false),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "a queue is handed over by its own number only",
        parts,
    );
    let twice = [
        agree(0),
        set(0, 16, areas),
        vec![Step::Write(Register::QueueEnable, 1)],
        enabled(true),
        works(),
        revive(),
    ];
    list.add(&RNG, spec, "handed over twice is handed over", twice);
    let wrong_then_right = [
        agree(0),
        set(0, 7, areas),
        enabled(false),
        set(0, 16, areas),
        enabled(true),
        works(),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "a queue that was refused may be set up again",
        wrong_then_right,
    );
    let moved = [
        agree(0),
        vec![Step::Queue {
            queue: 0,
            size: 8,
            descriptors: buffer(0x1000),
            available: buffer(0x2000),
            used: buffer(0x3000),
        }],
        set(0, 16, areas),
        enabled(true),
        works(),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "the last description of a queue before it is handed over counts",
        moved,
    );
    let never = [
        agree(0),
        vec![
            Step::Write(Register::QueueSelect, 0),
            Step::Write(Register::QueueEnable, 1),
        ],
        enabled(false),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "a queue that was never described is refused",
        never,
    );
    let only_high = [
        agree(0),
        vec![
            Step::Queue {
                queue: 0,
                size: 16,
                descriptors: TABLE,
                available: AVAILABLE,
                used: USED,
            },
            Step::Write(Register::DescriptorsHigh, 1),
            Step::Enable(0),
        ],
        enabled(false),
        revive(),
    ];
    list.add(&RNG, spec, "the high half of an address counts", only_high);
    list.only(Transport::Mmio);
    for (value, on) in [
        (2, false),
        (3, true),
        (0x8000_0000, false),
        (u32::MAX, true),
    ] {
        let steps = vec![
            Step::Queue {
                queue: 0,
                size: 16,
                descriptors: TABLE,
                available: AVAILABLE,
                used: USED,
            },
            Step::Write(Register::QueueEnable, value),
        ];
        let about = format!("of {value:#x} in QueueReady the first bit counts");
        list.add(
            &RNG,
            "4.2.2",
            about,
            [agree(0), steps, enabled(on), revive()],
        );
    }
    for select in [0x1_0000_u32, u32::MAX] {
        let about = format!("queue number {select:#x} is not queue 0");
        let steps = vec![
            Step::Write(Register::QueueSelect, select),
            Step::Expect(Register::QueueMax, 0),
            Step::Expect(Register::QueueEnable, 0),
        ];
        list.add(&RNG, "4.2.2", about, [hello(), steps, revive()]);
    }
    list.only(Transport::Pci);
    for value in [0_u32, 2, 3, 0xffff] {
        let steps = vec![
            Step::Queue {
                queue: 0,
                size: 16,
                descriptors: TABLE,
                available: AVAILABLE,
                used: USED,
            },
            Step::Write(Register::QueueEnable, value),
        ];
        let about = format!("{value:#x} in queue_enable hands nothing over");
        list.add(
            &RNG,
            "4.1.4.3.2",
            about,
            [agree(0), steps, enabled(false), revive()],
        );
    }
    let keep = [
        agree(0),
        set(0, 16, areas),
        vec![Step::Write(Register::QueueEnable, 0)],
        enabled(true),
        works(),
        revive(),
    ];
    list.add(
        &RNG,
        "4.1.4.3.2",
        "0 in queue_enable does not take a queue back",
        keep,
    );
    let running = [
        start(0),
        vec![Step::Write(Register::QueueEnable, 0)],
        enabled(true),
        request(0, 0, &[(buffer(0), 8, true)]),
        used(&[(0, 8)]),
        revive(),
    ];
    list.add(
        &RNG,
        "4.1.4.3.2",
        "0 in queue_enable does not take the queue of a running device back",
        running,
    );
    list.only(None);
}

fn bad_queues(list: &mut List) {
    let good = [TABLE, AVAILABLE, USED];
    let refused = |list: &mut List, about: String, size: u32, areas: [At; 3]| {
        let parts = [
            agree(0),
            set(0, size, areas),
            vec![Step::ExpectEnabled(0, false), Step::ExpectStatus(11)],
            vec![Step::Ring(0)],
            works(),
            revive(),
        ];
        list.add(&RNG, "2.7", format!("{about}: refused"), parts);
    };
    for size in [0_u32, 3, 12, 15, 17, 48, 0x8000, 0xffff] {
        refused(list, format!("a queue of {size} entries"), size, good);
    }
    for (name, areas) in [
        (
            "a descriptor table off by 8",
            [TABLE.plus(8), AVAILABLE, USED],
        ),
        (
            "a descriptor table off by 1",
            [TABLE.plus(1), AVAILABLE, USED],
        ),
        (
            "an available ring off by 1",
            [TABLE, AVAILABLE.plus(1), USED],
        ),
        ("a used ring off by 2", [TABLE, AVAILABLE, USED.plus(2)]),
        ("a used ring off by 1", [TABLE, AVAILABLE, USED.plus(1)]),
        ("a descriptor table at zero", [At::Raw(0), AVAILABLE, USED]),
        ("an available ring at zero", [TABLE, At::Raw(0), USED]),
        ("a used ring at zero", [TABLE, AVAILABLE, At::Raw(0)]),
        (
            "a descriptor table where no memory is",
            [At::Hole(0), AVAILABLE, USED],
        ),
        (
            "an available ring where no memory is",
            [TABLE, At::Hole(0), USED],
        ),
        (
            "a used ring where no memory is",
            [TABLE, AVAILABLE, At::Hole(0)],
        ),
        (
            "a descriptor table over the end of memory",
            [At::Hole(-16), AVAILABLE, USED],
        ),
        (
            "an available ring whose event index is beyond memory",
            [TABLE, At::Hole(-36), USED],
        ),
        (
            "a used ring whose event index is beyond memory",
            [TABLE, AVAILABLE, At::Hole(-132)],
        ),
        (
            "a descriptor table at the end of the address space",
            [At::Raw(u64::MAX - 15), AVAILABLE, USED],
        ),
        (
            "an available ring at the end of the address space",
            [TABLE, At::Raw(u64::MAX - 1), USED],
        ),
        (
            "a used ring at the end of the address space",
            [TABLE, AVAILABLE, At::Raw(u64::MAX - 3)],
        ),
        (
            "a descriptor table in the device's registers",
            [At::Window(0), AVAILABLE, USED],
        ),
        (
            "a used ring in the device's registers",
            [TABLE, AVAILABLE, At::Window(0x100)],
        ),
        (
            "an available ring on the descriptor table",
            [TABLE, TABLE, USED],
        ),
        (
            "an available ring within the descriptor table",
            [TABLE, TABLE.plus(254), USED],
        ),
        (
            "a used ring on the descriptor table",
            [TABLE, AVAILABLE, TABLE],
        ),
        (
            "a used ring on the available ring's event index",
            [TABLE, AVAILABLE, AVAILABLE.plus(36)],
        ),
        (
            "an available ring on the used ring's event index",
            [TABLE, USED.plus(132), USED],
        ),
        (
            "a descriptor table that begins in the used ring",
            [USED.plus(128), AVAILABLE, USED],
        ),
        ("all three areas in one place", [TABLE, TABLE, TABLE]),
    ] {
        refused(list, name.into(), 16, areas);
    }
    list.only(Transport::Mmio);
    for size in [0x1_0000_u32, 0x1_0010, 0x8000_0000, u32::MAX] {
        refused(list, format!("a queue of {size:#x} entries"), size, good);
    }
    list.only(None);
    let parts = [
        agree(0),
        set(0, 256, good),
        vec![Step::ExpectEnabled(0, false)],
        revive(),
    ];
    list.add(
        &RNG,
        "2.7",
        "a queue larger than the device's largest: refused",
        parts,
    );
    let parts = [
        agree(0),
        set(0, 512, good),
        vec![Step::ExpectEnabled(0, false)],
        revive(),
    ];
    list.add(
        &BLOCK,
        "2.7",
        "a queue twice as large as the device's largest: refused",
        parts,
    );
}

fn frozen(list: &mut List) {
    for (register, name) in [
        (Register::QueueSize, "size"),
        (
            Register::DescriptorsLow,
            "low half of the descriptor table's address",
        ),
        (
            Register::DescriptorsHigh,
            "high half of the descriptor table's address",
        ),
        (
            Register::AvailableLow,
            "low half of the available ring's address",
        ),
        (
            Register::AvailableHigh,
            "high half of the available ring's address",
        ),
        (Register::UsedLow, "low half of the used ring's address"),
        (Register::UsedHigh, "high half of the used ring's address"),
    ] {
        let write = || {
            vec![
                Step::Write(Register::QueueSelect, 0),
                Step::Write(register, 4),
            ]
        };
        let parts = [
            agree(0),
            vec![Step::Ring(0)],
            write(),
            vec![Step::ExpectEnabled(0, true)],
            works(),
            revive(),
        ];
        list.add(
            &RNG,
            "4.2.2.2",
            format!("the {name} of a queue that is handed over stays"),
            parts,
        );
        let parts = [
            start(0),
            write(),
            request(0, 0, &[(buffer(0), 8, true)]),
            used(&[(0, 8)]),
            revive(),
        ];
        list.add(
            &RNG,
            "4.2.2.2",
            format!("the {name} of a running queue stays"),
            parts,
        );
    }
    list.only(Transport::Mmio);
    let back = || {
        vec![
            Step::Write(Register::QueueSelect, 0),
            Step::Write(Register::QueueEnable, 0),
            Step::Expect(Register::QueueEnable, 0),
        ]
    };
    let spec = "4.2.2.2";
    let one = || request(0, 0, &[(buffer(0), 8, true)]);
    let nothing = || vec![Step::ExpectUsed(0, vec![]), Step::ExpectInterrupt(false)];
    list.add(
        &RNG,
        spec,
        "a queue taken back before the driver is ready may be set up anew",
        [
            agree(0),
            vec![Step::Ring(0)],
            back(),
            vec![Step::Ring(0)],
            works(),
            revive(),
        ],
    );
    list.add(
        &RNG,
        spec,
        "a queue taken back from a running device takes no more requests",
        [
            start(0),
            back(),
            one(),
            nothing(),
            vec![Step::ExpectStatus(15)],
            revive(),
        ],
    );
    list.add(
        &RNG,
        spec,
        "a running device's queue cannot be handed over again before a reset",
        [
            start(0),
            back(),
            vec![
                Step::Write(Register::QueueEnable, 1),
                Step::Expect(Register::QueueEnable, 0),
            ],
            one(),
            nothing(),
            revive(),
        ],
    );
    list.add(
        &RNG,
        spec,
        "a queue taken back twice",
        [start(0), back(), back(), one(), nothing(), revive()],
    );
    let other = vec![
        Step::Write(Register::QueueSelect, 3),
        Step::Write(Register::QueueEnable, 0),
    ];
    list.add(
        &RNG,
        spec,
        "a queue that does not exist is taken back",
        [start(0), other, one(), used(&[(0, 8)]), revive()],
    );
    list.add(
        &RNG,
        spec,
        "a queue that is out of service is taken back",
        [
            start(0),
            vec![
                Step::AvailableIndex(0, 0x4000),
                Step::Kick(0),
                Step::ExpectNeedsReset,
            ],
            back(),
            vec![Step::ExpectStatus(15 | 64)],
            revive(),
        ],
    );
    list.only(None);
}

fn resets(list: &mut List) {
    let spec = "2.4.1";
    let one = || request(0, 0, &[(buffer(0), 8, true)]);
    let reset = || vec![Step::Reset];
    let quiet = || {
        vec![
            Step::Settle,
            Step::ExpectReasons(0),
            Step::ExpectInterrupt(false),
            Step::ExpectStatus(0),
        ]
    };
    let told = || vec![Step::ExpectInterrupt(true)];
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&RNG, spec, about, parts);
    add("a fresh device is reset", vec![reset(), quiet(), revive()]);
    add(
        "two resets, one after the other",
        vec![start(0), reset(), reset(), quiet(), revive()],
    );
    add(
        "a hundred resets",
        vec![(0..100).map(|_| Step::Reset).collect(), quiet(), revive()],
    );
    add(
        "twenty starts and resets",
        vec![
            (0..20).flat_map(|_| [start(0), reset()].concat()).collect(),
            revive(),
        ],
    );
    add(
        "an interrupt that was not taken away is gone after a reset",
        vec![
            start(0),
            one(),
            used(&[(0, 8)]),
            told(),
            reset(),
            quiet(),
            revive(),
        ],
    );
    add(
        "a need of a reset is gone after it",
        vec![
            start(0),
            vec![
                Step::AvailableIndex(0, 0x4000),
                Step::Kick(0),
                Step::ExpectNeedsReset,
            ],
            told(),
            reset(),
            quiet(),
            revive(),
        ],
    );
    add(
        "a reset right after a request was rung for",
        vec![
            start(0),
            one(),
            reset(),
            vec![Step::Status(1), Step::ExpectStatus(1)],
            revive(),
        ],
    );
    add(
        "a doorbell after a reset, with a request in the old ring",
        vec![
            start(0),
            chain(0, 0, &[(buffer(0), 8, true)]),
            vec![Step::Publish(0, 0)],
            reset(),
            vec![Step::Kick(0)],
            quiet(),
            vec![Step::ExpectMemory(USED, vec![0; 16])],
            revive(),
        ],
    );
    add(
        "a request of before a reset in the same rings, handed over again, is answered once",
        vec![
            start(0),
            chain(0, 0, &[(buffer(0), 8, true)]),
            vec![Step::Publish(0, 0)],
            agree(0),
            set(0, 16, [TABLE, AVAILABLE, USED]),
            vec![Step::Status(15)],
            used(&[(0, 8)]),
            revive(),
        ],
    );
    let far = [buffer(0x5000), buffer(0x6000), buffer(0x7000)];
    let after = [
        request(0, 0, &[(buffer(0), 8, true)]),
        used(&[(0, 8)]),
        vec![Step::ExpectMemory(USED, vec![0, 0, 1, 0])],
    ]
    .concat();
    add(
        "rings in another place after a reset: the old ones stay as they are",
        vec![
            start(0),
            one(),
            used(&[(0, 8)]),
            agree(0),
            set(0, 16, far),
            vec![Step::Status(15)],
            after,
            revive(),
        ],
    );
    add(
        "other features after a reset",
        vec![
            start(F_EVENT_IDX),
            one(),
            used(&[(0, 8)]),
            start(0),
            one(),
            used(&[(0, 8)]),
            told(),
            revive(),
        ],
    );
    add(
        "a smaller queue after a reset",
        vec![
            start(0),
            agree(0),
            set(0, 2, [TABLE, AVAILABLE, USED]),
            works(),
            revive(),
        ],
    );
    add(
        "a reset takes a queue back",
        vec![
            agree(0),
            vec![Step::Ring(0)],
            reset(),
            vec![Step::ExpectEnabled(0, false)],
            agree(0),
            vec![Step::ExpectEnabled(0, false)],
            revive(),
        ],
    );
    add(
        "a reset forgets how a queue was described",
        vec![
            agree(0),
            vec![Step::Queue {
                queue: 0,
                size: 16,
                descriptors: TABLE,
                available: AVAILABLE,
                used: USED,
            }],
            agree(0),
            vec![Step::Enable(0), Step::ExpectEnabled(0, false)],
            revive(),
        ],
    );
    add(
        "indices begin at zero after a reset",
        vec![
            start(0),
            one(),
            used(&[(0, 8)]),
            one(),
            used(&[(0, 8)]),
            start(0),
            one(),
            used(&[(0, 8)]),
            revive(),
        ],
    );
}

fn reasons(list: &mut List) {
    let one = || [request(0, 0, &[(buffer(0), 8, true)]), used(&[(0, 8)])].concat();
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&RNG, "4.2.2", about, parts);
    add(
        "no reason before anything happened",
        vec![start(0), vec![Step::ExpectReasons(0)], revive()],
    );
    add(
        "used buffers are a reason until it is taken away",
        vec![
            start(0),
            one(),
            vec![Step::ExpectReasons(1), Step::ExpectReasons(0)],
            revive(),
        ],
    );
    add(
        "three requests are one reason",
        vec![
            start(0),
            one(),
            one(),
            one(),
            vec![Step::ExpectReasons(1), Step::ExpectReasons(0)],
            revive(),
        ],
    );
    add(
        "a reason comes again with the next request",
        vec![
            start(0),
            one(),
            vec![Step::ExpectReasons(1)],
            one(),
            vec![Step::ExpectReasons(1)],
            revive(),
        ],
    );
    add(
        "used buffers and a need of a reset are both reasons",
        vec![
            start(0),
            one(),
            vec![
                Step::AvailableIndex(0, 0x4000),
                Step::Kick(0),
                Step::ExpectNeedsReset,
                Step::ExpectReasons(3),
            ],
            revive(),
        ],
    );
    add(
        "the generation stays as long as nothing changes",
        vec![
            start(0),
            vec![Step::Expect(Register::ConfigGeneration, 0)],
            one(),
            vec![Step::Expect(Register::ConfigGeneration, 0)],
            revive(),
        ],
    );
    list.only(Transport::Mmio);
    let acknowledge = |value| {
        vec![Step::RawWrite(
            crate::Region::Window,
            0x64,
            Width::Dword,
            value,
        )]
    };
    let status = |value| {
        vec![Step::RawExpect {
            region: crate::Region::Window,
            offset: 0x60,
            width: Width::Dword,
            mask: u64::MAX,
            value,
        }]
    };
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&RNG, "4.2.2", about, parts);
    add(
        "another reason taken away leaves the one there is",
        vec![start(0), one(), acknowledge(2), status(1), revive()],
    );
    add(
        "nothing taken away leaves the reason",
        vec![start(0), one(), acknowledge(0), status(1), revive()],
    );
    add(
        "unknown reasons taken away leave the one there is",
        vec![
            start(0),
            one(),
            acknowledge(0xffff_fffe),
            status(1),
            acknowledge(u32::MAX.into()),
            status(0),
            revive(),
        ],
    );
    add(
        "a reason taken away before there is any does not prevent it",
        vec![start(0), acknowledge(3), one(), status(1), revive()],
    );
    add(
        "reading the reasons takes none away",
        vec![start(0), one(), status(1), status(1), revive()],
    );
    list.only(Transport::Pci);
    let isr = |value| {
        vec![Step::RawExpect {
            region: crate::Region::Isr,
            offset: 0,
            width: Width::Byte,
            mask: u64::MAX,
            value,
        }]
    };
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&RNG, "4.1.4.5", about, parts);
    add(
        "reading the reasons takes them away",
        vec![
            start(0),
            one(),
            vec![Step::Settle],
            isr(1),
            isr(0),
            revive(),
        ],
    );
    add(
        "writing the reasons changes nothing",
        vec![
            start(0),
            one(),
            vec![
                Step::Settle,
                Step::RawWrite(crate::Region::Isr, 0, Width::Byte, 0xff),
            ],
            isr(1),
            revive(),
        ],
    );
    list.only(None);
}
