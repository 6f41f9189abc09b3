//! The configuration space of a function: a type 0 header and a list of capabilities, each byte
//! with the bits of it that a driver can write (PCI Local Bus 3.0, chapter 6).

use std::ops::Range;

use crate::bus::Width;
use crate::state::BadState;

/// The bytes of a conventional configuration space.
pub const LEN: usize = 256;

/// Offsets of the header's fields.
pub mod field {
    /// Vendor, and device above it.
    pub const ID: u16 = 0x00;
    /// What the function may do on the bus.
    pub const COMMAND: u16 = 0x04;
    /// What it has and did.
    pub const STATUS: u16 = 0x06;
    /// Revision, and the class above it.
    pub const REVISION: u16 = 0x08;
    /// The size of a cache line, which only the driver cares for.
    pub const CACHE_LINE: u16 = 0x0c;
    /// The first of six base addresses.
    pub const BAR0: u16 = 0x10;
    /// Vendor and device of the board.
    pub const SUBSYSTEM: u16 = 0x2c;
    /// Where the list of capabilities begins.
    pub const CAPABILITIES: u16 = 0x34;
    /// A byte for the firmware's interrupt routing.
    pub const INTERRUPT_LINE: u16 = 0x3c;
}

/// Command bit: the function answers at its base addresses.
pub const MEMORY: u16 = 1 << 1;
/// Command bit: the function may read and write memory.
pub const MASTER: u16 = 1 << 2;
/// Command bit: the function's interrupt pin is off.
const PIN_OFF: u16 = 1 << 10;
/// Status bit: there is a list of capabilities.
const HAS_CAPABILITIES: u8 = 1 << 4;
/// Where the first capability goes, after the header.
const FIRST_CAPABILITY: u16 = 0x40;

/// Who a function says it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FunctionId {
    /// The vendor.
    pub vendor: u16,
    /// The vendor's number for the device.
    pub device: u16,
    /// Its revision.
    pub revision: u8,
    /// Base class and subclass, as in 0x0100 for a mass storage controller.
    pub class: u16,
    /// Vendor and number of the board.
    pub subsystem: (u16, u16),
}

/// A function's configuration space. What a write means is its owner's business.
#[derive(Clone, Debug)]
pub struct Header {
    bytes: [u8; LEN],
    writable: [u8; LEN],
    /// Where the next capability goes, and where the pointer to it is.
    next: u16,
    link: u16,
}

impl Header {
    /// A header without base addresses and capabilities. The function answers from the start,
    /// as firmware would leave it.
    pub fn new(id: &FunctionId) -> Self {
        let mut header = Self {
            bytes: [0; LEN],
            writable: [0; LEN],
            next: FIRST_CAPABILITY,
            link: field::CAPABILITIES,
        };
        let [class, subclass] = id.class.to_be_bytes();
        header.put(field::ID, &id.vendor.to_le_bytes());
        header.put(field::ID + 2, &id.device.to_le_bytes());
        header.put(field::REVISION, &[id.revision, 0, subclass, class]);
        header.put(field::SUBSYSTEM, &id.subsystem.0.to_le_bytes());
        header.put(field::SUBSYSTEM + 2, &id.subsystem.1.to_le_bytes());
        header.put(field::COMMAND, &(MEMORY | MASTER).to_le_bytes());
        let command = MEMORY | MASTER | PIN_OFF;
        header.permit(field::COMMAND, &command.to_le_bytes());
        // Cache line size, latency timer and interrupt line keep what is written, for nobody.
        header.permit(field::CACHE_LINE, &[0xff, 0xff]);
        header.permit(field::INTERRUPT_LINE, &[0xff]);
        header
    }

    /// Puts `body` behind the two bytes that every capability begins with: its offset. `writable`
    /// are the bits of the body that a driver can write. The capabilities of a function are a
    /// constant of its model and fit.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = self.next;
        let [low, _] = at.to_le_bytes();
        let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
        self.next = at.saturating_add(len).saturating_add(2 + 3) & !3;
        debug_assert!(usize::from(self.next) <= LEN, "too many capabilities");
        let link = std::mem::replace(&mut self.link, at.saturating_add(1));
        self.put(link, &[low]);
        self.put(field::STATUS, &[HAS_CAPABILITIES]);
        self.put(at, &[id, 0]);
        self.put(at.saturating_add(2), body);
        self.permit(at.saturating_add(2), writable);
        at
    }

    /// Reads as a driver does: all ones where an access runs over a doubleword or the end.
    pub fn read(&self, offset: u16, width: Width) -> u32 {
        let mut value = [0xff; 4];
        let bytes = span(offset, width).and_then(|span| self.bytes.get(span));
        for (to, from) in value.iter_mut().zip(bytes.unwrap_or_default()) {
            *to = *from;
        }
        u32::from_le_bytes(value) & ones(width)
    }

    /// Writes as a driver does: only what may be written changes.
    pub fn write(&mut self, offset: u16, width: Width, value: u32) {
        let Some(span) = span(offset, width) else {
            return;
        };
        let bytes = self.bytes.get_mut(span.clone()).into_iter().flatten();
        let masks = self.writable.get(span).into_iter().flatten();
        for ((byte, mask), new) in bytes.zip(masks).zip(value.to_le_bytes()) {
            *byte = *byte & !mask | new & mask;
        }
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8; LEN] {
        &self.bytes
    }

    /// Takes all bytes as a driver left them.
    ///
    /// # Errors
    /// When others differ than a driver can write.
    pub(crate) fn restore(&mut self, bytes: &[u8; LEN]) -> Result<(), BadState> {
        let mut pairs = bytes.iter().zip(self.bytes).zip(self.writable);
        if pairs.any(|((new, own), mask)| (new ^ own) & !mask != 0) {
            let text = "the configuration space is that of another function";
            return Err(BadState::Refused(text.into()));
        }
        self.bytes = *bytes;
        Ok(())
    }

    /// Sets bytes, whether a driver can write them or not.
    pub fn put(&mut self, offset: u16, bytes: &[u8]) {
        let places = self.bytes.iter_mut().skip(offset.into());
        places.zip(bytes).for_each(|(to, from)| *to = *from);
    }

    /// Lets a driver write the bits of `mask` from `offset` on.
    pub fn permit(&mut self, offset: u16, mask: &[u8]) {
        let places = self.writable.iter_mut().skip(offset.into());
        places.zip(mask).for_each(|(to, from)| *to = *from);
    }

    /// Whether the function answers at its base addresses.
    pub fn answers_memory(&self) -> bool {
        self.read(field::COMMAND, Width::Word) & u32::from(MEMORY) != 0
    }
}

/// The bytes of an access that lies within one doubleword of the space.
pub(crate) fn span(offset: u16, width: Width) -> Option<Range<usize>> {
    let (start, len) = (usize::from(offset), usize::try_from(width.bytes()).ok()?);
    let end = start.checked_add(len)?;
    (start % 4 + len <= 4 && end <= LEN).then_some(start..end)
}

/// Whether an access at `offset` touches any of `len` bytes from `field` on.
pub(crate) fn touches(offset: u16, width: Width, field: u16, len: u16) -> bool {
    let (offset, field) = (u64::from(offset), u64::from(field));
    offset < field + u64::from(len) && field < offset + width.bytes()
}

/// All bits of an access of this width, at most 32.
pub(crate) fn ones(width: Width) -> u32 {
    match width {
        Width::Byte => 0xff,
        Width::Word => 0xffff,
        Width::Dword | Width::Qword => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FunctionId = FunctionId {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: 0x0180,
        subsystem: (0x1af4, 0x1100),
    };

    #[test]
    fn fields_read_at_every_width_within_a_doubleword() {
        let header = Header::new(&ID);
        for (offset, width, value) in [
            (0x00, Width::Dword, 0x1042_1af4),
            (0x00, Width::Word, 0x1af4),
            (0x02, Width::Word, 0x1042),
            (0x01, Width::Word, 0x421a),
            (0x03, Width::Byte, 0x10),
            (0x04, Width::Word, 0x0006),
            (0x06, Width::Word, 0),
            (0x08, Width::Dword, 0x0180_0001),
            (0x0e, Width::Byte, 0),
            (0x10, Width::Dword, 0),
            (0x2c, Width::Dword, 0x1100_1af4),
            (0x30, Width::Dword, 0),
            (0x3c, Width::Word, 0),
            // Over a doubleword, over the end, wider than a register.
            (0x03, Width::Word, 0xffff),
            (0x01, Width::Dword, u32::MAX),
            (0x00, Width::Qword, u32::MAX),
            (0x100, Width::Dword, u32::MAX),
            (u16::MAX, Width::Byte, 0xff),
        ] {
            assert_eq!(header.read(offset, width), value, "{offset:#x} {width:?}");
        }
    }

    #[test]
    fn only_what_may_be_written_changes() {
        let mut header = Header::new(&ID);
        for offset in (0..256).step_by(4) {
            header.write(offset, Width::Dword, u32::MAX);
        }
        let mut expected = Header::new(&ID);
        expected.put(field::COMMAND, &[6, 4]);
        expected.put(field::CACHE_LINE, &[0xff, 0xff]);
        expected.put(field::INTERRUPT_LINE, &[0xff]);
        assert_eq!(header.bytes, expected.bytes);
        header.write(field::COMMAND, Width::Byte, 0);
        assert_eq!(header.read(field::COMMAND, Width::Word), 0x400);
        assert!(!header.answers_memory());
        header.write(field::CACHE_LINE + 1, Width::Byte, 0x20);
        assert_eq!(header.read(field::CACHE_LINE, Width::Word), 0x20ff);
        // Nothing happens at odd places.
        header.write(0x0f, Width::Word, 0);
        header.write(u16::MAX, Width::Dword, 0);
        assert_eq!(header.read(field::CACHE_LINE, Width::Word), 0x20ff);
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut header = Header::new(&ID);
        assert_eq!(header.read(field::CAPABILITIES, Width::Byte), 0);
        let first = header.add_capability(9, &[16, 1, 2, 3, 4], &[]);
        let second = header.add_capability(0x11, &[7, 0x80], &[0, 0xc0]);
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(header.read(field::STATUS, Width::Word), 0x10);
        assert_eq!(header.read(field::CAPABILITIES, Width::Byte), 0x40);
        assert_eq!(header.read(0x40, Width::Dword), 0x0110_4809);
        assert_eq!(header.read(0x48, Width::Dword), 0x8007_0011);
        header.write(0x48, Width::Dword, 0x7fff_ffff);
        assert_eq!(header.read(0x48, Width::Dword), 0x4007_0011);
    }
}
