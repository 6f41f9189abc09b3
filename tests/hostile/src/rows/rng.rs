//! What a driver may do to the entropy device (virtio 1.2, 5.4).

use super::subjects::RNG;
use super::{List, Piece, buffer, request, revive, start};
use crate::step::{At, RING_SIZE, Row, Step};

/// All rows of this device.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("rng");
    let scattered: Vec<Piece> = (0..16).map(|n| (buffer(n * 32), 3, true)).collect();
    let cases: [(&str, Vec<Piece>, u32); 12] = [
        ("a buffer of one byte", vec![(buffer(0), 1, true)], 1),
        (
            "a buffer of a page and a byte",
            vec![(buffer(0), 4097, true)],
            4097,
        ),
        (
            "the largest buffer that is filled",
            vec![(buffer(0), 0x1_0000, true)],
            0x1_0000,
        ),
        (
            "a buffer one byte larger than is filled",
            vec![(buffer(0), 0x1_0001, true)],
            0x1_0000,
        ),
        (
            "a buffer of half a mebibyte",
            vec![(buffer(0), 0x8_0000, true)],
            0x1_0000,
        ),
        ("an empty buffer", vec![(buffer(0), 0, true)], 0),
        ("a buffer to read", vec![(buffer(0), 64, false)], 0),
        (
            "a buffer to read and one to write",
            vec![(buffer(0), 64, false), (buffer(64), 8, true)],
            8,
        ),
        ("sixteen pieces of three bytes", scattered, 48),
        (
            "an empty piece between two",
            vec![
                (buffer(0), 8, true),
                (buffer(8), 0, true),
                (buffer(8), 8, true),
            ],
            16,
        ),
        ("a buffer over the seam", vec![(At::Seam(-5), 10, true)], 10),
        ("the last bytes of memory", vec![(At::Hole(-7), 7, true)], 7),
    ];
    for (about, pieces, written) in cases {
        let steps = [
            start(0),
            request(0, 0, &pieces),
            vec![Step::ExpectUsed(0, vec![(0, written)])],
            revive(),
        ];
        list.add(&RNG, "5.4.6", format!("entropy: {about}"), steps);
    }
    let chains = (0..RING_SIZE).flat_map(|n| super::chain(0, n, &[(buffer(0), 0x1_0000, true)]));
    let publish = (0..RING_SIZE).map(|n| Step::Publish(0, n));
    let back = (0..RING_SIZE).map(|n| (n, 0x1_0000)).collect();
    let steps = [
        start(0),
        chains.collect(),
        publish
            .chain([Step::Kick(0), Step::ExpectUsed(0, back)])
            .collect(),
        revive(),
    ];
    let about = "entropy: a ring full of large buffers is filled in turns";
    list.add(&RNG, "5.4.6", about, steps);
    let around = vec![
        Step::Fill(buffer(0), 64, 0xee),
        Step::ExpectMemory(buffer(0), vec![0xee; 64]),
    ];
    let after = vec![
        Step::ExpectUsed(0, vec![(0, 16)]),
        Step::ExpectMemory(buffer(0), vec![0xee; 16]),
        Step::ExpectMemory(buffer(32), vec![0xee; 32]),
    ];
    let steps = [
        start(0),
        around,
        request(0, 0, &[(buffer(16), 16, true)]),
        after,
        revive(),
    ];
    let about = "entropy: nothing is written beside a buffer";
    list.add(&RNG, "5.4.6.2", about, steps);
    list.rows()
}
