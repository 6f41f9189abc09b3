//! Devices under scripts: any bytes are what a driver does.

use std::cell::RefCell;

use devices::GuestRam;
use devices::testing::{HOLE, small_ram};
use hostile::script::{self, Scope};
use hostile::{Bench, Subject, Transport};

/// The most that a device and its driver may take from the heap in one run.
const MOST_BYTES: usize = 16 << 20;

static ZEROES: [u8; 0x1_0000] = [0; 0x1_0000];

thread_local! {
    // Making memory is most of the cost of a run.
    static RAM: RefCell<Option<GuestRam>> = const { RefCell::new(None) };
}

/// The memory of all runs, with what a script can have left in the rings and buffers zeroed.
pub fn ram() -> GuestRam {
    RAM.with_borrow_mut(|ram| {
        let ram = ram.get_or_insert_with(small_ram).clone();
        for (at, len) in [
            (0x1_0000, 0x9000),
            (0x8_0000, 0x1_0000),
            (HOLE - 0x1000, 0x1000),
        ] {
            ram.write_bytes(at, &ZEROES[..len]).unwrap();
        }
        ram
    })
}

/// Plays a script against a fresh device. Panics where the device spins, where something does not
/// come back that has to, and where the device does not work after a reset.
pub fn play(subject: &'static Subject, transport: Transport, data: &[u8], scope: Scope) {
    let ram = ram();
    crate::bounded(MOST_BYTES, || {
        let mut bench = Bench::on(ram, transport, (subject.make)());
        if scope == Scope::Requests {
            script::start(&mut bench, subject, subject.features).expect("a good start");
        }
        script::run(&mut bench, subject, data, scope).expect("rest");
        if scope == Scope::Requests {
            script::all_came_back(&mut bench, subject).expect("every request back");
        }
        script::revive(&mut bench, subject).expect("a device that works after a reset");
    });
}
