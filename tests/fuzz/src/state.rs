//! Saved states of devices, good ones and any others.

use devices::IrqLine;
use devices::legacy::{IoApic, PanicAction, Pm, Pvpanic, Serial, WatchdogAction, watchdog};
use devices::line::power_line;
use devices::state::Persist;
use devices::testing::GuestDriver;
use devices::virtio::VirtioDevice;
use hostile::Subject;
use hostile::rows::balloon::BALLOON;
use hostile::rows::console::{CONSOLE, PORTS};
use hostile::rows::net::{NET, NET_MQ};
use hostile::rows::subjects::{BLOCK, BLOCK_QUEUES, RNG};
use hostile::rows::vsock::VSOCK;

static SUBJECTS: [&Subject; 9] = [
    &BALLOON,
    &BLOCK,
    &BLOCK_QUEUES,
    &CONSOLE,
    &NET,
    &NET_MQ,
    &PORTS,
    &RNG,
    &VSOCK,
];

/// The most that a restore may take from the heap.
const MOST_BYTES: usize = 32 << 20;

/// Restores device number `device` from `data`, which changes bytes of a good state when `good`:
/// pairs of a place, two bytes, and what is added to the byte there.
pub fn restore(device: u8, good: bool, data: &[u8]) {
    let number = usize::from(device) % (SUBJECTS.len() + 5);
    crate::bounded(MOST_BYTES, || match SUBJECTS.get(number) {
        Some(subject) => virtio(subject, good, data),
        None => part(number - SUBJECTS.len(), good, data),
    });
}

fn changed(mut state: Vec<u8>, good: bool, data: &[u8]) -> Vec<u8> {
    if !good {
        return data.to_vec();
    }
    for change in data.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let len = state.len();
        state[place % len] = state[place % len].wrapping_add(change[2]);
    }
    state
}

fn virtio(subject: &Subject, good: bool, data: &[u8]) {
    let make = || -> Box<dyn VirtioDevice> { (subject.make)().device };
    let mut driver = GuestDriver::on(crate::device::ram(), make());
    driver.start(subject.features);
    let state = changed(driver.save(), good, data);
    if driver.restore(&make, &state).is_err() {
        return;
    }
    let state = driver.save();
    driver.restore(&make, &state).expect("the state of a device");
    // Buckets fill meanwhile.
    assert_eq!(driver.save().len(), state.len(), "a state that does not last");
    driver.resume();
    driver.start(subject.features);
}

fn part(number: usize, good: bool, data: &[u8]) {
    let line = IrqLine::new().unwrap();
    let (power, _events) = power_line().unwrap();
    let mut part: Box<dyn Persist> = match number {
        0 => Box::new(Serial::new(line, Box::new(std::io::sink())).unwrap()),
        1 => Box::new(IoApic::new(24, Box::new(|_, _| ()))),
        2 => Box::new(Pm::new(line, power)),
        3 => Box::new(Pvpanic::new(PanicAction::Report, power)),
        _ => Box::new(watchdog(WatchdogAction::Report, power).unwrap().0),
    };
    let state = changed(part.save().unwrap(), good, data);
    if part.restore(&state).is_ok() {
        assert_eq!(part.save().unwrap(), state, "a state that does not last");
        part.tell_again();
    }
}
