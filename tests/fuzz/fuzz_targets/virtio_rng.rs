//! Any requests to the entropy device: every one comes back once or the queue is out of service,
//! no spinning, bounded memory, and a reset mends everything. The first byte says whether
//! registers are played too.
#![no_main]

use coracle_fuzz::device;
use hostile::Transport;
use hostile::rows::subjects::RNG;
use hostile::script::Scope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, script)) = data.split_first() else {
        return;
    };
    let scope = match choice & 1 {
        0 => Scope::Requests,
        _ => Scope::Everything,
    };
    device::play(&RNG, Transport::Mmio, script, scope);
});
