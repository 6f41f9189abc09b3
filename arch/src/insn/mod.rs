//! Decodes the few 64-bit instructions that a weak KVM cannot emulate; pure, never panics.
//!
//! [`decode`] answers what an instruction would do, as data: which registers, which memory, which
//! operation. Who performs it decides how. Only what such a host's emulator lacks is known here;
//! everything else is `None`.

mod decode;
mod operand;

#[cfg(test)]
mod tests;

pub use decode::decode;
pub use operand::{Address, Place, Segment, Width};

/// The longest instruction, in bytes (Intel SDM volume 2, section 2.3.11).
pub const MAX_LEN: usize = 15;

/// One decoded instruction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Insn {
    /// Its length in bytes, prefixes included.
    pub len: u8,
    /// What it does.
    pub effect: Effect,
}

/// What an instruction does. Register numbers are those of the encoding (0 = RAX … 15 = R15).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Nothing that a guest without the feature's state could see: `fwait` without a pending
    /// x87 exception, `clwb`, `cldemote`, `monitor`, `mwait` (which may return at once), `verw`
    /// used to clear buffers.
    Nothing,
    /// `int3`: exception #BP after the instruction.
    Breakpoint,
    /// `int1`: exception #DB after the instruction.
    DebugTrap,
    /// `ud0`, `ud1` and instructions of features that CPUID does not show: exception #UD.
    Undefined,
    /// `stac` (true) and `clac`: RFLAGS.AC.
    SetAc(bool),
    /// `popcnt`: the number of ones; ZF from the result, the other status flags cleared.
    CountOnes {
        /// Operand width.
        width: Width,
        /// Destination register.
        to: u8,
        /// Source.
        from: Place,
    },
    /// `crc32`: CRC-32C of the source on top of the destination's low 32 bits.
    Crc32c {
        /// Width of the source.
        width: Width,
        /// Destination register; its upper half becomes zero.
        to: u8,
        /// Source.
        from: Place,
    },
    /// `adcx` and `adox`: addition with a flag of its own.
    AddCarry {
        /// 32 or 64 bits.
        width: Width,
        /// Destination register, also the first addend.
        to: u8,
        /// Second addend.
        from: Place,
        /// True: OF carries (`adox`); false: CF (`adcx`).
        overflow: bool,
    },
    /// `movdiri`: an ordinary store.
    Store {
        /// 32 or 64 bits.
        width: Width,
        /// Where to.
        to: Address,
        /// Source register.
        from: u8,
    },
    /// `cmpxchg16b`, always performed as one atomic step.
    CompareExchange16 {
        /// The 16 bytes, which must be aligned.
        at: Address,
    },
    /// `xsave`, `xsaveopt`, `xsavec`, `xsaves`.
    SaveState {
        /// Where to.
        at: Address,
        /// Which of the four.
        form: SaveForm,
    },
    /// `xrstor` and, with `supervisor`, `xrstors`.
    RestoreState {
        /// Where from.
        at: Address,
        /// `xrstors`.
        supervisor: bool,
    },
    /// `ldmxcsr`.
    LoadMxcsr(Address),
    /// `stmxcsr`.
    StoreMxcsr(Address),
    /// `fldcw`.
    LoadControlWord(Address),
    /// `fnstsw`: the x87 status word.
    StoreStatusWord(Place),
    /// `fnclex`: clears the x87 exception flags.
    ClearX87Exceptions,
    /// `emms`: empties the x87 register stack.
    EmptyX87Stack,
    /// `xgetbv`: the extended control register that ECX names.
    ReadXcr,
    /// `rdtscp`: time stamp counter and TSC_AUX.
    ReadTscp,
    /// `rdpid`: TSC_AUX.
    ReadTscAux {
        /// Destination register.
        to: u8,
    },
    /// `lsl` (true) and `lar`: limit or access rights of the segment that a selector names.
    SegmentInfo {
        /// Width of the destination.
        width: Width,
        /// Destination register.
        to: u8,
        /// The selector (16 bits).
        from: Place,
        /// Limit (`lsl`) or access rights (`lar`).
        limit: bool,
    },
    /// `sysret`: to user code, 64-bit when `wide`.
    SystemReturn {
        /// With REX.W.
        wide: bool,
    },
}

/// The instruction that saves extended state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SaveForm {
    /// `xsave`: standard format.
    Plain,
    /// `xsaveopt`: standard format; may skip what has not changed.
    Optimised,
    /// `xsavec`: compacted format.
    Compacted,
    /// `xsaves`: compacted format with supervisor state.
    Supervisor,
}
