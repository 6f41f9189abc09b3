//! The rules of virtio 1.2, 2.7, against a driver that keeps them and one that does not.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::line::IrqLine;
use crate::testing::ring::{INDIRECT, NEXT, WRITE};
use crate::testing::{AFTER_HOLE, Buffer, END, HOLE, Ring, SEAM, small_ram};

mod race;

const SIZE: u16 = 8;
const ALL: u64 = features::OFFERED;
const DATA: u64 = 0x8_0000;
const TABLE: u64 = 0x9_0000;

struct Rig {
    ring: Ring,
    queue: Virtqueue,
    line: IrqLine,
    interrupt: Interrupt,
    live: Arc<AtomicBool>,
}

fn rig_with(features: u64, size: u16) -> Rig {
    let ram = small_ram();
    let ring = Ring::new(ram.clone(), 0x1_0000, size);
    let line = IrqLine::new().unwrap();
    let interrupt = Interrupt::new("test".into(), line.try_clone().unwrap());
    interrupt.set_running();
    let live = Arc::new(AtomicBool::new(true));
    let queue = Virtqueue::new(
        0,
        &ring.setup,
        size,
        features,
        ram,
        interrupt.clone(),
        Arc::clone(&live),
    );
    Rig {
        ring,
        queue: queue.unwrap(),
        line,
        interrupt,
        live,
    }
}

fn rig() -> Rig {
    rig_with(ALL, SIZE)
}

impl Rig {
    fn pop(&mut self) -> Chain {
        self.queue.pop().unwrap().unwrap()
    }

    /// The queue must be broken by what is available now, once, and stay so until reset.
    fn breaks_with(mut self, what: &str, expected: QueueBroken) {
        assert_eq!(self.queue.pop().unwrap_err(), expected, "{what}");
        assert!(self.line.take(), "{what}: the driver was not told");
        assert!(self.interrupt.needs_reset(), "{what}");
        for _ in 0..3 {
            assert_eq!(self.queue.pop().unwrap_err(), expected, "{what}: latched");
        }
        assert!(!self.line.take(), "{what}: told again");
        assert_eq!(self.ring.used_index(), 0, "{what}");
    }
}

/// 2.7.4 and 2.7.5: buffers come in order, split by direction, wherever they lie.
#[test]
fn a_chain_comes_as_it_was_made() {
    let mut rig = rig();
    let head = rig.ring.add(&[
        Buffer::readable(DATA, 16),
        Buffer::readable(SEAM - 8, 16),
        Buffer::writable(END - 4, 4),
        Buffer::writable(AFTER_HOLE, 1),
    ]);
    let chain = rig.pop();
    let span = |at, len| Span { at, len };
    assert_eq!(chain.readable(), [span(DATA, 16), span(SEAM - 8, 16)]);
    assert_eq!(chain.writable(), [span(END - 4, 4), span(AFTER_HOLE, 1)]);
    rig.queue.complete(chain, 5);
    rig.queue.publish();
    assert_eq!(rig.ring.take_used(), Some((head, 5)));
    assert!(rig.queue.pop().unwrap().is_none());
}

/// 2.7.5.3.1: exactly as many descriptors as the queue has are fine, directly and indirectly.
#[test]
fn a_chain_may_be_as_long_as_the_queue() {
    let mut rig = rig();
    let buffers = [Buffer::readable(DATA, 1); SIZE as usize];
    rig.ring.add(&buffers);
    let chain = rig.pop();
    assert_eq!(chain.readable_bytes(), u64::from(SIZE));
    rig.queue.complete(chain, 0);

    rig.ring.indirect_table(TABLE, &buffers);
    rig.ring
        .descriptor(0, (TABLE, 16 * u32::from(SIZE)), INDIRECT, 0);
    rig.ring.publish(0);
    let chain = rig.pop();
    assert_eq!(chain.readable_bytes(), u64::from(SIZE));
    rig.queue.complete(chain, 0);
}

/// 2.7.5.3.2: the write flag of the descriptor that refers to a table means nothing, and direct
/// descriptors may come before it.
#[test]
fn indirect_tables_are_followed() {
    let mut rig = rig();
    let (a, b) = (
        Buffer::readable(DATA + 16, 2),
        Buffer::writable(DATA + 32, 3),
    );
    rig.ring.indirect_table(TABLE + 3, &[a, b]);
    rig.ring.descriptor(0, (DATA, 1), NEXT, 5);
    rig.ring
        .descriptor(5, (TABLE + 3, 32), INDIRECT | WRITE, 0xffff);
    rig.ring.publish(0);
    let chain = rig.pop();
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (3, 3));
    rig.queue.complete(chain, 3);
    rig.queue.publish();
    assert_eq!(rig.ring.take_used(), Some((0, 3)));
}

/// An empty descriptor adds nothing, and its address is not looked at.
#[test]
fn empty_descriptors_add_nothing() {
    let mut rig = rig();
    rig.ring.add(&[
        Buffer::readable(u64::MAX, 0),
        Buffer::readable(DATA, 4),
        Buffer::writable(HOLE, 0),
    ]);
    let chain = rig.pop();
    assert_eq!(chain.readable().len(), 1);
    assert!(chain.writable().is_empty());
    rig.queue.complete(chain, 100);
    rig.queue.publish();
    assert_eq!(
        rig.ring.take_used(),
        Some((0, 0)),
        "no more than there is room"
    );
}

/// 2.7.4.2, 2.7.5, 2.7.5.2, 2.7.5.3.1: what a driver must not put into a chain.
#[test]
fn hostile_chains_break_the_queue() {
    type Make = fn(&mut Ring);
    let none = |index, size| QueueBroken::NoDescriptor { index, size };
    let outside = |at, len| QueueBroken::NotInRam { at, len };
    let long = QueueBroken::TooLong { size: SIZE };
    let size_of = |len| QueueBroken::IndirectSize { len };
    let cases: Vec<(&str, Make, QueueBroken)> = vec![
        (
            "next to itself",
            |r| r.descriptor(0, (DATA, 1), NEXT, 0),
            long,
        ),
        (
            "a loop of two",
            |r| {
                r.descriptor(0, (DATA, 1), NEXT, 1);
                r.descriptor(1, (DATA, 1), NEXT, 0);
            },
            long,
        ),
        (
            "a loop of empty descriptors",
            |r| r.descriptor(0, (DATA, 0), NEXT, 0),
            long,
        ),
        (
            "next outside the table",
            |r| r.descriptor(0, (DATA, 1), NEXT, SIZE),
            none(SIZE, SIZE),
        ),
        (
            "next far outside",
            |r| r.descriptor(0, (DATA, 1), NEXT, 0xffff),
            none(0xffff, SIZE),
        ),
        (
            "into the hole",
            |r| r.descriptor(0, (HOLE - 1, 2), 0, 0),
            outside(HOLE - 1, 2),
        ),
        (
            "over the hole",
            |r| r.descriptor(0, (HOLE - 1, 0x10_0002), 0, 0),
            outside(HOLE - 1, 0x10_0002),
        ),
        (
            "in the hole",
            |r| r.descriptor(0, (HOLE, 1), WRITE, 0),
            outside(HOLE, 1),
        ),
        (
            "beyond memory",
            |r| r.descriptor(0, (END, 1), WRITE, 0),
            outside(END, 1),
        ),
        (
            "over the end",
            |r| r.descriptor(0, (END - 1, 2), WRITE, 0),
            outside(END - 1, 2),
        ),
        (
            "huge",
            |r| r.descriptor(0, (0, u32::MAX), 0, 0),
            outside(0, u32::MAX),
        ),
        (
            "wrapping",
            |r| r.descriptor(0, (u64::MAX, 2), 0, 0),
            outside(u64::MAX, 2),
        ),
        (
            "more than 32 bits of bytes",
            |r| {
                r.descriptor(0, (DATA, 1), NEXT, 1);
                r.descriptor(1, (DATA, u32::MAX), WRITE, 0);
            },
            QueueBroken::TooManyBytes,
        ),
        (
            "readable after writable",
            |r| {
                r.descriptor(0, (DATA, 1), WRITE | NEXT, 1);
                r.descriptor(1, (DATA, 1), 0, 0);
            },
            QueueBroken::Order,
        ),
        (
            "indirect with next",
            |r| {
                r.descriptor(0, (TABLE, 16), INDIRECT | NEXT, 1);
                r.descriptor(1, (DATA, 1), 0, 0);
            },
            QueueBroken::Indirect,
        ),
        (
            "indirect in a table",
            |r| {
                r.descriptor_in(TABLE, 0, (TABLE, 16), INDIRECT, 0);
                r.descriptor(0, (TABLE, 16), INDIRECT, 0);
            },
            QueueBroken::Indirect,
        ),
        (
            "an empty table",
            |r| r.descriptor(0, (TABLE, 0), INDIRECT, 0),
            size_of(0),
        ),
        (
            "a crooked table",
            |r| r.descriptor(0, (TABLE, 17), INDIRECT, 0),
            size_of(17),
        ),
        (
            "a table larger than the queue",
            |r| r.descriptor(0, (TABLE, 144), INDIRECT, 0),
            size_of(144),
        ),
        (
            "a giant table",
            |r| r.descriptor(0, (TABLE, 0xffff_fff0), INDIRECT, 0),
            size_of(0xffff_fff0),
        ),
        (
            "a table outside memory",
            |r| r.descriptor(0, (HOLE - 16, 32), INDIRECT, 0),
            outside(HOLE - 16, 32),
        ),
        (
            "a loop in a table",
            |r| {
                r.descriptor_in(TABLE, 0, (DATA, 1), NEXT, 0);
                r.descriptor(0, (TABLE, 16), INDIRECT, 0);
            },
            long,
        ),
        (
            "next outside a table",
            |r| {
                r.descriptor_in(TABLE, 0, (DATA, 1), NEXT, 1);
                r.descriptor(0, (TABLE, 16), INDIRECT, 0);
            },
            none(1, 1),
        ),
        (
            "longer than the queue by a table",
            |r| {
                r.descriptor(0, (DATA, 1), NEXT, 1);
                r.indirect_table(TABLE, &[Buffer::readable(DATA, 1); SIZE as usize]);
                r.descriptor(1, (TABLE, 16 * u32::from(SIZE)), INDIRECT, 0);
            },
            long,
        ),
    ];
    for (what, make, expected) in cases {
        let mut rig = rig();
        make(&mut rig.ring);
        rig.ring.publish(0);
        rig.breaks_with(what, expected);
    }
}

/// 2.7.6: heads outside the table, indices that jump.
#[test]
fn hostile_available_rings_break_the_queue() {
    for head in [SIZE, SIZE + 1, 0x7fff, 0xffff] {
        let mut rig = rig();
        rig.ring.publish(head);
        let expected = QueueBroken::NoDescriptor {
            index: head,
            size: SIZE,
        };
        rig.breaks_with("a head outside the table", expected);
    }
    for index in [SIZE + 1, 0x8000, 0xffff] {
        let rig = rig();
        rig.ring.set_available_index(index);
        rig.breaks_with("an index that jumps", QueueBroken::IndexJump);
    }
}

/// 2.7.5.3.1: only with the feature accepted.
#[test]
fn indirect_tables_want_their_feature() {
    let mut rig = rig_with(features::VERSION_1, SIZE);
    rig.ring.indirect_table(TABLE, &[Buffer::readable(DATA, 1)]);
    rig.ring.descriptor(0, (TABLE, 16), INDIRECT, 0);
    rig.ring.publish(0);
    rig.breaks_with("indirect without the feature", QueueBroken::Indirect);
}

/// A chain that the device still works on is not handed out again.
#[test]
fn a_chain_in_flight_cannot_come_twice() {
    let mut rig = rig();
    let head = rig.ring.add(&[Buffer::readable(DATA, 1)]);
    rig.ring.publish(head);
    let first = rig.pop();
    assert_eq!(rig.queue.pop().unwrap_err(), QueueBroken::InFlight { head });
    rig.queue.complete(first, 0);
    rig.queue.publish();
    assert_eq!(
        rig.ring.take_used(),
        Some((head, 0)),
        "what was taken still goes back"
    );

    let mut rig = self::rig();
    for _ in 0..3 {
        let head = rig.ring.chain(&[Buffer::readable(DATA, 1)]);
        for _ in 0..3 {
            rig.ring.publish(head);
            let chain = rig.pop();
            rig.queue.complete(chain, 0);
        }
    }
}

/// The device works on its copy, whatever the driver does to descriptors meanwhile.
#[test]
fn descriptors_are_read_once() {
    let mut rig = rig();
    let head = rig
        .ring
        .add(&[Buffer::readable(DATA, 4), Buffer::writable(DATA + 4, 4)]);
    let mut chain = rig.pop();
    rig.ring.descriptor(head, (u64::MAX, u32::MAX), NEXT, head);
    assert_eq!(chain.readable(), [Span { at: DATA, len: 4 }]);
    assert_eq!(chain.write(&rig.queue.ram, &[1, 2, 3, 4, 5]), 4);
    rig.queue.complete(chain, 4);
    assert_eq!(rig.queue.ram.read::<u32>(DATA + 4).unwrap(), 0x0403_0201);
}

/// 2.7.8: the index moves for several at once, at the latest before an interrupt.
#[test]
fn what_is_given_back_is_shown_in_batches() {
    let mut rig = rig();
    let give_back = |rig: &mut Rig, count| {
        for _ in 0..count {
            rig.ring.add(&[Buffer::readable(DATA, 1)]);
            let chain = rig.pop();
            rig.queue.complete(chain, 0);
        }
        rig.ring.used_index()
    };
    let most = PUBLISHED_AT_ONCE;
    assert_eq!(give_back(&mut rig, most - 1), 0);
    assert_eq!(give_back(&mut rig, 1), most);
    assert_eq!(give_back(&mut rig, 1), most);
    rig.queue.publish();
    assert_eq!(rig.ring.used_index(), most + 1);
    assert!(!rig.line.take(), "shown, and not told of");
    assert_eq!(give_back(&mut rig, 2), most + 1);
    rig.ring.set_used_event(most + 2);
    rig.queue.notify();
    assert_eq!(rig.ring.used_index(), most + 3);
    assert!(rig.line.take());
    // A driver that took the queue back is shown nothing any more.
    give_back(&mut rig, 1);
    rig.live.store(false, Ordering::Release);
    rig.queue.publish();
    rig.queue.notify();
    assert_eq!(rig.ring.used_index(), most + 3);
}

/// 2.7.7: one interrupt for a batch, none when the driver asked for none.
#[test]
fn interrupts_without_event_indices() {
    let mut rig = rig_with(features::VERSION_1, SIZE);
    rig.queue.notify();
    assert!(!rig.line.take(), "nothing was used");
    for (flags, expected) in [(0, true), (1, false), (0, true)] {
        rig.ring.set_flags(flags);
        for _ in 0..3 {
            rig.ring.add(&[Buffer::readable(DATA, 1)]);
            let chain = rig.pop();
            rig.queue.complete(chain, 0);
            assert!(!rig.line.take(), "before the end of the batch");
        }
        rig.queue.notify();
        assert_eq!(rig.line.take(), expected, "flags {flags}");
        rig.queue.notify();
        assert!(!rig.line.take(), "twice for one batch");
    }
}

/// 2.7.7.2: exactly when the used index passes `used_event`, over the wrap too.
#[test]
fn interrupts_with_event_indices() {
    let mut rig = rig();
    // The no-interrupt flag means nothing with event indices.
    rig.ring.set_flags(1);
    let mut used = 0_u16;
    for round in 0..20_000_u16 {
        let batch = round % 4 + 1;
        let event = used.wrapping_add(round % 7).wrapping_sub(1);
        rig.ring.set_used_event(event);
        for _ in 0..batch {
            rig.ring.add(&[Buffer::readable(DATA, 1)]);
            let chain = rig.pop();
            rig.queue.complete(chain, 0);
        }
        rig.queue.notify();
        let passed = (0..batch).any(|n| used.wrapping_add(n) == event);
        assert_eq!(rig.line.take(), passed, "round {round}");
        used = used.wrapping_add(batch);
    }
}

/// 2.7.10: the driver need not ring while the device is at work, and must once it is done.
#[test]
fn doorbells_are_asked_for_only_when_idle() {
    let mut rig = rig_with(features::VERSION_1, SIZE);
    rig.ring.add(&[Buffer::readable(DATA, 1)]);
    let chain = rig.pop();
    assert_eq!(rig.ring.used_flags(), 1, "busy");
    rig.queue.complete(chain, 0);
    assert!(rig.queue.pop().unwrap().is_none());
    assert_eq!(rig.ring.used_flags(), 0, "idle");

    let mut rig = self::rig();
    for round in 1..=3_u16 {
        rig.ring.add(&[Buffer::readable(DATA, 1)]);
        let chain = rig.pop();
        assert_eq!(rig.ring.available_event(), round - 1, "busy");
        rig.queue.complete(chain, 0);
        assert!(rig.queue.pop().unwrap().is_none());
        assert_eq!(rig.ring.available_event(), round, "idle");
    }
}

/// 2.7.10: a request that comes between the last look and the wish to be rung is not rung for, so
/// the wish has to see it.
#[test]
fn what_comes_before_the_wish_to_be_rung_is_seen() {
    for features in [features::VERSION_1, ALL] {
        let mut rig = rig_with(features, SIZE);
        assert!(rig.queue.poll().unwrap().is_none());
        let head = rig.ring.add(&[Buffer::readable(DATA, 1)]);
        assert!(rig.queue.arm().unwrap(), "{features:#x}");
        assert_eq!(rig.pop().head, head);
        assert!(!rig.queue.arm().unwrap(), "{features:#x}");
    }
}

/// 4.2.2.2: after the driver took the queue back, its memory is its own.
#[test]
fn a_queue_that_was_taken_back_is_left_alone() {
    let mut rig = rig();
    rig.ring.add(&[Buffer::readable(DATA, 1)]);
    rig.ring.add(&[Buffer::readable(DATA, 1)]);
    let chain = rig.pop();
    rig.live.store(false, Ordering::Release);
    rig.queue.complete(chain, 0);
    rig.queue.notify();
    assert!(rig.queue.pop().unwrap().is_none());
    assert_eq!(rig.ring.used_index(), 0);
    assert!(!rig.line.take());
}

/// What a device cannot use goes back behind what it holds, and at once when it holds nothing.
#[test]
fn what_is_refused_keeps_its_place() {
    let mut rig = rig();
    for _ in 0..6 {
        rig.ring.add(&[Buffer::writable(DATA, 8)]);
    }
    let alone = rig.pop();
    rig.queue.refuse(alone);
    rig.queue.notify();
    assert_eq!(rig.ring.take_used(), Some((0, 0)));
    let (first, second) = (rig.pop(), rig.pop());
    for _ in 0..2 {
        let bad = rig.pop();
        rig.queue.refuse(bad);
    }
    let last = rig.pop();
    rig.queue.notify();
    assert_eq!(rig.ring.take_used(), None);
    rig.queue.complete(first, 1);
    rig.queue.notify();
    assert_eq!(rig.queue.standing().save().position, 2);
    rig.queue.complete_together([(second, 2), (last, 5)]);
    rig.queue.notify();
    let back: Vec<_> = std::iter::from_fn(|| rig.ring.take_used()).collect();
    assert_eq!(back, [(1, 1), (2, 2), (3, 0), (4, 0), (5, 5)]);
    assert_eq!(rig.queue.standing().save().position, 6);
}

/// What was taken and not answered is taken again by the next, and the indices go on.
#[test]
fn a_restored_queue_takes_again_what_was_not_answered() {
    for (features, start) in [(ALL, 0), (ALL, u16::MAX - 1), (features::VERSION_1, 7)] {
        let mut rig = rig_with(features, SIZE);
        let state = QueueStateV1 {
            position: start,
            broken: false,
        };
        rig.queue = rig.queue.restored(&state);
        let entry = |at: u16| rig.ring.setup.available + 4 + u64::from(at % SIZE) * 2;
        for (at, head) in [(start, 5_u16), (start.wrapping_add(1), 3)] {
            rig.ring.descriptor(head, (DATA, 8), WRITE, 0);
            rig.queue.ram.write(entry(at), &head.to_le()).unwrap();
        }
        rig.ring.set_available_index(start.wrapping_add(2));
        let (one, two) = (rig.pop(), rig.pop());
        assert_eq!((one.head, two.head), (5, 3));
        rig.queue.complete(one, 1);
        rig.queue.notify();
        let state = rig.queue.standing().save();
        assert_eq!(state.position, start.wrapping_add(1));
        let next = Virtqueue::new(
            0,
            &rig.ring.setup,
            SIZE,
            features,
            rig.queue.ram.clone(),
            rig.interrupt.clone(),
            Arc::clone(&rig.live),
        );
        rig.queue = next.unwrap().restored(&state);
        let again = rig.pop();
        assert_eq!(again.head, 3);
        rig.queue.complete(again, 2);
        rig.queue.notify();
        assert!(rig.queue.pop().unwrap().is_none());
        assert_eq!(rig.ring.used_index(), start.wrapping_add(2));
    }
}

/// Headers and status bytes may be scattered over descriptors (2.6.4.1).
#[test]
fn headers_and_status_ignore_descriptor_bounds() {
    let mut rig = rig();
    rig.queue
        .ram
        .write_bytes(DATA, &[1, 2, 3, 4, 5, 6])
        .unwrap();
    rig.ring.add(&[
        Buffer::readable(DATA, 1),
        Buffer::readable(DATA + 1, 5),
        Buffer::writable(DATA + 16, 2),
        Buffer::writable(DATA + 32, 1),
    ]);
    let mut chain = rig.pop();
    let ram = rig.queue.ram.clone();
    assert!(chain.take_header::<[u8; 7]>(&ram).is_err());
    assert_eq!(chain.take_header::<[u8; 4]>(&ram), Ok([1, 2, 3, 4]));
    assert_eq!(
        chain.readable(),
        [Span {
            at: DATA + 4,
            len: 2
        }]
    );
    chain.split_status().unwrap().set(&ram, 0xaa);
    assert_eq!(ram.read::<u8>(DATA + 32).unwrap(), 0xaa);
    chain.split_status().unwrap().set(&ram, 0xbb);
    assert_eq!(ram.read::<u8>(DATA + 17).unwrap(), 0xbb);
    assert_eq!(chain.writable_bytes(), 1);
    chain.split_status().unwrap().set(&ram, 0xcc);
    assert!(chain.split_status().is_none());
    rig.queue.complete(chain, 0);
}

/// Whatever is in the rings and tables, each descriptor of work is bounded and nothing panics.
fn hostile_words() -> impl Strategy<Value = Vec<(u16, u64, u32, u16, u16)>> {
    let address = prop_oneof![
        Just(DATA),
        Just(TABLE),
        Just(SEAM - 1),
        Just(HOLE - 8),
        any::<u64>()
    ];
    let len = prop_oneof![0_u32..64, Just(128), any::<u32>()];
    let next = prop_oneof![0..SIZE, any::<u16>()];
    prop::collection::vec((0..SIZE, address, len, 0_u16..8, next), 1..32)
}

proptest! {
    #[test]
    fn any_ring_is_survived(
        words in hostile_words(),
        table in hostile_words(),
        heads in prop::collection::vec(prop_oneof![0..SIZE, any::<u16>()], 1..20),
        features in prop_oneof![Just(ALL), Just(features::VERSION_1)],
    ) {
        let mut rig = rig_with(features, SIZE);
        for (index, at, len, flags, next) in words {
            rig.ring.descriptor(index, (at, len), flags, next);
        }
        for (index, at, len, flags, next) in table {
            rig.ring.descriptor_in(TABLE, index, (at, len), flags, next);
        }
        let mut held = Vec::new();
        let mut out = HashSet::new();
        for (round, head) in heads.into_iter().enumerate() {
            rig.ring.publish(head);
            if let Ok(Some(chain)) = rig.queue.pop() {
                prop_assert!(chain.readable().len() + chain.writable().len() <= SIZE.into());
                prop_assert!(out.insert(chain.head), "handed out twice");
                held.push(chain);
            }
            if round % 3 == 2 {
                for chain in held.drain(..) {
                    out.remove(&chain.head);
                    rig.queue.complete(chain, u32::MAX);
                }
                rig.queue.notify();
            }
        }
    }
}
