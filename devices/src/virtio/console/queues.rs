//! The two queues of one port: what the guest writes is pumped out, what it is to read goes in.

use crate::ram::GuestRam;
use crate::state;
use crate::state::BadState;
use crate::virtio::{Chain, Virtqueue};

/// How much input of a pipe, file or socket waits for the guest at most; beyond it, it is not
/// read.
pub const INPUT_WAITING: usize = 4096;
/// How much output is written in one turn of the loop.
pub(super) const OUTPUT_A_TURN: usize = 64 << 10;
/// A turn ends after this many buffers, however small.
const BUFFERS_A_TURN: usize = 64;
/// How much is taken from the guest at once.
pub(super) const CHUNK: usize = 4096;

/// What a turn of output came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// All is written.
    Done,
    /// The share of the turn is used up.
    More,
    /// The output takes no more now.
    Full,
}

state! {
    /// The output of a port.
    pub struct StreamStateV1 {
        /// How much was read of the request under way, which is put back.
        pub read: u64,
        /// Whether the guest has sent anything.
        pub spoke: bool,
    }
}

/// The queues of a port that a driver runs.
#[derive(Debug)]
pub(super) struct Queues {
    receive: Virtqueue,
    transmit: Virtqueue,
    ram: GuestRam,
    // A request that was written in part when the turn ended, and how much was read of it.
    sending: Option<Chain>,
    read: u64,
    // How much of the next request a device before this one has read.
    skip: u64,
    // Whether the guest has sent anything.
    spoke: bool,
}

impl Queues {
    pub(super) fn new(receive: Virtqueue, transmit: Virtqueue, ram: GuestRam) -> Self {
        Self {
            receive,
            transmit,
            ram,
            sending: None,
            read: 0,
            skip: 0,
            spoke: false,
        }
    }

    /// How these stand, beside the queues themselves.
    pub(super) fn save(&self) -> StreamStateV1 {
        let read = self.sending.as_ref().map_or(self.skip, |_| self.read);
        let spoke = self.spoke;
        StreamStateV1 { read, spoke }
    }

    /// Takes that over.
    pub(super) fn restore(&mut self, state: &StreamStateV1) {
        (self.skip, self.spoke) = (state.read, state.spoke);
    }

    /// Whether the guest has sent anything since it started the device.
    pub(super) fn spoke(&self) -> bool {
        self.spoke
    }

    /// Fills the guest's buffers from `input`: how much of it went.
    pub(super) fn deliver(&mut self, input: &[u8]) -> usize {
        let mut delivered = 0;
        // A buffer takes at least a byte, or is empty, which no driver in its senses sends: one
        // that goes on sending them waits for its own next ring.
        for _ in 0..INPUT_WAITING.saturating_mul(2) {
            let rest = input.get(delivered..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let Ok(Some(mut chain)) = self.receive.pop() else {
                break;
            };
            let len = chain.write(&self.ram, rest);
            self.receive
                .complete(chain, u32::try_from(len).unwrap_or_default());
            delivered = delivered.saturating_add(len);
        }
        self.receive.notify();
        delivered
    }

    /// Takes the next chunk of output, which may be empty: false when there is none.
    fn take_chunk(&mut self, chunk: &mut Vec<u8>) -> bool {
        let next = self.sending.take();
        if next.is_none() {
            self.read = 0;
        }
        let next = next.map_or_else(|| self.transmit.pop(), |chain| Ok(Some(chain)));
        let Ok(Some(mut chain)) = next else {
            return false;
        };
        chunk.resize(CHUNK, 0);
        let len = loop {
            let most = usize::try_from(self.skip).map_or(CHUNK, |skip| skip.min(CHUNK));
            let skipped = chain.read(&self.ram, chunk.get_mut(..most).unwrap_or_default());
            self.skip = self.skip.saturating_sub(skipped as u64);
            self.read = self.read.saturating_add(skipped as u64);
            if skipped == 0 {
                break chain.read(&self.ram, chunk);
            }
        };
        self.skip = 0;
        self.read = self.read.saturating_add(len as u64);
        chunk.truncate(len);
        self.spoke |= len > 0;
        self.sending = Some(chain);
        true
    }
}

/// Takes over how the queues of a port stood, if it had any.
pub(super) fn restore(
    queues: &mut Option<Queues>,
    state: Option<&StreamStateV1>,
) -> Result<(), BadState> {
    match (queues, state) {
        (Some(queues), Some(state)) => queues.restore(state),
        (None, None) => {}
        (queues, _) => {
            return Err(BadState::value(
                "a port with queues",
                u64::from(queues.is_none()),
            ));
        }
    }
    Ok(())
}

/// Moves output through `unsent` (taken from the guest and not yet by the other side, a chunk at
/// most) for one turn. `send` takes from its front what goes and says how much that was.
pub(super) fn pump(
    queues: &mut Option<Queues>,
    unsent: &mut Vec<u8>,
    send: &mut dyn FnMut(&mut Vec<u8>) -> usize,
) -> Turn {
    let mut turn = 0;
    let mut buffers = 0;
    let result = loop {
        turn = send(unsent).saturating_add(turn);
        if !unsent.is_empty() {
            break Turn::Full;
        }
        let Some(queues) = queues else {
            break Turn::Done;
        };
        if let Some(chain) = queues.sending.take_if(|chain| chain.readable().is_empty()) {
            queues.transmit.complete(chain, 0);
            buffers += 1;
        }
        if turn >= OUTPUT_A_TURN || buffers == BUFFERS_A_TURN {
            break Turn::More;
        }
        if !queues.take_chunk(unsent) {
            break Turn::Done;
        }
    };
    if let Some(queues) = queues {
        queues.transmit.notify();
    }
    result
}
