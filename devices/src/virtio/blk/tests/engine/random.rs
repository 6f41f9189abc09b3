//! Whatever driver, engine and host do, in any order.

use proptest::prelude::*;

use super::*;

/// What a driver does and what the host does, at random.
#[derive(Clone, Debug)]
enum Deed {
    Ask { queue: u32, kind: u32 },
    Fate(u64, Fate),
    End(usize, bool),
    Step,
    Reset,
    TakeBack(u32),
    Lose,
    Swap(u16),
    Rescan(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    let fails = |errno| Fate::Fails { done: 0, errno };
    prop_oneof![
        3 => Just(Fate::Late),
        2 => Just(Fate::Twice),
        1 => Just(Fate::AtOnce),
        1 => Just(Fate::Refused),
        1 => Just(fails(EIO)),
        1 => Just(fails(ENOSPC)),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let kind = prop::sample::select(vec![READ, WRITE, FLUSH, DISCARD, ZEROES]);
    prop_oneof![
        20 => (0..4_u32, kind).prop_map(|(queue, kind)| Deed::Ask { queue, kind }),
        4 => (0..64_u64, fate()).prop_map(|(sector, fate)| Deed::Fate(sector, fate)),
        8 => (1..8_usize, any::<bool>()).prop_map(|(n, newest)| Deed::End(n, newest)),
        6 => Just(Deed::Step),
        1 => Just(Deed::Reset),
        1 => (0..4_u32).prop_map(Deed::TakeBack),
        1 => Just(Deed::Lose),
        1 => (1..6_u16).prop_map(Deed::Swap),
        1 => (32..80_usize).prop_map(Deed::Rescan),
    ]
}

/// Plays the deeds: a request has a sector of its own, so that its fate is known.
struct Play {
    late: Late,
    next: u64,
    /// What became of the sector of each request that is out, when it was asked.
    asked: BTreeMap<(u32, u16), u64>,
    gone: [bool; 4],
}

impl Play {
    fn new() -> Self {
        Self {
            late: Late::new(4, 3),
            next: 0,
            asked: BTreeMap::new(),
            gone: [false; 4],
        }
    }

    fn ask(&mut self, queue: u32, kind: u32) {
        if self.late.out.len() > 40 || self.gone[usize::try_from(queue).unwrap()] {
            return;
        }
        self.next = (self.next + 1) % 64;
        let sector = self.next;
        let data = match kind {
            READ => self.late.driver.room(512),
            WRITE => self.late.driver.holding(&[0xcc; 512]),
            FLUSH => Buffer::readable(0, 0),
            _ => self.late.driver.holding(&segment(sector, 1, 0)),
        };
        let head = self.late.publish(queue, kind, sector, data);
        self.asked.insert((queue, head), sector);
        self.late.driver.set(QUEUE_NOTIFY, queue);
    }

    fn take_in(&mut self) {
        for (key, (status, written, data)) in self.late.back() {
            assert!(status <= UNSUPP, "status {status:#x}");
            assert!(written <= 513);
            let sector = self.asked.remove(&key).expect("it was asked");
            let is_read = status == OK && written == 513;
            let right = [u8::try_from(sector + 1).unwrap(), 0, 0xcc];
            assert!(!is_read || right.contains(&data[0]), "{data:?}");
        }
    }

    fn forget(&mut self, keep: impl Fn(u32) -> bool) {
        self.late.out.retain(|(queue, _), _| keep(*queue));
        self.asked.retain(|(queue, _), _| keep(*queue));
    }

    fn perform(&mut self, deed: &Deed) {
        match *deed {
            Deed::Ask { queue, kind } => self.ask(queue, kind),
            Deed::Fate(sector, fate) => self.late.desk.fate(sector * 512, fate),
            Deed::End(count, newest) => {
                self.late.desk.newest_first(newest);
                for _ in 0..count {
                    self.late.desk.end_one();
                }
            }
            Deed::Step => {
                self.late.driver.step();
            }
            Deed::Reset => {
                self.take_in();
                self.late.driver.reset();
                self.forget(|_| false);
                self.gone = [false; 4];
                self.late.driver.start(u64::MAX);
            }
            Deed::TakeBack(queue) => {
                self.take_in();
                self.late.driver.set(register::QUEUE_SELECT, queue);
                self.late.driver.set(register::QUEUE_READY, 0);
                self.forget(|other| other != queue);
                self.gone[usize::try_from(queue).unwrap()] = true;
            }
            Deed::Lose => self.late.desk.lose(EIO),
            Deed::Swap(depth) => {
                let (disk, desk) = LateDisk::new(self.late.disk.clone(), depth);
                let swap = DeviceCommand::ReplaceDisk(Box::new(disk));
                self.late.driver.handle.ask(swap).unwrap();
                self.late.desk = desk;
            }
            Deed::Rescan(sectors) => {
                self.late.disk.resize(sectors * 512);
                self.late.driver.handle.ask(DeviceCommand::Rescan).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens, each head comes back once, and the device is alive at the end.
    #[test]
    fn every_head_comes_back_once(deeds in prop::collection::vec(deed(), 1..120)) {
        let mut play = Play::new();
        for deed in &deeds {
            play.perform(deed);
            play.take_in();
        }
        while play.late.desk.end_one() {
            play.take_in();
        }
        play.take_in();
        prop_assert!(play.late.out.is_empty(), "never came back: {:?}", play.late.out);
        prop_assert_eq!(play.late.number("in_flight"), 0);
        play.late.disk.resize(64 * 512);
        play.late.driver.handle.ask(DeviceCommand::Rescan).unwrap();
        play.late.driver.start(u64::MAX);
        play.late.alive();
    }
}
