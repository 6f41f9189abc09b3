//! What a driver receives into (5.1.6.3, 5.1.6.4).

use super::*;

pub(super) fn add(list: &mut List) {
    shapes(list);
    useless_buffers(list);
    several_buffers(list);
    one_buffer_each(list);
    unfinished(list);
    starvation(list);
    resets(list);
    interrupts(list);
    the_link(list);
}

/// A buffer of two KiB at the beginning of the row's.
fn room() -> Vec<Step> {
    give(0, &[(buffer(0), 2048)])
}

/// One of the device's looks for frames, of which there must be no more than so many.
fn looked<const MOST: u64>() -> Step {
    Step::Host("the device does not look for more frames", |host| {
        let looks = far(host).state().receives;
        assert!(looks <= MOST, "{looks} looks");
    })
}

/// The pieces of a buffer.
type Shape = Vec<(At, u32)>;

fn shapes(list: &mut List) {
    let ones: Shape = (0..15).map(|n| (buffer(n), 1)).collect();
    let ones = [ones, vec![(buffer(15), 2000)]].concat();
    let cases: [(&str, Shape, At); 7] = [
        ("one descriptor", vec![(buffer(0), 2048)], buffer(0)),
        (
            "a descriptor of its header and one more",
            vec![(buffer(0), 12), (buffer(12), 2000)],
            buffer(0),
        ),
        (
            "descriptors that cut its header",
            vec![(buffer(0), 5), (buffer(5), 2000)],
            buffer(0),
        ),
        (
            "fifteen descriptors of one byte and one more",
            ones,
            buffer(0),
        ),
        (
            "descriptors between empty ones",
            vec![
                (buffer(0), 0),
                (buffer(0), 12),
                (buffer(12), 0),
                (buffer(12), 2000),
            ],
            buffer(0),
        ),
        (
            "memory with a seam",
            vec![(At::Seam(-30), 2048)],
            At::Seam(-30),
        ),
        (
            "the end of memory",
            vec![(At::Hole(-72), 72)],
            At::Hole(-72),
        ),
    ];
    for (about, pieces, at) in cases {
        let steps = [
            started(ALL),
            give(0, &pieces),
            vec![arrives()],
            used(RX, &[(0, 72)]),
            vec![received_at(at, 1)],
            revive(),
        ];
        let about = format!("net: a frame is received into {about}");
        list.add(&NET, "5.1.6.3", about, steps);
    }
    let steps = [
        started(ALL),
        vec![Step::Fill(buffer(0), 200, 0xee)],
        give(0, &[(buffer(32), 100)]),
        vec![arrives()],
        used(RX, &[(0, 72)]),
        vec![
            Step::ExpectMemory(buffer(0), vec![0xee; 32]),
            received_at(buffer(32), 1),
            Step::ExpectMemory(buffer(32 + 72), vec![0xee; 96]),
        ],
        revive(),
    ];
    let about = "net: nothing is written before a frame or behind it";
    list.add(&NET, "5.1.6.4", about, steps);
    let table = buffer(0x1000);
    let steps = [
        started(ALL | F_INDIRECT),
        vec![
            t(table, 0, buffer(0), 12, WRITE | NEXT, 1),
            t(table, 1, buffer(12), 2000, WRITE, 0),
            Step::Descriptor {
                queue: RX,
                index: 0,
                at: table,
                len: 32,
                flags: INDIRECT,
                next: 0,
            },
            Step::Publish(RX, 0),
            Step::Kick(RX.into()),
            arrives(),
        ],
        used(RX, &[(0, 72)]),
        vec![received_at(buffer(0), 1)],
        revive(),
    ];
    let about = "net: a frame is received into a table of descriptors";
    list.add(&NET, "5.1.6.3", about, steps);
    for (about, at, len) in [
        ("outside memory", At::Hole(0), 2048),
        ("that reaches beyond memory", At::Hole(-100), 2048),
        ("in the device's own registers", At::Window(0), 256),
        ("of four gibibytes less a byte", buffer(0), u32::MAX),
    ] {
        let steps = [
            started(ALL),
            vec![arrives()],
            give(0, &[(at, len)]),
            vec![Step::ExpectNeedsReset],
            used(RX, &[]),
            vec![looked::<0>()],
            revive(),
        ];
        let about = format!("net: a buffer {about} ends the service until a reset");
        list.add(&NET, "2.7.13.3", about, steps);
    }
}

/// Buffers that no frame can be put into come back empty, and the next is filled.
fn useless_buffers(list: &mut List) {
    let at = buffer(0x2000);
    let cases: [(&str, Vec<Piece>); 7] = [
        ("of no bytes", vec![(at, 0, true)]),
        ("of one byte", vec![(at, 1, true)]),
        ("one byte shorter than a header", vec![(at, 11, true)]),
        (
            "of many bytes less than a header",
            vec![(at, 4, true), (at, 0, true), (at, 7, true)],
        ),
        ("to be read", vec![(at, 2000, false)]),
        (
            "to be read and to be written",
            vec![(at, 12, false), (at.plus(12), 2000, true)],
        ),
        ("of no bytes to be read", vec![(at, 0, false)]),
    ];
    for (about, pieces) in cases {
        let steps = [
            started(ALL),
            vec![Step::Fill(at, 2100, 0xee)],
            request(RX, 4, &pieces),
            used(RX, &[(4, 0)]),
            room(),
            vec![arrives()],
            used(RX, &[(0, 72)]),
            vec![
                received_at(buffer(0), 1),
                Step::ExpectMemory(at, vec![0xee; 2100]),
            ],
            revive(),
        ];
        let about = format!("net: a buffer {about} comes back empty");
        list.add(&NET, "5.1.6.3.1", about, steps);
    }
    let chains = (0..RING_SIZE).flat_map(|n| chain(RX, n, &[(at, 3, true)]));
    let publish = (0..RING_SIZE).map(|n| Step::Publish(RX, n));
    let back: Vec<_> = (0..RING_SIZE).map(|n| (n, 0)).collect();
    let steps = [
        started(ALL),
        vec![arrives()],
        chains.chain(publish).collect(),
        vec![Step::Kick(RX.into())],
        used(RX, &back),
        vec![looked::<0>()],
        room(),
        used(RX, &[(0, 72)]),
        revive(),
    ];
    let about = "net: a ring full of useless buffers comes back, and the frame waits";
    list.add(&NET, "5.1.6.3.1", about, steps);
}

/// A large segment with 2974 bytes behind its header: 3000 with that and the header of Ethernet.
fn large_arrives() -> Step {
    Step::Host("a frame of 3000 bytes arrives", |host| {
        arrive(host, &frame(TCP, OTHER, 2974));
    })
}

fn large(buffers: u16) -> Vec<u8> {
    frame(Head { buffers, ..TCP }, OTHER, 2974)
}

/// Publishes so many buffers of `len` bytes, one behind the other, and rings once.
fn give_many(count: u16, len: u32) -> Vec<Step> {
    let at = |n: u16| buffer(u64::from(n) * u64::from(len));
    let chains = (0..count).flat_map(|n| chain(RX, n, &[(at(n), len, true)]));
    let publish = (0..count).map(|n| Step::Publish(RX, n));
    let ring = [Step::Kick(RX.into())];
    chains.chain(publish).chain(ring).collect()
}

fn several_buffers(list: &mut List) {
    let cases: [(&str, u32, &[u32]); 5] = [
        ("two that hold it exactly", 1500, &[1500, 1500]),
        ("three, the last with one byte", 1499, &[1499, 1499, 2]),
        (
            "six of half a kibibyte",
            512,
            &[512, 512, 512, 512, 512, 440],
        ),
        ("sixteen", 188, &[188; 15]),
        ("one that holds it exactly", 3000, &[3000]),
    ];
    for (about, len, filled) in cases {
        let mut filled = filled.to_vec();
        if len == 188 {
            filled.push(3000 - 15 * 188);
        }
        let buffers = u16::try_from(filled.len()).expect("few");
        let steps = [
            started(ALL),
            give_many(16, len),
            vec![large_arrives()],
            used(RX, &(0..).zip(filled).collect::<Vec<_>>()),
            vec![Step::ExpectMemory(buffer(0), large(buffers))],
            revive(),
        ];
        let about = format!("net: a large frame is received into {about}");
        list.add(&NET, "5.1.6.4", about, steps);
    }
    let steps = [
        started(ALL),
        give(0, &[(buffer(0), 12)]),
        give(1, &[(buffer(12), 2000)]),
        vec![arrives()],
        used(RX, &[(0, 12), (1, 60)]),
        vec![received_at(buffer(0), 2)],
        revive(),
    ];
    let about = "net: a buffer for a header alone is filled with that, and the next with the rest";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(ALL),
        give_many(16, 1000),
        vec![large_arrives()],
        used(RX, &[(0, 1000), (1, 1000), (2, 1000)]),
        vec![arrives()],
        used(RX, &[(3, 72)]),
        vec![received_at(buffer(3000), 1)],
        revive(),
    ];
    let about = "net: buffers that a frame did not need are filled with the next";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(ALL),
        give_many(16, 100),
        vec![large_arrives(), arrives()],
        used(RX, &[(0, 72)]),
        vec![
            received_at(buffer(0), 1),
            Step::Host("it is counted", |host| {
                assert_eq!(count(host, "rx_dropped_too_large"), 1);
            }),
        ],
        revive(),
    ];
    let about = "net: a frame that all buffers together cannot hold is lost, and the next is not";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(ALL),
        give_many(16, 4100),
        vec![Step::Host("the largest frame arrives", |host| {
            arrive(host, &frame(TCP, OTHER, 65_536));
        })],
        used(
            RX,
            &(0..15)
                .map(|n| (n, 4100))
                .chain([(15, 4062)])
                .collect::<Vec<_>>(),
        ),
        vec![Step::ExpectMemory(
            buffer(0),
            frame(Head { buffers: 16, ..TCP }, OTHER, 65_536),
        )],
        revive(),
    ];
    let about = "net: the largest frame is received into sixteen buffers";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(ALL),
        give_many(16, 200),
        vec![Step::Host("a frame that fits arrives", |host| {
            arrive(host, &frame(TCP, OTHER, 2974));
        })],
        used(RX, &(0..15).map(|n| (n, 200)).collect::<Vec<_>>()),
        // One is left, and fifteen are the guest's.
        vec![large_arrives()],
        used(RX, &[]),
        (0..15)
            .flat_map(|n| chain(RX, n, &[(buffer(u64::from(n) * 200), 200, true)]))
            .collect(),
        (0..15).map(|n| Step::Publish(RX, n)).collect(),
        vec![Step::Kick(RX.into()), Step::ExpectUsedCount(RX, 15)],
        revive(),
    ];
    let about = "net: a frame waits while most buffers are the guest's, and goes on with them";
    list.add(&NET, "5.1.6.4", about, steps);
}

/// Without mergeable buffers.
fn one_buffer_each(list: &mut List) {
    let single = ALL & !F_MERGEABLE;
    let steps = [
        started(single),
        give(0, &[(buffer(0), 12), (buffer(12), 65_550)]),
        vec![large_arrives()],
        used(RX, &[(0, 3000)]),
        vec![Step::ExpectMemory(buffer(0), large(1))],
        revive(),
    ];
    let about = "net: without mergeable buffers a large frame is received into one";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(single),
        give_many(16, 2000),
        vec![large_arrives(), arrives()],
        used(RX, &[(0, 72)]),
        vec![
            received_at(buffer(0), 1),
            Step::Host("it is counted", |host| {
                assert_eq!(count(host, "rx_dropped_too_large"), 1);
            }),
        ],
        revive(),
    ];
    let about = "net: without mergeable buffers a frame larger than the next one is lost alone";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(single),
        give(0, &[(buffer(0), 72)]),
        vec![arrives()],
        used(RX, &[(0, 72)]),
        vec![received_at(buffer(0), 1)],
        give(1, &[(buffer(0x100), 71)]),
        vec![arrives(), Step::Settle],
        used(RX, &[]),
        vec![Step::Host("it is counted", |host| {
            assert_eq!(count(host, "rx_dropped_too_large"), 1);
        })],
        revive(),
    ];
    let about = "net: without mergeable buffers one that is a byte too short is not filled";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(single),
        give(0, &[(buffer(0), 12)]),
        vec![
            Step::Fill(buffer(0), 100, 0xee),
            arrives(),
            Step::Settle,
            Step::ExpectMemory(buffer(0), vec![0xee; 100]),
        ],
        used(RX, &[]),
        revive(),
    ];
    let about = "net: without mergeable buffers one for a header alone holds no frame";
    list.add(&NET, "5.1.6.4", about, steps);
}

/// What the link gives is checked as well as what the guest does.
fn unfinished(list: &mut List) {
    fn then_plain(list: &mut List, features: u64, about: &str, first: Step, reason: Step) {
        let steps = [
            started(features),
            give(0, &[(buffer(0), 0x1_1000)]),
            vec![first, arrives()],
            used(RX, &[(0, 72)]),
            vec![received_at(buffer(0), 1), reason],
            revive(),
        ];
        let about = format!("net: {about} is not received");
        list.add(&NET, "5.1.6.4.1", about, steps);
    }
    let offload = || {
        Step::Host("it is counted", |host| {
            assert_eq!(count(host, "rx_dropped_offload"), 1);
        })
    };
    let sum = || {
        Step::Host("an unfinished frame arrives", |host| {
            let head = Head {
                gso: 0,
                size: 0,
                ..TCP
            };
            arrive(host, &frame(head, OTHER, 500));
        })
    };
    let none = ALL & !F_GUEST_CSUM;
    then_plain(
        list,
        none,
        "an unfinished checksum without agreement",
        sum(),
        offload(),
    );
    let six = Step::Host("a segment over IPv6 arrives", |host| {
        arrive(host, &frame(Head { gso: 4, ..TCP }, OTHER, 500));
    });
    let none = ALL & !F_GUEST_TSO6;
    then_plain(
        list,
        none,
        "a segment over IPv6 without agreement",
        six,
        offload(),
    );
    let four = Step::Host("a segment over IPv4 arrives", |host| {
        arrive(host, &frame(TCP, OTHER, 500));
    });
    let none = ALL & !F_GUEST_TSO4;
    then_plain(
        list,
        none,
        "a segment over IPv4 without agreement",
        four,
        offload(),
    );
    let marked = Step::Host("a segment with a mark arrives", |host| {
        arrive(host, &frame(Head { gso: 0x81, ..TCP }, OTHER, 500));
    });
    let none = ALL & !F_GUEST_ECN;
    then_plain(
        list,
        none,
        "a mark of congestion without agreement",
        marked,
        offload(),
    );
    let odd = Step::Host("a frame of an unknown kind arrives", |host| {
        arrive(host, &frame(Head { gso: 9, ..TCP }, OTHER, 500));
    });
    then_plain(list, ALL, "a frame of an unknown kind", odd, offload());
    let short = Step::Host("half a frame arrives", |host| arrive(host, &[0; 25]));
    let malformed = Step::Host("it is counted", |host| {
        assert_eq!(count(host, "rx_dropped_malformed"), 1);
    });
    then_plain(
        list,
        ALL,
        "what has no header of Ethernet",
        short,
        malformed,
    );
    let valid = || {
        Step::Host("a frame with a good checksum arrives", |host| {
            let head = Head {
                flags: 0xfe,
                ..Head::default()
            };
            arrive(host, &frame(head, OTHER, 46));
        })
    };
    for (about, features, flags) in [("with", ALL, 2), ("without", ALL & !F_GUEST_CSUM, 0)] {
        let head = Head {
            flags,
            buffers: 1,
            ..Head::default()
        };
        let steps = [
            started(features),
            give(0, &[(buffer(0), 0x1_1000)]),
            vec![valid()],
            used(RX, &[(0, 72)]),
            vec![Step::ExpectMemory(buffer(0), frame(head, OTHER, 46))],
            revive(),
        ];
        let about =
            format!("net: flags of a received frame are cleared {about} checksums agreed on");
        list.add(&NET, "5.1.6.4.1", about, steps);
    }
}

/// A queue without buffers neither spins nor forgets.
fn starvation(list: &mut List) {
    let steps = [
        started(ALL),
        vec![arrives(), Step::Settle, looked::<0>()],
        room(),
        used(RX, &[(0, 72)]),
        vec![received_at(buffer(0), 1)],
        revive(),
    ];
    let about = "net: a frame waits on the host until there is a buffer";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(ALL),
        room(),
        vec![arrives(), arrives(), arrives()],
        used(RX, &[(0, 72)]),
        vec![
            looked::<2>(),
            Step::Kick(0),
            Step::Kick(0),
            Step::Settle,
            looked::<2>(),
        ],
        give(1, &[(buffer(0x1000), 2000)]),
        used(RX, &[(1, 72)]),
        give(2, &[(buffer(0x2000), 2000)]),
        used(RX, &[(2, 72)]),
        vec![
            received_at(buffer(0x1000), 1),
            received_at(buffer(0x2000), 1),
        ],
        revive(),
    ];
    let about = "net: each buffer lets one of the waiting frames come, and rings without one none";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(ALL),
        vec![arrives(), Step::Settle],
        send(0, &plain(), &[12]),
        used(TX, &[(0, 0)]),
        vec![came_plain(), looked::<0>()],
        room(),
        used(RX, &[(0, 72)]),
        revive(),
    ];
    let about = "net: a starved queue does not hold up what is sent";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(ALL | F_EVENT_IDX),
        give_many(16, 2000),
        vec![Step::Host("thirty frames arrive", |host| {
            for _ in 0..30 {
                arrive(host, &frame(Head::default(), OTHER, 46));
            }
        })],
        vec![Step::ExpectUsedCount(RX, 16), looked::<17>()],
        (0..16).map(|n| Step::Publish(RX, n)).collect(),
        vec![Step::Kick(RX.into()), Step::ExpectUsedCount(RX, 14)],
        revive(),
    ];
    let about = "net: a ring full of buffers is filled, and another one with what waited";
    list.add(&NET, "5.1.6.4", about, steps);
    let steps = [
        started(ALL),
        chain(RX, 0, &[(buffer(0), 2000, true)]),
        vec![Step::Publish(RX, 0), arrives()],
        used(RX, &[]),
        vec![looked::<0>(), Step::Kick(RX.into())],
        used(RX, &[(0, 72)]),
        revive(),
    ];
    let about = "net: a buffer without a ring is found with the ring";
    list.add(&NET, "2.7.13.4", about, steps);
    let steps = [
        started(ALL),
        vec![Step::Kick(RX.into()); 50],
        vec![
            Step::Settle,
            looked::<0>(),
            arrives(),
            Step::Settle,
            looked::<0>(),
        ],
        revive(),
    ];
    let about = "net: rings without buffers do nothing";
    list.add(&NET, "2.7.13.4", about, steps);
}

fn resets(list: &mut List) {
    let steps = [
        started(ALL),
        vec![arrives(), Step::Settle, Step::Reset, Step::Settle],
        started(ALL),
        room(),
        used(RX, &[(0, 72)]),
        vec![received_at(buffer(0), 1)],
        revive(),
    ];
    let about = "net: a frame that waits on the host outlives a reset";
    list.add(&NET, "2.4.1", about, steps);
    let steps = [
        started(ALL),
        room(),
        vec![
            Step::Reset,
            Step::Fill(buffer(0), 2048, 0xee),
            arrives(),
            Step::Settle,
            Step::ExpectMemory(buffer(0), vec![0xee; 2048]),
            Step::ExpectInterrupt(false),
            looked::<1>(),
        ],
        revive(),
    ];
    let about = "net: no frame is put into a buffer of before a reset";
    list.add(&NET, "2.4.1", about, steps);
    let steps = [
        started(ALL),
        give_many(16, 100),
        vec![large_arrives(), Step::Settle, Step::Reset],
        started(ALL),
        give_many(4, 1000),
        vec![arrives()],
        used(RX, &[(0, 72)]),
        revive(),
    ];
    let about = "net: a frame that had no room is not there after a reset";
    list.add(&NET, "2.4.1", about, steps);
    let steps = [
        started(ALL),
        room(),
        vec![
            Step::AvailableIndex(RX, 0x4000),
            arrives(),
            Step::Settle,
            Step::Kick(RX.into()),
        ],
        vec![Step::ExpectNeedsReset],
        used(RX, &[]),
        send(3, &plain(), &[12]),
        used(TX, &[]),
        revive(),
    ];
    let about = "net: a receive queue that is broken ends the service until a reset";
    list.add(&NET, "2.7.13.3", about, steps);
}

fn interrupts(list: &mut List) {
    let steps = [
        started(ALL),
        vec![Step::AvailableFlags(RX, 1)],
        room(),
        vec![Step::ExpectInterrupt(false), arrives()],
        used(RX, &[(0, 72)]),
        vec![Step::ExpectInterrupt(false), Step::AvailableFlags(RX, 0)],
        give(1, &[(buffer(0x1000), 2000)]),
        vec![arrives()],
        used(RX, &[(1, 72)]),
        vec![Step::ExpectInterrupt(true)],
        revive(),
    ];
    let about = "net: a driver that wants no interrupt for frames gets none";
    list.add(&NET, "2.7.7", about, steps);
    let steps = [
        started(ALL | F_EVENT_IDX),
        vec![Step::UsedEvent(RX, 2)],
        give_many(16, 1000),
        vec![Step::ExpectInterrupt(false), arrives(), arrives()],
        used(RX, &[(0, 72), (1, 72)]),
        vec![Step::ExpectInterrupt(false), large_arrives()],
        used(RX, &[(2, 1000), (3, 1000), (4, 1000)]),
        vec![Step::ExpectInterrupt(true), arrives()],
        used(RX, &[(5, 72)]),
        vec![Step::ExpectInterrupt(false)],
        revive(),
    ];
    let about = "net: a frame of several buffers over the wanted index is one interrupt";
    list.add(&NET, "2.7.10", about, steps);
}

fn the_link(list: &mut List) {
    let down = sending::carrier_down();
    let up = sending::carrier_up();
    let steps = [
        started(ALL),
        room(),
        vec![
            Step::ExpectConfig(6, Width::Word, 1),
            down,
            Step::Settle,
            Step::ExpectReasons(2),
            Step::ExpectConfig(6, Width::Word, 0),
            arrives(),
        ],
        used(RX, &[]),
        vec![up, Step::Settle, Step::ExpectConfig(6, Width::Word, 1)],
        used(RX, &[(0, 72)]),
        revive(),
    ];
    let about = "net: the guest hears that the link is down and up, and frames wait between";
    list.add(&NET, "5.1.4.1", about, steps);
    let steps = [
        started(ALL),
        room(),
        vec![
            Step::Host("the other end goes away", |host| {
                let far: &mut Option<FarEnd> = host.backend.downcast_mut().expect("a host");
                *far = None;
            }),
            Step::Settle,
            Step::ExpectConfig(6, Width::Word, 0),
            Step::ExpectReasons(2),
        ],
        used(RX, &[]),
        send(0, &plain(), &[12]),
        used(TX, &[(0, 0)]),
        revive(),
    ];
    let about = "net: a link whose other end goes away is down, and nothing spins";
    list.add(&NET, "5.1.4.1", about, steps);
    let steps = [
        started(ALL),
        room(),
        vec![
            Step::Host("receiving fails for good", |host| {
                far(host).state().fail_receive = Some(ErrorKind::NotConnected);
                arrive(host, &frame(Head::default(), OTHER, 46));
            }),
            Step::Settle,
            Step::ExpectConfig(6, Width::Word, 0),
            looked::<9>(),
        ],
        used(RX, &[]),
        revive(),
    ];
    let about = "net: a link that only fails to receive is down, and nothing spins";
    list.add(&NET, "5.1.4.1", about, steps);
}
