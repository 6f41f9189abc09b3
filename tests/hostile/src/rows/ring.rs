//! Rings and descriptors against the rules of virtio 1.2, 2.7.

use super::subjects::{BLOCK, RNG};
use super::{F_INDIRECT, F_VERSION_1, INDIRECT, NEXT, WRITE, buffer, join, request};
use crate::step::{At, Row, Step};

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let descriptor = |index, at, len, flags, next| Step::Descriptor {
        queue: 0,
        index,
        at,
        len,
        flags,
        next,
    };
    vec![
        Row::new(
            "ring-001",
            &RNG,
            "2.7.5.3.1",
            "a descriptor that is its own next: out of service, no spinning",
            vec![
                Step::Start(F_VERSION_1),
                descriptor(0, buffer(0), 16, WRITE | NEXT, 0),
                Step::Publish(0, 0),
                Step::Kick(0),
                Step::ExpectNeedsReset,
                Step::ExpectReasons(2),
                Step::ExpectUsed(0, vec![]),
                Step::Revive,
            ],
        ),
        Row::new(
            "ring-002",
            &RNG,
            "2.7.6",
            "an available entry beyond the table: out of service",
            vec![
                Step::Start(F_VERSION_1),
                Step::Publish(0, 16),
                Step::Kick(0),
                Step::ExpectNeedsReset,
                Step::Revive,
            ],
        ),
        Row::new(
            "ring-003",
            &RNG,
            "2.7.5",
            "a buffer over the end of memory: out of service, nothing written",
            vec![
                Step::Start(F_VERSION_1),
                descriptor(0, At::Hole(-16), 32, WRITE, 0),
                Step::Publish(0, 0),
                Step::Kick(0),
                Step::ExpectNeedsReset,
                Step::ExpectMemory(At::Hole(-16), vec![0; 16]),
                Step::Revive,
            ],
        ),
        Row::new(
            "ring-004",
            &BLOCK,
            "2.7.5.3.2",
            "the write flag of a descriptor that refers to a table means nothing",
            join([
                vec![Step::Start(F_VERSION_1 | F_INDIRECT)],
                vec![
                    descriptor(0, buffer(0x100), 32, INDIRECT | WRITE, 0),
                    Step::Memory(buffer(0), super::subjects::block_header(4, 0)),
                    Step::Indirect {
                        table: buffer(0x100),
                        index: 0,
                        at: buffer(0),
                        len: 16,
                        flags: NEXT,
                        next: 1,
                    },
                    Step::Indirect {
                        table: buffer(0x100),
                        index: 1,
                        at: buffer(0x80),
                        len: 1,
                        flags: WRITE,
                        next: 0,
                    },
                    Step::Publish(0, 0),
                    Step::Kick(0),
                    Step::ExpectUsed(0, vec![(0, 1)]),
                    Step::ExpectReasons(1),
                    Step::Revive,
                ],
            ]),
        ),
        Row::new(
            "ring-005",
            &RNG,
            "2.7.13.3",
            "two requests one after the other come back in order",
            join([
                vec![Step::Start(F_VERSION_1)],
                request(0, 3, &[(buffer(0), 8, true)]),
                vec![Step::ExpectUsed(0, vec![(3, 8)])],
                request(0, 1, &[(buffer(0), 8, true), (buffer(8), 24, true)]),
                vec![Step::ExpectUsed(0, vec![(1, 32)]), Step::Revive],
            ]),
        ),
    ]
}
