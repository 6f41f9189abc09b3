//! Byte tables for the decoder, and the promise that no bytes make it panic.

use proptest::prelude::*;

use super::{Address, Effect, Insn, MAX_LEN, Place, SaveForm, Segment, Width, decode};

const fn memory(base: u8) -> Address {
    Address {
        segment: Segment::Flat,
        base: Some(base),
        index: None,
        displacement: 0,
        rip_relative: false,
        short: false,
    }
}

const fn register(number: u8) -> Place {
    Place::Register { number, low: true }
}

const RSI: u8 = 6;
const AT_RSI: Address = memory(RSI);

fn ones(width: Width, to: u8, from: Place) -> Effect {
    Effect::CountOnes { width, to, from }
}

fn sum(width: Width, overflow: bool) -> Effect {
    Effect::AddCarry {
        width,
        to: 0,
        from: register(3),
        overflow,
    }
}

fn crc(width: Width, from: Place) -> Effect {
    Effect::Crc32c { width, to: 0, from }
}

fn saved(form: SaveForm) -> Effect {
    Effect::SaveState { at: AT_RSI, form }
}

/// Every instruction in its plain form.
fn plain_forms() -> Vec<(&'static [u8], Effect)> {
    use Width::{Byte, Dword, Qword, Word};
    vec![
        (&[0xcc], Effect::Breakpoint),
        (&[0xf1], Effect::DebugTrap),
        (&[0x9b], Effect::Nothing),
        (&[0xd9, 0xd0], Effect::Nothing),
        (&[0xd9, 0x2e], Effect::LoadControlWord(AT_RSI)),
        (&[0xdb, 0xe2], Effect::ClearX87Exceptions),
        (
            &[0xdd, 0x3e],
            Effect::StoreStatusWord(Place::Memory(AT_RSI)),
        ),
        (&[0xdf, 0xe0], Effect::StoreStatusWord(register(0))),
        (&[0x0f, 0x00, 0xe8], Effect::Nothing),
        (&[0x0f, 0x00, 0x2e], Effect::Nothing),
        (&[0x0f, 0x01, 0xc8], Effect::Nothing),
        (&[0x0f, 0x01, 0xc9], Effect::Nothing),
        (&[0x0f, 0x01, 0xca], Effect::SetAc(false)),
        (&[0x0f, 0x01, 0xcb], Effect::SetAc(true)),
        (&[0x0f, 0x01, 0xd0], Effect::ReadXcr),
        (&[0x0f, 0x01, 0xee], Effect::Undefined),
        (&[0x0f, 0x01, 0xef], Effect::Undefined),
        (&[0x0f, 0x01, 0xf9], Effect::ReadTscp),
        (&[0x0f, 0x07], Effect::SystemReturn { wide: false }),
        (&[0x48, 0x0f, 0x07], Effect::SystemReturn { wide: true }),
        (&[0xf3, 0x48, 0x0f, 0x1e, 0xc8], Effect::Nothing),
        (&[0x0f, 0x77], Effect::EmptyX87Stack),
        (&[0x0f, 0xae, 0x16], Effect::LoadMxcsr(AT_RSI)),
        (&[0x0f, 0xae, 0x1e], Effect::StoreMxcsr(AT_RSI)),
        (&[0x0f, 0xae, 0x26], saved(SaveForm::Plain)),
        (&[0x48, 0x0f, 0xae, 0x26], saved(SaveForm::Plain)),
        (&[0x0f, 0xae, 0x36], saved(SaveForm::Optimised)),
        (&[0x0f, 0xc7, 0x26], saved(SaveForm::Compacted)),
        (&[0x0f, 0xc7, 0x2e], saved(SaveForm::Supervisor)),
        (
            &[0x0f, 0xae, 0x2e],
            Effect::RestoreState {
                at: AT_RSI,
                supervisor: false,
            },
        ),
        (
            &[0x0f, 0xc7, 0x1e],
            Effect::RestoreState {
                at: AT_RSI,
                supervisor: true,
            },
        ),
        (&[0x66, 0x0f, 0xae, 0x36], Effect::Nothing),
        (&[0x0f, 0xb9, 0xc0], Effect::Undefined),
        (&[0x0f, 0xff, 0xc0], Effect::Undefined),
        (
            &[0x48, 0x0f, 0xc7, 0x0e],
            Effect::CompareExchange16 { at: AT_RSI },
        ),
        (
            &[0xf0, 0x48, 0x0f, 0xc7, 0x0e],
            Effect::CompareExchange16 { at: AT_RSI },
        ),
        (&[0xf3, 0x0f, 0xc7, 0xf8], Effect::ReadTscAux { to: 0 }),
        (&[0x66, 0xf3, 0x0f, 0xb8, 0xc3], ones(Word, 0, register(3))),
        (&[0xf3, 0x0f, 0xb8, 0xc3], ones(Dword, 0, register(3))),
        (&[0xf3, 0x48, 0x0f, 0xb8, 0xc3], ones(Qword, 0, register(3))),
        (
            &[0xf3, 0x48, 0x0f, 0xb8, 0x06],
            ones(Qword, 0, Place::Memory(AT_RSI)),
        ),
        (
            &[0xf3, 0x4d, 0x0f, 0xb8, 0xc7],
            ones(Qword, 8, register(15)),
        ),
        (&[0xf2, 0x0f, 0x38, 0xf0, 0xc3], crc(Byte, register(3))),
        (
            &[0xf2, 0x66, 0x0f, 0x38, 0xf1, 0xc3],
            crc(Word, register(3)),
        ),
        (&[0xf2, 0x0f, 0x38, 0xf1, 0xc3], crc(Dword, register(3))),
        (
            &[0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc3],
            crc(Qword, register(3)),
        ),
        (
            &[0xf2, 0x0f, 0x38, 0xf0, 0xc7],
            crc(
                Byte,
                Place::Register {
                    number: 7,
                    low: false,
                },
            ),
        ),
        (
            &[0xf2, 0x40, 0x0f, 0x38, 0xf0, 0xc7],
            crc(Byte, register(7)),
        ),
        (&[0x66, 0x48, 0x0f, 0x38, 0xf6, 0xc3], sum(Qword, false)),
        (&[0xf3, 0x0f, 0x38, 0xf6, 0xc3], sum(Dword, true)),
        (
            &[0x48, 0x0f, 0x38, 0xf9, 0x06],
            Effect::Store {
                width: Qword,
                to: AT_RSI,
                from: 0,
            },
        ),
        (
            &[0x48, 0x0f, 0x03, 0xc3],
            Effect::SegmentInfo {
                width: Qword,
                to: 0,
                from: register(3),
                limit: true,
            },
        ),
        (
            &[0x0f, 0x02, 0xc3],
            Effect::SegmentInfo {
                width: Dword,
                to: 0,
                from: register(3),
                limit: false,
            },
        ),
    ]
}

#[test]
fn every_known_instruction_is_decoded_and_measured() {
    for (bytes, effect) in plain_forms() {
        let len = u8::try_from(bytes.len()).unwrap();
        assert_eq!(decode(bytes), Some(Insn { len, effect }), "{bytes:02x?}");
        let mut longer = bytes.to_vec();
        longer.extend_from_slice(&[0x90; 8]);
        assert_eq!(decode(&longer), Some(Insn { len, effect }), "{longer:02x?}");
    }
}

#[test]
fn what_ends_too_early_is_nothing() {
    for (bytes, _) in plain_forms() {
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "{bytes:02x?} cut to {cut}");
        }
    }
}

#[test]
fn other_instructions_are_left_alone() {
    let cases: [&[u8]; 16] = [
        &[0x90],
        &[0x0f, 0x05],
        &[0x0f, 0x0b],
        &[0xcd, 0x80],
        &[0x0f, 0xb8, 0xc3],
        &[0x0f, 0xc7, 0x0e],
        &[0x0f, 0x01, 0xc1],
        &[0x0f, 0xae, 0xe8],
        &[0x0f, 0xae, 0x3e],
        &[0xf0, 0x0f, 0x01, 0xca],
        &[0xf3, 0x0f, 0x01, 0xca],
        &[0x0f, 0x38, 0xf1, 0x06],
        &[0x66, 0x0f, 0x38, 0xf9, 0x06],
        &[0xc4, 0xe2, 0xe0, 0xf2, 0xc3],
        &[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x00],
        &[0x66; 15],
    ];
    for bytes in cases {
        assert_eq!(decode(bytes), None, "{bytes:02x?}");
    }
}

#[test]
fn operands_follow_modrm_sib_and_displacement() {
    let at = |base, index, displacement| Address {
        base,
        index,
        displacement,
        ..memory(0)
    };
    let cases: [(&[u8], Address); 12] = [
        (&[0x06], at(Some(6), None, 0)),
        (&[0x46, 0xf0], at(Some(6), None, -16)),
        (
            &[0x86, 0x78, 0x56, 0x34, 0x12],
            at(Some(6), None, 0x1234_5678),
        ),
        (&[0x45, 0x08], at(Some(5), None, 8)),
        (&[0x04, 0x24], at(Some(4), None, 0)),
        (&[0x44, 0x24, 0x10], at(Some(4), None, 0x10)),
        (&[0x04, 0xb1], at(Some(1), Some((6, 2)), 0)),
        (&[0x04, 0xc5, 1, 0, 0, 0], at(None, Some((0, 3)), 1)),
        (&[0x04, 0x25, 0, 0, 0, 0x80], at(None, None, i32::MIN)),
        (&[0x44, 0x6d, 0x01], at(Some(5), Some((5, 1)), 1)),
        (&[0x84, 0x0d, 4, 0, 0, 0], at(Some(5), Some((1, 0)), 4)),
        (
            &[0x05, 0xfc, 0xff, 0xff, 0xff],
            Address {
                rip_relative: true,
                ..at(None, None, -4)
            },
        ),
    ];
    for (tail, address) in cases {
        let bytes = [&[0xf3, 0x48, 0x0f, 0xb8], tail].concat();
        let insn = decode(&bytes).unwrap();
        assert_eq!(usize::from(insn.len), bytes.len(), "{bytes:02x?}");
        assert_eq!(
            insn.effect,
            ones(Width::Qword, 0, Place::Memory(address)),
            "{bytes:02x?}"
        );
    }
}

#[test]
fn rex_extends_base_index_and_register() {
    // popcnt r9, [r12 + r13*8 + 1]
    let insn = decode(&[0xf3, 0x4f, 0x0f, 0xb8, 0x4c, 0xec, 0x01]).unwrap();
    let address = Address {
        index: Some((13, 3)),
        displacement: 1,
        ..memory(12)
    };
    assert_eq!(insn.effect, ones(Width::Qword, 9, Place::Memory(address)));
    // [r12] needs SIB; its index field of 4 with REX.X is R12, not "none".
    let insn = decode(&[0xf3, 0x4b, 0x0f, 0xb8, 0x04, 0x24]).unwrap();
    let address = Address {
        index: Some((12, 0)),
        ..memory(12)
    };
    assert_eq!(insn.effect, ones(Width::Qword, 0, Place::Memory(address)));
    // A REX that is not right before the opcode counts for nothing.
    let insn = decode(&[0x48, 0xf3, 0x0f, 0xb8, 0xc3]).unwrap();
    assert_eq!(insn.effect, ones(Width::Dword, 0, register(3)));
}

#[test]
fn segments_and_short_addresses_are_told() {
    let insn = decode(&[0x65, 0x48, 0x0f, 0xc7, 0x0e]).unwrap();
    let address = Address {
        segment: Segment::Gs,
        ..AT_RSI
    };
    assert_eq!(insn.effect, Effect::CompareExchange16 { at: address });
    let insn = decode(&[0x64, 0x67, 0x0f, 0xae, 0x26]).unwrap();
    let address = Address {
        segment: Segment::Fs,
        short: true,
        ..AT_RSI
    };
    assert_eq!(
        insn.effect,
        Effect::SaveState {
            at: address,
            form: SaveForm::Plain
        }
    );
}

#[test]
fn linear_addresses_are_sums() {
    let registers: [u64; 16] = std::array::from_fn(|n| 0x1000 * n as u64);
    let bases = [0xf000_0000, 0xffff_8880_0000_0000];
    let linear = |address: Address| address.linear(&registers, 0x40_0000, bases);
    assert_eq!(linear(AT_RSI), 0x6000);
    let indexed = Address {
        index: Some((2, 3)),
        displacement: -1,
        ..AT_RSI
    };
    assert_eq!(linear(indexed), 0x6000 + 0x10000 - 1);
    let relative = Address {
        base: None,
        rip_relative: true,
        displacement: 5,
        ..AT_RSI
    };
    assert_eq!(linear(relative), 0x40_0005);
    let per_cpu = Address {
        segment: Segment::Gs,
        base: None,
        displacement: 0x20,
        ..AT_RSI
    };
    assert_eq!(linear(per_cpu), 0xffff_8880_0000_0020);
    let short = Address {
        short: true,
        base: None,
        displacement: -1,
        ..AT_RSI
    };
    assert_eq!(
        linear(Address {
            segment: Segment::Fs,
            ..short
        }),
        0x1_efff_ffff
    );
}

proptest! {
    #[test]
    fn no_bytes_panic_and_lengths_are_within_bounds(
        bytes in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        if let Some(insn) = decode(&bytes) {
            prop_assert!(usize::from(insn.len) <= MAX_LEN.min(bytes.len()));
            prop_assert!(insn.len > 0);
        }
    }

    #[test]
    fn prefixes_in_front_of_known_opcodes_do_not_panic(
        prefixes in prop::collection::vec(
            prop::sample::select(&[0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x64, 0x65, 0x48, 0x4f][..]),
            0..16,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let bytes = [prefixes, vec![0x0f], tail].concat();
        if let Some(insn) = decode(&bytes) {
            prop_assert!(usize::from(insn.len) <= MAX_LEN);
        }
    }
}
