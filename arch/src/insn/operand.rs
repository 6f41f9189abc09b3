//! Operands of instructions: ModRM, SIB and displacement, and the address they make.

/// How wide an operand is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
    /// 64 bits.
    Qword,
}

impl Width {
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Width::Byte => 1,
            Width::Word => 2,
            Width::Dword => 4,
            Width::Qword => 8,
        }
    }

    /// The bits that an operand of this width has.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Width::Byte => 0xff,
            Width::Word => 0xffff,
            Width::Dword => 0xffff_ffff,
            Width::Qword => u64::MAX,
        }
    }
}

/// A register or memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// A general register. As a byte operand 4..=7 mean SPL..DIL when `low` and AH..BH else.
    Register {
        /// Its number.
        number: u8,
        /// False for AH, CH, DH and BH, which only byte operands without REX can name.
        low: bool,
    },
    /// Memory.
    Memory(Address),
}

/// The segments whose base counts in 64-bit mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Segment {
    /// CS, DS, ES or SS: base zero.
    Flat,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// An address expression.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// Whose base is added.
    pub segment: Segment,
    /// Base register.
    pub base: Option<u8>,
    /// Index register and the shift of its scale.
    pub index: Option<(u8, u8)>,
    /// Displacement, sign-extended.
    pub displacement: i32,
    /// Relative to the end of the instruction.
    pub rip_relative: bool,
    /// 32-bit addressing (prefix 67): the sum is cut to 32 bits.
    pub short: bool,
}

impl Address {
    /// The linear address. `registers` are the sixteen general registers in encoding order,
    /// `next_rip` the end of the instruction, `bases` those of FS and GS.
    #[must_use]
    pub fn linear(&self, registers: &[u64; 16], next_rip: u64, bases: [u64; 2]) -> u64 {
        let register = |number: u8| registers.get(usize::from(number)).copied().unwrap_or(0);
        let mut sum = i64::from(self.displacement).cast_unsigned();
        if let Some(base) = self.base {
            sum = sum.wrapping_add(register(base));
        }
        if let Some((index, shift)) = self.index {
            sum = sum.wrapping_add(register(index) << shift);
        }
        if self.rip_relative {
            sum = sum.wrapping_add(next_rip);
        }
        if self.short {
            sum &= 0xffff_ffff;
        }
        let [fs, gs] = bases;
        sum.wrapping_add(match self.segment {
            Segment::Flat => 0,
            Segment::Fs => fs,
            Segment::Gs => gs,
        })
    }
}
