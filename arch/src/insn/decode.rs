//! From bytes to [`Insn`]: prefixes, opcode, ModRM (Intel SDM volume 2, chapter 2).

use super::{Address, Effect, Insn, MAX_LEN, Place, SaveForm, Segment, Width};

/// Decodes the instruction at the start of `bytes`, as 64-bit code. `None` when it is not one of
/// those that this module knows, or when `bytes` end too early.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Insn> {
    let mut cursor = Cursor {
        bytes: bytes.get(..MAX_LEN).unwrap_or(bytes),
        at: 0,
    };
    let prefixes = prefixes(&mut cursor)?;
    let effect = match cursor.next()? {
        0x0f => two_byte(&mut cursor, prefixes)?,
        opcode => one_byte(opcode, &mut cursor, prefixes)?,
    };
    // A lock prefix is allowed where the effect writes memory in one step, and only there.
    if prefixes.lock && !matches!(effect, Effect::CompareExchange16 { .. }) {
        return None;
    }
    let len = u8::try_from(cursor.at).ok()?;
    Some(Insn { len, effect })
}

/// Bytes with a position.
#[derive(Debug)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn displacement32(&mut self) -> Option<i32> {
        let mut four = [0; 4];
        for byte in &mut four {
            *byte = self.next()?;
        }
        Some(i32::from_le_bytes(four))
    }
}

/// Which of the prefixes that select an opcode came last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Repeat {
    None,
    F2,
    F3,
}

#[derive(Clone, Copy, Debug)]
struct Prefixes {
    operand16: bool,
    address32: bool,
    repeat: Repeat,
    lock: bool,
    segment: Segment,
    rex: Option<u8>,
}

impl Prefixes {
    fn wide(self) -> bool {
        self.rex.is_some_and(|rex| rex & 8 != 0)
    }

    /// A bit of REX moved to bit 3, where register numbers want it.
    fn extension(self, bit: u8) -> u8 {
        self.rex.map_or(0, |rex| (rex >> bit & 1) << 3)
    }

    /// The width of a general operand.
    fn width(self) -> Width {
        match (self.wide(), self.operand16) {
            (true, _) => Width::Qword,
            (false, true) => Width::Word,
            (false, false) => Width::Dword,
        }
    }

    fn dword_or_qword(self) -> Width {
        if self.wide() {
            Width::Qword
        } else {
            Width::Dword
        }
    }

    fn plain(self) -> bool {
        self.repeat == Repeat::None && !self.operand16
    }
}

fn prefixes(cursor: &mut Cursor<'_>) -> Option<Prefixes> {
    let mut found = Prefixes {
        operand16: false,
        address32: false,
        repeat: Repeat::None,
        lock: false,
        segment: Segment::Flat,
        rex: None,
    };
    loop {
        match cursor.peek()? {
            0x66 => found.operand16 = true,
            0x67 => found.address32 = true,
            0xf2 => found.repeat = Repeat::F2,
            0xf3 => found.repeat = Repeat::F3,
            0xf0 => found.lock = true,
            // In 64-bit mode these have no effect, and do not undo FS or GS.
            0x26 | 0x2e | 0x36 | 0x3e => {}
            0x64 => found.segment = Segment::Fs,
            0x65 => found.segment = Segment::Gs,
            rex @ 0x40..=0x4f => {
                cursor.next()?;
                // REX counts only right before the opcode.
                if !matches!(
                    cursor.peek()?,
                    0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3
                ) {
                    found.rex = Some(rex);
                    return Some(found);
                }
                continue;
            }
            _ => return Some(found),
        }
        cursor.next()?;
    }
}

/// A decoded ModRM byte.
#[derive(Clone, Copy, Debug)]
struct ModRm {
    /// The middle field without REX.R: an opcode extension.
    extension: u8,
    /// The middle field with REX.R: a register.
    register: u8,
    place: Place,
}

impl ModRm {
    fn memory(self) -> Option<Address> {
        match self.place {
            Place::Memory(address) => Some(address),
            Place::Register { .. } => None,
        }
    }

    fn is_register(self) -> bool {
        matches!(self.place, Place::Register { .. })
    }
}

fn mod_rm(cursor: &mut Cursor<'_>, prefixes: Prefixes) -> Option<ModRm> {
    let byte = cursor.next()?;
    let mode = byte >> 6;
    let extension = byte >> 3 & 7;
    let low = byte & 7;
    let place = if mode == 3 {
        Place::Register {
            number: low | prefixes.extension(0),
            low: prefixes.rex.is_some() || low < 4,
        }
    } else {
        Place::Memory(address(cursor, prefixes, mode, low)?)
    };
    Some(ModRm {
        extension,
        register: extension | prefixes.extension(2),
        place,
    })
}

fn address(cursor: &mut Cursor<'_>, prefixes: Prefixes, mode: u8, low: u8) -> Option<Address> {
    let mut result = Address {
        segment: prefixes.segment,
        base: Some(low | prefixes.extension(0)),
        index: None,
        displacement: 0,
        rip_relative: false,
        short: prefixes.address32,
    };
    let mut no_base = false;
    if low == 4 {
        let sib = cursor.next()?;
        let index = (sib >> 3 & 7) | prefixes.extension(1);
        if index != 4 {
            result.index = Some((index, sib >> 6));
        }
        result.base = Some((sib & 7) | prefixes.extension(0));
        if sib & 7 == 5 && mode == 0 {
            no_base = true;
        }
    } else if low == 5 && mode == 0 {
        result.rip_relative = true;
        no_base = true;
    }
    if no_base {
        result.base = None;
        result.displacement = cursor.displacement32()?;
    } else if mode == 1 {
        result.displacement = i32::from(cursor.next()?.cast_signed());
    } else if mode == 2 {
        result.displacement = cursor.displacement32()?;
    }
    Some(result)
}

fn one_byte(opcode: u8, cursor: &mut Cursor<'_>, prefixes: Prefixes) -> Option<Effect> {
    match opcode {
        0xcc => Some(Effect::Breakpoint),
        0xf1 => Some(Effect::DebugTrap),
        0x9b => Some(Effect::Nothing),
        0xd9 => {
            // fldcw; fnop (d9 d0) does nothing.
            if cursor.peek()? == 0xd0 {
                cursor.next()?;
                return Some(Effect::Nothing);
            }
            let modrm = mod_rm(cursor, prefixes)?;
            (modrm.extension == 5).then_some(Effect::LoadControlWord(modrm.memory()?))
        }
        0xdb => (cursor.next()? == 0xe2).then_some(Effect::ClearX87Exceptions),
        0xdd => {
            let modrm = mod_rm(cursor, prefixes)?;
            (modrm.extension == 7)
                .then_some(Effect::StoreStatusWord(Place::Memory(modrm.memory()?)))
        }
        0xdf => (cursor.next()? == 0xe0).then_some(Effect::StoreStatusWord(Place::Register {
            number: 0,
            low: true,
        })),
        _ => None,
    }
}

fn two_byte(cursor: &mut Cursor<'_>, prefixes: Prefixes) -> Option<Effect> {
    match cursor.next()? {
        0x00 => {
            // verr and verw on memory or a register; verw is what clears CPU buffers.
            let modrm = mod_rm(cursor, prefixes)?;
            (modrm.extension == 5).then_some(Effect::Nothing)
        }
        0x01 => group7(cursor, prefixes),
        opcode @ (0x02 | 0x03) => {
            let modrm = mod_rm(cursor, prefixes)?;
            Some(Effect::SegmentInfo {
                width: prefixes.width(),
                to: modrm.register,
                from: modrm.place,
                limit: opcode == 3,
            })
        }
        0x07 => Some(Effect::SystemReturn {
            wide: prefixes.wide(),
        }),
        0x1c => {
            // cldemote on memory; the rest of the group are NOPs too.
            mod_rm(cursor, prefixes)?;
            Some(Effect::Nothing)
        }
        0x1e => {
            // rdssp without shadow stacks and every other form are NOPs.
            mod_rm(cursor, prefixes)?;
            Some(Effect::Nothing)
        }
        0x38 => three_byte_38(cursor, prefixes),
        0x77 => prefixes.plain().then_some(Effect::EmptyX87Stack),
        0xae => group15(cursor, prefixes),
        0xb8 => {
            let modrm = mod_rm(cursor, prefixes)?;
            (prefixes.repeat == Repeat::F3).then_some(Effect::CountOnes {
                width: prefixes.width(),
                to: modrm.register,
                from: modrm.place,
            })
        }
        0xb9 | 0xff => {
            mod_rm(cursor, prefixes)?;
            Some(Effect::Undefined)
        }
        0xc7 => group9(cursor, prefixes),
        _ => None,
    }
}

/// 0f 01 with a register form.
fn group7(cursor: &mut Cursor<'_>, prefixes: Prefixes) -> Option<Effect> {
    let byte = cursor.next()?;
    if !prefixes.plain() {
        return None;
    }
    match byte {
        // monitor, mwait
        0xc8 | 0xc9 => Some(Effect::Nothing),
        0xca => Some(Effect::SetAc(false)),
        0xcb => Some(Effect::SetAc(true)),
        0xd0 => Some(Effect::ReadXcr),
        // rdpkru, wrpkru: CR4.PKE cannot be set where CPUID hides protection keys.
        0xee | 0xef => Some(Effect::Undefined),
        0xf9 => Some(Effect::ReadTscp),
        _ => None,
    }
}

/// 0f c7
fn group9(cursor: &mut Cursor<'_>, prefixes: Prefixes) -> Option<Effect> {
    let modrm = mod_rm(cursor, prefixes)?;
    match (modrm.extension, modrm.memory()) {
        (1, Some(at)) if prefixes.wide() => Some(Effect::CompareExchange16 { at }),
        (3, Some(at)) if prefixes.plain() => Some(Effect::RestoreState {
            at,
            supervisor: true,
        }),
        (4, Some(at)) if prefixes.plain() => Some(Effect::SaveState {
            at,
            form: SaveForm::Compacted,
        }),
        (5, Some(at)) if prefixes.plain() => Some(Effect::SaveState {
            at,
            form: SaveForm::Supervisor,
        }),
        (7, None) if prefixes.repeat == Repeat::F3 => match modrm.place {
            Place::Register { number, .. } => Some(Effect::ReadTscAux { to: number }),
            Place::Memory(_) => None,
        },
        _ => None,
    }
}

/// 0f ae
fn group15(cursor: &mut Cursor<'_>, prefixes: Prefixes) -> Option<Effect> {
    let modrm = mod_rm(cursor, prefixes)?;
    if prefixes.operand16 {
        // clwb
        return (modrm.extension == 6 && !modrm.is_register()).then_some(Effect::Nothing);
    }
    if prefixes.repeat != Repeat::None {
        return None;
    }
    match (modrm.extension, modrm.memory()?) {
        (2, at) => Some(Effect::LoadMxcsr(at)),
        (3, at) => Some(Effect::StoreMxcsr(at)),
        (4, at) => Some(Effect::SaveState {
            at,
            form: SaveForm::Plain,
        }),
        (5, at) => Some(Effect::RestoreState {
            at,
            supervisor: false,
        }),
        (6, at) => Some(Effect::SaveState {
            at,
            form: SaveForm::Optimised,
        }),
        _ => None,
    }
}

/// 0f 38
fn three_byte_38(cursor: &mut Cursor<'_>, prefixes: Prefixes) -> Option<Effect> {
    let opcode = cursor.next()?;
    let modrm = mod_rm(cursor, prefixes)?;
    let (to, from) = (modrm.register, modrm.place);
    match (opcode, prefixes.repeat) {
        (0xf0, Repeat::F2) => Some(Effect::Crc32c {
            width: Width::Byte,
            to,
            from,
        }),
        (0xf1, Repeat::F2) => Some(Effect::Crc32c {
            width: prefixes.width(),
            to,
            from,
        }),
        (0xf6, Repeat::None) if prefixes.operand16 => Some(Effect::AddCarry {
            width: prefixes.dword_or_qword(),
            to,
            from,
            overflow: false,
        }),
        (0xf6, Repeat::F3) => Some(Effect::AddCarry {
            width: prefixes.dword_or_qword(),
            to,
            from,
            overflow: true,
        }),
        (0xf9, Repeat::None) if !prefixes.operand16 => Some(Effect::Store {
            width: prefixes.dword_or_qword(),
            to: modrm.memory()?,
            from: to,
        }),
        _ => None,
    }
}
