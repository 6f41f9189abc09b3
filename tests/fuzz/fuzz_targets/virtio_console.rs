//! Anything that a driver can do to a console or to a device of several ports: no panic, no
//! spinning, bounded memory, and a reset mends everything. The first byte chooses the device and
//! the transport.
#![no_main]

use coracle_fuzz::device;
use hostile::Transport;
use hostile::rows::console::{CONSOLE, PORTS};
use hostile::script::Scope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, script)) = data.split_first() else {
        return;
    };
    let subject = if choice & 1 == 0 { &PORTS } else { &CONSOLE };
    let pci = choice & 2 != 0;
    let transport = if pci { Transport::Pci } else { Transport::Mmio };
    device::play(subject, transport, script, Scope::Everything);
});
