//! Registers, messages and what reaches the sink.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

const PINS: u8 = 24;

type Told = Arc<Mutex<Vec<(u32, Option<Msi>)>>>;

fn ioapic() -> (IoApic, Told) {
    let told = Told::default();
    let sink = Arc::clone(&told);
    let ioapic = IoApic::new(
        PINS,
        Box::new(move |pin, message| sink.lock().unwrap().push((pin, message))),
    );
    (ioapic, told)
}

fn write(ioapic: &mut IoApic, register: u8, value: u32) {
    ioapic.write(SELECT, Width::Dword, register.into()).unwrap();
    ioapic.write(WINDOW, Width::Dword, value.into()).unwrap();
}

fn read(ioapic: &mut IoApic, register: u8) -> u64 {
    ioapic.write(SELECT, Width::Dword, register.into()).unwrap();
    ioapic.read(WINDOW, Width::Dword).unwrap()
}

#[test]
fn fixed_registers_read_as_their_specification_says() {
    let (mut ioapic, _) = ioapic();
    assert_eq!(read(&mut ioapic, 0), 0);
    assert_eq!(read(&mut ioapic, 1), 0x0017_0020);
    write(&mut ioapic, 0, 0xffff_ffff);
    write(&mut ioapic, 1, 0xffff_ffff);
    assert_eq!(read(&mut ioapic, 0), 0x0f00_0000);
    assert_eq!(read(&mut ioapic, 2), 0x0f00_0000);
    assert_eq!(read(&mut ioapic, 1), 0x0017_0020);
    for pin in 0..PINS {
        assert_eq!(
            read(&mut ioapic, FIRST_PIN + pin * 2),
            0x1_0000,
            "masked at reset"
        );
        assert_eq!(read(&mut ioapic, FIRST_PIN + pin * 2 + 1), 0);
    }
    for beyond in [3, 0x0f, 0x40, 0xff] {
        write(&mut ioapic, beyond, 0xffff_ffff);
        assert_eq!(read(&mut ioapic, beyond), 0);
    }
    assert_eq!(ioapic.read(SELECT, Width::Dword), Ok(0xff));
    for offset in [1, 4, 0x11, 0x20, 0xff0] {
        assert_eq!(ioapic.read(offset, Width::Dword), Err(BadAccess));
        assert_eq!(ioapic.write(offset, Width::Dword, 0), Err(BadAccess));
    }
}

#[test]
fn messages_are_those_that_the_local_apics_take() {
    let cases: &[(u64, Option<(u64, u32)>)] = &[
        (0x0000_0000_0001_0030, None),
        (0x0000_0000_0000_0030, Some((0xfee0_0000, 0x0030))),
        (0x0500_0000_0000_0031, Some((0xfee0_5000, 0x0031))),
        (0xff00_0000_0000_08ef, Some((0xfeef_f004, 0x00ef))),
        (0x0100_0000_0000_0951, Some((0xfee0_1004, 0x0151))),
        (0x0000_0000_0000_8040, Some((0xfee0_0000, 0xc040))),
        (0x0000_0000_0000_a040, Some((0xfee0_0000, 0xc040))),
        (0x0000_0000_0000_2040, Some((0xfee0_0000, 0x0040))),
        (0x0000_0000_0000_0400, Some((0xfee0_0000, 0x0400))),
        (0x0000_0000_0000_0700, Some((0xfee0_0000, 0x0700))),
        (0x0000_0000_0000_0340, None),
        (0x0000_0000_0000_0640, None),
    ];
    for (entry, expected) in cases {
        let expected = expected.map(|(address, data)| Msi { address, data });
        assert_eq!(message(*entry), expected, "{entry:#018x}");
    }
}

#[test]
fn the_sink_is_told_only_of_messages_in_effect() {
    let (mut ioapic, told) = ioapic();
    let message = |destination: u64| {
        Some(Msi {
            address: 0xfee0_0000 | destination << 12,
            data: 0x34,
        })
    };
    write(&mut ioapic, 0x18, 0x1_0034);
    write(&mut ioapic, 0x19, 0x0200_0000);
    assert!(told.lock().unwrap().is_empty(), "masked all the time");
    write(&mut ioapic, 0x18, 0x34);
    write(&mut ioapic, 0x18, 0x34);
    write(&mut ioapic, 0x19, 0x02ff_ffff);
    write(&mut ioapic, 0x19, 0x0300_0000);
    write(&mut ioapic, 0x18, 0x1_0034);
    write(&mut ioapic, 0x18, 0x1_0035);
    let expected = [(4, message(2)), (4, message(3)), (4, None)];
    assert_eq!(*told.lock().unwrap(), expected);
    assert_eq!(ioapic.message(4), None);
    assert_eq!(ioapic.message(99), None);
}

#[test]
fn level_pins_show_a_sent_message_until_its_end() {
    let (mut ioapic, _) = ioapic();
    write(&mut ioapic, 0x10, 0x8050);
    write(&mut ioapic, 0x12, 0x8051);
    write(&mut ioapic, 0x14, 0x0050);
    (0..=24).for_each(|pin| ioapic.note_sent(pin));
    assert_eq!(read(&mut ioapic, 0x10), 0xc050);
    assert_eq!(read(&mut ioapic, 0x14), 0x0050, "edge pins never show one");
    ioapic.write(EOI, Width::Dword, 0x50).unwrap();
    assert_eq!(read(&mut ioapic, 0x10), 0x8050);
    assert_eq!(read(&mut ioapic, 0x12), 0xc051);
    write(&mut ioapic, 0x12, 0x1_0051);
    write(&mut ioapic, 0x12, 0x8051);
    assert_eq!(
        read(&mut ioapic, 0x12),
        0x8051,
        "ended by changing the trigger mode"
    );
}

proptest! {
    /// A restored one has told its sink of what the first one's sink knows.
    #[test]
    fn it_is_saved_and_restored(
        writes in prop::collection::vec((any::<u8>(), any::<u32>()), 0..60),
        sent in prop::collection::vec(0_u32..24, 0..8),
        other in any::<(u8, u8)>(),
    ) {
        let (mut before, _) = ioapic();
        for (register, value) in writes {
            write(&mut before, register, value);
        }
        sent.iter().for_each(|pin| before.note_sent(*pin));
        let state = before.save().unwrap();
        let (mut after, told) = ioapic();
        after.restore(&state).unwrap();
        prop_assert_eq!(after.save().unwrap(), state.clone());
        let in_effect = |pin| before.message(pin).map(|message| (pin, Some(message)));
        let expected: Vec<_> = (0..PINS.into()).filter_map(in_effect).collect();
        prop_assert_eq!(&*told.lock().unwrap(), &expected);
        let mut changed = state.clone();
        changed[usize::from(other.0) % state.len()] ^= other.1;
        let _ = after.restore(&changed);
        crate::testing::persistence::cuts_are_refused(&mut after, &state);
    }
}

proptest! {
    /// Whatever the guest writes, what the sink was told last is what the entries say, and it
    /// is never told the same twice in a row.
    #[test]
    fn the_sink_always_knows_the_messages_in_effect(
        writes in prop::collection::vec((any::<u8>(), any::<u32>(), 0_u64..0x50), 0..200),
    ) {
        let (mut ioapic, told) = ioapic();
        for (register, value, offset) in writes {
            write(&mut ioapic, register, value);
            let _ = ioapic.write(offset, Width::Dword, value.into());
            ioapic.note_sent(value % 30);
        }
        let told = told.lock().unwrap();
        for pin in 0..u32::from(PINS) {
            let of_pin: Vec<_> =
                told.iter().filter(|(of, _)| *of == pin).map(|(_, message)| *message).collect();
            prop_assert!(of_pin.windows(2).all(|two| two[0] != two[1]));
            prop_assert_eq!(of_pin.last().copied().flatten(), ioapic.message(pin));
        }
    }
}
