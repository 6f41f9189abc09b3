//! A base address register for a window of 32-bit memory that is somewhere from the start.
//!
//! A driver may move the window within a range of addresses. What would lie elsewhere is taken
//! back: the register shows the last good address again, and the window stays where it was.

use crate::bus::AddressRange;

/// One base address register (PCI Local Bus 3.0, 6.2.5.1).
#[derive(Clone, Debug)]
pub struct Bar {
    within: AddressRange,
    len: u32,
    /// The last good address.
    address: u32,
    register: u32,
    decoding: bool,
}

impl Bar {
    /// A window of `len` bytes (a power of two of 16 or more) at `address`, to stay in `within`.
    pub fn new(address: u32, len: u32, within: AddressRange) -> Self {
        debug_assert!(len.is_power_of_two() && len >= 16 && address.is_multiple_of(len));
        Self {
            within,
            len,
            address,
            register: address,
            decoding: true,
        }
    }

    /// The bits of the register that can be written.
    pub fn writable(&self) -> u32 {
        self.len.wrapping_neg()
    }

    /// What the register reads.
    pub fn register(&self) -> u32 {
        self.register
    }

    /// A driver wrote the register. With all ones it asks for the size and moves nothing.
    /// Whether the address was taken, or may yet be.
    pub fn write(&mut self, value: u32) -> bool {
        self.register = value & self.writable();
        let asks = self.register == self.writable();
        !self.decoding || asks || self.settle()
    }

    /// The command register lets the function answer, or forbids it. Whether the address that
    /// the register held was good.
    pub fn decode(&mut self, on: bool) -> bool {
        let begins = on && !self.decoding;
        self.decoding = on;
        !begins || self.settle()
    }

    /// Where the window answers now.
    pub fn place(&self) -> Option<u64> {
        self.decoding.then_some(self.address.into())
    }

    /// The last good address.
    pub(crate) fn address(&self) -> u32 {
        self.address
    }

    /// Takes an address and a register as they were: whether they can be.
    pub(crate) fn restore(&mut self, address: u32, register: u32, decoding: bool) -> bool {
        self.decoding = true;
        let good = self.write(address) && self.address == address;
        self.decoding = decoding;
        self.register = register & self.writable();
        // While the function answers, the register holds where.
        let asks = self.register == self.writable();
        good && (!decoding || asks || self.register == address)
    }

    /// Moves the window to the register's address, or takes that back.
    fn settle(&mut self) -> bool {
        let (start, end) = (u64::from(self.register), self.within.end());
        let good = start >= self.within.start && start + u64::from(self.len) <= end;
        if good {
            self.address = self.register;
        }
        self.register = self.address;
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u32 = 0xd100_0000;

    fn bar() -> Bar {
        let within = AddressRange {
            start: AT.into(),
            len: 0x10_0000,
        };
        Bar::new(AT + 0x8000, 0x8000, within)
    }

    #[test]
    fn all_ones_ask_for_the_size_and_move_nothing() {
        let mut bar = bar();
        for decoding in [true, false] {
            assert!(bar.decode(decoding));
            assert!(bar.write(u32::MAX));
            assert_eq!(bar.register(), 0xffff_8000);
            assert_eq!(bar.place(), decoding.then_some(0xd100_8000));
            assert!(bar.write(AT + 0x8000));
            assert_eq!(bar.register(), AT + 0x8000);
        }
        // A size asked for and never cleared is no address either.
        bar.write(u32::MAX);
        assert!(!bar.decode(true));
        assert_eq!(
            (bar.register(), bar.place()),
            (AT + 0x8000, Some(0xd100_8000))
        );
    }

    #[test]
    fn the_window_moves_at_once_or_when_it_may_answer() {
        let mut bar = bar();
        assert!(bar.write(AT + 0x1_2345));
        assert_eq!(
            (bar.register(), bar.place()),
            (AT + 0x1_0000, Some(0xd101_0000))
        );
        assert!(bar.decode(false));
        assert!(bar.write(AT));
        assert_eq!((bar.register(), bar.place()), (AT, None));
        assert!(bar.decode(true));
        assert_eq!(bar.place(), Some(AT.into()));
    }

    #[test]
    fn addresses_outside_are_taken_back() {
        for outside in [
            0,
            0x10_0000,
            AT - 0x8000,
            AT + 0x10_0000,
            0xfee0_0000,
            0xffff_0000,
        ] {
            let mut bar = bar();
            assert!(!bar.write(outside), "{outside:#x}");
            assert_eq!(
                (bar.register(), bar.place()),
                (AT + 0x8000, Some(0xd100_8000))
            );
            bar.decode(false);
            assert!(bar.write(outside));
            assert_eq!((bar.register(), bar.place()), (outside, None));
            assert!(!bar.decode(true), "{outside:#x}");
            assert_eq!(
                (bar.register(), bar.place()),
                (AT + 0x8000, Some(0xd100_8000))
            );
        }
        assert!(bar().write(AT + 0xf_8000), "the last place");
    }
}
