//! What a driver may do to a balloon (virtio 1.2, 5.5).
//!
//! Page numbers name guest-physical addresses, so these rows are for this process only, where a
//! row's memory begins at address zero.

use std::time::Duration;

use devices::Width;
use devices::virtio::balloon::{Balloon, Settings};
use devices::virtio::{BalloonCommand, DeviceCommand};

use super::{F_VERSION_1, List, Piece, buffer, request, revive, start};
use crate::step::{At, FIRST_RING, Fixture, Host, Row, Step, Subject};

const F_STATS: u64 = 1 << 1;
const F_HINTS: u64 = 1 << 3;
const F_POISON: u64 = 1 << 4;
const F_REPORTS: u64 = 1 << 5;
const ALL: u64 = F_STATS | F_HINTS | F_POISON | F_REPORTS;

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATISTICS: u16 = 2;
const HINTS: u16 = 3;
const REPORTS: u16 = 4;

/// A balloon with all that there is, in a machine of 3 MiB.
pub static BALLOON: Subject = Subject {
    name: "balloon",
    queues: 5,
    features: F_VERSION_1 | ALL,
    make: || {
        let settings = Settings {
            memory_bytes: 3 << 20,
            target_bytes: 0,
            deflate_on_oom: true,
            statistics_every: Duration::ZERO,
            reporting: true,
            hinting: true,
        };
        Fixture::alone(Balloon::new(settings).expect("a timer"))
    },
    good: || {
        let mut steps = vec![Step::Fill(At::Memory(0x9_0000), 4096, 0xaa)];
        steps.extend(give(INFLATE, 0, &[0x90]));
        steps.push(Step::ExpectMemory(At::Memory(0x9_0000), vec![0; 4096]));
        steps
    },
    boot: None,
};

/// All rows of this device.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("balloon");
    pages(&mut list);
    lists(&mut list);
    rings(&mut list);
    configuration(&mut list);
    targets(&mut list);
    statistics(&mut list);
    free_pages(&mut list);
    hints(&mut list);
    list.rows()
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// A request that comes back.
fn returns(queue: u16, head: u16, pieces: &[Piece]) -> Vec<Step> {
    let mut steps = request(queue, head, pieces);
    steps.push(Step::ExpectUsed(queue, vec![(head, 0)]));
    steps
}

/// Sends page numbers, which come back.
fn give(queue: u16, head: u16, numbers: &[u32]) -> Vec<Step> {
    let bytes = words(numbers);
    let len = u32::try_from(bytes.len()).expect("small");
    let mut steps = vec![Step::Memory(buffer(0), bytes)];
    steps.extend(returns(queue, head, &[(buffer(0), len, false)]));
    steps
}

/// Page numbers of every kind, in both directions; what is no memory of the guest stays.
fn pages(list: &mut List) {
    let full = |number: u32| Step::Fill(At::Memory(u64::from(number) << 12), 4096, 0xaa);
    let holds = |number: u32, byte: u8| {
        Step::ExpectMemory(At::Memory(u64::from(number) << 12), vec![byte; 4096])
    };
    let many: Vec<u32> = (0x90..0xa0).collect();
    let down: Vec<u32> = many.iter().rev().copied().collect();
    let cases: [(&str, Vec<u32>, Vec<u32>); 12] = [
        ("a page", vec![0x90], vec![0x90]),
        ("a page twice in one list", vec![0x90, 0x90], vec![0x90]),
        ("pages upwards", many.clone(), many),
        ("pages downwards", down.clone(), down),
        ("two pages apart", vec![0x90, 0x9f], vec![0x90, 0x9f]),
        (
            "the last page before the seam and the first after it",
            vec![0x100, 0xff],
            vec![0xff],
        ),
        ("the first page that is no memory", vec![0x200], vec![]),
        ("a page far beyond memory", vec![0x000f_ffff], vec![]),
        ("the largest page number", vec![u32::MAX], vec![]),
        ("a page of a device's window", vec![0x000d_0000], vec![]),
        (
            "the page of the local interrupt controllers",
            vec![0x000f_ee00],
            vec![],
        ),
        (
            "a good page between bad ones",
            vec![0x200, 0x90, u32::MAX],
            vec![0x90],
        ),
    ];
    for (queue, verb) in [(INFLATE, "given"), (DEFLATE, "taken back")] {
        for (name, numbers, gone) in &cases {
            let steps = [
                start(ALL),
                (0x90..0xa0).chain([0xff]).map(full).collect(),
                give(queue, 0, numbers),
                (0x90..0xa0)
                    .chain([0xff])
                    .map(|n| {
                        holds(
                            n,
                            if queue == INFLATE && gone.contains(&n) {
                                0
                            } else {
                                0xaa
                            },
                        )
                    })
                    .collect(),
                revive(),
            ];
            list.add(&BALLOON, "5.5.6.1", format!("{name}, {verb}"), steps);
        }
    }
    let again = [
        start(ALL),
        vec![full(0x90)],
        give(INFLATE, 0, &[0x90]),
        vec![full(0x90)],
        give(INFLATE, 1, &[0x90]),
        vec![holds(0x90, 0xaa)],
        give(DEFLATE, 0, &[0x90]),
        give(INFLATE, 2, &[0x90]),
        vec![holds(0x90, 0)],
        revive(),
    ];
    let about = "a page that is in the balloon already stays as it is, until it is taken back";
    list.add(&BALLOON, "5.5.6.1", about, again);
    let reset = [
        start(ALL),
        give(INFLATE, 0, &[0x90]),
        start(ALL),
        vec![full(0x90)],
        give(INFLATE, 0, &[0x90]),
        vec![holds(0x90, 0)],
        revive(),
    ];
    list.add(&BALLOON, "5.5.6.1", "a reset empties the balloon", reset);
}

/// Lists of page numbers of every shape.
fn lists(list: &mut List) {
    let spec = "5.5.6";
    for (queue, name) in [(INFLATE, "to give"), (DEFLATE, "to take back")] {
        for len in [0_u32, 1, 2, 3, 5, 7] {
            let about = format!("a list of {len} bytes {name}");
            let send = returns(queue, 0, &[(buffer(0), len, false)]);
            list.add(&BALLOON, spec, about, [start(ALL), send, revive()]);
        }
        let room = returns(queue, 0, &[(buffer(0), 64, true)]);
        let kept = vec![Step::ExpectMemory(buffer(0), vec![0; 64])];
        let about = format!("a list that the device is to write, {name}");
        list.add(&BALLOON, spec, about, [start(ALL), room, kept, revive()]);
        let both = returns(queue, 0, &[(buffer(0), 4, false), (buffer(64), 64, true)]);
        let about = format!("a list with room behind it, {name}");
        list.add(&BALLOON, spec, about, [start(ALL), both, revive()]);
        let large = returns(queue, 0, &[(buffer(0), 0x4_0000, false)]);
        let about = format!("a list of 65536 pages {name}");
        list.add(&BALLOON, spec, about, [start(ALL), large, revive()]);
        let bytes: Vec<Piece> = (0..8).map(|n| (buffer(n * 16), 1, false)).collect();
        let about = format!("numbers whose bytes are each somewhere else, {name}");
        list.add(
            &BALLOON,
            spec,
            about,
            [start(ALL), returns(queue, 0, &bytes), revive()],
        );
    }
}

/// Pages that the device itself works with (faults.md, 97).
fn rings(list: &mut List) {
    let page = |at: u64| u32::try_from(at >> 12).expect("small");
    for (name, at) in [
        ("its own descriptor table", FIRST_RING),
        ("its own used ring", FIRST_RING + 0x2000),
        ("the list itself", 0x8_0000),
    ] {
        let about = format!("{name} is given away");
        let steps = [start(ALL), give(INFLATE, 0, &[page(at)]), revive()];
        list.add(&BALLOON, "5.5.6.1", about, steps);
    }
    let numbers = vec![Step::Memory(buffer(0), words(&[page(FIRST_RING + 0x1000)]))];
    let steps = [
        start(ALL),
        numbers,
        request(INFLATE, 0, &[(buffer(0), 4, false)]),
        vec![Step::ExpectNeedsReset],
        revive(),
    ];
    let about = "its own available ring is given away: its index has jumped back";
    list.add(&BALLOON, "2.7.6", about, steps);
}

fn configuration(list: &mut List) {
    let spec = "5.5.4";
    let all = || vec![Step::Start(F_VERSION_1 | ALL)];
    for (about, offset, width, value, read) in [
        (
            "the driver says how much it gave",
            4,
            Width::Dword,
            0x123,
            0x123,
        ),
        (
            "more than there is",
            4,
            Width::Dword,
            0xffff_ffff,
            0xffff_ffff,
        ),
        ("half of what it gave", 6, Width::Word, 0x55, 0x55),
        ("a byte of what it gave", 7, Width::Byte, 0x7f, 0x7f),
        ("the target is not the driver's", 0, Width::Dword, 0x123, 0),
        (
            "the hinting command is not the driver's",
            8,
            Width::Dword,
            7,
            0,
        ),
        ("two fields at once", 4, Width::Qword, 0x1_0000_0001, 0),
        ("over the edge of a field", 6, Width::Dword, 0x1_0001, 0),
        (
            "the poison, once the device runs",
            12,
            Width::Dword,
            0xaa,
            0xaa,
        ),
        ("beyond the fields", 16, Width::Dword, 0x11, 0),
    ] {
        let write = vec![
            Step::WriteConfig(offset, width, value),
            Step::ExpectConfig(offset, width, read),
        ];
        let about = format!("configuration: {about}");
        list.add(&BALLOON, spec, about, [all(), write, revive()]);
    }
    let early = vec![
        Step::Reset,
        Step::WriteConfig(4, Width::Dword, 5),
        Step::ExpectConfig(4, Width::Dword, 0),
    ];
    let about = "configuration: nothing is taken before there is a driver";
    list.add(&BALLOON, "3.1.1", about, [early, revive()]);
}

fn balloon(host: &Host, command: BalloonCommand) {
    // A command that is refused changes nothing, which the row looks at.
    let _ = host.handle.send(DeviceCommand::Balloon(command));
}

fn targets(list: &mut List) {
    let spec = "5.5.6.1";
    let half = Step::Host("wants 1 MiB", |host| {
        balloon(host, BalloonCommand::Target { bytes: 1 << 20 });
    });
    let told = vec![Step::Settle, Step::ExpectConfig(0, Width::Dword, 256)];
    let steps = [
        start(ALL),
        vec![half.clone()],
        told.clone(),
        vec![Step::ExpectReasons(2)],
        revive(),
    ];
    list.add(
        &BALLOON,
        spec,
        "a new target is told with an interrupt",
        steps,
    );
    let steps = [
        start(ALL),
        vec![
            half.clone(),
            Step::Settle,
            Step::ExpectReasons(2),
            half.clone(),
        ],
        told.clone(),
        vec![Step::ExpectReasons(0)],
        revive(),
    ];
    list.add(&BALLOON, spec, "the same target again is not told", steps);
    let all = Step::Host("wants more than all", |host| {
        let bytes = (3 << 20) + 4096;
        balloon(host, BalloonCommand::Target { bytes });
    });
    let none = vec![
        all,
        Step::Settle,
        Step::ExpectConfig(0, Width::Dword, 0),
        Step::ExpectReasons(0),
    ];
    let about = "a target beyond the memory is refused";
    list.add(&BALLOON, spec, about, [start(ALL), none, revive()]);
    let idle = vec![Step::Reset, half, Step::Settle, Step::ExpectReasons(0)];
    let about = "a target without a driver waits for it";
    let steps = [idle, start(ALL), told, revive()];
    list.add(&BALLOON, spec, about, steps);
}

fn statistics(list: &mut List) {
    let spec = "5.5.6.3.2";
    for len in [0, 1, 9, 10, 11, 160, 640, 641, 65_536] {
        let held = [
            start(ALL),
            request(STATISTICS, 0, &[(buffer(0), len, false)]),
            vec![Step::ExpectUsed(STATISTICS, vec![])],
            revive(),
        ];
        let about = format!("statistics of {len} bytes stay with the device");
        list.add(&BALLOON, spec, about, held);
    }
    let entry = [vec![0xff; 2], vec![0xff; 8]].concat().repeat(20);
    let unknown = [
        start(ALL),
        vec![Step::Memory(buffer(0), entry)],
        request(STATISTICS, 0, &[(buffer(0), 200, false)]),
        vec![Step::ExpectUsed(STATISTICS, vec![])],
        revive(),
    ];
    list.add(&BALLOON, spec, "statistics that nobody knows", unknown);
    let two = [
        start(ALL),
        request(STATISTICS, 0, &[(buffer(0), 10, false)]),
        request(STATISTICS, 1, &[(buffer(16), 10, false)]),
        vec![Step::ExpectUsed(STATISTICS, vec![(0, 0)])],
        request(STATISTICS, 2, &[(buffer(16), 10, true)]),
        vec![Step::ExpectUsed(STATISTICS, vec![(1, 0)])],
        revive(),
    ];
    let about = "a second buffer of statistics sends the first one back";
    list.add(&BALLOON, "5.5.6.3", about, two);
    let off = [
        start(F_REPORTS | F_HINTS),
        request(STATISTICS, 0, &[(buffer(0), 10, false)]),
        vec![Step::ExpectUsed(STATISTICS, vec![])],
        revive(),
    ];
    let about = "statistics without their feature are not taken";
    list.add(&BALLOON, "5.5.2", about, off);
}

fn filled() -> Vec<Step> {
    vec![Step::Fill(buffer(0x1_0000), 0x8000, 0xaa)]
}

fn free_pages(list: &mut List) {
    let spec = "5.5.6.6";
    let at = |offset: u64| buffer(0x1_0000 + offset);
    let zero = |offset, len| Step::ExpectMemory(at(offset), vec![0; len]);
    let full = |offset, len| Step::ExpectMemory(at(offset), vec![0xaa; len]);
    let cases: [(&str, Vec<Piece>, Vec<Step>); 9] = [
        (
            "two free pages",
            vec![(at(0x1000), 0x2000, true)],
            vec![full(0, 0x1000), zero(0x1000, 0x2000), full(0x3000, 0x1000)],
        ),
        (
            "pages apart in one report",
            vec![(at(0), 0x1000, true), (at(0x2000), 0x1000, true)],
            vec![zero(0, 0x1000), full(0x1000, 0x1000), zero(0x2000, 0x1000)],
        ),
        (
            "a report that begins within a page",
            vec![(at(0x800), 0x1800, true)],
            vec![full(0, 0x1000), zero(0x1000, 0x1000)],
        ),
        (
            "a report that ends within a page",
            vec![(at(0), 0x1fff, true)],
            vec![zero(0, 0x1000), full(0x1000, 0x1000)],
        ),
        (
            "a report of less than a page",
            vec![(at(0), 0xfff, true)],
            vec![full(0, 0x1000)],
        ),
        (
            "a report over two pages, none of them whole",
            vec![(at(0x800), 0x1000, true)],
            vec![full(0, 0x2000)],
        ),
        (
            "a report to read",
            vec![(at(0), 0x1000, false)],
            vec![full(0, 0x1000)],
        ),
        (
            "a report of nothing",
            vec![(at(0), 0, true)],
            vec![full(0, 0x1000)],
        ),
        (
            "a report over the seam",
            vec![(At::Seam(-0x1000), 0x2000, true)],
            vec![full(0, 0x1000)],
        ),
    ];
    for (about, pieces, after) in cases {
        let steps = [
            start(ALL),
            filled(),
            returns(REPORTS, 0, &pieces),
            after,
            revive(),
        ];
        list.add(&BALLOON, spec, about, steps);
    }
    let hole = [
        start(ALL),
        request(REPORTS, 0, &[(At::Hole(-0x1000), 0x2000, true)]),
        vec![Step::ExpectNeedsReset],
        revive(),
    ];
    list.add(
        &BALLOON,
        "2.7.5",
        "a report that leaves memory breaks the queue",
        hole,
    );
    for (poison, features, gone) in [(0, ALL, true), (0xaaaa_aaaa, ALL, false)] {
        let agree = vec![
            Step::Reset,
            Step::Status(1),
            Step::Status(3),
            Step::WriteConfig(12, Width::Dword, poison),
            Step::Features(F_VERSION_1 | features),
            Step::Status(11),
            Step::Ring(0),
            Step::Ring(1),
            Step::Ring(2),
            Step::Ring(3),
            Step::Ring(4),
            Step::Status(15),
        ];
        let after = if gone {
            zero(0, 0x1000)
        } else {
            full(0, 0x1000)
        };
        let steps = [
            agree,
            filled(),
            returns(REPORTS, 0, &[(at(0), 0x1000, true)]),
            vec![after],
            revive(),
        ];
        let about = format!("a free page of a guest that fills them with {poison:#x}");
        list.add(&BALLOON, "5.5.6.6.2", about, steps);
    }
    let off = [
        start(F_STATS | F_HINTS),
        filled(),
        request(REPORTS, 0, &[(at(0), 0x1000, true)]),
        vec![Step::ExpectUsed(REPORTS, vec![]), full(0, 0x1000)],
        revive(),
    ];
    list.add(
        &BALLOON,
        "5.5.2",
        "a report without its feature is not taken",
        off,
    );
}

fn hints(list: &mut List) {
    let spec = "5.5.6.5";
    let begin = |acknowledge| {
        let host: fn(&mut Host) = if acknowledge {
            |host| {
                let acknowledge_on_stop = true;
                balloon(
                    host,
                    BalloonCommand::StartHinting {
                        acknowledge_on_stop,
                    },
                );
            }
        } else {
            |host| {
                let acknowledge_on_stop = false;
                balloon(
                    host,
                    BalloonCommand::StartHinting {
                        acknowledge_on_stop,
                    },
                );
            }
        };
        vec![
            Step::Host("wants hints", host),
            Step::Settle,
            Step::ExpectConfig(8, Width::Dword, 2),
        ]
    };
    let say = |head: u16, command: u32| {
        let mut steps = vec![Step::Memory(buffer(0x100), words(&[command]))];
        steps.extend(returns(HINTS, head, &[(buffer(0x100), 4, false)]));
        steps
    };
    let free = |head: u16| returns(HINTS, head, &[(buffer(0x1_0000), 0x1000, true)]);
    let holds = |byte: u8| vec![Step::ExpectMemory(buffer(0x1_0000), vec![byte; 0x1000])];
    let command = |value| vec![Step::ExpectConfig(8, Width::Dword, value)];
    let mut add = |about: &str, parts: Vec<Vec<Step>>, byte: u8| {
        let steps = [start(ALL), filled(), parts.concat(), holds(byte), revive()];
        list.add(&BALLOON, spec, about, steps);
    };
    add("a hint that nobody asked for", vec![free(0)], 0xaa);
    add(
        "a hint at command 0 that nobody asked for",
        vec![say(0, 0), free(1)],
        0xaa,
    );
    add(
        "a hint before the command is taken up",
        vec![begin(false), free(0)],
        0xaa,
    );
    add(
        "a hint at another command",
        vec![begin(false), say(0, 3), free(1)],
        0xaa,
    );
    add(
        "a hint at the command",
        vec![begin(false), say(0, 2), free(1)],
        0,
    );
    add(
        "a hint after the end of a command",
        vec![begin(true), say(0, 2), say(1, 0), command(1), free(2)],
        0xaa,
    );
    add(
        "the end of a command that the host lets go of itself",
        vec![begin(false), say(0, 2), free(1), say(2, 0), command(2)],
        0,
    );
    for len in [1_u32, 3] {
        let short = returns(HINTS, 0, &[(buffer(0x100), len, false)]);
        let about = format!("a command of {len} bytes");
        add(&about, vec![begin(false), short, free(1)], 0xaa);
    }
    let stop = Step::Host("wants no more hints", |host| {
        balloon(host, BalloonCommand::StopHinting);
    });
    add(
        "a hint after the host has stopped",
        vec![
            begin(false),
            say(0, 2),
            vec![stop, Step::Settle],
            command(1),
            free(1),
        ],
        0xaa,
    );
    let both = [(buffer(0x100), 4, false), (buffer(0x1_0000), 0x1000, true)];
    let taken = vec![Step::Memory(buffer(0x100), words(&[2]))];
    add(
        "a command and a hint in one buffer",
        vec![begin(false), taken, returns(HINTS, 0, &both)],
        0,
    );
}
