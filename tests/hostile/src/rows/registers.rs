//! Registers at the wrong width, in the wrong place, in the wrong direction, and what only one
//! transport has.

use devices::Width;

use super::subjects::RNG;
use super::{List, buffer, request, revive, start, used};
use crate::access::{Region, Transport};
use crate::step::{Register, Row, Step};

const WIDTHS: [Width; 4] = [Width::Byte, Width::Word, Width::Dword, Width::Qword];

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("register");
    list.only(Transport::Mmio);
    mmio_reads(&mut list);
    mmio_writes(&mut list);
    mmio_gaps(&mut list);
    list.only(Transport::Pci);
    pci_fields(&mut list);
    pci_structures(&mut list);
    pci_messages(&mut list);
    pci_configuration(&mut list);
    pci_window(&mut list);
    pci_indirect(&mut list);
    list.rows()
}

fn see(region: Region, offset: u64, width: Width, value: u64) -> Step {
    let mask = u64::MAX;
    Step::RawExpect {
        region,
        offset,
        width,
        mask,
        value,
    }
}

fn put(region: Region, offset: u64, width: Width, value: u64) -> Step {
    Step::RawWrite(
        region,
        offset,
        width,
        value & (u64::MAX >> (64 - 8 * width.bytes())),
    )
}

fn one() -> Vec<Step> {
    [request(0, 0, &[(buffer(0), 8, true)]), used(&[(0, 8)])].concat()
}

/// Every access at a register but the right one reads zero.
fn mmio_reads(list: &mut List) {
    for (at, name) in [
        (0x00, "magic value"),
        (0x04, "version"),
        (0x08, "device ID"),
        (0x0c, "vendor ID"),
        (0x10, "offered features"),
        (0x34, "largest queue size"),
        (0x44, "queue ready"),
        (0x60, "interrupt status"),
        (0x70, "status"),
        (0xb0, "length of a shared memory region"),
        (0xfc, "configuration generation"),
    ] {
        let mut steps = vec![];
        for width in WIDTHS {
            for offset in at..at + 4 {
                if width != Width::Dword || offset != at {
                    steps.push(see(Region::Window, offset, width, 0));
                }
            }
        }
        let about = format!("the {name}, read at other widths and offsets, reads zero");
        list.add(
            &RNG,
            "4.2.2.2",
            about,
            [start(0), one(), steps, one_more(), revive()],
        );
    }
    for (at, name) in [
        (0x14, "selection of offered features"),
        (0x20, "accepted features"),
        (0x24, "selection of accepted features"),
        (0x30, "queue selection"),
        (0x38, "queue size"),
        (0x50, "doorbell"),
        (0x64, "acknowledgement"),
        (0x80, "descriptor table's address"),
        (0x94, "available ring's address"),
        (0xa0, "used ring's address"),
        (0xac, "selection of shared memory"),
    ] {
        let steps = vec![
            put(Region::Window, at, Width::Dword, 0),
            see(Region::Window, at, Width::Dword, 0),
        ];
        let about = format!("the {name}, which is only written, reads zero");
        list.add(
            &RNG,
            "4.2.2",
            about,
            [
                vec![Step::Reset, Step::Status(1), Step::Status(3)],
                steps,
                revive(),
            ],
        );
    }
}

fn one_more() -> Vec<Step> {
    [request(0, 1, &[(buffer(0), 8, true)]), used(&[(1, 8)])].concat()
}

fn mmio_writes(list: &mut List) {
    for (at, name) in [
        (0x00, "magic value"),
        (0x04, "version"),
        (0x08, "device ID"),
        (0x0c, "vendor ID"),
        (0x10, "offered features"),
        (0x34, "largest queue size"),
        (0x60, "interrupt status"),
        (0xb0, "length of a shared memory region"),
        (0xfc, "configuration generation"),
    ] {
        let before = match at {
            0x00 => Some(0x7472_6976),
            0x04 => Some(2),
            0x08 => Some(4),
            0x60 | 0xfc => Some(0),
            0xb0 => Some(0xffff_ffff),
            _ => None,
        };
        let write = vec![
            put(Region::Window, at, Width::Dword, u64::MAX),
            put(Region::Window, at, Width::Dword, 0),
        ];
        let same = before.map(|value| see(Region::Window, at, Width::Dword, value));
        let about = format!("the {name}, which is only read, stays when it is written");
        list.add(
            &RNG,
            "4.2.2",
            about,
            [start(0), write, same.into_iter().collect(), one(), revive()],
        );
    }
    for (at, name) in [
        (0x30, "queue selection"),
        (0x38, "queue size"),
        (0x44, "queue ready"),
        (0x50, "doorbell"),
        (0x64, "acknowledgement"),
        (0x70, "status"),
        (0x80, "descriptor table's address"),
        (0xa4, "used ring's address"),
    ] {
        let mut steps = vec![];
        for width in WIDTHS {
            for offset in at..at + 4 {
                if width != Width::Dword || offset != at {
                    steps.push(put(Region::Window, offset, width, 0));
                }
            }
        }
        let kept = vec![
            Step::ExpectStatus(15),
            Step::ExpectEnabled(0, true),
            Step::ExpectReasons(1),
        ];
        let about = format!("the {name}, written at other widths and offsets, stays");
        list.add(
            &RNG,
            "4.2.2.2",
            about,
            [start(0), one(), steps, kept, one_more(), revive()],
        );
    }
}

fn mmio_gaps(list: &mut List) {
    for (from, to, what) in [
        (0x18, 0x20, "after the offered features"),
        (0x28, 0x30, "after the accepted features"),
        (0x3c, 0x44, "after the queue size"),
        (0x48, 0x50, "after queue ready"),
        (0x54, 0x60, "after the doorbell"),
        (0x68, 0x70, "after the acknowledgement"),
        (0x74, 0x80, "after the status"),
        (0x88, 0x90, "after the descriptor table's address"),
        (0x98, 0xa0, "after the available ring's address"),
        (0xa8, 0xac, "after the used ring's address"),
        (0xc0, 0xfc, "where a queue would be reset, and after it"),
        (0x28, 0x2c, "where version 1 has the page size"),
        (0x40, 0x44, "where version 1 has the queue's page"),
        (0xff0, 0x1000, "at the end of the window"),
    ] {
        let mut steps = vec![];
        for offset in (from..to).step_by(4) {
            steps.push(put(Region::Window, offset, Width::Dword, u64::MAX));
            steps.push(see(Region::Window, offset, Width::Dword, 0));
        }
        let about = format!("what is nothing, {what}, reads zero and takes nothing");
        list.add(&RNG, "4.2.2.2", about, [start(0), steps, one(), revive()]);
    }
    let across = vec![
        see(Region::Window, 0xfc, Width::Qword, 0),
        see(Region::Window, 0xfe, Width::Dword, 0),
        put(Region::Window, 0xfe, Width::Dword, 0),
    ];
    list.add(
        &RNG,
        "4.2.2.2",
        "accesses across the border to the configuration",
        [start(0), across, one(), revive()],
    );
}

/// Every field of the common configuration, at every width but its own.
fn pci_fields(list: &mut List) {
    for (at, own, name, keeps) in [
        (0x00_u64, Width::Dword, "device_feature_select", true),
        (0x04, Width::Dword, "device_feature", false),
        (0x08, Width::Dword, "driver_feature_select", true),
        (0x0c, Width::Dword, "driver_feature", false),
        (0x10, Width::Word, "config_msix_vector", false),
        (0x12, Width::Word, "num_queues", false),
        (0x14, Width::Byte, "device_status", false),
        (0x15, Width::Byte, "config_generation", false),
        (0x16, Width::Word, "queue_select", true),
        (0x18, Width::Word, "queue_size", false),
        (0x1a, Width::Word, "queue_msix_vector", false),
        (0x1c, Width::Word, "queue_enable", false),
        (0x1e, Width::Word, "queue_notify_off", false),
        (0x20, Width::Dword, "queue_desc, low", false),
        (0x24, Width::Dword, "queue_desc, high", false),
        (0x28, Width::Dword, "queue_driver, low", false),
        (0x2c, Width::Dword, "queue_driver, high", false),
        (0x30, Width::Dword, "queue_device, low", false),
        (0x34, Width::Dword, "queue_device, high", false),
    ] {
        let mut steps = vec![];
        for width in WIDTHS.into_iter().filter(|width| *width != own) {
            steps.push(see(Region::Common, at, width, 0));
            steps.push(put(Region::Common, at, width, u64::MAX));
            steps.push(put(Region::Common, at, width, 0));
        }
        let kept = vec![Step::ExpectStatus(15), Step::ExpectEnabled(0, true)];
        let about = format!("{name} at another width than its own reads zero and takes nothing");
        list.add(
            &RNG,
            "4.1.3.1",
            about,
            [start(0), steps, kept, one(), revive()],
        );
        if keeps {
            let value = 0x15;
            let steps = vec![
                put(Region::Common, at, own, value),
                see(Region::Common, at, own, value),
                Step::Reset,
                see(Region::Common, at, own, 0),
            ];
            let about = format!("{name} keeps what is written, until a reset");
            list.add(&RNG, "4.1.4.3", about, [steps, revive()]);
        }
    }
    for (at, own, value, name) in [
        (0x12_u64, Width::Word, 1, "num_queues"),
        (0x15, Width::Byte, 0, "config_generation"),
        (0x1e, Width::Word, 0, "queue_notify_off"),
    ] {
        let steps = vec![
            put(Region::Common, at, own, u64::MAX),
            see(Region::Common, at, own, value),
        ];
        list.add(
            &RNG,
            "4.1.4.3",
            format!("{name}, which is only read, stays"),
            [start(0), steps, one(), revive()],
        );
    }
    let offered = vec![
        put(Region::Common, 0x04, Width::Dword, 0),
        Step::ExpectOffered {
            mask: 1 << 32,
            value: 1 << 32,
        },
    ];
    list.add(
        &RNG,
        "4.1.4.3",
        "device_feature, which is only read, stays",
        [offered, revive()],
    );
    let back = vec![
        Step::Status(1),
        Step::Status(3),
        Step::Features(1 << 32),
        Step::Expect(Register::DriverFeatures, 1),
        Step::Write(Register::DriverFeatureSelect, 0),
        Step::Expect(Register::DriverFeatures, 0),
        Step::Write(Register::DriverFeatureSelect, 2),
        Step::Expect(Register::DriverFeatures, 0),
    ];
    list.add(
        &RNG,
        "4.1.4.3",
        "driver_feature reads what was accepted",
        [back, revive()],
    );
    let size = vec![
        Step::Status(1),
        Step::Status(3),
        Step::Features(1 << 32),
        Step::Status(11),
        Step::Write(Register::QueueSelect, 0),
        Step::Expect(Register::QueueSize, 64),
        Step::Write(Register::QueueSize, 8),
        Step::Expect(Register::QueueSize, 8),
        Step::Reset,
        Step::Write(Register::QueueSelect, 0),
        Step::Expect(Register::QueueSize, 64),
    ];
    list.add(
        &RNG,
        "4.1.4.3",
        "queue_size is the largest until it is written, and after a reset",
        [size, revive()],
    );
    let beyond: Vec<_> = (0x38..0x1000)
        .step_by(0x3c)
        .flat_map(|at| {
            [
                see(Region::Common, at, Width::Dword, 0),
                put(Region::Common, at, Width::Dword, u64::MAX),
            ]
        })
        .collect();
    list.add(
        &RNG,
        "4.1.4.3",
        "beyond the common configuration is nothing",
        [start(0), beyond, one(), revive()],
    );
    let reset = vec![
        put(Region::Common, 0x38, Width::Word, 0),
        put(Region::Common, 0x3a, Width::Word, 1),
        Step::ExpectEnabled(0, true),
    ];
    list.add(
        &RNG,
        "4.1.4.3",
        "queue_notify_data and queue_reset, which were not accepted, are nothing",
        [start(0), reset, one(), revive()],
    );
    let odd = vec![
        see(Region::Common, 0x01, Width::Dword, 0),
        see(Region::Common, 0x13, Width::Word, 0),
        put(Region::Common, 0x15, Width::Word, 0),
        put(Region::Common, 0x13, Width::Word, 0),
        put(Region::Common, 0x11, Width::Dword, 0),
        Step::ExpectStatus(15),
    ];
    list.add(
        &RNG,
        "4.1.3.1",
        "misaligned accesses to the common configuration",
        [start(0), odd, one(), revive()],
    );
}

fn pci_structures(list: &mut List) {
    let isr = |width, value| see(Region::Isr, 0, width, value);
    let wide = vec![
        Step::Settle,
        isr(Width::Word, 0),
        isr(Width::Dword, 0),
        isr(Width::Qword, 0),
        isr(Width::Byte, 1),
    ];
    list.add(
        &RNG,
        "4.1.4.5",
        "the reasons are a byte: wider reads see and take nothing",
        [start(0), one(), wide, revive()],
    );
    let beside = vec![
        Step::Settle,
        see(Region::Isr, 1, Width::Byte, 0),
        see(Region::Isr, 0xfff, Width::Byte, 0),
        isr(Width::Byte, 1),
    ];
    list.add(
        &RNG,
        "4.1.4.5",
        "beside the reasons is nothing",
        [start(0), one(), beside, revive()],
    );
    let publish = vec![
        Step::Descriptor {
            queue: 0,
            index: 0,
            at: buffer(0),
            len: 8,
            flags: 2,
            next: 0,
        },
        Step::Publish(0, 0),
    ];
    for (offset, width, value, rings, what) in [
        (0_u64, Width::Byte, 0, true, "one byte"),
        (0, Width::Dword, 0, true, "four bytes"),
        (0, Width::Qword, 0, true, "eight bytes"),
        (0, Width::Word, 0xffff, true, "another number"),
        (1, Width::Word, 0, false, "an odd address"),
        (2, Width::Word, 0, false, "half way to the next"),
        (
            4,
            Width::Word,
            0,
            false,
            "the place of a queue that does not exist",
        ),
        (0xffc, Width::Dword, 0, false, "the last place"),
    ] {
        let ends = if rings { "rings" } else { "is nothing" };
        let about = format!("a doorbell with {what} {ends}");
        let ring = vec![put(Region::Notify, offset, width, value)];
        let seen = if rings { used(&[(0, 8)]) } else { used(&[]) };
        list.add(
            &RNG,
            "4.1.4.4",
            about,
            [start(0), publish.clone(), ring, seen, revive()],
        );
    }
    let reads: Vec<_> = WIDTHS
        .into_iter()
        .flat_map(|width| {
            [
                see(Region::Notify, 0, width, 0),
                see(Region::Notify, 4, width, 0),
            ]
        })
        .collect();
    list.add(
        &RNG,
        "4.1.4.4",
        "doorbells read zero and do not ring",
        [start(0), publish, reads, used(&[]), revive()],
    );
    let device: Vec<_> = WIDTHS
        .into_iter()
        .flat_map(|width| {
            [
                see(Region::Device, 0, width, 0),
                put(Region::Device, 0, width, u64::MAX),
                see(Region::Device, 0, width, 0),
                see(Region::Device, 0xff8, width, 0),
            ]
        })
        .collect();
    list.add(
        &RNG,
        "4.1.4.6",
        "a device without configuration reads zero there",
        [start(0), device, one(), revive()],
    );
}

fn pci_messages(list: &mut List) {
    let spec = "4.1.4.3";
    let vector = |field, value, reads| {
        vec![
            put(Region::Common, field, Width::Word, value),
            see(Region::Common, field, Width::Word, reads),
        ]
    };
    for (field, name) in [(0x10, "configuration"), (0x1a, "queue")] {
        for (value, reads) in [
            (0, 0),
            (1, 1),
            (2, 0xffff),
            (0x7ff, 0xffff),
            (0x8000, 0xffff),
            (0xffff, 0xffff),
        ] {
            let what = if reads == 0xffff && value != 0xffff {
                "does not exist and is refused"
            } else {
                "is taken"
            };
            let about = format!("vector {value:#x} for the {name} {what}");
            list.add(
                &RNG,
                "4.1.5.1.2.2",
                about,
                [start(0), vector(field, value, reads), one(), revive()],
            );
        }
    }
    let lost = vec![
        put(Region::Common, 0x1a, Width::Word, 9),
        Step::ExpectInterrupt(false),
    ];
    list.add(
        &RNG,
        spec,
        "a queue whose vector was refused brings no interrupt, and is served",
        [
            start(0),
            lost,
            one(),
            vec![Step::ExpectInterrupt(false)],
            revive(),
        ],
    );
    let gone = vec![
        Step::Reset,
        see(Region::Common, 0x10, Width::Word, 0xffff),
        see(Region::Common, 0x1a, Width::Word, 0xffff),
    ];
    list.add(
        &RNG,
        "4.1.5.1.2",
        "a reset takes the vectors",
        [start(0), gone, revive()],
    );
    let none = vec![
        put(Region::Common, 0x16, Width::Word, 7),
        put(Region::Common, 0x1a, Width::Word, 0),
        see(Region::Common, 0x1a, Width::Word, 0xffff),
    ];
    list.add(
        &RNG,
        spec,
        "a queue that does not exist has no vector",
        [start(0), none, one(), revive()],
    );
    let table = |offset, width, value| see(Region::MsixTable, offset, width, value);
    let small = vec![
        put(Region::MsixTable, 0, Width::Dword, 0xfee0_1000),
        put(Region::MsixTable, 8, Width::Dword, 0x41),
        put(Region::MsixTable, 0, Width::Byte, 0),
        put(Region::MsixTable, 8, Width::Word, 0),
        put(Region::MsixTable, 9, Width::Dword, 0),
        table(0, Width::Byte, 0),
        table(0, Width::Word, 0),
        table(2, Width::Dword, 0),
        table(4, Width::Qword, 0),
        table(0, Width::Dword, 0xfee0_1000),
        table(0, Width::Qword, 0xfee0_1000),
        table(8, Width::Dword, 0x41),
    ];
    list.add(
        &RNG,
        "4.1.4.2",
        "the table of messages is there in whole words only",
        [start(0), small, one(), revive()],
    );
    let beyond = vec![
        table(32, Width::Dword, 0),
        put(Region::MsixTable, 32, Width::Dword, 1),
        table(32, Width::Dword, 0),
        table(0xff8, Width::Qword, 0),
        put(Region::MsixTable, 0xff8, Width::Qword, u64::MAX),
        table(0xff8, Width::Qword, 0),
    ];
    list.add(
        &RNG,
        "4.1.4.2",
        "beyond the table of messages is nothing",
        [start(0), beyond, one(), revive()],
    );
    let control = vec![
        put(Region::MsixTable, 12, Width::Dword, 0xffff_fffe),
        table(12, Width::Dword, 0),
        put(Region::MsixTable, 12, Width::Dword, u64::MAX),
        table(12, Width::Dword, 1),
    ];
    list.add(
        &RNG,
        "4.1.4.2",
        "of a message's control the mask only is kept",
        [start(0), control, one(), revive()],
    );
    let pending = vec![
        see(Region::MsixPending, 0, Width::Qword, 0),
        put(Region::MsixPending, 0, Width::Qword, u64::MAX),
        see(Region::MsixPending, 0, Width::Qword, 0),
        see(Region::MsixPending, 8, Width::Qword, 0),
        see(Region::MsixPending, 0, Width::Byte, 0),
        see(Region::MsixPending, 0xffc, Width::Dword, 0),
    ];
    list.add(
        &RNG,
        "4.1.4.2",
        "pending bits are only read, and there are no more than vectors",
        [start(0), pending, one(), revive()],
    );
    let mask = |value| put(Region::MsixTable, 16 + 12, Width::Dword, value);
    let waits = vec![
        Step::ExpectInterrupt(false),
        see(Region::MsixPending, 0, Width::Qword, 2),
        mask(0),
        Step::ExpectInterrupt(true),
        see(Region::MsixPending, 0, Width::Qword, 0),
    ];
    list.add(
        &RNG,
        "4.1.4.2",
        "an interrupt of a masked vector waits until it is not",
        [start(0), vec![mask(1)], one(), waits, revive()],
    );
    let forgotten = vec![
        Step::Reset,
        see(Region::MsixPending, 0, Width::Qword, 0),
        mask(0),
        Step::ExpectInterrupt(false),
    ];
    list.add(
        &RNG,
        "2.4.1",
        "an interrupt that waits is gone after a reset",
        [start(0), vec![mask(1)], one(), forgotten, revive()],
    );
}

fn pci_configuration(list: &mut List) {
    let config = |offset, width, value| see(Region::PciConfig, offset, width, value);
    let write = |offset, width, value| put(Region::PciConfig, offset, width, value);
    let spec = "4.1.2";
    let id = vec![
        config(0, Width::Dword, 0x1044_1af4),
        write(0, Width::Dword, 0),
        config(0, Width::Dword, 0x1044_1af4),
        config(0, Width::Word, 0x1af4),
        config(3, Width::Byte, 0x10),
    ];
    list.add(
        &RNG,
        spec,
        "who the function is stays when it is written",
        [start(0), id, one(), revive()],
    );
    for (offset, name) in [
        (0x08_u64, "class and revision"),
        (0x2c, "board"),
        (0x34, "list of capabilities"),
        (0x3d, "interrupt pin"),
    ] {
        let width = if offset == 0x3d {
            Width::Byte
        } else {
            Width::Dword
        };
        let steps = vec![write(offset, width, u64::MAX), write(offset, width, 0)];
        list.add(
            &RNG,
            spec,
            format!("the {name} cannot be written"),
            [start(0), steps, one(), revive()],
        );
    }
    for (offset, name) in [
        (0x14_u64, "second"),
        (0x18, "third"),
        (0x1c, "fourth"),
        (0x20, "fifth"),
        (0x24, "last"),
        (0x30, "expansion ROM's"),
    ] {
        let steps = vec![
            write(offset, Width::Dword, u64::MAX),
            config(offset, Width::Dword, 0),
        ];
        list.add(
            &RNG,
            spec,
            format!("the {name} base address is not there: all ones read back as zero"),
            [start(0), steps, one(), revive()],
        );
    }
    let all: Vec<_> = (0..0x40)
        .step_by(4)
        .filter(|at| *at != 4 && *at != 0x10)
        .flat_map(|at| {
            [
                write(at, Width::Dword, u64::MAX),
                write(at, Width::Dword, 0),
            ]
        })
        .collect();
    list.add(
        &RNG,
        spec,
        "a whole header of ones and then of zeroes",
        [start(0), all, one(), revive()],
    );
    let far: Vec<_> = (0x100..0x1000)
        .step_by(0x7c)
        .flat_map(|at| {
            [
                write(at, Width::Dword, u64::MAX),
                config(at, Width::Dword, 0xffff_ffff),
            ]
        })
        .collect();
    list.add(
        &RNG,
        spec,
        "the function has no space beyond 256 bytes: all ones",
        [start(0), far, one(), revive()],
    );
    let off = vec![write(4, Width::Word, 0)];
    let on = vec![write(4, Width::Word, 6), Step::ExpectStatus(15)];
    list.add(
        &RNG,
        spec,
        "a function that is switched off and on keeps its device's state",
        [start(0), off, on, one(), revive()],
    );
    let status = vec![
        write(6, Width::Word, 0xffff),
        Step::RawExpect {
            region: Region::PciConfig,
            offset: 6,
            width: Width::Word,
            mask: 0x10,
            value: 0x10,
        },
    ];
    list.add(
        &RNG,
        spec,
        "the function's status cannot be written",
        [start(0), status, one(), revive()],
    );
}

fn pci_window(list: &mut List) {
    let config = |offset, width, value| see(Region::PciConfig, offset, width, value);
    let write = |offset, width, value| put(Region::PciConfig, offset, width, value);
    let at = crate::bench::WINDOW;
    let stays = |steps: Vec<Step>| [steps, vec![config(0x10, Width::Dword, at)]].concat();
    let spec = "4.1.4";
    let size = vec![
        write(0x10, Width::Dword, 0xffff_ffff),
        config(0x10, Width::Dword, 0xffff_8000),
        write(0x10, Width::Dword, at),
        config(0x10, Width::Dword, at),
    ];
    list.add(
        &RNG,
        spec,
        "a driver asks a running function for the window's size",
        [start(0), size, one(), revive()],
    );
    for (to, what) in [
        (0_u64, "to zero"),
        (0x1000_0000, "into memory"),
        (0xfee0_0000, "onto the interrupt controllers"),
        (0xffff_0000, "to the end of 4 GiB"),
        (at - 0x8000, "right before its range"),
        (at + 16 * 0x8000, "right after its range"),
    ] {
        let about = format!("a driver moves the window {what}: it stays");
        list.add(
            &RNG,
            spec,
            about,
            [
                start(0),
                stays(vec![write(0x10, Width::Dword, to)]),
                one(),
                revive(),
            ],
        );
    }
    let moved = vec![
        write(0x10, Width::Dword, at + 0x1_0000),
        config(0x10, Width::Dword, at + 0x1_0000),
    ];
    let back = vec![write(0x10, Width::Dword, at)];
    list.add(
        &RNG,
        spec,
        "a driver moves the window within its range, and back",
        [start(0), moved, one(), back, one_more(), revive()],
    );
    let low = vec![
        write(0x10, Width::Dword, at + 0x7fff),
        config(0x10, Width::Dword, at),
    ];
    list.add(
        &RNG,
        spec,
        "the low bits of the window's address are not there",
        [start(0), low, one(), revive()],
    );
    let halves = vec![
        write(0x12, Width::Word, 0),
        config(0x10, Width::Dword, at),
        write(0x13, Width::Byte, 0),
        config(0x10, Width::Dword, at),
    ];
    list.add(
        &RNG,
        spec,
        "the window's address is written in parts: it stays in its range",
        [start(0), halves, one(), revive()],
    );
    let high = vec![
        write(0x10, Width::Dword, 0xffff_ffff),
        write(0x10, Width::Dword, 0xffff_ffff),
        write(4, Width::Word, 0),
        write(4, Width::Word, 6),
    ];
    list.add(
        &RNG,
        spec,
        "a size asked for and never cleared is no address",
        [start(0), stays(high), one(), revive()],
    );
}

/// The capability that reaches the window from the configuration space; where it lies is known
/// from the list, which these rows take for granted.
const INDIRECT: u64 = 0x84;

fn pci_indirect(list: &mut List) {
    let config = |offset, width, value| see(Region::PciConfig, offset, width, value);
    let write = |offset, width, value| put(Region::PciConfig, offset, width, value);
    let aim = |bar, offset, length| {
        vec![
            write(INDIRECT + 4, Width::Byte, bar),
            write(INDIRECT + 8, Width::Dword, offset),
            write(INDIRECT + 12, Width::Dword, length),
        ]
    };
    let spec = "4.1.4.9";
    let read = [
        aim(0, 0x14, 1),
        vec![config(INDIRECT + 16, Width::Byte, 15)],
    ]
    .concat();
    list.add(
        &RNG,
        spec,
        "the status is read through the configuration space",
        [start(0), read, one(), revive()],
    );
    let reset = [
        aim(0, 0x14, 1),
        vec![write(INDIRECT + 16, Width::Byte, 0), Step::ExpectStatus(0)],
    ]
    .concat();
    list.add(
        &RNG,
        spec,
        "a running device is reset through the configuration space",
        [start(0), one(), reset, revive()],
    );
    for (bar, offset, length, what) in [
        (1_u64, 0_u64, 4_u64, "another window"),
        (6, 0, 4, "a window that cannot be"),
        (255, 0, 4, "window 255"),
        (0, 0x8000, 4, "the end of the window"),
        (0, 0x7ffe, 4, "over the end of the window"),
        (0, 0xffff_fffc, 4, "the last offset"),
        (0, 0x14, 0, "no bytes"),
        (0, 0x14, 3, "three bytes"),
        (0, 0x14, 8, "eight bytes"),
        (0, 0x14, 0xffff_ffff, "4 GiB"),
        (0, 0x15, 2, "a misaligned word"),
        (0, 0x22, 4, "a misaligned doubleword"),
    ] {
        let access = vec![
            write(INDIRECT + 16, Width::Dword, 0),
            Step::ExpectStatus(15),
        ];
        let about = format!("the configuration space aims at {what}: nothing is reached");
        list.add(
            &RNG,
            spec,
            about,
            [start(0), aim(bar, offset, length), access, one(), revive()],
        );
    }
}
