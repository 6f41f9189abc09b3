//! Masks, pending bits and routes, as a driver and a device see them.

use std::sync::{Arc, Mutex};

use super::*;

type Routes = Arc<Mutex<Vec<(u16, Msi)>>>;

struct Fixture {
    msix: Msix,
    lines: Vec<IrqLine>,
    routes: Routes,
}

fn fixture(vectors: usize) -> Fixture {
    let lines: Vec<_> = (0..vectors).map(|_| IrqLine::new().unwrap()).collect();
    let own = lines.iter().map(|line| line.try_clone().unwrap());
    let routes = Routes::default();
    let told = Arc::clone(&routes);
    let route = move |vector, message| told.lock().unwrap().push((vector, message));
    let msix = Msix::new(own.collect(), Box::new(route));
    Fixture {
        msix,
        lines,
        routes,
    }
}

impl Fixture {
    fn write(&mut self, vector: u64, word: u64, value: u64) {
        let offset = vector * ENTRY_BYTES + word * 4;
        assert!(self.msix.write_table(offset, Width::Dword, value));
    }

    fn program(&mut self, vector: u64) {
        self.write(vector, 0, 0xfee0_1000);
        self.write(vector, 1, 0);
        self.write(vector, 2, 0x40 + vector);
    }

    fn mask(&mut self, vector: u64, masked: bool) {
        self.write(vector, 3, masked.into());
    }

    fn took(&self, vector: usize) -> bool {
        self.lines[vector].take()
    }

    fn pending(&self) -> u64 {
        self.msix.read_pending(0, Width::Qword)
    }
}

fn message(data: u32) -> Msi {
    Msi {
        address: 0xfee0_1000,
        data,
    }
}

#[test]
fn a_vector_is_sent_when_nothing_masks_it() {
    let mut one = fixture(3);
    assert_eq!(one.msix.control(), 2);
    one.program(1);
    one.mask(1, false);
    one.msix.send(1);
    assert!(!one.took(1), "not enabled");
    assert_eq!(one.pending(), 0, "and nothing waits for it");
    one.msix.set_control(ENABLE | 0x7ff);
    assert_eq!(one.msix.control(), ENABLE | 2);
    one.msix.send(1);
    assert!(one.took(1) && !one.took(0) && !one.took(2));
    assert_eq!(*one.routes.lock().unwrap(), [(1, message(0x41))]);
    one.msix.send(3);
    one.msix.send(u16::MAX);
    assert_eq!(one.pending(), 0, "there is no such vector");
}

#[test]
fn what_comes_while_masked_is_pending_and_sent_once() {
    for by_function in [false, true] {
        let mut one = fixture(2);
        one.program(0);
        one.mask(0, false);
        one.msix.set_control(ENABLE);
        let set = |one: &mut Fixture, masked| match by_function {
            true if masked => one.msix.set_control(ENABLE | MASK_ALL),
            true => one.msix.set_control(ENABLE),
            false => one.mask(0, masked),
        };
        set(&mut one, true);
        one.msix.send(0);
        one.msix.send(0);
        one.msix.send(1);
        assert!(!one.took(0));
        assert_eq!(one.pending(), 0b11);
        set(&mut one, false);
        assert!(one.took(0) && !one.took(1));
        assert_eq!(one.pending(), 0b10, "the other was never unmasked");
        set(&mut one, true);
        set(&mut one, false);
        assert!(!one.took(0));
        one.msix.forget_pending();
        one.mask(1, false);
        assert!(!one.took(1) && one.pending() == 0);
    }
}

#[test]
fn a_route_is_told_before_the_pulse_and_only_when_it_changes() {
    let mut one = fixture(1);
    one.msix.set_control(ENABLE | MASK_ALL);
    one.program(0);
    one.mask(0, false);
    assert!(one.routes.lock().unwrap().is_empty(), "all are masked");
    one.msix.set_control(ENABLE);
    assert_eq!(*one.routes.lock().unwrap(), [(0, message(0x40))]);
    for _ in 0..3 {
        one.mask(0, true);
        one.program(0);
        one.mask(0, false);
    }
    assert_eq!(one.routes.lock().unwrap().len(), 1);
    // As Linux moves an interrupt to another CPU.
    one.mask(0, true);
    one.write(0, 2, 0x55);
    one.msix.send(0);
    assert_eq!(one.routes.lock().unwrap().len(), 1, "masked");
    one.mask(0, false);
    assert_eq!(one.routes.lock().unwrap()[1..], [(0, message(0x55))]);
    assert!(one.took(0));
    // A change while it can be sent takes effect at once, word by word.
    one.write(0, 0, 0xfee0_2000);
    assert_eq!(one.routes.lock().unwrap()[2].1.address, 0xfee0_2000);
}

#[test]
fn the_table_takes_whole_words_only() {
    let mut one = fixture(2);
    for (offset, width, value, taken) in [
        (0, Width::Dword, 0x1111_1111, true),
        (4, Width::Dword, 0x2222_2222, true),
        (8, Width::Qword, 0xffff_fffe_3333_3333, true),
        (16, Width::Qword, 0x5555_5555_4444_4444, true),
        (28, Width::Dword, 0xffff_ffff, true),
        (0, Width::Byte, 0, false),
        (0, Width::Word, 0, false),
        (2, Width::Dword, 0, false),
        (4, Width::Qword, 0, false),
        (32, Width::Dword, 0, false),
        (u64::MAX - 7, Width::Qword, 0, false),
        (u64::MAX - 3, Width::Dword, 0, false),
    ] {
        assert_eq!(
            one.msix.write_table(offset, width, value),
            taken,
            "{offset}"
        );
    }
    for (offset, width, value) in [
        (0, Width::Dword, 0x1111_1111),
        (0, Width::Qword, 0x2222_2222_1111_1111),
        (8, Width::Qword, 0x3333_3333),
        (12, Width::Dword, 0),
        (16, Width::Qword, 0x5555_5555_4444_4444),
        (28, Width::Dword, 1),
        (1, Width::Byte, 0),
        (0, Width::Word, 0),
        (2, Width::Dword, 0),
        (32, Width::Qword, 0),
        (u64::MAX - 7, Width::Qword, 0),
    ] {
        assert_eq!(one.msix.read_table(offset, width), value, "{offset}");
    }
}

#[test]
fn pending_bits_are_read_in_words() {
    let mut one = fixture(70);
    one.msix.set_control(ENABLE | MASK_ALL);
    for vector in [0, 31, 32, 63, 64, 69] {
        one.msix.send(vector);
    }
    for (offset, width, value) in [
        (0, Width::Dword, 0x8000_0001),
        (4, Width::Dword, 0x8000_0001),
        (0, Width::Qword, 0x8000_0001_8000_0001),
        (8, Width::Qword, 0x21),
        (8, Width::Dword, 0x21),
        (12, Width::Dword, 0),
        (16, Width::Qword, 0),
        (0, Width::Byte, 0),
        (2, Width::Word, 0),
        (4, Width::Qword, 0),
        (u64::MAX - 7, Width::Qword, 0),
    ] {
        assert_eq!(one.msix.read_pending(offset, width), value, "{offset}");
    }
}
