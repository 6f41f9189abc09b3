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
            if level == 0 || (level <= 2 && entry & LARGE != 0) {
                if access == Access::Write && !writable && self.write_protect {
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
