//! What a driver sends (5.1.6.2).

use super::*;

pub(super) fn add(list: &mut List) {
    whole_frames(list);
    broken_frames(list);
    other_shapes(list);
    fields_that_pass(list);
    fields_that_do_not(list);
    what_was_not_agreed_on(list);
    addresses(list);
    the_host(list);
}

fn whole_frames(list: &mut List) {
    let ones: Vec<u32> = vec![1; 15];
    let cases: [(&str, &[u32]); 7] = [
        ("in one descriptor", &[]),
        ("behind a descriptor of its header", &[12]),
        ("cut within its header", &[5]),
        ("cut within the header of Ethernet", &[20]),
        ("cut behind the header of Ethernet", &[26]),
        ("of which fifteen bytes have a descriptor each", &ones),
        ("between empty descriptors", &[0, 12, 0, 14, 0]),
    ];
    for (about, cuts) in cases {
        let steps = [
            started(ALL),
            send(0, &plain(), cuts),
            used(TX, &[(0, 0)]),
            vec![came_plain()],
            revive(),
        ];
        list.add(
            &NET,
            "5.1.6.2",
            format!("net: a frame {about} is sent"),
            steps,
        );
    }
    for (about, at) in [
        ("over the seam of memory", At::Seam(-20)),
        ("whose header lies over the seam of memory", At::Seam(-5)),
        ("at the end of memory", At::Hole(-72)),
    ] {
        let steps = [
            started(ALL),
            vec![Step::Memory(at, plain())],
            request(TX, 3, &[(at, 72, false)]),
            used(TX, &[(3, 0)]),
            vec![came_plain()],
            revive(),
        ];
        list.add(
            &NET,
            "5.1.6.2",
            format!("net: a frame {about} is sent"),
            steps,
        );
    }
    let smallest = [
        started(ALL),
        send(0, &frame(Head::default(), MAC, 0), &[]),
        used(TX, &[(0, 0)]),
        vec![Step::Host("it came", |host| {
            came_as(host, Head::default(), MAC, 0);
        })],
        revive(),
    ];
    let about = "net: a frame of nothing but its header of Ethernet is sent";
    list.add(&NET, "5.1.6.2", about, smallest);
    let largest = [
        started(ALL),
        send(0, &frame(TCP, MAC, 65_536), &[12, 14, 30_000]),
        used(TX, &[(0, 0)]),
        vec![Step::Host("it came", |host| {
            came_as(host, TCP, MAC, 65_536);
        })],
        revive(),
    ];
    list.add(&NET, "5.1.6.2", "net: the largest frame is sent", largest);
}

/// Chains that are no frames come back, nothing is sent, and what follows is.
fn broken_frames(list: &mut List) {
    for (about, bytes) in [
        ("of no bytes", 0),
        ("of one byte", 1),
        ("one byte shorter than its header", 11),
        ("of nothing but its header", 12),
        ("one byte shorter than the header of Ethernet", 25),
        ("one byte longer than the longest", 65_563),
        ("of a quarter of a mebibyte", 0x3_0000),
    ] {
        let mut bad = frame(TCP, MAC, 0x3_0000);
        bad.truncate(bytes);
        let steps = [
            started(ALL),
            send(2, &bad, &[]),
            used(TX, &[(2, 0)]),
            vec![nothing_came()],
            send(4, &plain(), &[12]),
            used(TX, &[(4, 0)]),
            vec![
                came_plain(),
                Step::Host("it is counted", |host| {
                    assert_eq!(count(host, "tx_dropped_malformed"), 1);
                }),
            ],
            revive(),
        ];
        list.add(
            &NET,
            "5.1.6.2",
            format!("net: a chain {about} is no frame"),
            steps,
        );
    }
    let at = outgoing(0);
    let room = buffer(0x100);
    let cases: [(&str, Vec<Piece>); 3] = [
        ("with only something to write", vec![(room, 72, true)]),
        (
            "with something to write behind it",
            vec![(at, 72, false), (room, 64, true)],
        ),
        (
            "with its header to read and itself to write",
            vec![(at, 12, false), (at.plus(12), 60, true)],
        ),
    ];
    for (about, pieces) in cases {
        let steps = [
            started(ALL),
            vec![Step::Memory(at, plain()), Step::Fill(room, 128, 0xee)],
            request(TX, 0, &pieces),
            used(TX, &[(0, 0)]),
            vec![
                nothing_came(),
                Step::ExpectMemory(room, vec![0xee; 128]),
                Step::ExpectMemory(at, plain()),
            ],
            revive(),
        ];
        let about = format!("net: a frame {about} is not sent, and nothing is written");
        list.add(&NET, "5.1.6.2", about, steps);
    }
}

fn other_shapes(list: &mut List) {
    let table = buffer(0);
    let steps = [
        started(ALL | F_INDIRECT),
        vec![
            Step::Memory(outgoing(0), plain()),
            t(table, 0, outgoing(0), 12, NEXT, 1),
            t(table, 1, outgoing(12), 60, 0, 0),
            Step::Descriptor {
                queue: TX,
                index: 0,
                at: table,
                len: 32,
                flags: INDIRECT,
                next: 0,
            },
            Step::Publish(TX, 0),
            Step::Kick(TX.into()),
        ],
        used(TX, &[(0, 0)]),
        vec![came_plain()],
        revive(),
    ];
    list.add(
        &NET,
        "5.1.6.2",
        "net: a frame in a table of descriptors is sent",
        steps,
    );
    let chains = (0..RING_SIZE).flat_map(|n| chain(TX, n, &[(outgoing(0), 72, false)]));
    let publish = (0..RING_SIZE).map(|n| Step::Publish(TX, n));
    let back: Vec<_> = (0..RING_SIZE).map(|n| (n, 0)).collect();
    let steps = [
        started(ALL),
        vec![Step::Memory(outgoing(0), plain())],
        chains.chain(publish).collect(),
        vec![Step::Kick(TX.into())],
        used(TX, &back),
        vec![Step::Host("all came", |host| {
            assert_eq!(came(host).len(), usize::from(RING_SIZE));
        })],
        revive(),
    ];
    list.add(
        &NET,
        "5.1.6.2",
        "net: a ring full of frames is sent with one ring",
        steps,
    );
    for (about, at, len) in [
        ("outside memory", At::Hole(0), 72),
        ("that reaches beyond memory", At::Hole(-40), 72),
        ("in the device's own registers", At::Window(0), 72),
        (
            "of which a piece is nearly four gibibytes long",
            At::Memory(0),
            u32::MAX,
        ),
    ] {
        let steps = [
            started(ALL),
            vec![Step::Memory(outgoing(0), plain())],
            request(TX, 0, &[(outgoing(0), 12, false), (at, len, false)]),
            vec![Step::ExpectNeedsReset, nothing_came()],
            // Nor does it receive any more.
            give(0, &[(buffer(0), 2000)]),
            vec![arrives()],
            used(RX, &[]),
            revive(),
        ];
        let about = format!("net: a frame {about} ends the service until a reset");
        list.add(&NET, "2.7.13.3", about, steps);
    }
}

/// A frame of 1014 bytes with this header goes through with that one.
fn pass(list: &mut List, about: &str, sent: Head, check: fn(&mut Host)) {
    let steps = [
        started(ALL),
        send(0, &frame(sent, MAC, 1000), &[12]),
        used(TX, &[(0, 0)]),
        vec![Step::Host("it came", check)],
        revive(),
    ];
    list.add(&NET, "5.1.6.2.2", format!("net: {about} is sent"), steps);
}

fn fields_that_pass(list: &mut List) {
    const SUM: Head = Head {
        gso: 0,
        size: 0,
        ..TCP
    };
    pass(list, "a frame with an unfinished checksum", SUM, |host| {
        came_as(host, SUM, MAC, 1000);
    });
    pass(list, "a large segment over IPv4", TCP, |host| {
        came_as(host, TCP, MAC, 1000);
    });
    let six = Head { gso: 4, ..TCP };
    pass(list, "a large segment over IPv6", six, |host| {
        came_as(host, Head { gso: 4, ..TCP }, MAC, 1000);
    });
    let marked = Head { gso: 0x81, ..TCP };
    pass(
        list,
        "a large segment with a mark of congestion",
        marked,
        |host| {
            came_as(host, Head { gso: 0x81, ..TCP }, MAC, 1000);
        },
    );
    let last = Head { start: 996, ..SUM };
    pass(
        list,
        "a checksum in the last two bytes of its frame",
        last,
        |host| {
            came_as(host, Head { start: 996, ..SUM }, MAC, 1000);
        },
    );
    let unknown = Head {
        flags: 0xfe,
        ..Head::default()
    };
    pass(
        list,
        "a frame with all flags that mean nothing",
        unknown,
        |host| {
            came_as(host, Head::default(), MAC, 1000);
        },
    );
    let long = Head {
        len: u16::MAX,
        ..TCP
    };
    pass(
        list,
        "a segment whose headers are said to be longer than it",
        long,
        |host| {
            came_as(host, Head { len: 1014, ..TCP }, MAC, 1000);
        },
    );
    let short = Head { len: 0, ..TCP };
    pass(
        list,
        "a segment whose headers are said to have no length",
        short,
        |host| {
            came_as(host, Head { len: 0, ..TCP }, MAC, 1000);
        },
    );
    let tiny = Head { size: 1, ..TCP };
    pass(
        list,
        "a segment to be cut into single bytes",
        tiny,
        |host| {
            came_as(host, Head { size: 1, ..TCP }, MAC, 1000);
        },
    );
    let huge = Head {
        size: u16::MAX,
        ..TCP
    };
    pass(
        list,
        "a segment to be cut into larger ones than it is",
        huge,
        |host| {
            came_as(
                host,
                Head {
                    size: u16::MAX,
                    ..TCP
                },
                MAC,
                1000,
            );
        },
    );
    let buffers = Head {
        buffers: u16::MAX,
        ..Head::default()
    };
    pass(list, "a frame that counts buffers", buffers, |host| {
        came_as(host, Head::default(), MAC, 1000);
    });
    let useless = Head {
        size: 7,
        start: 2000,
        offset: 3000,
        ..Head::default()
    };
    pass(
        list,
        "a frame with places for a checksum that it does not ask for",
        useless,
        |host| {
            came_as(host, Head::default(), MAC, 1000);
        },
    );
}

/// A frame of 1014 bytes with this header, from a driver with these features, is dropped.
fn drop_it(list: &mut List, features: u64, about: String, head: Head) {
    let steps = [
        started(features),
        send(1, &frame(head, MAC, 1000), &[12]),
        used(TX, &[(1, 0)]),
        vec![
            nothing_came(),
            Step::Host("it is counted", |host| {
                assert_eq!(count(host, "tx_dropped_offload"), 1);
                assert_eq!(count(host, "tx_packets_count"), 0);
            }),
        ],
        send(5, &plain(), &[12]),
        used(TX, &[(5, 0)]),
        vec![came_plain()],
        revive(),
    ];
    list.add(&NET, "5.1.6.2.2", about, steps);
}

fn fields_that_do_not(list: &mut List) {
    for (about, head) in [
        ("of kind 2", Head { gso: 2, ..TCP }),
        ("of kind 3, UDP in fragments", Head { gso: 3, ..TCP }),
        ("of kind 5, UDP in segments", Head { gso: 5, ..TCP }),
        ("of kind 0x7f", Head { gso: 0x7f, ..TCP }),
        ("of kind 0xff", Head { gso: 0xff, ..TCP }),
        (
            "of no kind with a mark of congestion",
            Head { gso: 0x80, ..TCP },
        ),
        (
            "with a checksum that is not to be finished",
            Head { flags: 0, ..TCP },
        ),
        ("with segments of no bytes", Head { size: 0, ..TCP }),
        (
            "with its checksum right behind it",
            Head {
                start: 998,
                offset: 16,
                ..TCP
            },
        ),
        (
            "with half of its checksum behind it",
            Head {
                start: 997,
                offset: 16,
                ..TCP
            },
        ),
        (
            "that is summed from behind its end on",
            Head {
                start: 1500,
                offset: 0,
                ..TCP
            },
        ),
        (
            "that is summed from the last place there is",
            Head {
                start: u16::MAX,
                ..TCP
            },
        ),
        (
            "with its checksum at the last place there is",
            Head {
                offset: u16::MAX,
                ..TCP
            },
        ),
        (
            "that is summed from its addresses on",
            Head {
                start: 6,
                offset: 8,
                ..TCP
            },
        ),
    ] {
        drop_it(list, ALL, format!("net: a frame {about} is dropped"), head);
    }
}

fn what_was_not_agreed_on(list: &mut List) {
    let sum = Head {
        gso: 0,
        size: 0,
        ..TCP
    };
    for (about, features, head) in [
        ("an unfinished checksum", ALL & !F_CSUM, sum),
        ("an unfinished checksum and nothing at all", ALWAYS, sum),
        ("a large segment over IPv4", ALL & !F_HOST_TSO4, TCP),
        (
            "a large segment over IPv6",
            ALL & !F_HOST_TSO6,
            Head { gso: 4, ..TCP },
        ),
        (
            "a mark of congestion",
            ALL & !F_HOST_ECN,
            Head { gso: 0x81, ..TCP },
        ),
        (
            "the checksum that large segments build on",
            ALL & !F_CSUM,
            TCP,
        ),
        (
            "large segments, which marks of congestion build on",
            ALL & !(F_HOST_TSO4 | F_HOST_TSO6),
            Head { gso: 0x81, ..TCP },
        ),
    ] {
        let about = format!("net: without having agreed on {about}, one is dropped");
        drop_it(list, features, about, head);
    }
}

fn addresses(list: &mut List) {
    for (about, source) in [
        ("another", OTHER),
        ("the broadcast", [0xff; 6]),
        ("no", [0; 6]),
        ("a group's", [3, 0, 0, 0, 0, 1]),
    ] {
        let steps = [
            started(ALL),
            send(0, &frame(Head::default(), source, 46), &[12]),
            used(TX, &[(0, 0)]),
            vec![
                nothing_came(),
                Step::Host("it is counted", |host| {
                    assert_eq!(count(host, "tx_spoofed_mac_count"), 1);
                }),
            ],
            revive(),
        ];
        let about = format!("net: a frame from {about} address is counted and dropped");
        list.add(&NET, "5.1.6.2", about, steps);
    }
    let steps = [
        started(ALL),
        send(0, &frame(Head::default(), OTHER, 46), &[12]),
        used(TX, &[(0, 0)]),
        vec![Step::Host("it came and is counted", |host| {
            came_as(host, Head::default(), OTHER, 46);
            assert_eq!(count(host, "tx_spoofed_mac_count"), 1);
            assert_eq!(count(host, "tx_packets_count"), 1);
        })],
        revive(),
    ];
    let about = "net: a frame from another address is counted and sent where that is allowed";
    list.add(&NET_ANY, "5.1.6.2", about, steps);
}

/// What becomes of frames when the host does not take them.
fn the_host(list: &mut List) {
    let steps = [
        started(ALL),
        vec![Step::Host("the host refuses a frame", |host| {
            far(host).state().fail_send = Some(ErrorKind::InvalidInput);
        })],
        send(0, &plain(), &[12]),
        used(TX, &[(0, 0)]),
        vec![Step::Host("and takes the next", |host| {
            assert_eq!(came(host).len(), 0);
            assert_eq!(count(host, "tx_host_errors"), 1);
            far(host).state().fail_send = None;
        })],
        send(4, &plain(), &[12]),
        used(TX, &[(4, 0)]),
        vec![came_plain()],
        revive(),
    ];
    let about = "net: a frame that the host refuses is lost alone";
    list.add(&NET, "5.1.6.2", about, steps);

    let fill = Step::Host("the link is full", |host| far(host).fill(0));
    let empty = Step::Host(
        "there is room",
        |host| {
            while far(host).receive(0).is_some() {}
        },
    );
    let steps = [
        started(ALL),
        vec![fill.clone()],
        send(0, &plain(), &[12]),
        used(TX, &[]),
        vec![Step::Kick(TX.into()), Step::Settle, empty.clone()],
        used(TX, &[(0, 0)]),
        vec![came_plain()],
        revive(),
    ];
    let about = "net: a frame that the link has no room for is sent when there is";
    list.add(&NET, "5.1.6.2", about, steps);

    let steps = [
        started(ALL),
        vec![fill],
        send(0, &plain(), &[12]),
        used(TX, &[]),
        vec![Step::Reset, empty],
        started(ALL),
        vec![nothing_came()],
        revive(),
    ];
    let about = "net: a frame that waits for the link is forgotten by a reset";
    list.add(&NET, "2.4.1", about, steps);

    let steps = [
        started(ALL),
        vec![carrier_down()],
        send(0, &plain(), &[12]),
        used(TX, &[(0, 0)]),
        vec![
            nothing_came(),
            Step::Host("it is counted", |host| {
                assert_eq!(count(host, "tx_dropped_link_down"), 1);
            }),
            carrier_up(),
        ],
        send(4, &plain(), &[12]),
        used(TX, &[(4, 0)]),
        vec![came_plain()],
        revive(),
    ];
    let about = "net: frames come back unsent while the link is down";
    list.add(&NET, "5.1.4.1", about, steps);
}

pub(super) fn carrier_down() -> Step {
    Step::Host("the link goes down", |host| {
        let up = false;
        let command = DeviceCommand::Net(NetCommand::Carrier { up });
        host.handle.send(command).expect("a device");
    })
}

pub(super) fn carrier_up() -> Step {
    Step::Host("the link goes up", |host| {
        let up = true;
        let command = DeviceCommand::Net(NetCommand::Carrier { up });
        host.handle.send(command).expect("a device");
    })
}
