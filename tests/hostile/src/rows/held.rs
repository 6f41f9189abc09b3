//! Requests that a device has taken and not given back: in flight. The device of these rows keeps
//! what it gets until its host says so, as a disk behind an asynchronous engine does.

use devices::inspect::Report;
use devices::virtio::{
    Chain, ConfigSpace, DeviceCommand, Identity, Progress, StartContext, StartError, VirtioDevice,
    Virtqueue,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::{
    F_EVENT_IDX, F_INDIRECT, F_VERSION_1, INDIRECT, List, WRITE, buffer, chain, d, request, revive,
    start, t, used,
};
use crate::access::Transport;
use crate::step::{Fixture, Host, RING_SIZE, Register, Row, Step, Subject};

/// Keeps the chains of two queues. Not played on a machine.
pub static HOLDER: Subject = Subject {
    name: "holder",
    queues: 2,
    features: F_VERSION_1,
    make: || {
        let orders = Orders::default();
        Fixture {
            device: Box::new(Holder {
                orders: orders.clone(),
                running: None,
                held: VecDeque::new(),
                late: Vec::new(),
            }),
            backend: Box::new(orders),
        }
    },
    good: || {
        let release = Step::Host("all is given back", |host| order(host, Order::All));
        [
            request(0, 0, &[(buffer(0), 32, true)]),
            vec![release],
            used(&[(0, 32)]),
        ]
        .concat()
    },
    boot: None,
};

/// What the host tells the device with its next command.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// Give everything back, first come first.
    All,
    /// Give everything back, last come first.
    Backwards,
    /// Give the oldest back.
    One,
    /// Give everything back and say that more was written than there was room for.
    TooMuch,
    /// Give everything back without a word.
    Silently,
}

type Orders = Arc<Mutex<VecDeque<Order>>>;

fn order(host: &mut Host, order: Order) {
    let orders = host.backend.downcast_ref::<Orders>().expect("orders");
    orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push_back(order);
    host.handle.send(DeviceCommand::Rescan).expect("a device");
}

#[derive(Debug)]
struct Holder {
    orders: Orders,
    running: Option<StartContext>,
    held: VecDeque<(usize, Chain)>,
    late: Vec<(StartContext, VecDeque<(usize, Chain)>)>,
}

impl Holder {
    /// Gives back what was held when the device was stopped, through the queues of that time.
    fn end_late(&mut self) {
        for (mut context, held) in self.late.drain(..) {
            for (number, chain) in held {
                if let Some(Some(queue)) = context.queues.get_mut(number) {
                    queue.complete(chain, 1);
                    queue.notify();
                }
            }
            context.interrupt.config_changed();
        }
    }

    fn queue(&mut self, queue: usize) -> Option<&mut Virtqueue> {
        self.running.as_mut()?.queues.get_mut(queue)?.as_mut()
    }

    fn give_back(&mut self, queue: usize, mut chain: Chain, order: Order) {
        let Some(running) = &self.running else { return };
        let room = usize::try_from(chain.writable_bytes()).expect("small");
        let ram = running.ram.clone();
        let written = chain.write(&ram, &vec![0xab; room]);
        let written = match order {
            Order::TooMuch => u32::MAX,
            _ => u32::try_from(written).expect("small"),
        };
        if let Some(queue) = self.queue(queue) {
            queue.complete(chain, written);
            queue.publish();
        }
    }
}

impl VirtioDevice for Holder {
    fn identity(&self) -> Identity {
        Identity {
            device_id: 42,
            queue_sizes: vec![64, 64],
            features: 0,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::new(ConfigSpace::new(Vec::new()))
    }

    fn start(&mut self, context: StartContext) -> Result<(), StartError> {
        self.running = Some(context);
        Ok(())
    }

    fn queue_ready(&mut self, number: usize) -> Progress {
        let mut taken = Vec::new();
        if let Some(queue) = self.queue(number) {
            while let Ok(Some(chain)) = queue.pop() {
                taken.push((number, chain));
            }
        }
        self.held.extend(taken);
        Progress::Idle
    }

    fn command(&mut self, _: DeviceCommand) -> Result<(), devices::virtio::CommandError> {
        let orders =
            std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        for order in orders {
            self.end_late();
            let count = match order {
                Order::One => 1,
                _ => self.held.len(),
            };
            for _ in 0..count {
                let next = match order {
                    Order::Backwards => self.held.pop_back(),
                    _ => self.held.pop_front(),
                };
                if let Some((queue, chain)) = next {
                    self.give_back(queue, chain, order);
                }
            }
            for number in 0..2 {
                if let Some(queue) = self.queue(number)
                    && !matches!(order, Order::Silently)
                {
                    queue.notify();
                }
            }
        }
        Ok(())
    }

    /// Requests end late, as those of an engine that is not quick to stop.
    fn stop(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.late
            .extend(self.running.take().map(|running| (running, held)));
    }

    fn inspect(&self) -> Report {
        Report::new()
    }
}

fn all() -> Vec<Step> {
    vec![Step::Host("all is given back", |host| {
        order(host, Order::All);
    })]
}

fn one() -> Vec<Step> {
    vec![Step::Host("the oldest is given back", |host| {
        order(host, Order::One);
    })]
}

fn backwards() -> Vec<Step> {
    vec![Step::Host("all is given back, the latest first", |host| {
        order(host, Order::Backwards);
    })]
}

/// A chain of one buffer, published and rung for.
fn ask(head: u16) -> Vec<Step> {
    request(0, head, &[(buffer(u64::from(head) * 16), 8, true)])
}

/// Out of service, told once.
fn broken() -> Vec<Step> {
    vec![Step::ExpectNeedsReset, Step::ExpectReasons(2)]
}

fn again(head: u16) -> Vec<Step> {
    vec![Step::Publish(0, head), Step::Kick(0)]
}

/// All rows.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut list = List::new("held");
    doubles(&mut list);
    completions(&mut list);
    resets(&mut list);
    list.rows()
}

fn doubles(list: &mut List) {
    let spec = "2.7.13.1";
    let mut add = |about: &str, parts: Vec<Vec<Step>>| {
        list.add(&HOLDER, spec, about, parts);
    };
    add(
        "a head that is in flight is published again: out of service, one request only",
        vec![start(0), ask(0), again(0), broken(), revive()],
    );
    add(
        "a head twice in one batch: out of service",
        vec![
            start(0),
            chain(0, 3, &[(buffer(0), 8, true)]),
            vec![Step::Publish(0, 3), Step::Publish(0, 3), Step::Kick(0)],
            broken(),
            revive(),
        ],
    );
    add(
        "the first of three in flight again: out of service",
        vec![
            start(0),
            ask(0),
            ask(1),
            ask(2),
            again(0),
            broken(),
            revive(),
        ],
    );
    add(
        "the last of three in flight again: out of service",
        vec![
            start(0),
            ask(0),
            ask(1),
            ask(2),
            again(2),
            broken(),
            revive(),
        ],
    );
    add(
        "a head that is in flight with another chain behind it: out of service",
        vec![
            start(0),
            ask(0),
            vec![d(0, buffer(0x100), 64, WRITE, 0)],
            again(0),
            broken(),
            revive(),
        ],
    );
    add(
        "a head may come again once it came back",
        vec![
            start(0),
            ask(0),
            all(),
            used(&[(0, 8)]),
            again(0),
            all(),
            used(&[(0, 8)]),
            revive(),
        ],
    );
    add(
        "with every descriptor in flight, one more: out of service",
        vec![
            start(0),
            (0..RING_SIZE).flat_map(ask).collect(),
            again(5),
            broken(),
            revive(),
        ],
    );
    add(
        "the same head on two queues is two requests",
        vec![
            start(0),
            ask(0),
            request(1, 0, &[(buffer(0x100), 4, true)]),
            all(),
            used(&[(0, 8)]),
            vec![Step::ExpectUsed(1, vec![(0, 4)])],
            revive(),
        ],
    );
    add(
        "two chains in flight that share a descriptor are the driver's business",
        vec![
            start(0),
            chain(0, 0, &[(buffer(0), 8, true), (buffer(16), 8, true)]),
            vec![Step::Publish(0, 0), Step::Publish(0, 1), Step::Kick(0)],
            all(),
            used(&[(0, 16), (1, 8)]),
            revive(),
        ],
    );
    let table = buffer(0x4000);
    let two = vec![
        d(0, table, 16, INDIRECT, 0),
        d(1, table, 16, INDIRECT, 0),
        t(table, 0, buffer(0), 8, WRITE, 0),
        Step::Publish(0, 0),
        Step::Publish(0, 1),
        Step::Publish(0, 0),
        Step::Kick(0),
    ];
    add(
        "a head of a table that is in flight again: out of service",
        vec![start(F_INDIRECT), two, broken(), revive()],
    );
    add(
        "a queue that is out of service leaves the other's requests in flight until the reset",
        vec![
            start(0),
            request(1, 2, &[(buffer(0x100), 4, true)]),
            ask(0),
            again(0),
            broken(),
            revive(),
        ],
    );
}

fn completions(list: &mut List) {
    let spec = "2.7.8";
    let three = || [ask(0), ask(1), ask(2)].concat();
    let mut add = |about: &str, parts: Vec<Vec<Step>>| {
        list.add(&HOLDER, spec, about, parts);
    };
    add(
        "requests come back in another order than they came",
        vec![
            start(0),
            three(),
            backwards(),
            used(&[(2, 8), (1, 8), (0, 8)]),
            revive(),
        ],
    );
    add(
        "heads are free one by one",
        vec![
            start(0),
            three(),
            one(),
            used(&[(0, 8)]),
            again(0),
            backwards(),
            used(&[(0, 8), (2, 8), (1, 8)]),
            revive(),
        ],
    );
    add(
        "as many in flight as the queue has, and all of them back",
        vec![
            start(0),
            (0..RING_SIZE).flat_map(ask).collect(),
            all(),
            used(&(0..RING_SIZE).map(|n| (n, 8)).collect::<Vec<_>>()),
            revive(),
        ],
    );
    add(
        "a device that wrote too much says no more than there was room for",
        vec![
            start(0),
            ask(4),
            vec![Step::Host("too much is said", |host| {
                order(host, Order::TooMuch);
            })],
            used(&[(4, 8)]),
            revive(),
        ],
    );
    add(
        "a buffer that is rewritten while in flight: the copy counts",
        vec![
            start(0),
            ask(0),
            vec![Step::Settle, d(0, buffer(0x200), 4, WRITE, 0)],
            all(),
            used(&[(0, 8)]),
            vec![
                Step::ExpectMemory(buffer(0), vec![0xab; 8]),
                Step::ExpectMemory(buffer(0x200), vec![0; 4]),
            ],
            revive(),
        ],
    );
    add(
        "a driver that wants no interrupt while requests are in flight gets none",
        vec![
            start(0),
            three(),
            vec![Step::Settle, Step::AvailableFlags(0, 1)],
            all(),
            used(&[(0, 8), (1, 8), (2, 8)]),
            vec![Step::ExpectReasons(0), Step::ExpectInterrupt(false)],
            revive(),
        ],
    );
    add(
        "a driver that names the last of three in flight gets one interrupt",
        vec![
            start(F_EVENT_IDX),
            three(),
            vec![Step::UsedEvent(0, 2)],
            one(),
            one(),
            vec![Step::ExpectInterrupt(false)],
            one(),
            vec![Step::ExpectInterrupt(true)],
            used(&[(0, 8), (1, 8), (2, 8)]),
            revive(),
        ],
    );
    add(
        "a silent device brings no interrupt",
        vec![
            start(0),
            ask(0),
            vec![Step::Host("all is given back silently", |host| {
                order(host, Order::Silently);
            })],
            used(&[(0, 8)]),
            vec![Step::ExpectInterrupt(false)],
            revive(),
        ],
    );
    add(
        "an available index that jumps while requests are in flight: they come back no more",
        vec![
            start(0),
            ask(0),
            vec![Step::AvailableIndex(0, 0x4000), Step::Kick(0)],
            broken(),
            revive(),
        ],
    );
}

fn resets(list: &mut List) {
    let spec = "2.4.1";
    let reset = || vec![Step::Reset];
    let ring = vec![
        Step::Status(1),
        Step::Status(3),
        Step::Features(F_VERSION_1),
        Step::Status(11),
        Step::Ring(0),
        Step::Ring(1),
        Step::Status(15),
    ];
    let mut add = |about: &str, parts: Vec<Vec<Step>>| {
        list.add(&HOLDER, spec, about, parts);
    };
    // A reset forgets the queue, so memory is looked at by itself.
    let quiet = || {
        vec![
            Step::Settle,
            Step::ExpectMemory(buffer(0), vec![0; 8]),
            Step::ExpectReasons(0),
            Step::ExpectInterrupt(false),
        ]
    };
    add(
        "a reset with a request in flight: nothing is written afterwards",
        vec![start(0), ask(0), reset(), all(), quiet(), revive()],
    );
    add(
        "a reset with every descriptor in flight",
        vec![
            start(0),
            (0..RING_SIZE).flat_map(ask).collect(),
            reset(),
            all(),
            quiet(),
            revive(),
        ],
    );
    add(
        "a new start while old requests end: they do not reach the new rings",
        vec![
            start(0),
            ask(0),
            reset(),
            ring,
            vec![Step::Host("the old one ends", |host| {
                order(host, Order::Silently);
            })],
            vec![Step::ExpectUsedCount(0, 0)],
            revive(),
        ],
    );
    add(
        "a reset between two that come back",
        vec![
            start(0),
            ask(0),
            ask(1),
            one(),
            used(&[(0, 8)]),
            reset(),
            all(),
            vec![Step::ExpectReasons(0)],
            revive(),
        ],
    );
    add(
        "ten resets with requests in flight",
        vec![
            (0..10)
                .flat_map(|_| [start(0), ask(0), ask(1), reset()].concat())
                .collect(),
            revive(),
        ],
    );
    list.only(Transport::Mmio);
    let take_back = || {
        vec![
            Step::Settle,
            Step::Write(Register::QueueSelect, 0),
            Step::Write(Register::QueueEnable, 0),
            Step::Expect(Register::QueueEnable, 0),
        ]
    };
    let mut add = |about: &str, parts: Vec<Vec<Step>>| {
        list.add(&HOLDER, "4.2.2.2", about, parts);
    };
    add(
        "a queue is taken back with a request in flight: the used ring stays as it is",
        vec![
            start(0),
            ask(0),
            take_back(),
            all(),
            vec![Step::ExpectUsedCount(0, 0), Step::ExpectInterrupt(false)],
            revive(),
        ],
    );
    add(
        "a queue is taken back, and the other one's request comes back",
        vec![
            start(0),
            ask(0),
            request(1, 0, &[(buffer(0x100), 4, true)]),
            take_back(),
            all(),
            vec![
                Step::ExpectUsed(1, vec![(0, 4)]),
                Step::ExpectUsedCount(0, 0),
            ],
            revive(),
        ],
    );
    list.only(None);
}
