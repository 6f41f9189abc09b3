//! Any driver against the registers and the configuration space of virtio-pci: no panic, no
//! spinning, bounded memory, and a reset mends everything.
#![no_main]

use coracle_fuzz::device;
use hostile::Transport;
use hostile::rows::subjects::RNG;
use hostile::script::Scope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| device::play(&RNG, Transport::Pci, data, Scope::Everything));
