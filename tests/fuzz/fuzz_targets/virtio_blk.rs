//! Any requests to the block device: every one comes back once or the queue is out of service,
//! no spinning, bounded memory, and a reset mends everything. The first byte says what is played,
//! requests or registers too, over which transport, and on what: a disk that works within its
//! calls, with one queue or four, a read-only one, or one with four queues and an engine that ends
//! its operations when, in which order and how the script says.
#![no_main]

use coracle_fuzz::device;
use hostile::Transport;
use hostile::rows::engine::LATE_WRITTEN;
use hostile::rows::subjects::{BLOCK_QUEUES, BLOCK_READ_ONLY, BLOCK_WRITTEN};
use hostile::script::Scope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, script)) = data.split_first() else {
        return;
    };
    let pci = choice & 8 != 0;
    let transport = if pci { Transport::Pci } else { Transport::Mmio };
    let (subject, scope) = match choice % 8 {
        0 | 1 => (&BLOCK_WRITTEN, Scope::Requests),
        2 => (&BLOCK_READ_ONLY, Scope::Requests),
        3 => (&BLOCK_WRITTEN, Scope::Everything),
        4 | 5 => (&LATE_WRITTEN, Scope::Requests),
        6 => (&LATE_WRITTEN, Scope::Everything),
        _ => (&BLOCK_QUEUES, Scope::Requests),
    };
    device::play(subject, transport, script, scope);
});
