//! The queue of commands (virtio 1.2, 5.1.6.5): how many pairs of queues are used, and what the
//! driver takes unfinished.

use zerocopy::little_endian::{U16, U64};

use super::counters::bump;
use super::wire::{self, Control, control};
use super::{Net, Running};
use crate::ram::GuestRam;
use crate::virtio::{Chain, Progress};

/// A turn ends after this many commands. A driver sends one and waits for it.
const COMMANDS_A_TURN: usize = 16;

/// What a driver asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Command {
    /// So many pairs of queues are used.
    Pairs(u16),
    /// These are taken unfinished, by their features.
    Offloads(u64),
}

/// A command that the device does not know, or whose data is not what it says.
struct Unknown;

/// Reads a command, whose data has exactly its length.
fn parse(ram: &GuestRam, chain: &mut Chain) -> Result<Command, Unknown> {
    let Control { class, command } = chain.take_header(ram).map_err(|_| Unknown)?;
    let parsed = match (class, command) {
        control::MQ_PAIRS_SET => {
            let pairs: U16 = chain.take_header(ram).map_err(|_| Unknown)?;
            Command::Pairs(pairs.get())
        }
        control::OFFLOADS_SET => {
            let offloads: U64 = chain.take_header(ram).map_err(|_| Unknown)?;
            Command::Offloads(offloads.get())
        }
        _ => return Err(Unknown),
    };
    match chain.readable().is_empty() {
        true => Ok(parsed),
        false => Err(Unknown),
    }
}

impl Net {
    /// Carries out commands, for one turn.
    pub(super) fn commands(&mut self) -> Progress {
        for _ in 0..COMMANDS_A_TURN {
            let Some(running) = &mut self.running else {
                return Progress::Idle;
            };
            let Some(queue) = &mut running.control else {
                return Progress::Idle;
            };
            let Ok(Some(mut chain)) = queue.pop() else {
                queue.notify();
                return Progress::Idle;
            };
            let ram = running.ram.clone();
            // Without a place for its answer, a command is none.
            let done = !chain.writable().is_empty()
                && parse(&ram, &mut chain).is_ok_and(|command| self.carry_out(command));
            let (counter, answer) = match done {
                true => (&mut self.counters.commands, wire::ACK_OK),
                false => (&mut self.counters.commands_refused, wire::ACK_ERROR),
            };
            bump(counter);
            let written = chain.write(&ram, &[answer]);
            let written = u32::try_from(written).unwrap_or_default();
            if let Some(Running {
                control: Some(queue),
                ..
            }) = &mut self.running
            {
                queue.complete(chain, written);
                queue.notify();
            }
        }
        Progress::More
    }

    /// Whether a command was carried out.
    fn carry_out(&mut self, command: Command) -> bool {
        match command {
            Command::Pairs(pairs) => self.use_pairs(pairs),
            Command::Offloads(bits) => self.take_unfinished(bits),
        }
    }

    /// From now on, the first so many pairs of queues are used.
    pub(super) fn use_pairs(&mut self, pairs: u16) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        let known = running.features & wire::F_MQ != 0 && (1..=self.pairs).contains(&pairs);
        if !known || !running.has_pairs(pairs) {
            return false;
        }
        if let Err(error) = self.link.set_active(pairs) {
            let about = format_args!("{pairs} pairs of queues cannot be used: {error}");
            running.interrupt.warn(about);
            return false;
        }
        running.active = pairs;
        for pair in 0..self.pairs {
            self.receive(pair);
        }
        true
    }

    /// From now on, the driver takes these unfinished.
    fn take_unfinished(&mut self, bits: u64) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        let agreed = running.features & wire::TO_GUEST.all();
        let known = running.features & wire::F_CTRL_GUEST_OFFLOADS != 0;
        if !known || bits & !agreed != 0 {
            return false;
        }
        let offloads = wire::TO_GUEST.offloads(bits);
        if let Err(error) = self.link.set_offloads(offloads) {
            let about = format_args!("its offloads cannot be changed: {error}");
            running.interrupt.warn(about);
            return false;
        }
        running.to_guest = offloads;
        true
    }
}
