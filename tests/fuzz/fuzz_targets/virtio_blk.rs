//! Any requests to the block device: every one comes back once or the queue is out of service,
//! no spinning, bounded memory, and a reset mends everything. The first byte says what is played:
//! requests on a disk or on a read-only one, or registers too.
#![no_main]

use coracle_fuzz::device;
use hostile::Transport;
use hostile::rows::subjects::{BLOCK_READ_ONLY, BLOCK_WRITTEN};
use hostile::script::Scope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, script)) = data.split_first() else {
        return;
    };
    match choice % 4 {
        0 | 1 => device::play(&BLOCK_WRITTEN, Transport::Mmio, script, Scope::Requests),
        2 => device::play(&BLOCK_READ_ONLY, Transport::Mmio, script, Scope::Requests),
        _ => device::play(&BLOCK_WRITTEN, Transport::Mmio, script, Scope::Everything),
    }
});
