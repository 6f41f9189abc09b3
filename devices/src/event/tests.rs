//! Subscribers before and while a loop runs, and its end.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events};

use super::*;
use crate::line::Doorbell;

const SOON: Duration = Duration::from_secs(10);

/// Tells when it was rung.
struct Listener {
    bell: Doorbell,
    name: &'static str,
    heard: Sender<&'static str>,
}

impl MutEventSubscriber for Listener {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        assert!(self.bell.clear());
        self.heard.send(self.name).unwrap();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        ops.add(Events::new(&self.bell, EventSet::IN)).unwrap();
    }
}

#[test]
fn subscribers_are_served_whether_added_before_or_while_it_runs() {
    let (heard, told) = channel();
    let listener = |name: &'static str| {
        let bell = Doorbell::new().unwrap();
        let ringer = bell.try_clone().unwrap();
        (
            Box::new(Listener {
                bell,
                name,
                heard: heard.clone(),
            }),
            ringer,
        )
    };
    let (early, early_bell) = listener("early");
    let (late, late_bell) = listener("late");
    let mut events = Loop::new().unwrap();
    events.add(early);
    let (remote, thread) = events.spawn("io-test").unwrap();
    early_bell.ring();
    assert_eq!(told.recv_timeout(SOON), Ok("early"));
    remote.add(late).unwrap();
    late_bell.ring();
    assert_eq!(told.recv_timeout(SOON), Ok("late"));
    remote.clone().stop();
    thread.join().unwrap().unwrap();
    remote.stop();
    let (orphan, _bell) = listener("orphan");
    assert!(matches!(remote.add(orphan), Err(LoopError::Gone(_))));
}

#[test]
fn a_loop_stopped_before_it_runs_ends_at_once() {
    let mut events = Loop::new().unwrap();
    events.remote().stop();
    events.run().unwrap();
}
