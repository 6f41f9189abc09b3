//! Requests to the block device (virtio 1.2, 5.2).

use devices::Width;
use devices::testing::SharedDisk;

use super::subjects::{BLOCK, BLOCK_READ_ONLY, BLOCK_WRITTEN, DISK_ID, block_header};
use super::{
    F_INDIRECT, INDIRECT, List, NEXT, Piece, WRITE, buffer, chain, d, go, latched, request, revive,
    start, t, used,
};
use crate::step::{At, Host, Row, Step, Subject};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
/// What a driver of today accepts.
const ALL: u64 = F_FLUSH | F_DISCARD | F_WRITE_ZEROES;

const HEADER: At = At::Memory(crate::step::BUFFERS);
const STATUS: At = At::Memory(crate::step::BUFFERS + 0x20);
const DATA: At = At::Memory(crate::step::BUFFERS + 0x1000);

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("block");
    reads(&mut list);
    writes(&mut list);
    headers(&mut list);
    statuses(&mut list);
    flushes(&mut list);
    identifiers(&mut list);
    kinds(&mut list);
    ranges(&mut list);
    bad_ranges(&mut list);
    zeroes(&mut list);
    read_only(&mut list);
    host_fails(&mut list);
    batches(&mut list);
    places(&mut list);
    configuration(&mut list);
    list.rows()
}

/// A request with its header and a status byte that is neither of the three.
fn ask(kind: u32, sector: u64, data: &[Piece]) -> Vec<Step> {
    let memory = vec![
        Step::Memory(HEADER, block_header(kind, sector)),
        Step::Memory(STATUS, vec![0xee]),
    ];
    let pieces = [&[(HEADER, 16, false)], data, &[(STATUS, 1, true)]].concat();
    [memory, request(0, 0, &pieces)].concat()
}

/// The answer to it.
fn answer(status: u8, written: u32) -> Vec<Step> {
    [
        used(&[(0, written)]),
        vec![Step::ExpectMemory(STATUS, vec![status])],
    ]
    .concat()
}

/// A sector is full of this byte.
fn holds(sector: u64, byte: u8) -> Vec<Step> {
    let (header, status, data) = (buffer(0x400), buffer(0x420), buffer(0x600));
    let memory = vec![
        Step::Memory(header, block_header(IN, sector)),
        Step::Memory(status, vec![0xee]),
        Step::Fill(data, 512, 0x5a),
    ];
    let pieces = [(header, 16, false), (data, 512, true), (status, 1, true)];
    [
        memory,
        request(0, 12, &pieces),
        used(&[(12, 513)]),
        vec![
            Step::ExpectMemory(status, vec![OK]),
            Step::ExpectMemory(data, vec![byte; 512]),
        ],
    ]
    .concat()
}

fn to_write(len: u32) -> Piece {
    (DATA, len, true)
}

fn to_read(len: u32) -> Piece {
    (DATA, len, false)
}

fn reads(list: &mut List) {
    let spec = "5.2.6";
    let mut good = |about: &str, sector, pieces: &[Piece], seen: &[(At, Vec<u8>)]| {
        let len: u32 = pieces.iter().map(|piece| piece.1).sum();
        let seen = seen
            .iter()
            .map(|(at, bytes)| Step::ExpectMemory(*at, bytes.clone()));
        let parts = [
            start(ALL),
            ask(IN, sector, pieces),
            answer(OK, len + 1),
            seen.collect(),
            revive(),
        ];
        list.add(&BLOCK, spec, format!("{about} is read"), parts);
    };
    good(
        "the first sector",
        0,
        &[to_write(512)],
        &[(DATA, vec![1; 512])],
    );
    good(
        "the last sector",
        63,
        &[to_write(512)],
        &[(DATA, vec![64; 512])],
    );
    good(
        "the whole disk",
        0,
        &[to_write(64 * 512)],
        &[(DATA, super::disk_image())],
    );
    good("no sector at all, within the disk,", 5, &[], &[]);
    good("no sector at all, right at the end,", 64, &[], &[]);
    let scattered: Vec<Piece> = [1_u32, 2, 3, 5, 7, 11, 13, 17, 19, 23, 411]
        .iter()
        .scan(0, |at, len| {
            let piece = (DATA.plus(*at * 2), *len, true);
            *at += u64::from(*len);
            Some(piece)
        })
        .collect();
    good(
        "a sector in eleven odd pieces",
        8,
        &scattered,
        &[(DATA, vec![9]), (DATA.plus(202), vec![9; 411])],
    );
    let pieces = [(DATA, 700, true), (DATA.plus(0x1001), 324, true)];
    good(
        "two sectors whose border is within a buffer",
        6,
        &pieces,
        &[
            (DATA, vec![7; 512]),
            (DATA.plus(512), vec![8; 188]),
            (DATA.plus(0x1001), vec![8; 324]),
        ],
    );
    let pieces = [(DATA, 512, true), (DATA, 512, true)];
    good(
        "a pair of sectors into one and the same buffer",
        10,
        &pieces,
        &[(DATA, vec![12; 512])],
    );
    for (about, sector, len) in [
        ("the sector after the last", 64, 512),
        ("the last sector and one more", 63, 1024),
        ("one byte more than the disk has", 0, 64 * 512 + 1),
        ("one sector more than the disk has", 0, 65 * 512),
        ("nothing, beyond the end", 65, 0),
        ("sector 2^55, whose offset is 2^64", 1 << 55, 512),
        (
            "sector 2^55 + 3, whose offset wraps to sector 3",
            (1 << 55) + 3,
            512,
        ),
        ("the last sector of 2^64 bytes", (1 << 55) - 1, 512),
        ("sector 2^63", 1 << 63, 512),
        ("the last sector number there is", u64::MAX, 512),
        ("511 bytes", 0, 511),
        ("513 bytes", 0, 513),
        ("a single byte", 0, 1),
    ] {
        let pieces: &[Piece] = if len == 0 { &[] } else { &[to_write(len)] };
        // The status is counted only where nothing before it is left out.
        let written = u32::from(len == 0);
        let untouched = vec![Step::ExpectMemory(DATA, vec![0; 512])];
        let parts = [
            start(ALL),
            ask(IN, sector, pieces),
            answer(IOERR, written),
            untouched,
            revive(),
        ];
        list.add(
            &BLOCK,
            "5.2.6.1",
            format!("a read of {about}: an error, no data"),
            parts,
        );
    }
}

fn writes(list: &mut List) {
    let spec = "5.2.6";
    let fill = |len| vec![Step::Fill(DATA, len, 0x77)];
    for (about, sector, pieces) in [
        ("the first sector", 0, vec![to_read(512)]),
        ("the last sector", 63, vec![to_read(512)]),
        (
            "a sector in three odd pieces",
            20,
            vec![
                (DATA, 1, false),
                (DATA.plus(7), 500, false),
                (DATA.plus(3), 11, false),
            ],
        ),
    ] {
        let parts = [
            start(ALL),
            fill(4096),
            ask(OUT, sector, &pieces),
            answer(OK, 1),
            holds(sector, 0x77),
            holds(sector ^ 1, u8::try_from((sector ^ 1) + 1).expect("small")),
            revive(),
        ];
        list.add(
            &BLOCK_WRITTEN,
            spec,
            format!("{about} is written, and no other"),
            parts,
        );
    }
    let parts = [
        start(ALL),
        ask(OUT, 30, &[]),
        answer(OK, 1),
        holds(30, 31),
        revive(),
    ];
    list.add(&BLOCK, spec, "a write of nothing does nothing", parts);
    let parts = [
        start(ALL),
        fill(1024),
        ask(OUT, 62, &[to_read(1024)]),
        answer(OK, 1),
        holds(62, 0x77),
        holds(63, 0x77),
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "the last two sectors are written",
        parts,
    );
    for (about, sector, len) in [
        ("the sector after the last", 64_u64, 512),
        ("the last sector and one more", 63, 1024),
        ("sector 2^55, whose offset is 2^64", 1 << 55, 512),
        (
            "sector 2^55 + 63, whose offset wraps to the last",
            (1 << 55) + 63,
            512,
        ),
        ("the last sector number there is", u64::MAX, 512),
        ("511 bytes", 63, 511),
        ("513 bytes", 62, 513),
        ("one byte", 63, 1),
        ("more than the whole disk", 0, 65 * 512),
    ] {
        let parts = [
            start(ALL),
            fill(66 * 512),
            ask(OUT, sector, &[to_read(len)]),
            answer(IOERR, 1),
            holds(63, 64),
            holds(0, 1),
            revive(),
        ];
        list.add(
            &BLOCK,
            "5.2.6.1",
            format!("a write of {about}: an error, nothing is written"),
            parts,
        );
    }
    let parts = [
        start(ALL),
        ask(OUT, 4, &[to_write(512)]),
        answer(OK, 0),
        vec![Step::ExpectMemory(DATA, vec![0; 512])],
        holds(4, 5),
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a write whose data is for the device to write: nothing is written anywhere",
        parts,
    );
    let parts = [
        start(ALL),
        fill(512),
        ask(OUT, 4, &[to_read(512), (DATA.plus(0x2000), 512, true)]),
        answer(OK, 0),
        holds(4, 0x77),
        vec![Step::ExpectMemory(DATA.plus(0x2000), vec![0; 512])],
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "a write with room for data that nobody asked for leaves it alone",
        parts,
    );
    let parts = [
        start(ALL),
        fill(512),
        ask(IN, 4, &[to_read(512), (DATA.plus(0x2000), 512, true)]),
        answer(OK, 513),
        vec![Step::ExpectMemory(DATA.plus(0x2000), vec![5; 512])],
        holds(4, 5),
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a read with data behind its header does not look at it",
        parts,
    );
}

fn headers(list: &mut List) {
    let spec = "2.7.4.1";
    let memory = || {
        vec![
            Step::Memory(HEADER, block_header(IN, 2)),
            Step::Memory(STATUS, vec![0xee]),
        ]
    };
    let read_back = || vec![Step::ExpectMemory(DATA, vec![3; 512])];
    let bytes: Vec<Piece> = (0..14)
        .map(|n| (HEADER.plus(n), if n == 13 { 3 } else { 1 }, false))
        .collect();
    for (about, header) in [
        (
            "in two halves",
            vec![(HEADER, 8, false), (HEADER.plus(8), 8, false)],
        ),
        (
            "with its kind cut in two",
            vec![(HEADER, 2, false), (HEADER.plus(2), 14, false)],
        ),
        ("in fourteen pieces", bytes),
        (
            "with empty pieces between",
            vec![
                (HEADER, 0, false),
                (HEADER, 9, false),
                (HEADER, 0, false),
                (HEADER.plus(9), 7, false),
            ],
        ),
        (
            "with more bytes to read behind it",
            vec![(HEADER, 64, false)],
        ),
    ] {
        let pieces = [header, vec![to_write(512), (STATUS, 1, true)]].concat();
        let parts = [
            start(ALL),
            memory(),
            request(0, 0, &pieces),
            answer(OK, 513),
            read_back(),
            revive(),
        ];
        list.add(&BLOCK, spec, format!("a header {about} is a header"), parts);
    }
    for (about, header) in [
        ("15 bytes", vec![(HEADER, 15, false)]),
        ("8 bytes", vec![(HEADER, 8, false)]),
        ("1 byte", vec![(HEADER, 1, false)]),
        ("no bytes", vec![(HEADER, 0, false)]),
        ("no descriptor", vec![]),
        (
            "15 bytes in three pieces",
            vec![
                (HEADER, 5, false),
                (HEADER.plus(5), 5, false),
                (HEADER.plus(10), 5, false),
            ],
        ),
    ] {
        let pieces = [header, vec![to_write(512), (STATUS, 1, true)]].concat();
        let untouched = vec![Step::ExpectMemory(DATA, vec![0; 512])];
        let parts = [
            start(ALL),
            memory(),
            request(0, 0, &pieces),
            answer(IOERR, 0),
            untouched,
            revive(),
        ];
        list.add(
            &BLOCK,
            "5.2.6",
            format!("a header of {about}: an error"),
            parts,
        );
    }
    let both = vec![
        Step::Memory(DATA, [block_header(OUT, 9), vec![0x66; 512]].concat()),
        Step::Memory(STATUS, vec![0xee]),
    ];
    let parts = [
        start(ALL),
        both,
        request(0, 0, &[(DATA, 528, false), (STATUS, 1, true)]),
        answer(OK, 1),
        holds(9, 0x66),
        revive(),
    ];
    list.add(&BLOCK_WRITTEN, spec, "header and data in one buffer", parts);
    let split = vec![
        Step::Memory(DATA, [block_header(OUT, 9), vec![0x66; 512]].concat()),
        Step::Memory(STATUS, vec![0xee]),
    ];
    let parts = [
        start(ALL),
        split,
        request(
            0,
            0,
            &[
                (DATA, 100, false),
                (DATA.plus(100), 428, false),
                (STATUS, 1, true),
            ],
        ),
        answer(OK, 1),
        holds(9, 0x66),
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "a buffer that ends within the data that begins with the header",
        parts,
    );
    let mut priority = block_header(IN, 2);
    if let Some(bytes) = priority.get_mut(4..8) {
        bytes.fill(0xff);
    }
    let parts = [
        start(ALL),
        vec![Step::Memory(HEADER, priority)],
        request(
            0,
            0,
            &[(HEADER, 16, false), to_write(512), (STATUS, 1, true)],
        ),
        answer(OK, 513),
        read_back(),
        revive(),
    ];
    list.add(
        &BLOCK,
        "5.2.6",
        "the reserved field of a header means nothing",
        parts,
    );
    let table = buffer(0x8000);
    let steps = vec![
        d(5, table, 48, INDIRECT, 0),
        t(table, 0, HEADER, 16, NEXT, 1),
        t(table, 1, DATA, 512, NEXT | WRITE, 2),
        t(table, 2, STATUS, 1, WRITE, 0),
    ];
    let parts = [
        start(ALL | F_INDIRECT),
        memory(),
        steps,
        go(5),
        used(&[(5, 513)]),
        read_back(),
        revive(),
    ];
    list.add(&BLOCK, "2.7.5.3", "a request in a table", parts);
    let steps = vec![
        d(5, HEADER, 16, NEXT, 6),
        d(6, table, 32, INDIRECT, 0),
        t(table, 0, DATA, 512, NEXT | WRITE, 1),
        t(table, 1, STATUS, 1, WRITE, 0),
    ];
    let parts = [
        start(ALL | F_INDIRECT),
        memory(),
        steps,
        go(5),
        used(&[(5, 513)]),
        read_back(),
        revive(),
    ];
    list.add(
        &BLOCK,
        "2.7.5.3.2",
        "a header of the queue's own and the rest in a table",
        parts,
    );
}

fn statuses(list: &mut List) {
    let spec = "5.2.6";
    let memory = || {
        vec![
            Step::Memory(HEADER, block_header(IN, 2)),
            Step::Fill(DATA, 1024, 0x55),
        ]
    };
    let h: Piece = (HEADER, 16, false);
    let parts = [
        start(ALL),
        memory(),
        request(0, 0, &[h, to_write(513)]),
        used(&[(0, 513)]),
        vec![Step::ExpectMemory(
            DATA,
            [vec![3; 512], vec![OK, 0x55]].concat(),
        )],
        revive(),
    ];
    list.add(&BLOCK, "2.7.4.1", "data and status in one buffer", parts);
    let parts = [
        start(ALL),
        memory(),
        request(0, 0, &[h, to_write(512)]),
        used(&[(0, 0)]),
        vec![Step::ExpectMemory(
            DATA,
            [vec![0x55; 511], vec![IOERR]].concat(),
        )],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a read without a buffer for the status: its last byte is taken for it",
        parts,
    );
    let parts = [
        start(ALL),
        memory(),
        request(
            0,
            0,
            &[
                h,
                (DATA, 300, true),
                (DATA.plus(300), 213, true),
                (STATUS, 0, true),
            ],
        ),
        used(&[(0, 513)]),
        vec![Step::ExpectMemory(DATA, [vec![3; 512], vec![OK]].concat())],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "an empty status buffer: the last byte there is is the status",
        parts,
    );
    let parts = [
        start(ALL),
        memory(),
        request(0, 0, &[h, to_write(512), (STATUS, 4, true)]),
        used(&[(0, 0)]),
        vec![Step::ExpectMemory(STATUS, vec![0, 0, 0, IOERR])],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a status buffer of four bytes: the data is three bytes too long for sectors",
        parts,
    );
    for (about, pieces) in [
        ("a header alone", vec![h]),
        ("a header and data to read", vec![h, to_read(512)]),
        (
            "a header and an empty buffer to write",
            vec![h, (STATUS, 0, true)],
        ),
        ("an empty buffer to write", vec![(STATUS, 0, true)]),
        ("one byte to read", vec![(HEADER, 1, false)]),
    ] {
        let parts = [
            start(ALL),
            memory(),
            request(0, 0, &pieces),
            used(&[(0, 0)]),
            holds(2, 3),
            revive(),
        ];
        list.add(
            &BLOCK,
            spec,
            format!("{about}, without room for a status, comes back with nothing"),
            parts,
        );
    }
    let write = vec![
        Step::Memory(HEADER, block_header(OUT, 2)),
        Step::Fill(DATA, 512, 0x55),
    ];
    let parts = [
        start(ALL),
        write,
        request(0, 0, &[h, to_read(512)]),
        used(&[(0, 0)]),
        holds(2, 3),
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a write without room for a status is not carried out",
        parts,
    );
    let parts = [
        start(ALL),
        memory(),
        request(0, 0, &[(STATUS, 1, true)]),
        answer(IOERR, 1),
        revive(),
    ];
    list.add(&BLOCK, spec, "a status byte alone gets an error", parts);
    let parts = [
        start(ALL),
        memory(),
        vec![Step::Memory(STATUS, vec![0xee])],
        request(0, 0, &[h, (HEADER, 512, true), (STATUS, 1, true)]),
        used(&[(0, 513)]),
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "data that the device writes over its own header and status",
        parts,
    );
    let seam = At::Seam(-1);
    let parts = [
        start(ALL),
        memory(),
        request(0, 0, &[h, to_write(512), (seam, 1, true)]),
        used(&[(0, 513)]),
        vec![Step::ExpectMemory(seam, vec![OK, 0])],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "the status is the last byte of a piece of memory",
        parts,
    );
    let parts = [
        start(ALL),
        memory(),
        request(
            0,
            0,
            &[
                h,
                (seam.plus(1), 512, true),
                (At::Seam(-512), 512, true),
                (STATUS, 1, true),
            ],
        ),
        used(&[(0, 1025)]),
        vec![
            Step::ExpectMemory(seam.plus(1), vec![3; 512]),
            Step::ExpectMemory(At::Seam(-512), vec![4; 512]),
        ],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "sectors to both sides of a seam, the second first",
        parts,
    );
}

fn flushes(list: &mut List) {
    let spec = "5.2.6.2";
    let ok = |features, sector, data: &[Piece], written| {
        [
            start(features),
            ask(FLUSH, sector, data),
            answer(OK, written),
            revive(),
        ]
    };
    list.add(&BLOCK, spec, "a flush is done", ok(F_FLUSH, 0, &[], 1));
    list.add(
        &BLOCK,
        spec,
        "a flush by a driver that did not accept the feature is done",
        ok(0, 0, &[], 1),
    );
    list.add(
        &BLOCK,
        spec,
        "the sector of a flush means nothing",
        ok(F_FLUSH, u64::MAX, &[], 1),
    );
    list.add(
        &BLOCK,
        spec,
        "a flush with data to read does not look at it",
        ok(F_FLUSH, 0, &[to_read(512)], 1),
    );
    list.add(
        &BLOCK,
        spec,
        "a flush with room for data leaves it alone",
        ok(F_FLUSH, 0, &[to_write(512)], 0),
    );
    let many: Vec<_> = (0..30)
        .flat_map(|_| [ask(FLUSH, 0, &[]), answer(OK, 1)].concat())
        .collect();
    list.add(
        &BLOCK,
        spec,
        "thirty flushes one after the other",
        [start(F_FLUSH), many, revive()],
    );
}

fn identifiers(list: &mut List) {
    let spec = "5.2.6";
    let id = DISK_ID.as_bytes().to_vec();
    let seen = |at, bytes: Vec<u8>| vec![Step::ExpectMemory(at, bytes)];
    let add = |list: &mut List, about: &str, data: &[Piece], parts: Vec<Vec<Step>>| {
        let first = [start(ALL), ask(GET_ID, 0, data)].concat();
        list.add(&BLOCK, spec, about, [first, parts.concat(), revive()]);
    };
    add(
        list,
        "the identifier in 20 bytes",
        &[to_write(20)],
        vec![answer(OK, 21), seen(DATA, id.clone())],
    );
    add(
        list,
        "the identifier in a page: 20 bytes of it",
        &[to_write(4096)],
        vec![
            answer(OK, 20),
            seen(DATA, [id.clone(), vec![0; 64]].concat()),
        ],
    );
    add(
        list,
        "the identifier in 21 bytes",
        &[to_write(21)],
        vec![answer(OK, 20), seen(DATA, [id.clone(), vec![0]].concat())],
    );
    let pieces = [(DATA, 7, true), (DATA.plus(0x100), 13, true)];
    let (front, back) = id.split_at(7);
    add(
        list,
        "the identifier in two pieces",
        &pieces,
        vec![
            answer(OK, 21),
            seen(DATA, front.to_vec()),
            seen(DATA.plus(0x100), back.to_vec()),
        ],
    );
    for len in [19_u32, 1, 0] {
        let pieces: &[Piece] = if len == 0 { &[] } else { &[to_write(len)] };
        let written = u32::from(len == 0);
        add(
            list,
            &format!("the identifier in {len} bytes: an error, nothing is written"),
            pieces,
            vec![answer(IOERR, written), seen(DATA, vec![0; 20])],
        );
    }
    add(
        list,
        "the identifier into a buffer to read: an error",
        &[to_read(20)],
        vec![answer(IOERR, 1), seen(DATA, vec![0; 20])],
    );
    let far = [
        start(ALL),
        ask(GET_ID, u64::MAX, &[to_write(20)]),
        answer(OK, 21),
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "the sector of a request for the identifier means nothing",
        far,
    );
}

fn kinds(list: &mut List) {
    for (kind, name) in [
        (2, "SCSI command, legacy"),
        (3, "SCSI command out, legacy"),
        (5, "flush out, legacy"),
        (6, "number 6"),
        (7, "number 7"),
        (9, "number 9"),
        (10, "get lifetime"),
        (12, "number 12"),
        (14, "secure erase"),
        (15, "zone append"),
        (16, "zone report"),
        (24, "zone reset all"),
        (0x100, "read, with a bit above the lowest byte"),
        (0x8000_0000, "read with a barrier, legacy"),
        (0x8000_0001, "write with a barrier, legacy"),
        (u32::MAX, "the last number"),
    ] {
        let about =
            format!("a request of a kind that is not there, {name}: unsupported, no data moves");
        let untouched = vec![Step::ExpectMemory(DATA, vec![0; 512])];
        let parts = [
            start(ALL),
            ask(kind, 1, &[to_write(512)]),
            answer(UNSUPP, 0),
            untouched,
            holds(1, 2),
            revive(),
        ];
        list.add(&BLOCK, "5.2.6.2", about, parts);
    }
    for (kind, name) in [(DISCARD, "discard"), (WRITE_ZEROES, "write zeroes")] {
        let about = format!("{name} by a driver that did not accept it: unsupported");
        let parts = [
            start(F_FLUSH),
            range(1, 1, 0),
            ask(kind, 0, &[to_read(16)]),
            answer(UNSUPP, 1),
            holds(1, 2),
            revive(),
        ];
        list.add(&BLOCK, "5.2.6.2", about, parts);
    }
}

/// The bytes of a range in a discard or write-zeroes request.
fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<Step> {
    vec![Step::Memory(DATA, segment(sector, sectors, flags))]
}

fn ranges(list: &mut List) {
    let spec = "5.2.6.2";
    for (kind, name) in [(DISCARD, "discard"), (WRITE_ZEROES, "write zeroes")] {
        let mut add =
            |about: &str, list_of: Vec<Vec<u8>>, pieces: &[Piece], status, untouched: &[u64]| {
                let memory = vec![Step::Memory(DATA, list_of.concat())];
                let look = untouched
                    .iter()
                    .flat_map(|s| holds(*s, u8::try_from(*s + 1).expect("small")));
                let parts = [
                    start(ALL),
                    memory,
                    ask(kind, 0, pieces),
                    answer(status, 1),
                    look.collect(),
                    revive(),
                ];
                list.add(&BLOCK_WRITTEN, spec, format!("{name}: {about}"), parts);
            };
        let all = |count: u32| vec![segment(8, 1, 0); usize::try_from(count).expect("small")];
        add(
            "one range",
            vec![segment(8, 8, 0)],
            &[to_read(16)],
            OK,
            &[7, 16],
        );
        add(
            "the whole disk",
            vec![segment(0, 64, 0)],
            &[to_read(16)],
            OK,
            &[],
        );
        add(
            "a range of no sectors does nothing",
            vec![segment(8, 0, 0)],
            &[to_read(16)],
            OK,
            &[8],
        );
        add(
            "two ranges",
            vec![segment(0, 1, 0), segment(62, 2, 0)],
            &[to_read(32)],
            OK,
            &[1, 61],
        );
        add(
            "sixteen ranges, the most there may be",
            all(16),
            &[to_read(256)],
            OK,
            &[7, 9],
        );
        add(
            "seventeen ranges: an error",
            all(17),
            &[to_read(272)],
            IOERR,
            &[8],
        );
        add(
            "a thousand ranges: an error",
            all(1000),
            &[to_read(16000)],
            IOERR,
            &[8],
        );
        add("no range: an error", vec![], &[], IOERR, &[0]);
        add(
            "a range of 15 bytes: an error",
            all(1),
            &[to_read(15)],
            IOERR,
            &[8],
        );
        add(
            "a range of 17 bytes: an error",
            all(2),
            &[to_read(17)],
            IOERR,
            &[8],
        );
        add(
            "a range and a half: an error, nothing is done",
            all(2),
            &[to_read(24)],
            IOERR,
            &[8],
        );
        add(
            "a range in two pieces",
            vec![segment(8, 1, 0)],
            &[(DATA, 3, false), (DATA.plus(3), 13, false)],
            OK,
            &[7, 9],
        );
        add(
            "a range after the end: an error",
            vec![segment(64, 1, 0)],
            &[to_read(16)],
            IOERR,
            &[63],
        );
        add(
            "a range over the end: an error, nothing is done",
            vec![segment(63, 2, 0)],
            &[to_read(16)],
            IOERR,
            &[63],
        );
        add(
            "a range of 2^32 - 1 sectors: an error",
            vec![segment(0, u32::MAX, 0)],
            &[to_read(16)],
            IOERR,
            &[0],
        );
        add(
            "a range at sector 2^55: an error",
            vec![segment(1 << 55, 1, 0)],
            &[to_read(16)],
            IOERR,
            &[0],
        );
        add(
            "a range at the last sector number: an error",
            vec![segment(u64::MAX, 1, 0)],
            &[to_read(16)],
            IOERR,
            &[63],
        );
        add(
            "a good range before a bad one: an error, neither is done",
            vec![segment(3, 1, 0), segment(64, 1, 0)],
            &[to_read(32)],
            IOERR,
            &[3],
        );
        add(
            "a bad range before a good one: an error, neither is done",
            vec![segment(64, 1, 0), segment(3, 1, 0)],
            &[to_read(32)],
            IOERR,
            &[3],
        );
        add(
            "a range with an unknown flag: unsupported",
            vec![segment(3, 1, 2)],
            &[to_read(16)],
            UNSUPP,
            &[3],
        );
        add(
            "a range with the last flag: unsupported",
            vec![segment(3, 1, 0x8000_0000)],
            &[to_read(16)],
            UNSUPP,
            &[3],
        );
        add(
            "a good range before one with an unknown flag: unsupported, neither is done",
            vec![segment(3, 1, 0), segment(5, 1, 4)],
            &[to_read(32)],
            UNSUPP,
            &[3, 5],
        );
        add(
            "the same range twice",
            vec![segment(8, 2, 0), segment(8, 2, 0)],
            &[to_read(32)],
            OK,
            &[7, 10],
        );
        add(
            "ranges that overlap",
            vec![segment(8, 4, 0), segment(10, 4, 0)],
            &[to_read(32)],
            OK,
            &[7, 14],
        );
    }
}

fn bad_ranges(list: &mut List) {
    let spec = "5.2.6.2";
    let parts = [
        start(ALL),
        range(3, 1, 1),
        ask(DISCARD, 0, &[to_read(16)]),
        answer(UNSUPP, 1),
        holds(3, 4),
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "a discard with the unmap flag: unsupported",
        parts,
    );
    let parts = [
        start(ALL),
        range(3, 1, 0),
        ask(DISCARD, 0, &[to_write(16)]),
        answer(IOERR, 0),
        holds(3, 4),
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "a discard whose range is for the device to write: an error",
        parts,
    );
    let parts = [
        start(ALL),
        range(3, 1, 0),
        ask(DISCARD, u64::MAX, &[to_read(16)]),
        answer(OK, 1),
        holds(4, 5),
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "the sector in the header of a discard means nothing",
        parts,
    );
    let parts = [
        start(ALL),
        range(3, 1, 0),
        ask(DISCARD, 0, &[to_read(16), (DATA.plus(0x100), 512, true)]),
        answer(OK, 0),
        vec![Step::ExpectMemory(DATA.plus(0x100), vec![0; 512])],
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "a discard with room for data leaves it alone",
        parts,
    );
}

fn zeroes(list: &mut List) {
    let spec = "5.2.6.2";
    for (flags, name) in [(0, "kept"), (1, "given back")] {
        let about = format!("zeroed sectors read as zero, their space {name}");
        let parts = [
            start(ALL),
            range(5, 3, flags),
            ask(WRITE_ZEROES, 0, &[to_read(16)]),
            answer(OK, 1),
            holds(5, 0),
            holds(7, 0),
            holds(4, 5),
            holds(8, 9),
            revive(),
        ];
        list.add(&BLOCK_WRITTEN, spec, about, parts);
    }
    let parts = [
        start(ALL),
        range(5, 3, 3),
        ask(WRITE_ZEROES, 0, &[to_read(16)]),
        answer(UNSUPP, 1),
        holds(5, 6),
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "write zeroes with unmap and an unknown flag: unsupported",
        parts,
    );
    let fill = vec![Step::Fill(DATA.plus(0x1000), 512, 0x33)];
    let write = [
        vec![Step::Memory(HEADER, block_header(OUT, 5))],
        request(
            0,
            0,
            &[
                (HEADER, 16, false),
                (DATA.plus(0x1000), 512, false),
                (STATUS, 1, true),
            ],
        ),
        answer(OK, 1),
    ]
    .concat();
    let parts = [
        start(ALL),
        fill,
        range(5, 1, 1),
        ask(WRITE_ZEROES, 0, &[to_read(16)]),
        answer(OK, 1),
        write,
        holds(5, 0x33),
        revive(),
    ];
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "a sector is written again after it was zeroed",
        parts,
    );
}

fn read_only(list: &mut List) {
    let ro: &'static Subject = &BLOCK_READ_ONLY;
    let spec = "5.2.6.2";
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(ro, spec, about, parts);
    let offered = |mask, value| vec![Step::ExpectOffered { mask, value }];
    add(
        "a read-only disk says so, and offers no way to change it",
        vec![offered(F_RO | F_DISCARD | F_WRITE_ZEROES, F_RO), revive()],
    );
    for (features, name) in [(F_RO | F_FLUSH, "knows"), (F_FLUSH, "does not care")] {
        add(
            &format!(
                "a write to a read-only disk by a driver that {name}: an error, nothing is written"
            ),
            vec![
                start(features),
                ask(OUT, 3, &[to_read(512)]),
                answer(IOERR, 1),
                holds(3, 4),
                revive(),
            ],
        );
    }
    for (kind, name) in [(DISCARD, "discard"), (WRITE_ZEROES, "write zeroes")] {
        add(
            &format!("{name} on a read-only disk: an error, nothing is done"),
            vec![
                start(F_RO),
                range(3, 1, 0),
                ask(kind, 0, &[to_read(16)]),
                answer(IOERR, 1),
                holds(3, 4),
                revive(),
            ],
        );
    }
    add(
        "a write of nothing to a read-only disk: an error",
        vec![start(F_RO), ask(OUT, 3, &[]), answer(IOERR, 1), revive()],
    );
    add(
        "a write beyond the end of a read-only disk: an error",
        vec![
            start(F_RO),
            ask(OUT, 99, &[to_read(512)]),
            answer(IOERR, 1),
            revive(),
        ],
    );
    add(
        "a flush of a read-only disk is done",
        vec![
            start(F_RO | F_FLUSH),
            ask(FLUSH, 0, &[]),
            answer(OK, 1),
            revive(),
        ],
    );
    add(
        "a read-only disk has its identifier",
        vec![
            start(F_RO),
            ask(GET_ID, 0, &[to_write(20)]),
            answer(OK, 21),
            revive(),
        ],
    );
    add(
        "a read-only disk is read to its end",
        vec![start(F_RO), holds(0, 1), holds(63, 64), revive()],
    );
    add(
        "a read-only disk cannot be started with discard",
        vec![
            vec![
                Step::Reset,
                Step::Status(1),
                Step::Status(3),
                Step::Features(super::F_VERSION_1 | F_DISCARD),
                Step::Status(11),
                Step::ExpectStatus(3),
            ],
            revive(),
        ],
    );
}

fn disk(host: &Host) -> &SharedDisk {
    host.backend.downcast_ref().expect("the subject's disk")
}

fn host_fails(list: &mut List) {
    let spec = "5.2.6.2";
    let eio = || {
        vec![Step::Host("the disk fails (EIO)", |host| {
            disk(host).fail_with(Some(5));
        })]
    };
    let enospc = || {
        vec![Step::Host("the disk is full (ENOSPC)", |host| {
            disk(host).fail_with(Some(28));
        })]
    };
    let cannot = || {
        vec![Step::Host("the disk cannot (EOPNOTSUPP)", |host| {
            disk(host).fail_with(Some(95));
        })]
    };
    let well = || {
        vec![Step::Host("the disk is well again", |host| {
            disk(host).fail_with(None);
        })]
    };
    let mut add = |about: &str, parts: Vec<Vec<Step>>| list.add(&BLOCK_WRITTEN, spec, about, parts);
    add(
        "a read that the host fails: an error, and the next one is good",
        vec![
            start(ALL),
            eio(),
            ask(IN, 3, &[to_write(512)]),
            answer(IOERR, 0),
            well(),
            holds(3, 4),
            revive(),
        ],
    );
    add(
        "a write that the host fails: an error, and the next one is good",
        vec![
            start(ALL),
            eio(),
            ask(OUT, 3, &[to_read(512)]),
            answer(IOERR, 1),
            well(),
            ask(OUT, 3, &[to_read(512)]),
            answer(OK, 1),
            holds(3, 0),
            revive(),
        ],
    );
    add(
        "a write to a full disk: an error, and reads go on",
        vec![
            start(ALL),
            enospc(),
            ask(OUT, 3, &[to_read(512)]),
            answer(IOERR, 1),
            well(),
            holds(3, 4),
            revive(),
        ],
    );
    add(
        "a flush that the host fails: an error",
        vec![
            start(ALL),
            eio(),
            ask(FLUSH, 0, &[]),
            answer(IOERR, 1),
            well(),
            ask(FLUSH, 0, &[]),
            answer(OK, 1),
            revive(),
        ],
    );
    add(
        "a discard that the host fails: an error",
        vec![
            start(ALL),
            range(3, 1, 0),
            eio(),
            ask(DISCARD, 0, &[to_read(16)]),
            answer(IOERR, 1),
            well(),
            revive(),
        ],
    );
    add(
        "a discard that the host has not: unsupported",
        vec![
            start(ALL),
            range(3, 1, 0),
            cannot(),
            ask(DISCARD, 0, &[to_read(16)]),
            answer(UNSUPP, 1),
            well(),
            revive(),
        ],
    );
    add(
        "write zeroes on a full disk: an error",
        vec![
            start(ALL),
            range(3, 1, 0),
            enospc(),
            ask(WRITE_ZEROES, 0, &[to_read(16)]),
            answer(IOERR, 1),
            well(),
            revive(),
        ],
    );
    add(
        "the identifier does not need the host",
        vec![
            start(ALL),
            eio(),
            ask(GET_ID, 0, &[to_write(20)]),
            answer(OK, 21),
            well(),
            revive(),
        ],
    );
    let flushed = |what, check| vec![Step::Host(what, check)];
    add(
        "a driver that flushes: no write is flushed by itself",
        vec![
            start(ALL),
            ask(OUT, 3, &[to_read(512)]),
            answer(OK, 1),
            flushed("nothing was flushed", |host| {
                assert_eq!(disk(host).flushes(), 0);
            }),
            ask(FLUSH, 0, &[]),
            answer(OK, 1),
            flushed("it was flushed once", |host| {
                assert_eq!(disk(host).flushes(), 1);
            }),
            revive(),
        ],
    );
    add(
        "a driver that does not flush: each write lasts",
        vec![
            start(0),
            ask(OUT, 3, &[to_read(512)]),
            answer(OK, 1),
            flushed("it was flushed", |host| assert_eq!(disk(host).flushes(), 1)),
            revive(),
        ],
    );
    add(
        "a reset while the disk fails",
        vec![
            start(ALL),
            eio(),
            ask(IN, 3, &[to_write(512)]),
            answer(IOERR, 0),
            vec![Step::Reset],
            well(),
            revive(),
        ],
    );
}

fn batches(list: &mut List) {
    let spec = "2.7.13";
    // Five requests of three descriptors each, of all kinds and with all ends.
    let mut steps = vec![];
    let mut back = vec![];
    let mut seen = vec![];
    for (n, kind, sector, len, status, written) in [
        (0_u16, IN, 1, 512, OK, 513),
        (1, IN, 64, 512, IOERR, 0),
        (2, 99, 0, 512, UNSUPP, 0),
        (3, GET_ID, 0, 20, OK, 21),
        (4, IN, 63, 512, OK, 513),
    ] {
        let at = |offset: u64| buffer(u64::from(n) * 0x1000 + offset);
        steps.push(Step::Memory(at(0), block_header(kind, sector)));
        steps.push(Step::Memory(at(0x20), vec![0xee]));
        steps.extend(chain(
            0,
            n * 3,
            &[
                (at(0), 16, false),
                (at(0x200), len, true),
                (at(0x20), 1, true),
            ],
        ));
        steps.push(Step::Publish(0, n * 3));
        back.push((n * 3, written));
        seen.push(Step::ExpectMemory(at(0x20), vec![status]));
    }
    steps.push(Step::Kick(0));
    let parts = [start(ALL), steps.clone(), used(&back), seen, revive()];
    list.add(
        &BLOCK,
        spec,
        "five requests with five ends in one batch",
        parts,
    );
    steps.pop();
    steps.push(d(15, At::Hole(0), 1, WRITE, 0));
    steps.push(Step::Publish(0, 15));
    steps.push(Step::Kick(0));
    let parts = [
        start(ALL),
        steps,
        used(&back),
        vec![Step::ExpectNeedsReset],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "five good requests and one outside memory: the five come back first",
        parts,
    );
    let same = [
        ask(IN, 3, &[to_write(512)]),
        vec![Step::Publish(0, 0), Step::Kick(0)],
    ]
    .concat();
    let parts = [start(ALL), same, vec![Step::Settle], revive()];
    list.add(
        &BLOCK,
        spec,
        "a request published twice is answered twice or puts the queue out of service",
        parts,
    );
    let hundred: Vec<_> = (0..100_u64)
        .flat_map(|n| holds(n % 64, u8::try_from(n % 64 + 1).expect("small")))
        .collect();
    list.add(
        &BLOCK,
        spec,
        "a hundred reads one after the other",
        [start(ALL), hundred, revive()],
    );
    let all: Vec<_> = (0..16_u64)
        .flat_map(|n| {
            let sector = n * 4;
            [
                vec![Step::Fill(DATA, 512, 0x90)],
                ask(OUT, sector, &[to_read(512)]),
                answer(OK, 1),
                holds(sector, 0x90),
                holds(sector + 1, u8::try_from(sector + 2).expect("small")),
            ]
            .concat()
        })
        .collect();
    list.add(
        &BLOCK_WRITTEN,
        spec,
        "every fourth sector is written, and read with its neighbour",
        [start(ALL), all, revive()],
    );
    let held = vec![Step::Host("the loop is held up", |_| {})];
    let memory = vec![
        Step::Memory(HEADER, block_header(IN, 3)),
        Step::Memory(STATUS, vec![0xee]),
    ];
    let changed = vec![Step::Memory(HEADER, block_header(IN, 1 << 60))];
    let parts = [
        start(ALL),
        held,
        memory,
        request(
            0,
            0,
            &[(HEADER, 16, false), to_write(512), (STATUS, 1, true)],
        ),
        changed,
        answer(IOERR, 0),
        revive(),
    ];
    list.add(
        &BLOCK,
        "2.7.13",
        "a header that changes before the device looks: what it finds is checked",
        parts,
    );
}

fn places(list: &mut List) {
    let spec = "2.7.5";
    let memory = || {
        vec![
            Step::Memory(HEADER, block_header(IN, 3)),
            Step::Memory(STATUS, vec![0xee]),
        ]
    };
    let h: Piece = (HEADER, 16, false);
    let untouched = || {
        vec![
            Step::ExpectMemory(STATUS, vec![0xee]),
            Step::ExpectMemory(DATA, vec![0; 512]),
        ]
    };
    for (about, pieces) in [
        (
            "the status is where no memory is",
            vec![h, to_write(512), (At::Hole(0), 1, true)],
        ),
        (
            "the status is in the device's registers",
            vec![h, to_write(512), (At::Window(0x70), 1, true)],
        ),
        (
            "the status is at the end of the address space",
            vec![h, to_write(512), (At::Raw(u64::MAX), 1, true)],
        ),
        (
            "the header is where no memory is",
            vec![(At::Hole(0), 16, false), to_write(512), (STATUS, 1, true)],
        ),
        (
            "the header runs over the end of the address space",
            vec![(At::Raw(u64::MAX - 7), 16, false), (STATUS, 1, true)],
        ),
        (
            "the data is where no memory is",
            vec![h, (At::Hole(0), 512, true), (STATUS, 1, true)],
        ),
        (
            "the second of two pieces of data is where no memory is",
            vec![
                h,
                to_write(512),
                (At::Hole(0), 512, true),
                (STATUS, 1, true),
            ],
        ),
        (
            "the data is longer than memory",
            vec![h, (DATA, 0x4000_0000, true), (STATUS, 1, true)],
        ),
    ] {
        let parts = [
            start(ALL),
            memory(),
            request(0, 0, &pieces),
            untouched(),
            latched(),
        ];
        list.add(
            &BLOCK,
            spec,
            format!("{about}: out of service, nothing moves"),
            parts,
        );
    }
    let write = vec![Step::Memory(HEADER, block_header(OUT, 3))];
    let parts = [
        start(ALL),
        write,
        request(0, 0, &[h, (At::Hole(0), 512, false), (STATUS, 1, true)]),
        vec![Step::ExpectNeedsReset, Step::Start(super::F_VERSION_1)],
        holds(3, 4),
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a write from where no memory is: out of service, nothing is written",
        parts,
    );
    let end = At::Hole(-512);
    let parts = [
        start(ALL),
        memory(),
        request(0, 0, &[h, (end, 512, true), (STATUS, 1, true)]),
        answer(OK, 513),
        vec![Step::ExpectMemory(end, vec![4; 512])],
        revive(),
    ];
    list.add(&BLOCK, spec, "data up to the very end of memory", parts);
}

fn configuration(list: &mut List) {
    let spec = "5.2.4";
    let see = |field, width, value| Step::ExpectConfig(field, width, value);
    let mut add = |about: &str, steps: Vec<Step>| list.add(&BLOCK, spec, about, [steps, revive()]);
    add(
        "the capacity in sectors, at once and in halves",
        vec![
            see(0, Width::Qword, 64),
            see(0, Width::Dword, 64),
            see(4, Width::Dword, 0),
        ],
    );
    add(
        "the capacity byte by byte and across its halves",
        vec![
            see(0, Width::Byte, 64),
            see(1, Width::Byte, 0),
            see(3, Width::Word, 0),
        ],
    );
    add(
        "blocks are of 512 bytes",
        vec![see(0x14, Width::Dword, 512), see(0x15, Width::Byte, 2)],
    );
    let end = || {
        vec![
            see(0x7f, Width::Byte, 0),
            see(0x80, Width::Qword, 0),
            see(0xf8, Width::Qword, 0),
        ]
    };
    add("configuration beyond the fields reads zero", end());
    let before_driver: Vec<_> = [Width::Byte, Width::Word, Width::Dword, Width::Qword]
        .into_iter()
        .map(|width| Step::WriteConfig(0, width, 0))
        .collect();
    add(
        "a driver that writes the capacity changes nothing",
        [
            vec![Step::Status(1), Step::Status(3)],
            before_driver,
            vec![see(0, Width::Qword, 64)],
        ]
        .concat(),
    );
    add(
        "a driver that writes the block size changes nothing",
        vec![
            Step::Status(1),
            Step::Status(3),
            Step::WriteConfig(0x14, Width::Dword, 4096),
            see(0x14, Width::Dword, 512),
        ],
    );
    for (bit, name) in [
        (0, "BARRIER, which is legacy,"),
        (5, "RO"),
        (7, "SCSI, which is legacy,"),
        (15, "LIFETIME"),
        (16, "SECURE_ERASE"),
        (17, "ZONED"),
    ] {
        let bit = 1_u64 << bit;
        add(
            &format!("{name} is not offered on a disk that can be written"),
            vec![Step::ExpectOffered {
                mask: bit,
                value: 0,
            }],
        );
    }
    let wanted = F_FLUSH | F_DISCARD | F_WRITE_ZEROES;
    add(
        "flush, discard and write zeroes are offered",
        vec![Step::ExpectOffered {
            mask: wanted,
            value: wanted,
        }],
    );
}
