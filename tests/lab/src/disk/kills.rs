//! Durability: the monitor is killed while the guest writes, again and again over the same drive,
//! and each time all that the guest had told of is there and whole, and the file system is sound.

use super::machine::{IMAGE, Machine, Message, copy, coracle_disk, made, run as program};
use super::model::{self, Damage, Files, below, mix};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EMPTY: &str = "/disks/ext4";
/// A base of its own, as the drive is merged into it.
const BASE: &str = "/tmp/disk-base";
const COPY: &str = "/tmp/disk-copy";
const FLAT: &str = "/tmp/disk-flat";
const E2FSCK: &str = "/bin/e2fsck";

/// Where a kill comes: so long after the guest has said so much.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// It was about to mount, which replays the journal.
    Mounting(Duration),
    /// It cleans up and makes a new folder.
    Preparing(Duration),
    /// So many steps were told of, and the guest goes on writing.
    Writing(usize, Duration),
    /// So many steps were told of, and the guest stands still since: what the last of them
    /// flushed is not flushed again by a later one.
    Holding(usize, Duration),
}

impl Point {
    fn random(random: u64) -> Point {
        let micros = |most| Duration::from_micros(below(random >> 8, most) as u64);
        match random % 8 {
            0 => Point::Mounting(micros(150_000)),
            1 => Point::Preparing(micros(60_000)),
            2 => Point::Writing(below(random >> 40, 40), micros(20_000)),
            3 => Point::Writing(below(random >> 40, 40), micros(1_000)),
            _ => Point::Holding(1 + below(random >> 40, 16), micros(1_000)),
        }
    }

    /// After how many steps the guest stands still.
    fn hold(self) -> usize {
        match self {
            Point::Holding(steps, _) => steps,
            _ => usize::MAX,
        }
    }
}

#[derive(Debug, Default)]
struct Totals {
    mounting: u32,
    preparing: u32,
    writing: u32,
    holding: u32,
    told: u64,
    checked: u64,
    damage: Damage,
    sound: u32,
}

struct Suite {
    cow: bool,
    drive: String,
    seed: u64,
    round: u64,
    /// What was told of in the rounds that are looked at, the oldest first.
    told: BTreeMap<u64, [u64; 3]>,
    totals: Totals,
    checking: Option<JoinHandle<Result<()>>>,
}

/// Kills the monitor `points` times over one drive of a kind, with further options.
///
/// # Errors
/// When anything is lost or torn, the file system is unsound, or a guest does not behave.
pub fn run(kind: &str, options: &str, points: u64, seed: u64) -> Result<()> {
    copy(EMPTY, BASE)?;
    let mut suite = Suite {
        cow: kind != "none",
        drive: made(kind, BASE, options)?,
        seed,
        round: 0,
        told: BTreeMap::new(),
        totals: Totals::default(),
        checking: None,
    };
    let done = suite.all(points);
    let Totals {
        mounting,
        preparing,
        writing,
        holding,
        told,
        checked,
        damage: Damage { lost, torn },
        sound,
    } = suite.totals;
    let kills = mounting + preparing + writing + holding;
    println!("seed {seed}: {kills} kills: {mounting} mounting, {preparing} preparing");
    println!("{writing} writing, {holding} right after the last flush");
    println!("{told} steps told of, {checked} of them checked, {lost} lost, {torn} torn");
    println!("e2fsck: sound after {sound} kills");
    done
}

impl Suite {
    fn all(&mut self, points: u64) -> Result<()> {
        for round in 0..=points {
            self.round = round;
            // The last boot looks at what the last kill left, and is killed as it has done so.
            let point = match round == points {
                false => Point::random(mix(self.seed ^ 1, round)),
                true => Point::Preparing(Duration::ZERO),
            };
            // A drive that has grown has little that is new to its map, and so nothing to lose by a
            // last flush.
            if self.cow && matches!(point, Point::Holding(..)) {
                self.settle()?;
                coracle_disk(&["commit", IMAGE])?;
            }
            self.point(point)
                .with_context(|| format!("round {round}, {point:?}"))?;
        }
        self.settle()
    }

    /// One boot and its end.
    fn point(&mut self, point: Point) -> Result<()> {
        let seed = mix(self.seed, self.round);
        let keep = self.told.keys().next().copied().unwrap_or_default();
        let mount = if seed.is_multiple_of(2) {
            "discard"
        } else {
            ""
        };
        let cmdline = format!(
            "lab.do=write lab.mount={mount} lab.round={} lab.keep={keep} lab.seed={seed} \
             lab.hold={}",
            self.round,
            point.hold()
        );
        let mut machine = Machine::start(&self.drive, &cmdline, &[])?;
        machine.expect("calling", &mut BTreeMap::new())?;
        let told = match point {
            Point::Mounting(wait) => {
                self.totals.mounting += 1;
                self.linger(&mut machine, wait)?;
                None
            }
            Point::Preparing(wait) => {
                self.totals.preparing += 1;
                self.look(&machine)?;
                self.linger(&mut machine, wait)?
            }
            Point::Writing(steps, wait) => {
                self.totals.writing += 1;
                self.look(&machine)?;
                machine.expect("ready", &mut BTreeMap::new())?;
                Some(write(&mut machine, steps, wait)?)
            }
            Point::Holding(steps, wait) => {
                self.totals.holding += 1;
                self.look(&machine)?;
                machine.expect("ready", &mut BTreeMap::new())?;
                let told = write(&mut machine, steps, wait)?;
                let count = told.iter().sum::<u64>();
                ensure!(
                    count == steps as u64,
                    "{told:?} steps of a guest that stands still"
                );
                Some(told)
            }
        };
        if let Some(told) = told {
            self.totals.told += told.iter().sum::<u64>();
            self.told.insert(self.round, told);
        }
        self.settle()?;
        self.start_check()
    }

    /// Kills the machine after a time. What was told of since, if the new folder was ready.
    fn linger(&self, machine: &mut Machine, wait: Duration) -> Result<Option<[u64; 3]>> {
        let mut told = Told::default();
        let until = Instant::now() + wait;
        while Instant::now() < until {
            told.hear(machine.hear(until)?)?;
        }
        machine.kill()?;
        told.rest(machine)?;
        Ok(told.ready.then_some(told.steps))
    }

    /// Takes what the guest finds and compares.
    fn look(&mut self, machine: &Machine) -> Result<()> {
        let mut files = BTreeMap::new();
        machine.expect("mounted", &mut files)?;
        machine.expect("found", &mut files)?;
        for (round, told) in &self.told {
            let none = Files::new();
            let found = files.get(round).unwrap_or(&none);
            let damage = model::check(mix(self.seed, *round), *told, found);
            self.totals.checked += told.iter().sum::<u64>();
            self.totals.damage.lost += damage.lost;
            self.totals.damage.torn += damage.torn;
            ensure!(
                damage == Damage::default(),
                "of round {round}, which told of {told:?} steps: {damage:?}"
            );
        }
        // What was found twice makes room.
        while self.told.len() > 1 {
            self.told.pop_first();
        }
        Ok(())
    }

    /// Starts to check the file system, on a copy of what the kill left.
    fn start_check(&mut self) -> Result<()> {
        copy(IMAGE, COPY)?;
        let cow = self.cow;
        self.checking = Some(std::thread::spawn(move || check(cow)));
        Ok(())
    }

    /// Waits for the check that runs beside the next boot.
    fn settle(&mut self) -> Result<()> {
        let Some(checking) = self.checking.take() else {
            return Ok(());
        };
        match checking.join() {
            Ok(done) => done.context("after the kill before this one")?,
            Err(_) => bail!("the check died"),
        }
        self.totals.sound += 1;
        Ok(())
    }
}

/// Waits until so many steps were told of, and a time longer, then kills the machine.
fn write(machine: &mut Machine, steps: usize, wait: Duration) -> Result<[u64; 3]> {
    let mut told = Told {
        ready: true,
        ..Told::default()
    };
    let patience = Instant::now() + Duration::from_secs(60);
    while told.steps.iter().sum::<u64>() < steps as u64 {
        let message = machine.hear(patience)?;
        ensure!(message.is_some(), "the guest stands still after {told:?}");
        told.hear(message)?;
    }
    let until = Instant::now() + wait;
    while Instant::now() < until {
        told.hear(machine.hear(until)?)?;
    }
    machine.kill()?;
    told.rest(machine)?;
    Ok(told.steps)
}

/// What a guest has told of in this round.
#[derive(Debug, Default)]
struct Told {
    ready: bool,
    steps: [u64; 3],
}

impl Told {
    fn hear(&mut self, message: Option<Message>) -> Result<()> {
        let Some(Message::Line(line)) = message else {
            return Ok(());
        };
        if line == "ready" {
            self.ready = true;
        }
        let Some(done) = line.strip_prefix("done ") else {
            return Ok(());
        };
        let (writer, step) = done.split_once(' ').context("an odd line")?;
        let writer: usize = writer.parse()?;
        let steps = self.steps.get_mut(writer).context("no such writer")?;
        ensure!(step.parse() == Ok(*steps), "{line:?} after {steps} steps");
        *steps += 1;
        Ok(())
    }

    /// What had left the monitor before it was killed.
    fn rest(&mut self, machine: &Machine) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(5);
        while let Some(message) = machine.hear(until)? {
            self.hear(Some(message))?;
        }
        Ok(())
    }
}

/// Checks the copy: the delta's own sums, then the file system, once its journal was replayed and
/// its orphans were let go, as at every boot.
fn check(cow: bool) -> Result<()> {
    let image = if cow {
        coracle_disk(&["verify", COPY])?;
        // Nothing to remove is the case the first time.
        let _ = std::fs::remove_file(FLAT);
        coracle_disk(&["commit", COPY, "--into", FLAT])?;
        FLAT
    } else {
        COPY
    };
    let replayed = program(E2FSCK, &["-p", image], &[0, 1])?;
    // Otherwise it would have mended something beside the journal.
    ensure!(replayed.contains("clean"), "e2fsck -p: {replayed}");
    program(E2FSCK, &["-f", "-n", image], &[0])?;
    Ok(())
}
