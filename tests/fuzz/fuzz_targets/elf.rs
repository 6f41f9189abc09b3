//! Any bytes as an ELF kernel: no panic, bounded memory, bounded reads, sound segments.
#![no_main]

use arch::boot::Kernel;
use coracle_fuzz::{Watched, bounded, check_kernel};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Without the magic number nothing else would be reached.
    let mut image = data.to_vec();
    if let Some(magic) = image.first_chunk_mut() {
        *magic = *b"\x7fELF";
    }
    let watched = Watched::new(&image);
    let bound = (1 << 20) + 8 * image.len();
    if let Ok(kernel) = bounded(bound, || Kernel::open(&watched)) {
        check_kernel(&kernel, image.len());
    }
    watched.check();
});
