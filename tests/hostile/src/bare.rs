//! From accesses to programs of the bare test guest, which makes them on a real machine.

use devices::Width;
use harness::bare::ops::{self, Check, Op, Place};
use std::time::Duration;

use crate::access::{self, Region};
use crate::lower::{Act, Look, World, lower};
use crate::step::{At, Row, Step};

/// How long the device may take for what has to happen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it gets for what must not happen.
const QUIET: Duration = Duration::from_millis(2);

/// The base address of the window in the configuration space.
const BAR: u64 = 0x10;
/// A longer row takes a machine too long.
const MOST_ACTS: usize = 2000;

/// The row as a program's steps. None when it needs the host, messages of PCI, or the memory right
/// before the hole, where the program itself is, when it moves a window, and when it is very long.
#[must_use]
pub fn program(row: &Row, world: World) -> Option<Vec<Op>> {
    let acts = lower(row, world);
    if acts.len() > MOST_ACTS || row.steps.iter().any(reaches_the_end) {
        return None;
    }
    let ops = acts.into_iter().map(|lowered| op(lowered.act, world));
    let ops: Option<Vec<_>> = ops.collect();
    Some(ops?.into_iter().flatten().collect())
}

/// Whether a device that follows the step could touch the memory right before the hole.
fn reaches_the_end(step: &Step) -> bool {
    let before = |at: At| matches!(at, At::Hole(..0));
    match step {
        Step::Descriptor { at, .. } => before(*at),
        Step::Indirect { table, at, .. } => before(*table) || before(*at),
        Step::Queue {
            descriptors,
            available,
            used,
            ..
        } => [*descriptors, *available, *used].into_iter().any(before),
        Step::Memory(at, _) | Step::Fill(at, ..) | Step::ExpectMemory(at, _) => before(*at),
        _ => false,
    }
}

/// One access: none if it cannot be made, or is not to be.
fn op(act: Act, world: World) -> Option<Option<Op>> {
    let op = match act {
        Act::Write(region, offset, width, value) => {
            Op::Write(place(region, offset, world)?, of(width), value)
        }
        Act::See(look) => Op::Expect(check(&look, world)?),
        Act::Await(look) => Op::Until(check(&look, world)?, PATIENCE),
        Act::Copy(at, bytes) => Op::Copy(at, bytes),
        Act::Fill(at, len, byte) => Op::Fill { at, len, byte },
        Act::Compare(at, bytes) => Op::Compare(at, bytes),
        Act::AwaitMemory(at, value) => {
            let check = Check {
                place: Place::Memory(at),
                width: ops::Width::Word,
                mask: u64::MAX,
                value: value.into(),
            };
            Op::Until(check, PATIENCE)
        }
        Act::Settle => Op::Pause(QUIET),
        // The guest takes no interrupts.
        Act::Interrupt(_) | Act::Reviving => return Some(None),
        Act::Host(_) => return None,
    };
    Some(Some(op))
}

fn place(region: Region, offset: u64, world: World) -> Option<Place> {
    let base = match region {
        // On the bench the driver has messages switched on, and the window is elsewhere.
        Region::MsixTable | Region::MsixPending => return None,
        Region::PciConfig if (BAR..BAR + 4).contains(&offset) => return None,
        Region::PciConfig => world.config?,
        _ => world.window + access::start(region)?,
    };
    Some(Place::Memory(base + offset))
}

fn check(look: &Look, world: World) -> Option<Check> {
    Some(Check {
        place: place(look.region, look.offset, world)?,
        width: of(look.width),
        mask: look.mask,
        value: look.value,
    })
}

fn of(width: Width) -> ops::Width {
    match width {
        Width::Byte => ops::Width::Byte,
        Width::Word => ops::Width::Word,
        Width::Dword => ops::Width::Dword,
        Width::Qword => ops::Width::Qword,
    }
}
