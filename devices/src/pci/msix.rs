//! MSI-X: the table of a function's messages, its pending bits and its control word (PCI Local
//! Bus 3.0, 6.8.2).
//!
//! Each vector has an eventfd that the hypervisor turns into the vector's message by itself. All
//! that is done here is to say which message that is, and to hold back vectors that are masked.

use std::fmt;

use crate::bus::Width;
use crate::line::{IrqLine, Msi};
use crate::state;
use crate::state::BadState;

/// The capability's identity in the configuration space.
pub const CAPABILITY: u8 = 0x11;
/// The bytes of an entry of the table.
pub const ENTRY_BYTES: u64 = 16;
/// Control bit: interrupts go out as messages.
const ENABLE: u16 = 1 << 15;
/// Control bit: every vector is masked.
const MASK_ALL: u16 = 1 << 14;
/// The control bits that a driver writes.
pub const CONTROL_WRITABLE: u16 = ENABLE | MASK_ALL;
/// Bit of an entry's control word: the vector is masked.
const MASKED: u32 = 1;

/// Is told a vector's message before the vector first sends it, and after each change.
pub type MessageRoute = Box<dyn FnMut(u16, Msi) + Send>;

/// An entry of the table with its state.
#[derive(Debug)]
struct Vector {
    /// Address low and high, data, control, as the driver sees them.
    words: [u32; 4],
    pending: bool,
    routed: Option<Msi>,
    line: IrqLine,
}

impl Vector {
    fn masked(&self) -> bool {
        let [.., control] = self.words;
        control & MASKED != 0
    }

    fn message(&self) -> Msi {
        let [low, high, data, _] = self.words;
        Msi {
            address: u64::from(high) << 32 | u64::from(low),
            data,
        }
    }
}

/// The message-signalled interrupts of one function.
pub struct Msix {
    vectors: Vec<Vector>,
    control: u16,
    route: MessageRoute,
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix")
            .field("vectors", &self.vectors)
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl Msix {
    /// One vector for each of `lines` (1 to 2048), all masked and nothing enabled. `route` is
    /// called under the caller's lock, from whichever vCPU thread lets a vector go.
    pub fn new(lines: Vec<IrqLine>, route: MessageRoute) -> Self {
        let vector = |line| Vector {
            words: [0, 0, 0, MASKED],
            pending: false,
            routed: None,
            line,
        };
        Self {
            vectors: lines.into_iter().map(vector).collect(),
            control: 0,
            route,
        }
    }

    /// The number of vectors.
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.vectors.len()).unwrap_or(u16::MAX)
    }

    /// The control word.
    pub fn control(&self) -> u16 {
        self.vectors().wrapping_sub(1) & 0x7ff | self.control
    }

    /// A driver wrote the control word.
    pub fn set_control(&mut self, value: u16) {
        self.control = value & CONTROL_WRITABLE;
        for vector in 0..self.vectors.len() {
            self.release(vector);
        }
    }

    /// Sends a vector's message, now or when the vector is unmasked. Without MSI-X, and without
    /// such a vector, nothing is sent.
    pub fn send(&mut self, vector: u16) {
        let enabled = self.control & ENABLE != 0;
        let index = usize::from(vector);
        if enabled && let Some(vector) = self.vectors.get_mut(index) {
            vector.pending = true;
            self.release(index);
        }
    }

    /// Forgets what waits for a vector to be unmasked.
    pub fn forget_pending(&mut self) {
        for vector in &mut self.vectors {
            vector.pending = false;
        }
    }

    /// Reads the table. Only whole, aligned words of four or eight bytes are there; all else
    /// reads zero.
    pub fn read_table(&self, offset: u64, width: Width) -> u64 {
        if !is_whole(offset, width) {
            return 0;
        }
        let low = self.word(offset);
        match width {
            Width::Qword => low | self.word(offset.wrapping_add(4)) << 32,
            _ => low,
        }
    }

    /// Writes the table, whole, aligned words of four or eight bytes only: whether it did.
    pub fn write_table(&mut self, offset: u64, width: Width, value: u64) -> bool {
        let Some(index) = index_of(offset).filter(|_| is_whole(offset, width)) else {
            return false;
        };
        let words = [value & 0xffff_ffff, value >> 32];
        let count = if width == Width::Qword { 2 } else { 1 };
        let Some(vector) = self.vectors.get_mut(index) else {
            return false;
        };
        let first = usize::try_from(offset % ENTRY_BYTES / 4).unwrap_or_default();
        let places = vector.words.iter_mut().enumerate().skip(first);
        for ((place, word), new) in places.zip(words).take(count) {
            let new = u32::try_from(new).unwrap_or_default();
            // Of the control word only the mask is there.
            *word = if place == 3 { new & MASKED } else { new };
        }
        self.release(index);
        true
    }

    /// Reads the pending bits; writes do nothing.
    pub fn read_pending(&self, offset: u64, width: Width) -> u64 {
        if !is_whole(offset, width) {
            return 0;
        }
        let first = usize::try_from(offset.saturating_mul(8)).unwrap_or(usize::MAX);
        let count = usize::try_from(width.bytes().saturating_mul(8)).unwrap_or_default();
        let vectors = self.vectors.iter().skip(first).take(count);
        vectors.zip(0_u32..).fold(0, |bits, (vector, bit)| {
            bits | u64::from(vector.pending) << bit
        })
    }

    /// Makes a vector's message the one in effect and sends it if it waits, as far as no mask
    /// forbids that.
    fn release(&mut self, index: usize) {
        if self.control & CONTROL_WRITABLE != ENABLE {
            return;
        }
        let Some(vector) = self.vectors.get_mut(index) else {
            return;
        };
        if vector.masked() {
            return;
        }
        let message = vector.message();
        if vector.routed != Some(message) {
            vector.routed = Some(message);
            // The vectors are at most 2048.
            (self.route)(u16::try_from(index).unwrap_or(u16::MAX), message);
        }
        if std::mem::take(&mut vector.pending) {
            vector.line.pulse();
        }
    }

    fn word(&self, offset: u64) -> u64 {
        let vector = index_of(offset).and_then(|index| self.vectors.get(index));
        let word = usize::try_from(offset % ENTRY_BYTES / 4).unwrap_or_default();
        let word = vector.and_then(|vector| vector.words.get(word));
        word.copied().unwrap_or_default().into()
    }
}

state! {
    /// A vector of a function.
    pub struct VectorStateV1 {
        /// Address low and high, data, control, as the driver sees them.
        pub words: [u32; 4],
        /// Whether it waits to be unmasked.
        pub pending: bool,
    }
}

state! {
    /// The message-signalled interrupts of a function.
    pub struct MsixStateV1 {
        /// What the driver wrote of the control word.
        pub control: u16,
        /// The table.
        pub vectors: Vec<VectorStateV1>,
    }
}

impl Msix {
    pub(crate) fn save(&self) -> MsixStateV1 {
        let state = |vector: &Vector| VectorStateV1 {
            words: vector.words,
            pending: vector.pending,
        };
        MsixStateV1 {
            control: self.control,
            vectors: self.vectors.iter().map(state).collect(),
        }
    }

    /// Takes a saved state: the messages of vectors that may send are in effect then.
    ///
    /// # Errors
    /// When it cannot have that.
    pub(crate) fn restore(&mut self, state: &MsixStateV1) -> Result<(), BadState> {
        BadState::unless_as_many(
            "the number of vectors",
            state.vectors.len(),
            self.vectors.len(),
        )?;
        let possible = state.control & !CONTROL_WRITABLE == 0;
        BadState::unless(possible, "the control word of MSI-X", state.control)?;
        for (vector, saved) in self.vectors.iter_mut().zip(&state.vectors) {
            let [.., control] = saved.words;
            BadState::unless(
                control & !MASKED == 0,
                "the control word of a vector",
                control,
            )?;
            (vector.words, vector.pending) = (saved.words, saved.pending);
        }
        self.set_control(state.control);
        Ok(())
    }
}

fn index_of(offset: u64) -> Option<usize> {
    usize::try_from(offset / ENTRY_BYTES).ok()
}

/// Whether an access is one of those that the table and the pending bits take.
fn is_whole(offset: u64, width: Width) -> bool {
    matches!(width, Width::Dword | Width::Qword) && offset.is_multiple_of(width.bytes())
}

#[cfg(test)]
mod tests;
