//! What a driver may do to a console and to a device of several ports (virtio 1.2, 5.3).

use devices::Width;
use devices::tty::Terminal;
use devices::virtio::DeviceCommand;
use devices::virtio::console::{Console, PortSetup, Ports, TerminalPort};

use super::{F_VERSION_1, List, Piece, buffer, chain, request, revive, start};
use crate::step::{At, Fixture, RING_SIZE, Row, Step, Subject};

const F_SIZE: u64 = 1 << 0;
const F_MULTIPORT: u64 = 1 << 1;
const F_EMERGENCY: u64 = 1 << 2;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const TO_DRIVER: u16 = 2;
const FROM_DRIVER: u16 = 3;

/// A console of 80 by 25 characters whose output nobody reads.
pub static CONSOLE: Subject = Subject {
    name: "console",
    queues: 2,
    features: F_VERSION_1 | F_SIZE,
    make: || {
        let output = Box::new(Terminal::none().output());
        Fixture::alone(Console::new(output, None, (80, 25)))
    },
    good: || returns(TRANSMIT, 0, &[(buffer(0), 16, false)]),
    boot: None,
};

/// Two ports, the second a console.
pub static PORTS: Subject = Subject {
    name: "ports",
    queues: 8,
    features: F_VERSION_1 | F_MULTIPORT,
    make: || {
        let port = |name: &str, console| PortSetup {
            name: name.into(),
            console,
            backend: Box::new(TerminalPort::new(Terminal::none()).expect("descriptors")),
        };
        let ports = vec![port("one", false), port("two", true)];
        Fixture::alone(Ports::new(ports).expect("descriptors"))
    },
    good: || {
        let mut steps = say(0, 0, 0, 1);
        steps.extend(hear(0, 1, 1, 1));
        steps
    },
    boot: None,
};

/// All rows of these devices.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("console");
    output(&mut list);
    configuration(&mut list);
    messages(&mut list);
    introductions(&mut list);
    list.rows()
}

/// A request that comes back.
fn returns(queue: u16, head: u16, pieces: &[Piece]) -> Vec<Step> {
    let mut steps = request(queue, head, pieces);
    steps.push(Step::ExpectUsed(queue, vec![(head, 0)]));
    steps
}

fn message(id: u32, event: u16, value: u16) -> Vec<u8> {
    let parts = [event.to_le_bytes(), value.to_le_bytes()].concat();
    [&id.to_le_bytes()[..], &parts].concat()
}

/// The driver sends a control message, which comes back.
fn say(head: u16, id: u32, event: u16, value: u16) -> Vec<Step> {
    let at = buffer(0x100 + u64::from(head) * 16);
    let mut steps = vec![Step::Memory(at, message(id, event, value))];
    steps.extend(returns(FROM_DRIVER, head, &[(at, 8, false)]));
    steps
}

/// The driver gives a buffer and finds this control message in it.
fn hear(head: u16, id: u32, event: u16, value: u16) -> Vec<Step> {
    hear_more(head, id, event, value, &[])
}

fn hear_more(head: u16, id: u32, event: u16, value: u16, more: &[u8]) -> Vec<Step> {
    let at = buffer(0x1000 + u64::from(head) * 64);
    let bytes = [&message(id, event, value)[..], more].concat();
    let len = u32::try_from(bytes.len()).expect("small");
    let mut steps = request(TO_DRIVER, head, &[(at, 64, true)]);
    steps.push(Step::ExpectUsed(TO_DRIVER, vec![(head, len)]));
    steps.push(Step::ExpectMemory(at, bytes));
    steps
}

fn output(list: &mut List) {
    let spec = "5.3.6";
    let scattered: Vec<Piece> = (0..16).map(|n| (buffer(n * 32), 3, false)).collect();
    for (subject, queue, name) in [
        (&CONSOLE, TRANSMIT, "the console"),
        (&PORTS, 5, "a port"),
        (&PORTS, 1, "the port that nobody has"),
    ] {
        let lens = [0_u32, 1, 4095, 4096, 4097, 0x1_0001, 0x8_0000].map(|len| {
            let about = format!("{len} bytes of output");
            (about, vec![(buffer(0), len, false)])
        });
        let shapes = [
            ("output in sixteen pieces", scattered.clone()),
            (
                "output that the device is to write",
                vec![(buffer(0), 64, true)],
            ),
            (
                "output with room behind it",
                vec![(buffer(0), 8, false), (buffer(64), 8, true)],
            ),
            ("output over the seam", vec![(At::Seam(-5), 10, false)]),
            (
                "the last bytes of memory as output",
                vec![(At::Hole(-7), 7, false)],
            ),
        ]
        .map(|(about, pieces)| (about.to_owned(), pieces));
        for (about, pieces) in lens.into_iter().chain(shapes) {
            let steps = [
                start(subject.features),
                returns(queue, 0, &pieces),
                revive(),
            ];
            list.add(subject, spec, format!("{about}, to {name}"), steps);
        }
        let chains = (0..RING_SIZE).flat_map(|n| chain(queue, n, &[(buffer(0), 0x1_0000, false)]));
        let publish = (0..RING_SIZE).map(|n| Step::Publish(queue, n));
        let ring = [
            Step::Kick(queue.into()),
            Step::ExpectUsed(queue, (0..RING_SIZE).map(|n| (n, 0)).collect()),
        ];
        let steps = [
            start(subject.features),
            chains.collect(),
            publish.chain(ring).collect(),
            revive(),
        ];
        list.add(
            subject,
            spec,
            format!("a ring full of output, to {name}"),
            steps,
        );
    }
    for (subject, queue, name) in [(&CONSOLE, RECEIVE, "the console"), (&PORTS, 4, "a port")] {
        let held = [
            start(subject.features),
            request(queue, 0, &[(buffer(0), 64, true)]),
            request(queue, 1, &[(buffer(0), 64, false)]),
            request(queue, 2, &[(buffer(0), 0, true)]),
            vec![Step::ExpectUsed(queue, vec![])],
            revive(),
        ];
        let about = format!("room for input stays until there is some, of {name}");
        list.add(subject, spec, about, held);
    }
}

fn configuration(list: &mut List) {
    for (about, offset, width, value, read) in [
        ("the columns", 0, Width::Word, 7, 80),
        ("the rows", 2, Width::Word, 7, 25),
        ("both at once", 0, Width::Dword, 7, 25 << 16 | 80),
        ("the number of ports", 4, Width::Dword, 7, 0),
        ("beyond the fields", 12, Width::Dword, 7, 0),
        ("ports and character at once", 4, Width::Qword, 7, 0),
    ] {
        let write = vec![
            Step::WriteConfig(offset, width, value),
            Step::ExpectConfig(offset, width, read),
        ];
        let about = format!("console configuration is not the driver's: {about}");
        list.add(&CONSOLE, "5.3.4", about, [start(F_SIZE), write, revive()]);
    }
    for (width, value) in [
        (Width::Byte, 0x21),
        (Width::Word, 0x21),
        (Width::Dword, 0xffff_ff21),
    ] {
        let agree = vec![Step::Reset, Step::Status(1), Step::Status(3)];
        let write = vec![Step::WriteConfig(8, width, value); 100];
        let about = format!("a hundred emergency characters, {width:?}, before the features");
        let steps = [agree, write.clone(), vec![Step::Settle], revive()];
        list.add(&CONSOLE, "5.3.5", about, steps);
        let about = format!("a hundred emergency characters, {width:?}, of a running device");
        let steps = [
            start(F_SIZE | F_EMERGENCY),
            write,
            vec![Step::Settle],
            revive(),
        ];
        list.add(&CONSOLE, "5.3.5", about, steps);
    }
    let resize = Step::Host("resizes the window", |host| {
        let size = DeviceCommand::Resize {
            columns: 132,
            rows: 50,
        };
        host.handle.send(size).expect("a device");
    });
    let told = vec![
        Step::Settle,
        Step::ExpectReasons(2),
        resize,
        Step::Settle,
        Step::ExpectConfig(0, Width::Dword, 50 << 16 | 132),
    ];
    let with = [
        start(F_SIZE),
        told.clone(),
        vec![Step::ExpectReasons(2)],
        revive(),
    ];
    list.add(
        &CONSOLE,
        "5.3.5",
        "a new size is told with an interrupt",
        with,
    );
    let quiet: Vec<Step> = told
        .into_iter()
        .filter(|step| !matches!(step, Step::ExpectReasons(_)))
        .collect();
    let without = [start(0), quiet, vec![Step::ExpectReasons(0)], revive()];
    let about = "a new size is not told to a driver that knows no sizes";
    list.add(&CONSOLE, "5.3.5", about, without);
}

fn messages(list: &mut List) {
    let spec = "5.3.6.2";
    for event in [0, 1, 2, 3, 4, 5, 6, 7, 8, u16::MAX] {
        for id in [0, 1, u32::MAX] {
            let values = [0, 1, u16::MAX];
            let each = (0..)
                .zip(values)
                .flat_map(|(n, value)| say(n, id, event, value));
            let about = format!("messages of event {event} for port {id:#x}");
            list.add(
                &PORTS,
                spec,
                about,
                [start(F_MULTIPORT), each.collect(), revive()],
            );
        }
    }
    for len in [0_u32, 1, 4, 7, 9, 0x8_0000] {
        let about = format!("a control message of {len} bytes");
        let send = returns(FROM_DRIVER, 0, &[(buffer(0), len, false)]);
        list.add(&PORTS, spec, about, [start(F_MULTIPORT), send, revive()]);
    }
    let room = returns(FROM_DRIVER, 0, &[(buffer(0), 8, true)]);
    let about = "a control message that the device is to write";
    list.add(&PORTS, spec, about, [start(F_MULTIPORT), room, revive()]);
    let pieces: Vec<Piece> = (0..8).map(|n| (buffer(n * 16), 1, false)).collect();
    let about = "a control message whose bytes are each somewhere else";
    let steps = [
        start(F_MULTIPORT),
        returns(FROM_DRIVER, 0, &pieces),
        revive(),
    ];
    list.add(&PORTS, spec, about, steps);
    let off = [
        start(0),
        vec![Step::Memory(buffer(0), message(0, 0, 1))],
        request(FROM_DRIVER, 0, &[(buffer(0), 8, false)]),
        vec![Step::ExpectUsed(FROM_DRIVER, vec![])],
        revive(),
    ];
    let about = "control messages without their feature are not taken";
    list.add(&PORTS, "5.3.2", about, off);
}

fn introductions(list: &mut List) {
    let spec = "5.3.6.2";
    let ready = || say(0, 0, 0, 1);
    let steps = [
        start(F_MULTIPORT),
        ready(),
        hear(0, 1, 1, 1),
        hear(1, 2, 1, 1),
        say(1, 2, 3, 1),
        hear(2, 2, 4, 1),
        hear_more(3, 2, 7, 1, b"two"),
        hear(4, 2, 6, 1),
        revive(),
    ];
    list.add(
        &PORTS,
        spec,
        "a console among the ports is introduced",
        steps,
    );
    let again: Vec<Step> = (1..14).flat_map(|n| say(n, 1, 3, 1)).collect();
    let steps = [
        start(F_MULTIPORT),
        ready(),
        again,
        hear(0, 1, 7, 1).into_iter().take(3).collect(),
        vec![Step::Settle],
        revive(),
    ];
    let about = "a port that is ready again and again is introduced once";
    list.add(&PORTS, spec, about, steps);
    for len in [0_u32, 1, 7] {
        let short = [
            start(F_MULTIPORT),
            ready(),
            returns(TO_DRIVER, 0, &[(buffer(0x1000), len, true)]),
            hear(1, 2, 1, 1),
            revive(),
        ];
        let about = format!("room of {len} bytes for a message loses it");
        list.add(&PORTS, spec, about, short);
    }
    let twice = [
        start(F_MULTIPORT),
        ready(),
        say(1, 0, 0, 1),
        hear(0, 1, 1, 1),
        hear(1, 2, 1, 1),
        request(TO_DRIVER, 2, &[(buffer(0x1000), 64, true)]),
        vec![Step::ExpectUsed(TO_DRIVER, vec![])],
        revive(),
    ];
    let about = "a driver that is ready twice hears of its ports once";
    list.add(&PORTS, spec, about, twice);
    let early = [
        start(F_MULTIPORT),
        say(0, 1, 3, 1),
        say(1, 1, 6, 1),
        request(TO_DRIVER, 0, &[(buffer(0x1000), 64, true)]),
        vec![Step::ExpectUsed(TO_DRIVER, vec![])],
        revive(),
    ];
    let about = "a port that was never announced is not introduced";
    list.add(&PORTS, spec, about, early);
}
