//! The queue of commands (5.1.6.5), several pairs of queues, and the configuration (5.1.4).

use super::*;

/// The queue of commands of four pairs.
const LAST: u16 = 8;

pub(super) fn add(list: &mut List) {
    commands_that_are_none(list);
    answers(list);
    offloads(list);
    pairs(list);
    configuration(list);
}

fn set_pairs(count: u16) -> Vec<u8> {
    [vec![4, 0], count.to_le_bytes().to_vec()].concat()
}

fn set_offloads(bits: u64) -> Vec<u8> {
    [vec![5, 0], bits.to_le_bytes().to_vec()].concat()
}

/// Sends a command and wants this answer: 0 is done, 1 is not.
fn command(queue: u16, head: u16, bytes: &[u8], answer: u8) -> Vec<Step> {
    let (at, place) = (buffer(0x3000), buffer(0x3800));
    let len = u32::try_from(bytes.len()).expect("small");
    let mut steps = vec![
        Step::Memory(at, bytes.to_vec()),
        Step::Memory(place, vec![0x77, 0x77]),
    ];
    steps.extend(request(queue, head, &[(at, len, false), (place, 1, true)]));
    steps.push(Step::ExpectUsed(queue, vec![(head, 1)]));
    steps.push(Step::ExpectMemory(place, vec![answer, 0x77]));
    steps
}

fn commands_that_are_none(list: &mut List) {
    let cases: [(&str, Vec<u8>); 20] = [
        ("of no bytes", vec![]),
        ("of half a header", vec![4]),
        ("to use pairs of queues, without a number", vec![4, 0]),
        ("to use pairs of queues, with half a number", vec![4, 0, 1]),
        (
            "to use pairs of queues, with a byte too many",
            vec![4, 0, 1, 0, 0],
        ),
        ("to use no pair of queues", set_pairs(0)),
        ("to use one pair more than there are", set_pairs(5)),
        (
            "to use as many pairs as there may ever be",
            set_pairs(0x8000),
        ),
        ("to use the largest number of pairs", set_pairs(u16::MAX)),
        ("to steer by a table", [vec![4, 1], vec![0; 40]].concat()),
        ("to hash", [vec![4, 2], vec![0; 8]].concat()),
        ("of an unknown number for queues", vec![4, 3, 1, 0]),
        ("to receive everything", vec![0, 0, 1]),
        (
            "to set a table of addresses",
            [vec![1, 0], vec![0xff; 16]].concat(),
        ),
        ("to change the address", vec![1, 1, 2, 0, 0, 0, 0, 7]),
        ("to add a VLAN", vec![2, 0, 1, 0]),
        ("to acknowledge an announcement", vec![3, 0]),
        ("of an unknown class", vec![6, 0, 0, 0]),
        ("of the last class", vec![0xff, 0xff]),
        ("of four KiB", vec![4; 0x800]),
    ];
    for (about, bytes) in cases {
        let steps = [
            started(ALL | F_MQ),
            command(LAST, 0, &bytes, 1),
            vec![Step::Host("nothing changed", |host| {
                let state = far(host).state();
                assert_eq!((state.active, state.offloads), (Some(1), Offloads::ALL));
            })],
            command(LAST, 4, &set_pairs(2), 0),
            revive(),
        ];
        let about = format!("net: a command {about} is answered with an error");
        list.add(&NET_MQ, "5.1.6.5", about, steps);
    }
}

fn answers(list: &mut List) {
    let at = buffer(0x3000);
    let place = buffer(0x3800);
    let text = vec![
        Step::Memory(at, set_offloads(0)),
        Step::Fill(place, 16, 0x77),
    ];
    let unchanged = || {
        Step::Host("nothing changed", |host| {
            assert_eq!(far(host).state().offloads, Offloads::ALL);
        })
    };
    let changed = || {
        Step::Host("it was done", |host| {
            assert_eq!(far(host).state().offloads, NONE);
        })
    };
    let cases: [(&str, Vec<Piece>, u32, bool); 5] = [
        ("no place for its answer", vec![(at, 10, false)], 0, false),
        (
            "an empty place for its answer",
            vec![(at, 10, false), (place, 0, true)],
            0,
            false,
        ),
        (
            "nothing but a place for its answer",
            vec![(place, 4, true)],
            1,
            false,
        ),
        (
            "more room for its answer than that takes",
            vec![(at, 10, false), (place, 4, true), (place.plus(8), 4, true)],
            1,
            true,
        ),
        (
            "a descriptor for each of its bytes",
            (0..10)
                .map(|n| (at.plus(n), 1, false))
                .chain([(place, 1, true)])
                .collect(),
            1,
            true,
        ),
    ];
    for (about, pieces, written, done) in cases {
        let answer = match (written, done) {
            (0, _) => 0x77,
            (_, true) => 0,
            (_, false) => 1,
        };
        let mut expected = vec![0x77; 16];
        expected[0] = answer;
        let steps = [
            started(ALL),
            text.clone(),
            request(CONTROL, 0, &pieces),
            used(CONTROL, &[(0, written)]),
            vec![
                Step::ExpectMemory(place, expected),
                if done { changed() } else { unchanged() },
            ],
            revive(),
        ];
        let word = if done {
            "carried out"
        } else {
            "not carried out"
        };
        let about = format!("net: a command with {about} is {word}");
        list.add(&NET, "5.1.6.5", about, steps);
    }
    let (one, other) = (buffer(0x3000), buffer(0x3100));
    let pieces = |n: u16| {
        let at = if n.is_multiple_of(2) { one } else { other };
        [(at, 10, false), (place.plus(n.into()), 1, true)]
    };
    let chains = (0..8).flat_map(|n| chain(CONTROL, n * 2, &pieces(n)));
    let publish = (0..8).map(|n| Step::Publish(CONTROL, n * 2));
    let back: Vec<_> = (0..8).map(|n| (n * 2, 1)).collect();
    let steps = [
        started(ALL),
        vec![
            Step::Memory(one, set_offloads(F_GUEST_CSUM)),
            Step::Memory(other, set_offloads(0)),
        ],
        chains.chain(publish).collect(),
        vec![Step::Kick(CONTROL.into())],
        used(CONTROL, &back),
        vec![Step::ExpectMemory(place, vec![0; 8]), changed()],
        revive(),
    ];
    let about = "net: a ring full of commands is carried out in order";
    list.add(&NET, "5.1.6.5", about, steps);
    let steps = [
        started(ALL),
        request(CONTROL, 0, &[(At::Hole(-1), 10, false), (place, 1, true)]),
        vec![Step::ExpectNeedsReset, unchanged()],
        revive(),
    ];
    let about = "net: a command outside memory ends the service until a reset";
    list.add(&NET, "2.7.13.3", about, steps);
    let steps = [
        started(ALL),
        vec![Step::Host("the host changes nothing", |host| {
            far(host).state().fail_settings = Some(ErrorKind::PermissionDenied);
        })],
        command(CONTROL, 0, &set_offloads(0), 1),
        vec![unchanged()],
        revive(),
    ];
    let about = "net: a command that the host refuses is answered with an error";
    list.add(&NET, "5.1.6.5", about, steps);
}

fn offloads(list: &mut List) {
    let all = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN;
    for (about, features, bits, answer) in [
        ("all that was agreed on", ALL, all, 0),
        ("checksums only", ALL, F_GUEST_CSUM, 0),
        ("none", ALL, 0, 0),
        ("segments without checksums", ALL, F_GUEST_TSO4, 0),
        ("UDP in fragments", ALL, all | 1 << 10, 1),
        ("bits that stand for nothing", ALL, 1 << 63, 1),
        ("everything there could be", ALL, u64::MAX, 1),
        ("what the device does", ALL, F_CSUM, 1),
        (
            "segments that were not agreed on",
            ALL & !F_GUEST_TSO6,
            all,
            1,
        ),
        (
            "none, which was not agreed on",
            ALL & !F_GUEST_OFFLOADS,
            0,
            1,
        ),
    ] {
        let steps = [
            started(features),
            command(CONTROL, 0, &set_offloads(bits), answer),
            revive(),
        ];
        let word = if answer == 0 { "taken" } else { "refused" };
        let about = format!("net: a change of offloads to {about} is {word}");
        list.add(&NET, "5.1.6.5.6", about, steps);
    }
    let steps = [
        started(ALL),
        give(0, &[(buffer(0), 0x1_1000)]),
        command(CONTROL, 0, &set_offloads(F_GUEST_CSUM), 0),
        vec![
            Step::Host("a large segment arrives that was on its way", |host| {
                arrive(host, &frame(TCP, OTHER, 1000));
            }),
            arrives(),
        ],
        used(RX, &[(0, 72)]),
        give(1, &[(buffer(0), 0x1_1000)]),
        command(CONTROL, 4, &set_offloads(all), 0),
        vec![Step::Host("a large segment arrives", |host| {
            arrive(host, &frame(TCP, OTHER, 1000));
        })],
        used(RX, &[(1, 1026)]),
        revive(),
    ];
    let about = "net: large segments come as the driver last said";
    list.add(&NET, "5.1.6.5.6", about, steps);
    let steps = [
        started(ALL),
        command(CONTROL, 0, &set_offloads(0), 0),
        started(ALL),
        vec![Step::Host("they are as agreed on", |host| {
            assert_eq!(far(host).state().offloads, Offloads::ALL);
        })],
        started(ALWAYS),
        vec![Step::Host("there are none", |host| {
            assert_eq!(far(host).state().offloads, NONE);
        })],
        revive(),
    ];
    let about = "net: a start sets the offloads that were agreed on";
    list.add(&NET, "5.1.6.5.6", about, steps);
}

fn active<const PAIRS: u16>() -> Step {
    Step::Host("the link has as many queues", |host| {
        assert_eq!(far(host).state().active, Some(PAIRS));
    })
}

fn pairs(list: &mut List) {
    let mq = ALL | F_MQ;
    let steps = [
        started(mq),
        vec![active::<1>()],
        command(LAST, 0, &set_pairs(4), 0),
        vec![active::<4>()],
        command(LAST, 4, &set_pairs(1), 0),
        vec![active::<1>()],
        revive(),
    ];
    let about = "net: as many pairs are used as the driver says";
    list.add(&NET_MQ, "5.1.6.5.5", about, steps);
    let steps = [
        started(mq),
        command(LAST, 0, &set_pairs(4), 0),
        vec![Step::Reset],
        started(mq),
        vec![active::<1>()],
        revive(),
    ];
    let about = "net: a reset leaves one pair in use";
    list.add(&NET_MQ, "5.1.6.5.5", about, steps);
    let third = Step::Host("a frame arrives on the third queue", |host| {
        assert!(far(host).send(2, &frame(Head::default(), OTHER, 46)));
    });
    let steps = [
        started(mq),
        request(4, 0, &[(buffer(0), 2000, true)]),
        vec![third.clone()],
        used(4, &[]),
        command(LAST, 0, &set_pairs(3), 0),
        used(4, &[(0, 72)]),
        vec![received_at(buffer(0), 1)],
        revive(),
    ];
    let about = "net: a pair receives only once it is used";
    list.add(&NET_MQ, "5.1.6.5.5", about, steps);
    let steps = [
        started(mq),
        command(LAST, 0, &set_pairs(3), 0),
        request(4, 0, &[(buffer(0), 2000, true)]),
        vec![Step::Settle],
        command(LAST, 4, &set_pairs(1), 0),
        vec![third],
        used(4, &[]),
        revive(),
    ];
    let about = "net: a pair that is used no more receives nothing";
    list.add(&NET_MQ, "5.1.6.5.5", about, steps);
    let steps = [
        started(mq),
        vec![Step::Memory(outgoing(0), plain())],
        request(7, 0, &[(outgoing(0), 72, false)]),
        used(7, &[(0, 0)]),
        vec![came_plain()],
        revive(),
    ];
    let about = "net: a frame sent through a pair that is not used goes through one that is";
    list.add(&NET_MQ, "5.1.6.5.5", about, steps);
    let steps = [
        started(ALL),
        command(CONTROL, 0, &set_offloads(0), 0),
        command(CONTROL, 4, &set_pairs(1), 1),
        request(LAST, 0, &[(buffer(0), 10, false), (buffer(0x100), 1, true)]),
        used(LAST, &[]),
        revive(),
    ];
    let about = "net: a driver without several pairs has its commands in the third queue";
    list.add(&NET_MQ, "5.1.2", about, steps);
    let steps = [
        started(ALL & !F_CTRL_VQ),
        request(
            CONTROL,
            0,
            &[(buffer(0), 10, false), (buffer(0x100), 1, true)],
        ),
        used(CONTROL, &[]),
        revive(),
    ];
    let about = "net: a driver without commands has no queue for them";
    list.add(&NET, "5.1.2", about, steps);
    let some = |missing: &[u16]| {
        let rings = (0..9)
            .filter(|queue| !missing.contains(queue))
            .map(Step::Ring);
        let begin = [
            Step::Reset,
            Step::Status(1),
            Step::Status(3),
            Step::Features(F_VERSION_1 | mq),
            Step::Status(11),
        ];
        let steps = begin.into_iter().chain(rings).chain([Step::Status(15)]);
        steps.collect::<Vec<_>>()
    };
    let steps = [
        some(&[4]),
        command(LAST, 0, &set_pairs(3), 1),
        command(LAST, 4, &set_pairs(2), 0),
        vec![active::<2>()],
        revive(),
    ];
    let about = "net: a pair whose receive queue was left out cannot be used";
    list.add(&NET_MQ, "5.1.6.5.5", about, steps);
    let steps = [
        some(&[7]),
        command(LAST, 0, &set_pairs(4), 1),
        command(LAST, 4, &set_pairs(3), 0),
        revive(),
    ];
    let about = "net: a pair whose transmit queue was left out cannot be used";
    list.add(&NET_MQ, "5.1.6.5.5", about, steps);
    let steps = [
        some(&[0]),
        vec![Step::ExpectNeedsReset, Step::ExpectStatus(15 | 64)],
        revive(),
    ];
    let about = "net: without its first receive queue the device does not work";
    list.add(&NET_MQ, "5.1.2", about, steps);
    let steps = [
        started(mq),
        vec![Step::Kick(9), Step::Kick(1000), Step::Settle],
        (0..9).map(Step::Kick).collect(),
        vec![Step::Settle, Step::ExpectInterrupt(false)],
        revive(),
    ];
    let about = "net: rings of every queue without requests, and of queues that are not there";
    list.add(&NET_MQ, "4.2.3.3", about, steps);
}

fn configuration(list: &mut List) {
    let steps = [
        started(ALL | F_MQ),
        vec![
            Step::ExpectConfig(0, Width::Dword, 0x0000_0002),
            Step::ExpectConfig(4, Width::Word, 0x0100),
            Step::ExpectConfig(6, Width::Word, 1),
            Step::ExpectConfig(8, Width::Word, 4),
            Step::ExpectConfig(10, Width::Word, 1500),
            Step::ExpectConfig(12, Width::Dword, 0),
            Step::ExpectConfig(5, Width::Byte, 1),
        ],
        revive(),
    ];
    let about = "net: the configuration holds the address, the link, the pairs and the MTU";
    list.add(&NET_MQ, "5.1.4", about, steps);
    let steps = [
        started(ALL),
        vec![
            Step::WriteConfig(0, Width::Dword, 0xffff_ffff),
            Step::WriteConfig(4, Width::Word, 0xffff),
            Step::WriteConfig(6, Width::Word, 0),
            Step::WriteConfig(10, Width::Word, 9000),
            Step::Settle,
            Step::ExpectConfig(0, Width::Dword, 0x0000_0002),
            Step::ExpectConfig(4, Width::Word, 0x0100),
            Step::ExpectConfig(6, Width::Word, 1),
            Step::ExpectConfig(10, Width::Word, 1500),
        ],
        send_one(),
        vec![came_plain()],
        revive(),
    ];
    let about = "net: writes of the address, the link and the MTU change nothing";
    list.add(&NET, "5.1.4", about, steps);
    for (about, subject, value) in [
        ("a link that can do everything", &NET, ALL),
        ("a link that can do nothing", &NET_PLAIN, ALWAYS),
        ("several queues", &NET_MQ, ALL | F_MQ),
    ] {
        // Rings' features and those of transports are others' rows.
        let mask = (1 << 24) - 1;
        let steps = [vec![Step::ExpectOffered { mask, value }], revive()];
        let about = format!("net: what is offered for {about}");
        list.add(subject, "5.1.3", about, steps);
    }
    let beyond = [
        Step::Reset,
        Step::Status(1),
        Step::Status(3),
        Step::Features(F_VERSION_1 | ALWAYS | F_CSUM),
        Step::Status(11),
        Step::ExpectStatus(3),
    ];
    let about = "net: an offload that the link cannot do is not agreed on";
    list.add(&NET_PLAIN, "2.2.1", about, [beyond.to_vec(), revive()]);
}
