//! Plays rows against a device on the bench, and counts how they end.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::access::Transport;
use crate::bench::Bench;
use crate::lower::{Act, Look, Lowered, lower};
use crate::step::Row;

/// How a row ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// All was as it should be.
    Right,
    /// Something else came than should have.
    Wrong(String),
    /// The device did not come to rest, or not back after its reset.
    Wedged(String),
}

/// Plays a row over a transport.
#[must_use]
pub fn play(row: &Row, transport: Transport) -> Outcome {
    let mut reviving = false;
    let played = catch_unwind(AssertUnwindSafe(|| run(row, transport, &mut reviving)));
    let problem = match played {
        Ok(Ok(())) => return Outcome::Right,
        Ok(Err(Problem { step, what, spins })) => {
            reviving |= spins;
            let doing = row.steps.get(step);
            format!("step {step}, {doing:?}: {what}")
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    if reviving {
        Outcome::Wedged(problem)
    } else {
        Outcome::Wrong(problem)
    }
}

struct Problem {
    step: usize,
    what: String,
    spins: bool,
}

fn run(row: &Row, transport: Transport, reviving: &mut bool) -> Result<(), Problem> {
    let mut bench = Bench::new(transport, (row.subject.make)());
    for Lowered { step, act } in lower(row, bench.world()) {
        if matches!(act, Act::Reviving) {
            *reviving = true;
        }
        let done = perform(&mut bench, &act);
        done.map_err(|Wrong { what, spins }| Problem { step, what, spins })?;
    }
    Ok(())
}

/// What is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wrong {
    /// In words.
    pub what: String,
    /// Whether the device does not come to rest.
    pub spins: bool,
}

impl From<String> for Wrong {
    fn from(what: String) -> Wrong {
        let spins = false;
        Wrong { what, spins }
    }
}

pub(crate) fn settle(bench: &mut Bench) -> Result<(), Wrong> {
    if bench.settle() {
        return Ok(());
    }
    Err(Wrong {
        what: "the device does not come to rest".into(),
        spins: true,
    })
}

pub(crate) fn perform(bench: &mut Bench, act: &Act) -> Result<(), Wrong> {
    match act {
        Act::Write(region, offset, width, value) => {
            bench.write(*region, *offset, *width, *value);
        }
        Act::See(look) => see(bench, look)?,
        Act::Await(look) => {
            settle(bench)?;
            see(bench, look)?;
        }
        Act::Copy(at, bytes) => {
            let done = bench.ram.write_bytes(*at, bytes);
            done.map_err(|error| format!("the row is wrong: {error}"))?;
        }
        Act::Fill(at, len, byte) => {
            let done = fill(*at, *len, *byte, |at, bytes| {
                bench.ram.write_bytes(at, bytes).is_ok()
            });
            if !done {
                return Err(format!("the row is wrong: no memory at {at:#x}").into());
            }
        }
        Act::Compare(at, bytes) => compare(bench, *at, bytes)?,
        Act::AwaitMemory(at, value) => {
            settle(bench)?;
            let found = u16::from_le(bench.ram.read(*at).map_err(|error| error.to_string())?);
            if found != *value {
                return Err(format!("{found:#x} at {at:#x}, not {value:#x}").into());
            }
        }
        Act::Settle => settle(bench)?,
        Act::Interrupt(wanted) => {
            settle(bench)?;
            if bench.interrupted() != *wanted {
                return Err(format!("interrupt: {}", !wanted).into());
            }
        }
        Act::Host(act) => {
            settle(bench)?;
            act(&mut bench.host);
            settle(bench)?;
        }
        Act::Reviving => {}
    }
    Ok(())
}

/// What is put into memory most: not made anew each time, for the sake of fuzzers.
static ZEROES: [u8; 4096] = [0; 4096];

/// Gives `len` bytes at `at` to `write`, piece by piece: whether it took all.
pub(crate) fn fill(at: u64, len: u64, byte: u8, mut write: impl FnMut(u64, &[u8]) -> bool) -> bool {
    let made = if byte == 0 {
        Vec::new()
    } else {
        vec![byte; ZEROES.len()]
    };
    let piece = if byte == 0 { &ZEROES[..] } else { &made };
    (0..len).step_by(piece.len()).all(|offset| {
        let rest = usize::try_from(len - offset).unwrap_or(usize::MAX);
        let piece = piece.get(..rest).unwrap_or(piece);
        write(at.wrapping_add(offset), piece)
    })
}

fn see(bench: &mut Bench, look: &Look) -> Result<(), Wrong> {
    let found = bench.read(look.region, look.offset, look.width);
    if (found ^ look.value) & look.mask != 0 {
        let Look {
            region,
            offset,
            value,
            ..
        } = look;
        return Err(format!("{found:#x} at {region:?} {offset:#x}, not {value:#x}").into());
    }
    Ok(())
}

fn compare(bench: &Bench, at: u64, bytes: &[u8]) -> Result<(), Wrong> {
    let mut found = vec![0; bytes.len()];
    let read = bench.ram.read_bytes(at, &mut found);
    read.map_err(|error| error.to_string())?;
    if found == bytes {
        return Ok(());
    }
    let differs = found.iter().zip(bytes).position(|(a, b)| a != b);
    let index = differs.unwrap_or_default();
    let (is, should) = (found.get(index), bytes.get(index));
    Err(format!("byte {index} at {at:#x}: {is:x?}, not {should:x?}").into())
}

/// How all rows ended.
#[derive(Debug, Default)]
pub struct Totals {
    counts: BTreeMap<(&'static str, String), [usize; 3]>,
    /// A line for each row that did not end right.
    pub problems: Vec<String>,
}

impl Totals {
    /// Plays a row over all transports that it is for.
    pub fn play(&mut self, row: &Row) {
        for transport in [Transport::Mmio, Transport::Pci] {
            if row.only.is_none_or(|only| only == transport) {
                self.count(row, transport, play(row, transport));
            }
        }
    }

    fn count(&mut self, row: &Row, transport: Transport, outcome: Outcome) {
        let list = row.id.rsplit_once('-').map_or(row.id.as_str(), |id| id.0);
        let key = (transport.name(), list.to_owned());
        let [rows, wrong, wedged] = self.counts.entry(key).or_default();
        *rows += 1;
        let (counter, kind, what) = match outcome {
            Outcome::Right => return,
            Outcome::Wrong(what) => (wrong, "wrong", what),
            Outcome::Wedged(what) => (wedged, "wedged", what),
        };
        *counter += 1;
        let (id, spec, about) = (&row.id, row.spec, &row.about);
        let name = transport.name();
        self.problems.push(format!(
            "{kind}: {id} over {name} ({spec}, {about}): {what}"
        ));
    }

    /// Rows, wrong and wedged, of everything.
    #[must_use]
    pub fn sums(&self) -> [usize; 3] {
        self.counts.values().fold([0; 3], |mut sums, counts| {
            sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            sums
        })
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((transport, list), [rows, wrong, wedged]) in &self.counts {
            writeln!(
                f,
                "hostile {transport} {list}: {rows} rows, {wrong} wrong, {wedged} wedged"
            )?;
        }
        let [rows, wrong, wedged] = self.sums();
        write!(
            f,
            "hostile total: {rows} played, {wrong} wrong, {wedged} wedged"
        )
    }
}
