//! Rings and descriptors against the rules of virtio 1.2, 2.7.

use super::subjects::{BLOCK, RNG, block_header};
use super::{
    F_EVENT_IDX, F_INDIRECT, INDIRECT, List, NEXT, WRITE, buffer, chain, d, go, latched, request,
    revive, start, t, used,
};
use crate::access::Transport;
use crate::step::{At, FIRST_RING, RING_SIZE, Row, Step};

/// The default ring of queue 0.
const TABLE: At = At::Memory(FIRST_RING);
const AVAILABLE: At = At::Memory(FIRST_RING + 0x1000);
const USED: At = At::Memory(FIRST_RING + 0x2000);
/// Where tables of descriptors are put.
const FAR: u64 = 0x4000;

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("ring");
    chains(&mut list);
    heads(&mut list);
    lengths(&mut list);
    places(&mut list);
    aliases(&mut list);
    order(&mut list);
    tables(&mut list);
    bad_tables(&mut list);
    flags(&mut list);
    events(&mut list);
    kicks(&mut list);
    indices(&mut list);
    sizes(&mut list);
    layouts(&mut list);
    list.rows()
}

/// A chain through these descriptors of queue 0, 8 bytes to write each, in this order.
fn path(indices: &[u16], end: Option<u16>) -> Vec<Step> {
    let pairs = indices
        .iter()
        .zip(indices.iter().skip(1).map(Some).chain([None]));
    pairs
        .map(|(index, next)| {
            let next = next.copied().or(end);
            let flags = WRITE | next.map_or(0, |_| NEXT);
            let at = buffer(u64::from(*index) * 8);
            d(*index, at, 8, flags, next.unwrap_or_default())
        })
        .collect()
}

fn chains(list: &mut List) {
    let spec = "2.7.5.3.1";
    let all: Vec<u16> = (0..RING_SIZE).collect();
    let around: Vec<u16> = (8..RING_SIZE).chain(0..8).collect();
    let backwards: Vec<u16> = (0..RING_SIZE).rev().collect();
    let odd: Vec<u16> = (0..RING_SIZE).filter(|n| n % 2 == 1).collect();
    for (about, steps, head) in [
        ("a descriptor that is its own next", path(&[0], Some(0)), 0),
        (
            "two descriptors that lead to each other",
            path(&[0, 1], Some(0)),
            0,
        ),
        (
            "a loop after a good beginning",
            path(&[0, 1, 2, 3], Some(2)),
            0,
        ),
        ("a loop through the whole table", path(&all, Some(0)), 0),
        (
            "the last descriptor is its own next",
            path(&[15], Some(15)),
            15,
        ),
        (
            "a loop back to the middle of a full chain",
            path(&all, Some(7)),
            0,
        ),
        (
            "a next field one beyond the table",
            path(&[4], Some(RING_SIZE)),
            4,
        ),
        ("a next field of 0xffff", path(&[4], Some(0xffff)), 4),
        (
            "a next field that would be right in a larger queue",
            path(&[0, 1], Some(255)),
            0,
        ),
    ] {
        let about = format!("{about}: out of service, no spinning");
        list.add(&RNG, spec, about, [start(0), steps, go(head), latched()]);
    }
    let full = u32::from(RING_SIZE) * 8;
    for (about, steps, head, bytes) in [
        (
            "a chain of exactly as many descriptors as the queue has",
            path(&all, None),
            0,
            full,
        ),
        (
            "the same over the end of the table",
            path(&around, None),
            8,
            full,
        ),
        (
            "a chain that runs backwards",
            path(&backwards, None),
            15,
            full,
        ),
        ("a chain with gaps", path(&odd, None), 1, full / 2),
    ] {
        let about = format!("{about} is legal");
        list.add(
            &RNG,
            spec,
            about,
            [start(0), steps, go(head), used(&[(head, bytes)]), revive()],
        );
    }
    let ignored = d(2, buffer(0), 8, WRITE, 0xffff);
    let about = "a next field without the flag means nothing";
    list.add(
        &RNG,
        spec,
        about,
        [start(0), vec![ignored], go(2), used(&[(2, 8)]), revive()],
    );
}

fn heads(list: &mut List) {
    let spec = "2.7.6";
    for (about, head) in [
        ("an available entry one beyond the table", RING_SIZE),
        ("an available entry of 0xffff", 0xffff),
        ("an available entry with the high bit of a good one", 0x8000),
    ] {
        list.add(
            &RNG,
            spec,
            format!("{about}: out of service"),
            [start(0), go(head), latched()],
        );
    }
    let last = [
        start(0),
        request(0, 15, &[(buffer(0), 9, true)]),
        used(&[(15, 9)]),
        revive(),
    ];
    list.add(&RNG, spec, "the last descriptor as a head is legal", last);
    for (about, index) in [
        (
            "the available index one more than the queue has entries",
            RING_SIZE + 1,
        ),
        ("the available index half way round", 0x8000),
        ("the available index one back from the start", 0xffff),
        ("the available index back by a whole queue", 0xfff0),
    ] {
        let steps = vec![Step::AvailableIndex(0, index), Step::Kick(0)];
        list.add(
            &RNG,
            spec,
            format!("{about}: out of service"),
            [start(0), steps, latched()],
        );
    }
    let one = || [request(0, 0, &[(buffer(0), 8, true)]), used(&[(0, 8)])].concat();
    for (about, index) in [
        (
            "the available index back to where it was before a request",
            0,
        ),
        (
            "after a request, the available index beyond a whole queue",
            RING_SIZE + 2,
        ),
    ] {
        let forget = vec![Step::ExpectReasons(1), Step::ExpectInterrupt(true)];
        let steps = vec![Step::AvailableIndex(0, index), Step::Kick(0)];
        let parts = [start(0), one(), forget, steps, latched()];
        list.add(&RNG, spec, format!("{about}: out of service"), parts);
    }
    let all: Vec<_> = (0..RING_SIZE)
        .flat_map(|n| chain(0, n, &[(buffer(0), 4, true)]))
        .collect();
    let publish: Vec<_> = (0..RING_SIZE).map(|n| Step::Publish(0, n)).collect();
    let back: Vec<_> = (0..RING_SIZE).map(|n| (n, 4)).collect();
    let full = [
        start(0),
        all.clone(),
        publish,
        vec![Step::Kick(0)],
        used(&back),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "the available index a whole queue ahead is legal",
        full,
    );
    let downwards: Vec<_> = (0..RING_SIZE).rev().map(|n| Step::Publish(0, n)).collect();
    let back: Vec<_> = (0..RING_SIZE).rev().map(|n| (n, 4)).collect();
    let full = [
        start(0),
        all,
        downwards,
        vec![Step::Kick(0)],
        used(&back),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "heads in any order are taken in the order of the ring",
        full,
    );
    let bad_second = [
        start(0),
        chain(0, 0, &[(buffer(0), 8, true)]),
        vec![Step::Publish(0, 0), Step::Publish(0, 99), Step::Kick(0)],
        used(&[(0, 8)]),
        vec![Step::ExpectNeedsReset],
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "a bad head after a good one: the good one comes back first",
        bad_second,
    );
}

fn lengths(list: &mut List) {
    let spec = "2.7.5";
    let good = |pieces: &[super::Piece], written| {
        [
            start(0),
            request(0, 0, pieces),
            used(&[(0, written)]),
            revive(),
        ]
    };
    let b = |n: u64, len, writable| (buffer(n * 0x1000), len, writable);
    list.add(
        &RNG,
        spec,
        "a single buffer of no bytes comes back",
        good(&[b(0, 0, true)], 0),
    );
    let nowhere = (At::Raw(u64::MAX), 0, true);
    list.add(
        &RNG,
        spec,
        "no bytes at no address are no access",
        good(&[nowhere, b(0, 8, true)], 8),
    );
    let holes = [
        b(0, 0, true),
        b(1, 5, true),
        b(2, 0, true),
        b(3, 6, true),
        b(4, 0, true),
    ];
    list.add(
        &RNG,
        spec,
        "empty buffers between others count for nothing",
        good(&holes, 11),
    );
    list.add(
        &RNG,
        spec,
        "a buffer of one byte",
        good(&[b(0, 1, true)], 1),
    );
    let ones: Vec<_> = (0..16).map(|n| (buffer(n), 1, true)).collect();
    list.add(&RNG, spec, "sixteen buffers of one byte", good(&ones, 16));
    list.add(
        &RNG,
        spec,
        "a request of nothing but buffers to read comes back",
        good(&[b(0, 16, false)], 0),
    );
    let odd = (buffer(3), 4093, true);
    list.add(
        &RNG,
        spec,
        "a buffer at an odd address over the end of a page",
        good(&[odd], 4093),
    );
    for (about, pieces) in [
        ("a buffer of 4 GiB less one", vec![b(0, u32::MAX, true)]),
        ("a buffer of 2 GiB", vec![b(0, 0x8000_0000, true)]),
        (
            "two buffers of 2 GiB, 2^32 bytes in all",
            vec![b(0, 0x8000_0000, true), b(0, 0x8000_0000, true)],
        ),
        (
            "a good buffer and then one of 4 GiB less one",
            vec![b(0, 8, true), b(1, u32::MAX, true)],
        ),
        (
            "a readable buffer of 4 GiB less one",
            vec![b(0, u32::MAX, false)],
        ),
    ] {
        let about = format!("{about}: out of service, nothing mapped");
        list.add(
            &RNG,
            spec,
            about,
            [start(0), request(0, 0, &pieces), latched()],
        );
    }
}

fn places(list: &mut List) {
    let spec = "2.7.5";
    for (about, at, len) in [
        ("where memory ends", At::Hole(0), 1),
        ("over the end of memory by a byte", At::Hole(-15), 16),
        ("from the last byte of memory", At::Hole(-1), 2),
        (
            "over the whole hole in memory",
            At::Hole(-512),
            0x10_0000 + 1024,
        ),
        (
            "at the last byte of the address space",
            At::Raw(u64::MAX),
            1,
        ),
        (
            "over the end of the address space",
            At::Raw(u64::MAX - 7),
            16,
        ),
        (
            "at the first address with the sign bit",
            At::Raw(1 << 63),
            8,
        ),
        ("beyond what a CPU addresses", At::Raw(1 << 52), 8),
        ("in the device's own registers", At::Window(0x70), 4),
        ("at the doorbell of the device", At::Window(0x50), 4),
        (
            "in the interrupt controller of a CPU",
            At::Raw(0xfee0_0000),
            16,
        ),
    ] {
        for writable in [true, false] {
            let how = if writable { "to write" } else { "to read" };
            let about = format!("a buffer {how} {about}: out of service, no access");
            let steps = request(0, 0, &[(at, len, writable)]);
            list.add(&RNG, spec, about, [start(0), steps, latched()]);
        }
    }
    let last = [
        start(0),
        request(0, 0, &[(At::Hole(-16), 16, true)]),
        used(&[(0, 16)]),
        revive(),
    ];
    list.add(&RNG, spec, "the last bytes of memory are memory", last);
    let (header, data, status) = (buffer(0), At::Seam(-100), buffer(0x20));
    let pieces = [(header, 16, false), (data, 512, true), (status, 1, true)];
    let seam = [
        start(0),
        vec![Step::Memory(header, block_header(0, 5))],
        request(0, 0, &pieces),
        used(&[(0, 513)]),
        vec![
            Step::ExpectMemory(data, vec![6; 512]),
            Step::ExpectMemory(status, vec![0]),
        ],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "one buffer over two pieces of memory that meet is whole",
        seam,
    );
    let header = At::Seam(-8);
    let pieces = [
        (header, 16, false),
        (buffer(0x200), 512, true),
        (status, 1, true),
    ];
    let seam = [
        start(0),
        vec![Step::Memory(header, block_header(0, 7))],
        request(0, 0, &pieces),
        used(&[(0, 513)]),
        vec![Step::ExpectMemory(buffer(0x200), vec![8; 512])],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a header over two pieces of memory that meet is whole",
        seam,
    );
}

/// Requests whose buffers are the ring itself.
fn aliases(list: &mut List) {
    let spec = "2.7.13";
    let read = |sector: u64, data: At, len: u32| {
        let (header, status) = (buffer(0), buffer(0x20));
        let pieces = [(header, 16, false), (data, len, true), (status, 1, true)];
        let header = vec![Step::Memory(header, block_header(0, sector))];
        [header, request(0, 0, &pieces)].concat()
    };
    let parts = [
        start(0),
        read(3, AVAILABLE, 512),
        vec![Step::ExpectUsedCount(0, 1), Step::ExpectNeedsReset],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a disk read over the available ring: the request comes back, then its index is a jump",
        parts,
    );
    let parts = [start(0), read(3, TABLE, 512), used(&[(0, 513)]), revive()];
    list.add(
        &BLOCK,
        spec,
        "a disk read over the descriptor table: descriptors were copied, so it comes back",
        parts,
    );
    let own = vec![Step::ExpectMemory(
        USED.plus(2),
        vec![1, 0, 0, 0, 0, 0, 1, 2, 0, 0],
    )];
    let parts = [
        start(0),
        read(3, USED, 512),
        vec![Step::Settle],
        own,
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "a disk read over the used ring: the device's entry and index come after it",
        parts,
    );
    let status = [
        start(0),
        vec![Step::Memory(buffer(0), block_header(4, 0))],
        request(0, 0, &[(buffer(0), 16, false), (USED.plus(2), 1, true)]),
        used(&[(0, 1)]),
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "the status byte is the used index: the index comes last",
        status,
    );
    let header = [
        start(0),
        request(0, 0, &[(TABLE, 16, false), (buffer(0), 1, true)]),
        used(&[(0, 1)]),
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "the descriptor is its own header: a request of an unknown kind",
        header,
    );
    let same = [
        start(0),
        vec![Step::Memory(buffer(0), block_header(0, 9))],
        request(
            0,
            0,
            &[
                (buffer(0), 16, false),
                (buffer(0), 512, true),
                (buffer(0x300), 1, true),
            ],
        ),
        used(&[(0, 513)]),
        vec![Step::ExpectMemory(buffer(0), vec![10; 512])],
        revive(),
    ];
    list.add(
        &BLOCK,
        spec,
        "data over the request's own header: the header was copied first",
        same,
    );
    let twice = [
        start(0),
        request(
            0,
            0,
            &[
                (buffer(0), 8, true),
                (buffer(0), 8, true),
                (buffer(4), 8, true),
            ],
        ),
        used(&[(0, 24)]),
        revive(),
    ];
    list.add(
        &RNG,
        spec,
        "buffers of one request that overlap each other are written one after the other",
        twice,
    );
    let steps = vec![
        Step::Memory(USED, vec![0xff; 64]),
        Step::Memory(USED.plus(2), vec![0x34, 0x12]),
    ];
    let index = vec![Step::Settle, Step::ExpectMemory(USED.plus(2), vec![1, 0])];
    let parts = [
        start(0),
        steps,
        request(0, 0, &[(buffer(0), 8, true)]),
        index,
        revive(),
    ];
    list.add(
        &RNG,
        "2.7.8.2",
        "a driver that writes the used ring: the device keeps its own index",
        parts,
    );
}

fn order(list: &mut List) {
    let spec = "2.7.4.2";
    let b = |n: u64, writable| (buffer(n * 64), 16, writable);
    for (about, pieces) in [
        (
            "a buffer to read after one to write",
            vec![b(0, true), b(1, false)],
        ),
        (
            "to read, to write, to read",
            vec![b(0, false), b(1, true), b(2, false)],
        ),
        (
            "to write, to read, to write",
            vec![b(0, true), b(1, false), b(2, true)],
        ),
        (
            "an empty one to write before one to read",
            vec![(buffer(0), 0, true), b(1, false)],
        ),
    ] {
        let about = format!("{about}: out of service");
        list.add(
            &RNG,
            spec,
            about,
            [start(0), request(0, 0, &pieces), latched()],
        );
    }
    let steps = vec![
        d(0, buffer(0x100), 32, INDIRECT, 0),
        t(buffer(0x100), 0, buffer(0), 8, WRITE | NEXT, 1),
        t(buffer(0x100), 1, buffer(16), 8, 0, 0),
    ];
    let about = "a buffer to read after one to write within a table: out of service";
    list.add(
        &RNG,
        spec,
        about,
        [start(F_INDIRECT), steps, go(0), latched()],
    );
    let steps = vec![
        d(0, buffer(0), 8, WRITE | NEXT, 1),
        d(1, buffer(0x100), 16, INDIRECT, 0),
        t(buffer(0x100), 0, buffer(16), 8, 0, 0),
    ];
    let about = "a table to read after a direct buffer to write: out of service";
    list.add(
        &RNG,
        spec,
        about,
        [start(F_INDIRECT), steps, go(0), latched()],
    );
}

/// What is legal with tables.
fn tables(list: &mut List) {
    let spec = "2.7.5.3.2";
    let at = buffer(FAR);
    let entry = |table, n: u16, next: Option<u16>| {
        let flags = WRITE | next.map_or(0, |_| NEXT);
        t(
            table,
            n,
            buffer(u64::from(n) * 8),
            8,
            flags,
            next.unwrap_or_default(),
        )
    };
    let whole = |table: At, entries: u16| -> Vec<Step> {
        let step = |n| entry(table, n, (n + 1 < entries).then_some(n + 1));
        (0..entries).map(step).collect()
    };
    let refer = |len, flags| vec![d(0, at, len, INDIRECT | flags, 0)];
    let end = |written| [go(0), used(&[(0, written)]), revive()].concat();
    let add = |list: &mut List, about: &str, steps: Vec<Step>, written: u32| {
        list.add(&RNG, spec, about, [start(F_INDIRECT), steps, end(written)]);
    };
    let one = || whole(at, 1);
    add(
        list,
        "a table of one descriptor",
        [refer(16, 0), one()].concat(),
        8,
    );
    add(
        list,
        "the write flag of a descriptor that refers to a table means nothing",
        [refer(16, WRITE), one()].concat(),
        8,
    );
    let unknown = d(0, at, 16, INDIRECT | 0xfff8, 0);
    add(
        list,
        "unknown flags of a descriptor that refers to a table mean nothing",
        [vec![unknown], one()].concat(),
        8,
    );
    add(
        list,
        "a table as long as the queue",
        [refer(256, 0), whole(at, 16)].concat(),
        128,
    );
    let skip = vec![
        entry(at, 0, Some(3)),
        entry(at, 3, Some(1)),
        entry(at, 1, None),
    ];
    add(
        list,
        "a table in which the chain goes to and fro",
        [refer(64, 0), skip].concat(),
        24,
    );
    let rest = vec![Step::Fill(at.plus(16), 240, 0xff)];
    add(
        list,
        "a table whose other entries are garbage",
        [refer(256, 0), rest, one()].concat(),
        8,
    );
    let odd = at.plus(3);
    let refer_odd = vec![d(0, odd, 32, INDIRECT, 0)];
    add(
        list,
        "a table at an odd address",
        [refer_odd, whole(odd, 2)].concat(),
        16,
    );
    let seam = At::Seam(-24);
    let refer_seam = vec![d(0, seam, 48, INDIRECT, 0)];
    add(
        list,
        "a table over two pieces of memory that meet",
        [refer_seam, whole(seam, 3)].concat(),
        24,
    );
    let direct = vec![
        d(0, buffer(0x800), 8, WRITE | NEXT, 5),
        d(5, at, 32, INDIRECT, 0),
    ];
    add(
        list,
        "direct descriptors followed by a table",
        [direct, whole(at, 2)].concat(),
        24,
    );
    let own = vec![
        d(0, TABLE.plus(64), 32, INDIRECT, 0),
        d(4, buffer(0), 8, WRITE | NEXT, 1),
        d(5, buffer(8), 8, WRITE, 0),
    ];
    add(
        list,
        "a table within the queue's own descriptor table",
        own,
        16,
    );
    let mut many = vec![];
    let mut back = vec![];
    for n in 0..16_u16 {
        let table = buffer(FAR + u64::from(n) * 0x100);
        many.push(d(n, table, 16, INDIRECT, 0));
        many.push(t(table, 0, buffer(0), 4, WRITE, 0));
        many.push(Step::Publish(0, n));
        back.push((n, 4));
    }
    many.push(Step::Kick(0));
    let parts = [start(F_INDIRECT), many, used(&back), revive()];
    list.add(
        &RNG,
        spec,
        "every descriptor of the queue refers to a table",
        parts,
    );
    let shared = vec![
        d(0, at, 16, INDIRECT, 0),
        d(1, at, 16, INDIRECT, 0),
        Step::Publish(0, 0),
        Step::Publish(0, 1),
        Step::Kick(0),
    ];
    let parts = [
        start(F_INDIRECT),
        one(),
        shared,
        used(&[(0, 8), (1, 8)]),
        revive(),
    ];
    list.add(&RNG, spec, "two requests with the same table", parts);
    let empty = t(at, 0, buffer(0), 0, WRITE, 0);
    add(
        list,
        "a table of one descriptor of no bytes",
        [refer(16, 0), vec![empty]].concat(),
        0,
    );
}

/// What is not.
fn bad_tables(list: &mut List) {
    let spec = "2.7.5.3.1";
    let at = buffer(FAR);
    let one = t(at, 0, buffer(0), 8, WRITE, 0);
    let refer = |at, len| d(0, at, len, INDIRECT, 0);
    let long: Vec<_> = (0..17_u16)
        .map(|n| t(at, n, buffer(0), 1, WRITE | NEXT, n + 1))
        .collect();
    let too_many: Vec<_> = (0..16_u16)
        .map(|n| {
            t(
                at,
                n,
                buffer(0),
                1,
                if n < 15 { WRITE | NEXT } else { WRITE },
                n + 1,
            )
        })
        .collect();
    let cases: Vec<(&str, Vec<Step>)> = vec![
        (
            "a table within a table",
            vec![
                refer(at, 32),
                t(at, 0, at.plus(16), 16, INDIRECT, 0),
                t(at, 1, buffer(0), 8, WRITE, 0),
            ],
        ),
        (
            "a table within a table after a good descriptor",
            vec![
                refer(at, 48),
                t(at, 0, buffer(0), 8, WRITE | NEXT, 1),
                t(at, 1, at.plus(32), 16, INDIRECT, 0),
                t(at, 2, buffer(0), 8, WRITE, 0),
            ],
        ),
        (
            "a table that contains itself",
            vec![refer(at, 16), t(at, 0, at, 16, INDIRECT, 0)],
        ),
        (
            "a table and a next descriptor",
            vec![
                d(0, at, 16, INDIRECT | NEXT, 1),
                one.clone(),
                d(1, buffer(0), 8, WRITE, 0),
            ],
        ),
        (
            "two tables by next",
            vec![
                d(0, at, 16, INDIRECT | NEXT, 1),
                one.clone(),
                d(1, at, 16, INDIRECT, 0),
            ],
        ),
        ("a table of no bytes", vec![refer(at, 0)]),
        ("a table of 15 bytes", vec![refer(at, 15), one.clone()]),
        ("a table of 17 bytes", vec![refer(at, 17), one.clone()]),
        ("a table of 24 bytes", vec![refer(at, 24), one.clone()]),
        (
            "a table one descriptor longer than the queue",
            vec![refer(at, 17 * 16), one.clone()],
        ),
        (
            "a table of 4 GiB",
            vec![refer(at, 0xffff_fff0), one.clone()],
        ),
        (
            "a table of 65536 descriptors",
            vec![refer(at, 0x10_0000), one.clone()],
        ),
        ("a table where no memory is", vec![refer(At::Hole(0), 16)]),
        (
            "a table over the end of memory",
            vec![refer(At::Hole(-16), 32)],
        ),
        (
            "a table over the end of the address space",
            vec![refer(At::Raw(u64::MAX - 15), 32)],
        ),
        (
            "a table in the device's registers",
            vec![refer(At::Window(0x100), 16)],
        ),
        (
            "a descriptor of a table that is its own next",
            vec![refer(at, 16), t(at, 0, buffer(0), 8, WRITE | NEXT, 0)],
        ),
        (
            "a loop through a whole table",
            [
                vec![refer(at, 256)],
                too_many.to_vec(),
                vec![t(at, 15, buffer(0), 1, WRITE | NEXT, 0)],
            ]
            .concat(),
        ),
        (
            "a next field one beyond its table",
            vec![refer(at, 16), t(at, 0, buffer(0), 8, WRITE | NEXT, 1)],
        ),
        (
            "a next field beyond its table though within the queue's",
            vec![refer(at, 32), t(at, 0, buffer(0), 8, WRITE | NEXT, 9)],
        ),
        (
            "a next field of 0xffff in a table",
            vec![refer(at, 16), t(at, 0, buffer(0), 8, WRITE | NEXT, 0xffff)],
        ),
        (
            "a chain in a table that is longer than the queue",
            [vec![refer(at, 17 * 16)], long].concat(),
        ),
        (
            "a direct descriptor and a full table, one more than the queue has",
            [
                vec![
                    d(0, buffer(0), 8, WRITE | NEXT, 1),
                    d(1, at, 256, INDIRECT, 0),
                ],
                too_many,
            ]
            .concat(),
        ),
        (
            "a descriptor of a table that is outside memory",
            vec![refer(at, 16), t(at, 0, At::Hole(0), 8, WRITE, 0)],
        ),
        (
            "a buffer of 4 GiB in a table",
            vec![refer(at, 16), t(at, 0, buffer(0), u32::MAX, WRITE, 0)],
        ),
    ];
    for (about, steps) in cases {
        let about = format!("{about}: out of service");
        list.add(
            &RNG,
            spec,
            about,
            [start(F_INDIRECT), steps, go(0), latched()],
        );
    }
    let steps = vec![refer(at, 16), one];
    let about = "a table without the feature: out of service";
    list.add(&RNG, spec, about, [start(0), steps, go(0), latched()]);
}

fn flags(list: &mut List) {
    let one = |head| request(0, head, &[(buffer(0), 8, true)]);
    let unknown = vec![d(0, buffer(0), 8, WRITE | 0xfff8, 0)];
    let parts = [start(0), unknown, go(0), used(&[(0, 8)]), revive()];
    list.add(
        &RNG,
        "2.7.5",
        "unknown descriptor flags mean nothing",
        parts,
    );
    let silent = vec![Step::AvailableFlags(0, 1)];
    let nothing = vec![Step::ExpectReasons(0), Step::ExpectInterrupt(false)];
    let told = vec![Step::ExpectReasons(1), Step::ExpectInterrupt(true)];
    let parts = [
        start(0),
        silent.clone(),
        one(0),
        used(&[(0, 8)]),
        nothing.clone(),
        revive(),
    ];
    list.add(
        &RNG,
        "2.7.7.2",
        "a driver that wants no interrupt gets none",
        parts,
    );
    let parts = [
        start(0),
        silent.clone(),
        one(0),
        used(&[(0, 8)]),
        nothing.clone(),
        vec![Step::AvailableFlags(0, 0)],
        one(1),
        used(&[(1, 8)]),
        told.clone(),
        revive(),
    ];
    list.add(
        &RNG,
        "2.7.7.2",
        "a driver that wants interrupts again gets them",
        parts,
    );
    let parts = [
        start(0),
        vec![Step::AvailableFlags(0, 0xfffe)],
        one(0),
        used(&[(0, 8)]),
        told.clone(),
        revive(),
    ];
    list.add(
        &RNG,
        "2.7.6",
        "unknown flags of the available ring mean nothing",
        parts,
    );
    let parts = [
        start(F_EVENT_IDX),
        silent,
        one(0),
        used(&[(0, 8)]),
        told,
        revive(),
    ];
    list.add(
        &RNG,
        "2.7.7.2",
        "with event indices the flag means nothing",
        parts,
    );
    let ring_me = vec![Step::Settle, Step::ExpectMemory(USED, vec![0, 0])];
    let parts = [start(0), one(0), used(&[(0, 8)]), ring_me, revive()];
    list.add(&RNG, "2.7.10.1", "a device at rest wants to be rung", parts);
}

fn events(list: &mut List) {
    let spec = "2.7.7.2";
    let one = |head| {
        [
            request(0, head, &[(buffer(0), 8, true)]),
            used(&[(head, 8)]),
        ]
        .concat()
    };
    let nothing = || vec![Step::ExpectReasons(0), Step::ExpectInterrupt(false)];
    let told = || vec![Step::ExpectReasons(1), Step::ExpectInterrupt(true)];
    let event = |index| vec![Step::UsedEvent(0, index)];
    let add = |list: &mut List, about: &str, parts: Vec<Vec<Step>>| {
        list.add(
            &RNG,
            spec,
            about,
            [start(F_EVENT_IDX), parts.concat(), revive()],
        );
    };
    add(
        list,
        "an interrupt for the very request that the driver named",
        vec![event(0), one(0), told()],
    );
    add(
        list,
        "no interrupt before the request that the driver named",
        vec![
            event(2),
            one(0),
            nothing(),
            one(1),
            nothing(),
            one(2),
            told(),
        ],
    );
    add(
        list,
        "one interrupt only, until the driver names another request",
        vec![
            event(0),
            one(0),
            told(),
            one(1),
            nothing(),
            event(2),
            one(2),
            told(),
        ],
    );
    add(
        list,
        "a named request that is past already brings no interrupt",
        vec![event(0xffff), one(0), nothing()],
    );
    add(
        list,
        "a named request far ahead brings no interrupt",
        vec![event(0x7fff), one(0), nothing(), one(1), nothing()],
    );
    let three = [
        chain(0, 0, &[(buffer(0), 8, true)]),
        chain(0, 1, &[(buffer(0), 8, true)]),
        chain(0, 2, &[(buffer(0), 8, true)]),
        (0..3).map(|n| Step::Publish(0, n)).collect(),
        vec![Step::Kick(0)],
        used(&[(0, 8), (1, 8), (2, 8)]),
    ]
    .concat();
    add(
        list,
        "a named request in the middle of a batch brings one interrupt",
        vec![event(1), three.clone(), told()],
    );
    add(
        list,
        "a named request just after a batch brings none",
        vec![event(3), three, nothing()],
    );
    let asks = |index: u16| {
        let place = USED.plus(4 + u64::from(RING_SIZE) * 8);
        vec![
            Step::Settle,
            Step::ExpectMemory(place, index.to_le_bytes().to_vec()),
        ]
    };
    list.add(
        &RNG,
        "2.7.10.1",
        "the device at rest names the next request",
        [
            start(F_EVENT_IDX),
            one(0),
            asks(1),
            one(1),
            asks(2),
            revive(),
        ],
    );
    let flags = vec![Step::Settle, Step::ExpectMemory(USED, vec![0, 0])];
    list.add(
        &RNG,
        "2.7.10.1",
        "with event indices the used ring has no flags",
        [start(F_EVENT_IDX), one(0), flags, revive()],
    );
}

fn kicks(list: &mut List) {
    let spec = "2.7.13";
    let one = |head| chain(0, head, &[(buffer(0), 8, true)]);
    let nothing = || {
        vec![
            Step::ExpectUsed(0, vec![]),
            Step::ExpectReasons(0),
            Step::ExpectInterrupt(false),
        ]
    };
    let kick = |queue| vec![Step::Kick(queue)];
    let publish = |head| vec![Step::Publish(0, head)];
    // A device that has just started looks at its queues by itself.
    let at_work = || {
        let request = request(0, 5, &[(buffer(0x100), 8, true)]);
        let forget = vec![Step::ExpectReasons(1), Step::ExpectInterrupt(true)];
        [request, used(&[(5, 8)]), forget, vec![Step::Settle]].concat()
    };
    list.add(
        &RNG,
        spec,
        "a doorbell with nothing new does nothing",
        [start(0), kick(0), nothing(), revive()],
    );
    let many: Vec<_> = (0..40).map(|_| Step::Kick(0)).collect();
    list.add(
        &RNG,
        spec,
        "forty rings for one request give it back once",
        [
            start(0),
            one(0),
            publish(0),
            many,
            used(&[(0, 8)]),
            kick(0),
            used(&[]),
            revive(),
        ],
    );
    list.add(
        &RNG,
        spec,
        "a doorbell one beyond the queues does nothing",
        [
            start(0),
            at_work(),
            one(0),
            publish(0),
            kick(1),
            nothing(),
            kick(0),
            used(&[(0, 8)]),
            revive(),
        ],
    );
    list.add(
        &RNG,
        spec,
        "the doorbell of the last number does nothing",
        [start(0), kick(0x3ff), nothing(), revive()],
    );
    list.add(
        &RNG,
        spec,
        "one ring for three requests",
        [
            start(0),
            one(0),
            one(1),
            one(2),
            publish(0),
            publish(1),
            publish(2),
            kick(0),
            used(&[(0, 8), (1, 8), (2, 8)]),
            revive(),
        ],
    );
    list.add(
        &RNG,
        spec,
        "a chain that is written but not published is not taken",
        [start(0), one(0), kick(0), nothing(), revive()],
    );
    let entry = vec![Step::AvailableEntry(0, 0, 0)];
    list.add(
        &RNG,
        spec,
        "an entry without a moved index is not taken",
        [start(0), one(0), entry, kick(0), nothing(), revive()],
    );
    let again = [publish(0), kick(0), used(&[(0, 8)])].concat();
    list.add(
        &RNG,
        spec,
        "a chain that came back may be published again as it is",
        [
            start(0),
            one(0),
            again.clone(),
            again.clone(),
            again,
            revive(),
        ],
    );
    list.only(Transport::Mmio);
    for value in [0x1_0000_u32, 0x8000_0000, u32::MAX] {
        let about = format!("a doorbell of number {value:#x} does nothing");
        list.add(
            &RNG,
            spec,
            about,
            [
                start(0),
                at_work(),
                one(0),
                publish(0),
                kick(value),
                nothing(),
                kick(0),
                used(&[(0, 8)]),
                revive(),
            ],
        );
    }
    list.only(None);
}

fn indices(list: &mut List) {
    let spec = "2.7.13.3.1";
    let prepare: Vec<_> = (0..RING_SIZE)
        .flat_map(|n| chain(0, n, &[(buffer(0), 1, true)]))
        .collect();
    let batch: Vec<_> = (0..RING_SIZE)
        .map(|n| Step::Publish(0, n))
        .chain([Step::Kick(0)])
        .collect();
    let back: Vec<_> = (0..RING_SIZE).map(|n| (n, 1)).collect();
    let rounds = |count: usize| -> Vec<Step> {
        (0..count)
            .flat_map(|_| [batch.clone(), used(&back)].concat())
            .collect()
    };
    list.add(
        &RNG,
        spec,
        "three times round the rings",
        [start(0), prepare.clone(), rounds(3), revive()],
    );
    list.add(
        &RNG,
        spec,
        "both indices over 65536 and on",
        [start(0), prepare.clone(), rounds(4098), revive()],
    );
    let event = vec![Step::UsedEvent(0, 3)];
    list.add(
        &RNG,
        "2.7.7.2",
        "named requests and event indices over 65536: one interrupt each time round",
        [
            start(F_EVENT_IDX),
            prepare,
            event,
            rounds(1),
            vec![Step::ExpectInterrupt(true)],
            rounds(4095),
            vec![Step::ExpectInterrupt(false)],
            rounds(1),
            vec![Step::ExpectInterrupt(true)],
            revive(),
        ],
    );
    let one: Vec<_> = (0..20)
        .flat_map(|_| [request(0, 7, &[(buffer(0), 3, true)]), used(&[(7, 3)])].concat())
        .collect();
    list.add(
        &RNG,
        spec,
        "the same descriptor for twenty requests",
        [start(0), one, revive()],
    );
}

/// Queue 0 of this size, and how a driver gets there.
fn sized(size: u32, areas: [At; 3]) -> Vec<Step> {
    let [descriptors, available, used] = areas;
    vec![
        Step::Reset,
        Step::Status(1),
        Step::Status(3),
        Step::Features(super::F_VERSION_1),
        Step::Status(11),
        Step::Queue {
            queue: 0,
            size,
            descriptors,
            available,
            used,
        },
        Step::Enable(0),
        Step::ExpectEnabled(0, true),
        Step::Status(15),
        Step::ExpectStatus(15),
    ]
}

fn sizes(list: &mut List) {
    let spec = "2.7";
    let areas = [TABLE, AVAILABLE, USED];
    for size in [1_u16, 2, 4, 8, 32, 64] {
        let chains = (0..size.min(4)).flat_map(|n| chain(0, n, &[(buffer(0), 8, true)]));
        let round = |n: u16| [go(n % size), used(&[(n % size, 8)])].concat();
        let rounds: Vec<_> = (0..9).flat_map(|n| round(n % size.min(4))).collect();
        let about = format!("a queue of {size} entries works");
        list.add(
            &RNG,
            spec,
            about,
            [
                sized(size.into(), areas),
                chains.collect(),
                rounds,
                revive(),
            ],
        );
    }
    let second = [
        sized(1, areas),
        request(0, 1, &[(buffer(0), 8, true)]),
        latched(),
    ];
    list.add(
        &RNG,
        spec,
        "in a queue of one entry, descriptor 1 does not exist",
        second,
    );
    let jump = vec![Step::AvailableIndex(0, 2), Step::Kick(0)];
    let about = "in a queue of one entry, an index two ahead is a jump";
    list.add(&RNG, spec, about, [sized(1, areas), jump, latched()]);
    let two = [
        sized(1, areas),
        vec![d(0, buffer(0), 8, WRITE | NEXT, 0)],
        go(0),
        latched(),
    ];
    list.add(
        &RNG,
        spec,
        "in a queue of one entry, a chain of two is a loop",
        two,
    );
    let flush = |head| {
        let pieces = [(buffer(0), 16, false), (buffer(0x20), 1, true)];
        let header = vec![Step::Memory(buffer(0), block_header(4, 0))];
        [header, request(0, head, &pieces), used(&[(head, 1)])].concat()
    };
    for (size, head) in [(128, 126), (256, 254)] {
        let about = format!("in a queue of {size} entries, the last descriptors work");
        let parts = [sized(size, areas), flush(head), flush(0), revive()];
        list.add(&BLOCK, spec, about, parts);
    }
}

fn layouts(list: &mut List) {
    let spec = "2.7";
    let far = |offset| buffer(FAR + offset);
    for (about, areas) in [
        (
            "the three areas side by side",
            [far(0), far(256), far(256 + 40)],
        ),
        (
            "the used ring first, then the table, then the available ring",
            [far(0x100), far(0x300), far(0)],
        ),
        (
            "the available ring at an address that is even only",
            [far(0), far(0x402), far(0x804)],
        ),
        (
            "the table over two pieces of memory that meet",
            [At::Seam(-128), far(0), far(0x100)],
        ),
        (
            "the available ring over two pieces of memory that meet",
            [far(0), At::Seam(-20), far(0x100)],
        ),
        (
            "the used ring over two pieces of memory that meet",
            [far(0), far(0x200), At::Seam(-20)],
        ),
        (
            "the used ring at the very end of memory",
            [far(0), far(0x200), At::Hole(-136)],
        ),
        (
            "the table at the very end of memory",
            [At::Hole(-256), far(0x200), far(0x300)],
        ),
    ] {
        let round: Vec<_> = (0..18_u16)
            .flat_map(|n| {
                [
                    request(0, n % 16, &[(buffer(0), 8, true)]),
                    used(&[(n % 16, 8)]),
                ]
                .concat()
            })
            .collect();
        list.add(
            &RNG,
            spec,
            format!("{about} is legal"),
            [sized(16, areas), round, revive()],
        );
    }
}
