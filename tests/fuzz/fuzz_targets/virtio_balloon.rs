//! Anything that a driver can do to a balloon: no panic, no spinning, bounded memory, and a reset
//! mends everything. The first byte chooses the transport.
#![no_main]

use coracle_fuzz::device;
use hostile::Transport;
use hostile::rows::balloon::BALLOON;
use hostile::script::Scope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, script)) = data.split_first() else {
        return;
    };
    let pci = choice & 1 != 0;
    let transport = if pci { Transport::Pci } else { Transport::Mmio };
    device::play(&BALLOON, transport, script, Scope::Everything);
});
