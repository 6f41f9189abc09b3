//! Performs a decoded instruction on a copy of the registers and on guest memory.

use arch::insn::{Address, Effect, Insn, Place, Width};
use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::AssistError;
use super::address_space::{AddressSpace, Blocked, PageFault};
use super::{atomic, fpu, segments};

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
const AC: u64 = 1 << 18;
const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// An exception for the guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Exception {
    pub(super) vector: u8,
    pub(super) error_code: Option<u32>,
    /// CR2, for a page fault.
    pub(super) address: Option<u64>,
}

impl Exception {
    pub(super) const DEBUG: Exception = Exception::plain(1);
    pub(super) const BREAKPOINT: Exception = Exception::plain(3);
    pub(super) const UNDEFINED: Exception = Exception::plain(6);
    pub(super) const PROTECTION: Exception = Exception {
        vector: 13,
        error_code: Some(0),
        address: None,
    };

    const fn plain(vector: u8) -> Exception {
        Exception {
            vector,
            error_code: None,
            address: None,
        }
    }
}

impl From<PageFault> for Exception {
    fn from(fault: PageFault) -> Self {
        Exception {
            vector: 14,
            error_code: Some(fault.error_code),
            address: Some(fault.address),
        }
    }
}

/// How an instruction ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// Done; go on behind it.
    Next,
    /// An exception whose return address is behind it.
    Trap(Exception),
    /// An exception whose return address is the instruction itself; nothing was changed.
    Fault(Exception),
    /// Not something that can be completed here.
    Unknown,
}

/// What an instruction works on.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) vcpu: &'a VcpuFd,
    pub(super) space: AddressSpace<'a>,
    pub(super) regs: &'a mut kvm_regs,
    pub(super) sregs: &'a kvm_sregs,
}

/// Why an instruction stopped half way: a fault of the guest's, or the host's.
#[derive(Debug)]
pub(super) enum Stop {
    Blocked(Blocked),
    Host(AssistError),
    Exception(Exception),
    Unknown,
}

impl From<Blocked> for Stop {
    fn from(blocked: Blocked) -> Self {
        Stop::Blocked(blocked)
    }
}

impl From<AssistError> for Stop {
    fn from(error: AssistError) -> Self {
        Stop::Host(error)
    }
}

/// Performs `insn`; RIP is left to the caller. `sysret` is not for here.
pub(super) fn perform(work: &mut Work<'_>, insn: &Insn) -> Result<End, AssistError> {
    match effect(work, insn) {
        Ok(end) => Ok(end),
        Err(Stop::Blocked(Blocked::Fault(fault))) => Ok(End::Fault(fault.into())),
        Err(Stop::Exception(exception)) => Ok(End::Fault(exception)),
        Err(Stop::Blocked(Blocked::NotRam) | Stop::Unknown) => Ok(End::Unknown),
        Err(Stop::Host(error)) => Err(error),
    }
}

fn effect(work: &mut Work<'_>, insn: &Insn) -> Result<End, Stop> {
    let next = work.regs.rip.wrapping_add(u64::from(insn.len));
    match insn.effect {
        Effect::Nothing => {}
        Effect::Breakpoint => return Ok(End::Trap(Exception::BREAKPOINT)),
        Effect::DebugTrap => return Ok(End::Trap(Exception::DEBUG)),
        Effect::Undefined => return Ok(End::Fault(Exception::UNDEFINED)),
        Effect::SetAc(true) => work.regs.rflags |= AC,
        Effect::SetAc(false) => work.regs.rflags &= !AC,
        Effect::CountOnes { width, to, from } => {
            let value = work.load(from, width, next)?;
            work.set(to, width, u64::from(value.count_ones()));
            work.regs.rflags &= !STATUS;
            if value == 0 {
                work.regs.rflags |= ZF;
            }
        }
        Effect::Crc32c { width, to, from } => {
            let value = work.load(from, width, next)?;
            let bytes = value.to_le_bytes();
            let start = work.get(to).to_le_bytes();
            let [a, b, c, d, ..] = start;
            let sum = crc32c(
                u32::from_le_bytes([a, b, c, d]),
                bytes.get(..width.bytes()).unwrap_or_default(),
            );
            work.set(to, Width::Qword, u64::from(sum));
        }
        Effect::AddCarry {
            width,
            to,
            from,
            overflow,
        } => {
            let value = work.load(from, width, next)?;
            let flag = if overflow { OF } else { CF };
            let carry = work.regs.rflags & flag != 0;
            let (sum, carried) = add_carry(work.get(to), value, carry, width);
            work.set(to, width, sum);
            work.set_flag(flag, carried);
        }
        Effect::Store { width, to, from } => {
            let value = work.get(from).to_le_bytes();
            let at = work.linear(&to, next);
            work.space
                .write(at, value.get(..width.bytes()).unwrap_or_default())?;
        }
        Effect::CompareExchange16 { at } => compare_exchange(work, &at, next)?,
        Effect::SegmentInfo {
            width,
            to,
            from,
            limit,
        } => {
            let [low, high, ..] = work.load(from, Width::Word, next)?.to_le_bytes();
            let selector = u16::from_le_bytes([low, high]);
            let found = segments::describe(&work.space, work.sregs, selector)?;
            work.set_flag(ZF, found.is_some());
            if let Some(segment) = found {
                let value = if limit { segment.limit } else { segment.access };
                work.set(to, width, u64::from(value));
            }
        }
        _ => fpu::perform(work, insn.effect, next)?,
    }
    Ok(End::Next)
}

fn compare_exchange(work: &mut Work<'_>, at: &Address, next: u64) -> Result<(), Stop> {
    let linear = work.linear(at, next);
    if !linear.is_multiple_of(16) {
        return Err(Stop::Exception(Exception::PROTECTION));
    }
    let physical = work.space.aligned16(linear)?;
    let join = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let old = join(work.regs.rdx, work.regs.rax);
    let new = join(work.regs.rcx, work.regs.rbx);
    let seen =
        atomic::compare_exchange16(work.space.ram(), physical, old, new).ok_or(Stop::Unknown)?;
    work.set_flag(ZF, seen == old);
    if seen != old {
        let bytes = seen.to_le_bytes();
        let (halves, _) = bytes.as_chunks::<8>();
        if let [low, high] = halves {
            work.regs.rax = u64::from_le_bytes(*low);
            work.regs.rdx = u64::from_le_bytes(*high);
        }
    }
    Ok(())
}

impl Work<'_> {
    /// The linear address of an operand.
    pub(super) fn linear(&self, address: &Address, next: u64) -> u64 {
        let bases = [self.sregs.fs.base, self.sregs.gs.base];
        address.linear(&general(self.regs), next, bases)
    }

    /// A general register.
    pub(super) fn get(&self, number: u8) -> u64 {
        general(self.regs)
            .get(usize::from(number))
            .copied()
            .unwrap_or(0)
    }

    /// Writes a general register; 32-bit results clear the upper half, narrower ones keep it.
    pub(super) fn set(&mut self, number: u8, width: Width, value: u64) {
        let old = self.get(number);
        let value = match width {
            Width::Qword => value,
            Width::Dword => value & Width::Dword.mask(),
            Width::Word | Width::Byte => (old & !width.mask()) | (value & width.mask()),
        };
        if let Some(register) = general_mut(self.regs, number) {
            *register = value;
        }
    }

    pub(super) fn set_flag(&mut self, flag: u64, on: bool) {
        if on {
            self.regs.rflags |= flag;
        } else {
            self.regs.rflags &= !flag;
        }
    }

    /// Reads an operand, zero-extended.
    pub(super) fn load(&self, from: Place, width: Width, next: u64) -> Result<u64, Blocked> {
        match from {
            Place::Register { number, low } => {
                let high_byte = width == Width::Byte && !low;
                let value = self.get(if high_byte { number & 3 } else { number });
                Ok((if high_byte { value >> 8 } else { value }) & width.mask())
            }
            Place::Memory(address) => self
                .space
                .read_number(self.linear(&address, next), width.bytes()),
        }
    }
}

/// The general registers in encoding order.
fn general(regs: &kvm_regs) -> [u64; 16] {
    [
        regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8,
        regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ]
}

fn general_mut(regs: &mut kvm_regs, number: u8) -> Option<&mut u64> {
    Some(match number {
        0 => &mut regs.rax,
        1 => &mut regs.rcx,
        2 => &mut regs.rdx,
        3 => &mut regs.rbx,
        4 => &mut regs.rsp,
        5 => &mut regs.rbp,
        6 => &mut regs.rsi,
        7 => &mut regs.rdi,
        8 => &mut regs.r8,
        9 => &mut regs.r9,
        10 => &mut regs.r10,
        11 => &mut regs.r11,
        12 => &mut regs.r12,
        13 => &mut regs.r13,
        14 => &mut regs.r14,
        15 => &mut regs.r15,
        _ => return None,
    })
}

/// CRC-32C (reflected polynomial 0x82F63B78) without the usual inversions, as the instruction.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

/// The sum and the carry out of an operand of `width`.
fn add_carry(a: u64, b: u64, carry: bool, width: Width) -> (u64, bool) {
    let sum = u128::from(a & width.mask()) + u128::from(b & width.mask()) + u128::from(carry);
    let bits = width.bytes() * 8;
    let low = sum & u128::from(width.mask());
    (u64::try_from(low).unwrap_or(0), sum >> bits != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_check_value() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn sums_carry_out_of_their_width() {
        assert_eq!(add_carry(u64::MAX, 0, true, Width::Qword), (0, true));
        assert_eq!(add_carry(0xffff_ffff, 1, false, Width::Dword), (0, true));
        assert_eq!(
            add_carry(0xffff_ffff, 1, false, Width::Qword),
            (1 << 32, false)
        );
        assert_eq!(add_carry(7 << 32 | 1, 1, true, Width::Dword), (3, false));
    }
}
