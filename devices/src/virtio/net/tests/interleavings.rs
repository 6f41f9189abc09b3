//! Whatever the order of frames, buffers and rings: nothing is lost, nothing wakes for nothing.

use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A frame of the host, with so many bytes behind its header.
    Arrive(usize),
    /// The guest adds so many buffers, and rings only if the device wants to be rung.
    Give(usize),
    /// The guest takes what came.
    Take,
    /// The device does a turn.
    Turn,
    /// The guest sends a frame.
    Send,
    /// The link goes down or up.
    Carrier(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![Just(46_usize), 0..1500_usize, 1500..20_000_usize].prop_map(Step::Arrive),
        3 => (1..12_usize).prop_map(Step::Give),
        2 => Just(Step::Take),
        6 => Just(Step::Turn),
        1 => Just(Step::Send),
        1 => any::<bool>().prop_map(Step::Carrier),
    ]
}

/// A guest with rings and the event index, as Linux has them.
struct Careful {
    machine: Machine,
    /// What the host has sent and the guest has not received.
    expected: std::collections::VecDeque<Vec<u8>>,
    added: u16,
    rung: u16,
    seed: u8,
    arrived: u64,
}

impl Careful {
    /// Adds buffers and rings when the device has asked for it (2.7.10).
    fn give(&mut self, count: usize, lengths: &[u32]) {
        // As many as the ring takes and the guest has memory for.
        let room: u32 = lengths.iter().sum();
        let most = (256 / lengths.len()).min(900_000 / usize::try_from(room).unwrap());
        let free = most - self.machine.guest.given();
        for _ in 0..count.min(free) {
            self.machine.guest.add_buffer(RX, lengths);
            self.added = self.added.wrapping_add(1);
        }
        let event = self.machine.guest.driver.ring(RX).available_event();
        let new = self.added.wrapping_sub(self.rung);
        if self.added.wrapping_sub(event).wrapping_sub(1) < new {
            let notify = crate::virtio::transport::mmio::QUEUE_NOTIFY;
            self.machine.guest.driver.set(notify, RX);
        }
        self.rung = self.added;
    }

    /// Everything that comes is something that was sent, in its order.
    fn take(&mut self) {
        while let Some(got) = self.machine.receive() {
            let got = without_count(got);
            let place = self.expected.iter().position(|frame| *frame == got);
            let place = place.expect("a frame that nobody sent, or one that was overtaken");
            self.expected.drain(..=place);
        }
    }

    fn step(&mut self, step: &Step, lengths: &[u32]) {
        match step {
            Step::Arrive(bytes) => {
                self.seed = self.seed.wrapping_add(1);
                let header = if *bytes > 1500 {
                    tcp4()
                } else {
                    Header::default()
                };
                let frame = frame(header, OTHER, self.seed, *bytes);
                if self.machine.far.send(0, &frame) {
                    self.expected.push_back(frame);
                    self.arrived += 1;
                }
            }
            Step::Give(count) => self.give(*count, lengths),
            Step::Take => self.take(),
            Step::Turn => drop(self.machine.guest.driver.step()),
            Step::Send => {
                self.seed = self.seed.wrapping_add(1);
                self.machine.guest.send(TX, &plain(self.seed, 46), &[]);
                while self.machine.sent().is_some() {}
            }
            Step::Carrier(up) => self.machine.tell(NetCommand::Carrier { up: *up }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn starvation_loses_nothing_and_wakes_nobody(
        steps in prop::collection::vec(step(), 1..120),
        lengths in prop_oneof![
            Just(vec![1526_u32]), Just(vec![12, 2000]), Just(vec![600]), Just(vec![4096]),
        ],
        mergeable in any::<bool>(),
    ) {
        let (wanted, lengths) = match mergeable {
            true => (u64::MAX, lengths),
            // Each buffer has room for any frame then, as the driver has to see to.
            false => (!wire::F_MRG_RXBUF, vec![12, 65_550]),
        };
        let machine = Machine::agreeing(wanted);
        let mut careful = Careful {
            machine,
            expected: std::collections::VecDeque::new(),
            added: 0,
            rung: 0,
            seed: 0,
            arrived: 0,
        };
        for step in &steps {
            careful.step(step, &lengths);
        }
        // A guest that goes on taking and giving gets everything that was not counted as lost.
        careful.machine.tell(NetCommand::Carrier { up: true });
        for _ in 0..60 {
            careful.take();
            careful.give(50, &lengths);
            careful.machine.run();
        }
        careful.take();
        let came = careful.machine.count("rx_packets_count");
        let lost = careful.machine.count("rx_dropped_too_large");
        prop_assert_eq!(came + lost, careful.arrived);
        prop_assert!(careful.expected.len() as u64 <= lost);
        prop_assert!(mergeable || lost == 0);
        // Nothing is left to do: nobody is woken, and the host is not looked at.
        let looks = careful.machine.far.state().receives;
        prop_assert!(!careful.machine.guest.driver.step());
        prop_assert_eq!(careful.machine.far.state().receives, looks);
    }
}
