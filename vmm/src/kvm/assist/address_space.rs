//! The guest's kernel address space: walks its page tables in guest memory and copies operands.
//!
//! `KVM_TRANSLATE` answers neither permissions nor a fault's error code, and costs a system call.
//! The accessed and dirty bits are left alone: kernel operands do not depend on them.

use devices::GuestRam;
use kvm_bindings::kvm_sregs;

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_LA57: u64 = 1 << 12;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
/// Bits 51..12 of an entry: a physical address.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const PAGE: u64 = 4096;

/// A page fault that the access causes: error code for a supervisor access and the address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PageFault {
    pub(super) error_code: u32,
    pub(super) address: u64,
}

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Blocked {
    Fault(PageFault),
    /// Device memory, or page tables outside RAM: nothing that can be completed here.
    NotRam,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    Read,
    Write,
    /// A read that user code may do too.
    UserRead,
}

/// One vCPU's view of memory at one moment, as its kernel sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressSpace<'a> {
    ram: &'a GuestRam,
    root: u64,
    levels: u32,
    paging: bool,
    write_protect: bool,
}

impl<'a> AddressSpace<'a> {
    pub(super) fn new(ram: &'a GuestRam, sregs: &kvm_sregs) -> AddressSpace<'a> {
        AddressSpace {
            ram,
            root: sregs.cr3 & FRAME,
            levels: if sregs.cr4 & CR4_LA57 != 0 { 5 } else { 4 },
            paging: sregs.cr0 & CR0_PG != 0,
            write_protect: sregs.cr0 & CR0_WP != 0,
        }
    }

    /// The memory below.
    pub(super) fn ram(&self) -> &'a GuestRam {
        self.ram
    }

    /// The physical address of a linear one.
    fn physical(&self, linear: u64, access: Access) -> Result<u64, Blocked> {
        if !self.paging {
            return Ok(linear);
        }
        let fault = |present: bool| {
            let write = if access == Access::Write { 2 } else { 0 };
            Blocked::Fault(PageFault {
                error_code: u32::from(present) | write,
                address: linear,
            })
        };
        let mut table = self.root;
        let mut writable = true;
        let mut user = true;
        for level in (0..self.levels).rev() {
            let shift = 12 + 9 * level;
            let index = linear >> shift & 0x1ff;
            let entry: u64 = self
                .ram
                .read(table + index * 8)
                .map_err(|_| Blocked::NotRam)?;
            if entry & PRESENT == 0 {
                return Err(fault(false));
            }
            writable &= entry & WRITABLE != 0;
            user &= entry & USER != 0;
            if level == 0 || (level <= 2 && entry & LARGE != 0) {
                if access == Access::Write && !writable && self.write_protect {
                    return Err(fault(true));
                }
                if access == Access::UserRead && !user {
                    return Err(fault(true));
                }
                let within = (1_u64 << shift) - 1;
                return Ok((entry & FRAME & !within) | (linear & within));
            }
            table = entry & FRAME;
        }
        Err(Blocked::NotRam)
    }

    /// Calls `each` for the pieces of a range that lie in one page: physical address, position.
    fn pieces(
        &self,
        linear: u64,
        len: usize,
        access: Access,
        mut each: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        let mut done = 0;
        while done < len {
            let at = linear.wrapping_add(done as u64);
            let left = usize::try_from(PAGE - at % PAGE).unwrap_or(len);
            let end = len.min(done + left);
            each(self.physical(at, access)?, done..end)?;
            done = end;
        }
        Ok(())
    }

    /// Copies bytes out.
    pub(super) fn read(&self, linear: u64, data: &mut [u8]) -> Result<(), Blocked> {
        let ram = self.ram;
        self.pieces(linear, data.len(), Access::Read, |at, range| {
            let piece = data.get_mut(range).ok_or(Blocked::NotRam)?;
            ram.read_bytes(at, piece).map_err(|_| Blocked::NotRam)
        })
    }

    /// Copies bytes in. Nothing is written when any of it cannot be.
    pub(super) fn write(&self, linear: u64, data: &[u8]) -> Result<(), Blocked> {
        let ram = self.ram;
        self.pieces(linear, data.len(), Access::Write, |at, range| {
            ram.contains(at, range.len() as u64)
                .then_some(())
                .ok_or(Blocked::NotRam)
        })?;
        self.pieces(linear, data.len(), Access::Write, |at, range| {
            let piece = data.get(range).ok_or(Blocked::NotRam)?;
            ram.write_bytes(at, piece).map_err(|_| Blocked::NotRam)
        })
    }

    /// Reads a little-endian number of at most eight bytes.
    pub(super) fn read_number(&self, linear: u64, bytes: usize) -> Result<u64, Blocked> {
        let mut eight = [0; 8];
        let part = eight.get_mut(..bytes).ok_or(Blocked::NotRam)?;
        self.read(linear, part)?;
        Ok(u64::from_le_bytes(eight))
    }

    /// Reads two bytes of user code; none of the kernel's, and none beyond the addresses that
    /// there are.
    pub(super) fn read_user_code(&self, linear: u64) -> Option<[u8; 2]> {
        let mut code = [0; 2];
        let ram = self.ram;
        let read = self.pieces(linear, code.len(), Access::UserRead, |at, range| {
            let piece = code.get_mut(range).ok_or(Blocked::NotRam)?;
            ram.read_bytes(at, piece).map_err(|_| Blocked::NotRam)
        });
        (canonical(linear, 12 + 9 * self.levels) && read.is_ok()).then_some(code)
    }

    /// Reads as much code as there is, at most fifteen bytes; the rest of the array is zero.
    pub(super) fn read_code(&self, linear: u64) -> ([u8; 15], u8) {
        let mut code = [0; 15];
        if self.read(linear, &mut code).is_ok() {
            return (code, 15);
        }
        // The next page is missing: take what this one holds.
        let here = usize::try_from(PAGE - linear % PAGE).unwrap_or(0).min(15);
        let mut part = [0; 15];
        match part.get_mut(..here).map(|part| self.read(linear, part)) {
            Some(Ok(())) => (part, u8::try_from(here).unwrap_or(0)),
            _ => ([0; 15], 0),
        }
    }

    /// The physical address of an aligned sixteen-byte operand that will be written.
    pub(super) fn aligned16(&self, linear: u64) -> Result<u64, Blocked> {
        let at = self.physical(linear, Access::Write)?;
        self.ram
            .contains(at, 16)
            .then_some(at)
            .ok_or(Blocked::NotRam)
    }
}

/// Whether the bits above the lowest `bits` repeat the highest of them.
pub(super) fn canonical(address: u64, bits: u32) -> bool {
    let unused = 64 - bits;
    (address.cast_signed() << unused >> unused).cast_unsigned() == address
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    /// Page 0 is at 0x5000, page 1 read-only at 0x7000, page 2 missing, page 3 outside RAM;
    /// the second 2 MiB are one large page at 0.
    fn paged() -> (GuestRam, kvm_sregs) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let ram = GuestRam::from(Arc::new(memory));
        let entries: [(u64, u64); 7] = [
            (0x1000, 0x2003),
            (0x2000, 0x3003),
            (0x3000, 0x4003),
            (0x3008, 0x83),
            (0x4000, 0x5003),
            (0x4008, 0x7001),
            (0x4018, 0x1000_0003),
        ];
        for (at, entry) in entries {
            ram.write(at, &entry).unwrap();
        }
        let sregs = kvm_sregs {
            cr0: CR0_PG | CR0_WP,
            cr3: 0x1000,
            ..Default::default()
        };
        (ram, sregs)
    }

    fn fault(error_code: u32, address: u64) -> Blocked {
        Blocked::Fault(PageFault {
            error_code,
            address,
        })
    }

    #[test]
    fn operands_may_cross_pages_that_are_not_neighbours() {
        let (ram, sregs) = paged();
        let space = AddressSpace::new(&ram, &sregs);
        ram.write_bytes(0x5ffe, &[1, 2]).unwrap();
        ram.write_bytes(0x7000, &[3, 4]).unwrap();
        assert_eq!(space.read_number(0xffe, 4), Ok(0x0403_0201));
        assert_eq!(space.read_number(0x20_5ffe, 2), Ok(0x0201));
        assert_eq!(space.read_code(0x1ffb), ([0; 15], 5));
        assert_eq!(space.read_code(0x2000), ([0; 15], 0));
    }

    #[test]
    fn faults_tell_what_the_processor_would() {
        let (ram, sregs) = paged();
        let space = AddressSpace::new(&ram, &sregs);
        assert_eq!(space.read_number(0x2000, 1), Err(fault(0, 0x2000)));
        assert_eq!(space.write(0x2008, &[0]), Err(fault(2, 0x2008)));
        assert_eq!(space.write(0x1000, &[0]), Err(fault(3, 0x1000)));
        assert_eq!(space.read_number(1 << 39, 1), Err(fault(0, 1 << 39)));
        assert_eq!(space.write(0x3000, &[0]), Err(Blocked::NotRam));
        // The second page refuses: nothing of the first is written.
        assert_eq!(space.write(0xffe, &[9; 4]), Err(fault(3, 0x1000)));
        assert_eq!(space.read_number(0xffe, 2), Ok(0));
        let unprotected = kvm_sregs {
            cr0: CR0_PG,
            ..sregs
        };
        assert_eq!(
            AddressSpace::new(&ram, &unprotected).write(0x1000, &[7]),
            Ok(())
        );
        assert_eq!(ram.read::<u8>(0x7000), Ok(7));
    }

    #[test]
    fn user_code_is_what_user_code_may_read() {
        let (ram, sregs) = paged();
        ram.write_bytes(0x5000, &[0x0f, 0x05]).unwrap();
        let read = |at| AddressSpace::new(&ram, &sregs).read_user_code(at);
        assert_eq!(read(0), None, "the kernel's");
        for (at, entry) in [(0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007)] {
            ram.write::<u64>(at, &entry).unwrap();
        }
        assert_eq!(read(0), None, "the kernel's in a user's table");
        ram.write::<u64>(0x4000, &0x5007).unwrap();
        assert_eq!(read(0), Some([0x0f, 0x05]));
        assert_eq!(read(1 << 48), None, "no address");
        assert_eq!(read(0x2000), None, "missing");
    }

    #[test]
    fn five_levels_and_no_paging_are_known() {
        let (ram, sregs) = paged();
        ram.write(0x8000, &0x1003_u64).unwrap();
        let five = kvm_sregs {
            cr3: 0x8000,
            cr4: CR4_LA57,
            ..sregs
        };
        ram.write(0x5000, &0x55_u8).unwrap();
        assert_eq!(AddressSpace::new(&ram, &five).read_number(0, 1), Ok(0x55));
        let flat = kvm_sregs::default();
        assert_eq!(
            AddressSpace::new(&ram, &flat).read_number(0x5000, 1),
            Ok(0x55)
        );
    }
}
